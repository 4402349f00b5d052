//! Datasets and images, as people have them on disk.

mod cifar;
mod cifar_binary;
mod cifar_python;
mod evaluated;
mod folder;
mod image;
pub mod labels;
pub mod names;
mod pickle;
mod select;
mod splits;
mod tensors;
mod unread;
pub mod views;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

pub use cifar::Cifar;
pub use evaluated::Evaluated;
pub use image::{Rgb8, decode, read_image};
pub use select::Selection;

/// An image and its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub image: Rgb8,
    pub label: usize,
    /// Of the bytes that the image was read from, see [`digest_of`].
    pub digest: String,
}

impl AsRef<Rgb8> for Sample {
    fn as_ref(&self) -> &Rgb8 {
        &self.image
    }
}

/// Where a dataset lies, and which of what lies there it is.
#[derive(Clone, Debug, Default)]
pub struct DataSource {
    pub path: PathBuf,
    /// The folder of it to take; `.` is the path itself, whose folders are classes then, whatever they look like.
    pub split: Option<String>,
    /// Of two CIFARs, which.
    pub cifar: Option<Cifar>,
    /// Of images in class folders, beside torchvision's.
    pub extensions: Vec<String>,
}

/// Images with labels, in a fixed order.
pub struct Dataset {
    labels: Vec<String>,
    classes: Classes,
    images: Images,
    notices: Vec<String>,
}

/// What tells an image's class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Classes {
    /// Its folder's name; their order is that of the names.
    Folders,
    /// A number beside it.
    Numbers,
}

enum Images {
    /// Whole in memory: `(N, H, W, 3)` bytes.
    Memory { pixels: Vec<u8>, width: u32, height: u32, classes: Vec<usize> },
    /// One file an image, below a folder.
    Files { root: PathBuf, files: Vec<(PathBuf, usize)> },
}

impl Dataset {
    /// Opens what is at a path:
    ///
    /// * CIFAR-100's binary folder (`test.bin`, `fine_label_names.txt`), its python folder as torchvision
    ///   leaves it (`test`, `meta`), or CIFAR-10's of either kind; the folder around it; or the
    ///   `.tar.gz` as downloaded from the University of Toronto, `cifar-100-binary.tar.gz` or
    ///   `cifar-100-python.tar.gz`, whose members lie in a folder of the same name. A record of `test.bin`
    ///   is a coarse label, a fine label, and 1,024 bytes each of red, green and blue, row by row; only
    ///   the test images and the fine labels are read;
    /// * a folder with a subfolder of images for each class, as torchvision's `ImageFolder` reads it;
    /// * `FILE.safetensors#TENSOR`: bytes `(N, H, W, 3)` with `labels` `(N,)` beside them, and the
    ///   class names in `FILE-labels.txt`'s place, one a line.
    ///
    /// # Errors
    /// What is missing, cut or out of range, with the file and the record; a folder of splits, where none is chosen.
    pub fn open(source: &DataSource) -> Result<Dataset> {
        let DataSource { path, split, cifar, .. } = source;
        let dataset = match split {
            None => Dataset::open_at(path, source)?,
            Some(split) => Dataset::open_at(&split_of(path, split)?, source)?,
        };
        if let (Some(cifar), Classes::Folders) = (cifar, dataset.classes) {
            bail!("opening the dataset {}: no files of {cifar} are there", path.display());
        }
        Ok(dataset)
    }

    fn open_at(path: &Path, source: &DataSource) -> Result<Dataset> {
        if let Some((file, tensor)) = path.to_str().and_then(|text| text.split_once(".safetensors#")) {
            let labels = format!("{}-labels.txt", file.trim_end_matches("-images"));
            let file = format!("{file}.safetensors");
            return Dataset::from_safetensors(Path::new(&file), tensor, Path::new(&labels));
        }
        let opening = || format!("opening the dataset {}", path.display());
        let metadata = std::fs::metadata(path).with_context(opening)?;
        if !metadata.is_dir() {
            return cifar::open_archive(path, source.cifar);
        }
        if let Some(dataset) = cifar::open_folder(path, source.cifar)? {
            return Ok(dataset);
        }
        if let Some(dataset) = folder::open(path, source)? {
            return Ok(dataset);
        }
        for entry in folder::entries(path)? {
            if let Some(kind) = unread::kind_of(&entry.path) {
                bail!(
                    "{}: no subfolder of images a class, and {} is {kind}",
                    opening(),
                    entry.path.display()
                );
            }
        }
        bail!("{}: neither CIFAR's files (test.bin) nor one subfolder of images a class", opening())
    }

