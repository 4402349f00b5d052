//! What is evaluated: a dataset, and maybe images of none of its classes.

use anyhow::Result;

use super::{Dataset, Sample};

/// The images of a dataset; behind them, if there are any, those of no class, whose indices go on where the dataset's end.
pub struct Evaluated {
    data: Dataset,
    of_no_class: Option<Dataset>,
}

impl From<Dataset> for Evaluated {
    fn from(data: Dataset) -> Evaluated {
        Evaluated { data, of_no_class: None }
    }
}

impl Evaluated {
    /// * `of_no_class`: whatever its classes are, they are none here.
    pub fn with(data: Dataset, of_no_class: Dataset) -> Evaluated {
        Evaluated { data, of_no_class: Some(of_no_class) }
    }

    /// What has classes.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    pub fn of_no_class(&self) -> Option<&Dataset> {
        self.of_no_class.as_ref()
    }

    /// All images.
    pub fn len(&self) -> usize {
        self.data.len() + self.of_no_class.as_ref().map_or(0, Dataset::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In whose part an image is, and where there.
    fn place(&self, index: usize) -> (&Dataset, usize) {
        match &self.of_no_class {
            Some(others) if index >= self.data.len() => (others, index - self.data.len()),
            _ => (&self.data, index),
        }
    }

    /// Whether an image is of a class.
    pub fn is_of_class(&self, index: usize) -> bool {
        self.of_no_class.is_none() || index < self.data.len()
    }

    /// See [`Dataset::file`].
    pub fn file(&self, index: usize) -> Option<String> {
        let (dataset, index) = self.place(index);
        dataset.file(index)
    }

    /// See [`Dataset::group`].
    pub fn group(&self, index: usize) -> Option<&str> {
        let (dataset, index) = self.place(index);
        dataset.group(index)
    }

    /// The class of an image, if it is of any.
    ///
    /// # Panics
    /// As [`Dataset::get`].
    pub fn label(&self, index: usize) -> Option<usize> {
        self.is_of_class(index).then(|| self.data.label(index))
    }

    /// See [`Dataset::digest`].
    ///
    /// # Errors
    /// Its own.
    pub fn digest(&self, index: usize) -> Result<String> {
        let (dataset, index) = self.place(index);
        dataset.digest(index)
    }

    /// See [`Dataset::sample`]. The label of an image of no class is none of the dataset's: see [`Evaluated::label`].
    ///
    /// # Errors
    /// Its own.
    pub fn sample(&self, index: usize) -> Result<Sample> {
        let (dataset, index) = self.place(index);
        dataset.sample(index)
    }

    /// See [`Dataset::restore`]; to be called in the order of the indices.
    pub fn restore(&mut self, index: usize, file: &str, label: Option<usize>) {
        let first = self.data.len();
        match (label, &mut self.of_no_class) {
            (Some(label), _) => self.data.restore(index, file, label),
            (None, Some(others)) if index >= first => others.restore(index - first, file, 0),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSource;

    /// A folder of classes, each with so many pictures.
    fn folder(classes: &[(&str, usize)]) -> (tempfile::TempDir, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        for &(class, count) in classes {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            for i in 0..count {
                let path = folder.path().join(class).join(format!("{i}.png"));
                image::RgbImage::from_pixel(2, 2, image::Rgb([i as u8; 3])).save(path).unwrap();
            }
        }
        let source = DataSource { path: folder.path().to_path_buf(), ..DataSource::default() };
        let dataset = Dataset::open(&source).unwrap();
        (folder, dataset)
    }

    #[test]
    fn images_of_no_class_lie_behind_the_others() {
        let ((_a, data), (b, others)) = (folder(&[("cat", 2), ("dog", 1)]), folder(&[("noise", 2)]));
        let digest = others.digest(1).unwrap();
        let mut all = Evaluated::with(data, others);
        let labels: Vec<_> = (0..all.len()).map(|index| all.label(index)).collect();
        assert_eq!(labels, [Some(0), Some(0), Some(1), None, None]);
        assert_eq!((all.file(2), all.file(4)), (Some("dog/0.png".into()), Some("noise/1.png".into())));
        assert_eq!((all.digest(4).unwrap(), all.sample(4).unwrap().digest), (digest.clone(), digest));
        assert_eq!(all.group(4), None);
        // One that was there keeps its place.
        std::fs::remove_file(b.path().join("noise/0.png")).unwrap();
        let source = DataSource { path: b.path().to_path_buf(), ..DataSource::default() };
        all = Evaluated::with(folder(&[("cat", 2), ("dog", 1)]).1, Dataset::open(&source).unwrap());
        assert_eq!(all.file(3).as_deref(), Some("noise/1.png"));
        all.restore(3, "noise/0.png", None);
        assert_eq!(all.file(4).as_deref(), Some("noise/1.png"));
        assert_eq!((all.len(), all.label(3)), (5, None));
    }
}