    /// Images and labels of a safetensors file, class names of a text file.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn from_safetensors(path: &Path, tensor: &str, labels: &Path) -> Result<Dataset> {
        tensors::open(path, tensor, labels)
    }

    fn new(labels: Vec<String>, classes: Classes, images: Images) -> Dataset {
        Dataset { labels, classes, images, notices: Vec::new() }
    }

    pub fn len(&self) -> usize {
        match &self.images {
            Images::Memory { classes, .. } => classes.len(),
            Images::Files { files, .. } => files.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class names, by label.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether the class names are those of folders.
    pub fn classes(&self) -> Classes {
        self.classes
    }

    /// What was left out or chosen, for a person to read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Where an image lies in the data, `CLASS/NAME` for one; none where images have no files of their own.
    pub fn file(&self, index: usize) -> Option<String> {
        match &self.images {
            Images::Memory { .. } => None,
            Images::Files { root, files } => {
                let (path, _) = files.get(index)?;
                Some(path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned())
            }
        }
    }

    /// The part of the data that an image belongs to, whatever its class: a corruption and its severity, `fog/3`. None where
    /// there are no such parts.
    pub fn group(&self, _index: usize) -> Option<&str> {
        None
    }

    /// The class of image `index`.
    ///
    /// # Panics
    /// As [`Dataset::get`].
    pub fn label(&self, index: usize) -> usize {
        match &self.images {
            Images::Memory { classes, .. } => classes[index],
            Images::Files { files, .. } => files[index].1,
        }
    }

    /// Gives a file that was in the data, and is there no more, its place back, so that those behind it have theirs: the index
    /// keys an image's views. To be read it is missing. Does nothing where it is in its place.
    pub fn restore(&mut self, index: usize, file: &str, label: usize) {
        let is_in_place = self.file(index).as_deref() == Some(file);
        let Images::Files { root, files } = &mut self.images else { return };
        let (path, at) = (root.join(file), index.min(files.len()));
        if !is_in_place && label < self.labels.len() && files.iter().all(|(other, _)| *other != path) {
            files.insert(at, (path, label));
        }
    }

    /// An image's digest, as its [`Sample`] has it.
    ///
    /// # Errors
    /// A file that cannot be read.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn digest(&self, index: usize) -> Result<String> {
        match &self.images {
            Images::Memory { .. } => Ok(digest_of(self.pixels(index))),
            Images::Files { files, .. } => {
                let path = &files[index].0;
                Ok(digest_of(
                    &image::read_bytes(path).with_context(|| format!("reading {}", path.display()))?,
                ))
            }
        }
    }

    /// Image `index` and its label.
    ///
    /// # Errors
    /// A file that cannot be read, named.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn get(&self, index: usize) -> Result<Sample> {
        self.sample(index).with_context(|| match &self.images {
            Images::Memory { .. } => format!("reading image {index}"),
            Images::Files { files, .. } => format!("reading the image {}", files[index].0.display()),
        })
    }

    /// The same; the error says why, and not which.
    pub fn sample(&self, index: usize) -> Result<Sample> {
        match &self.images {
            Images::Memory { width, height, classes, .. } => {
                let pixels = self.pixels(index);
                let (digest, pixels) = (digest_of(pixels), pixels.to_vec());
                let image = Rgb8 { width: *width, height: *height, pixels };
                Ok(Sample { image, label: classes[index], digest })
            }
            Images::Files { files, .. } => {
                let (path, label) = &files[index];
                let bytes = image::read_bytes(path)?;
                Ok(Sample { image: decode(&bytes)?, label: *label, digest: digest_of(&bytes) })
            }
        }
    }

    /// Of one image in memory.
    fn pixels(&self, index: usize) -> &[u8] {
        let Images::Memory { pixels, width, height, .. } = &self.images else { return &[] };
        let len = *width as usize * *height as usize * 3;
        &pixels[index * len..(index + 1) * len]
    }
}

/// By which an image is known: the first 16 hex digits of SHA-256 over its file's bytes, or over its pixels where it has no file.
pub fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of a dataset, chosen.
fn split_of(path: &Path, split: &str) -> Result<PathBuf> {
    let choosing = || format!("opening the dataset {}: --split {split}", path.display());
    ensure!(path.is_dir(), "{}: it is no folder", choosing());
    let chosen = path.join(split);
    if !chosen.is_dir() {
        let folders = folder::subfolders(path)?;
        let names: Vec<_> = folders.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy())).collect();
        bail!("{}: no such folder; there are {}", choosing(), names.join(", "));
    }
    Ok(chosen)
}
