//! A table of images' paths and labels: CSV or TSV with a header, paths from the table's own folder on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::image::read_bytes;
use super::pixels::classes_of;
use super::source::{Source, Stored};
use super::{Classes, DataSource, Dataset, choose, known};

/// What columns are called.
const PATHS: [&str; 12] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "img",
    "image_path",
    "img_path",
    "image_file",
    "image_id",
];
const LABELS: [&str; 12] = [
    "label",
    "labels",
    "class",
    "classname",
    "class_name",
    "category",
    "target",
    "label_name",
    "class_id",
    "class_idx",
    "label_id",
    "label_idx",
];
const SPLITS: [&str; 4] = ["split", "set", "subset", "partition"];
const GROUPS: [&str; 2] = ["group", "domain"];

struct Listed {
    folder: PathBuf,
    /// Paths as they are written, classes, and groups by number.
    images: Vec<(Box<str>, u32, Option<u32>)>,
    groups: Vec<String>,
}

pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let delimiter = match extension.as_deref() {
        Some("csv") => b',',
        Some("tsv") => b'\t',
        _ => return Ok(None),
    };
    if path.is_dir() {
        return Ok(None);
    }
    read(path, delimiter, source).with_context(|| format!("reading the table {}", path.display())).map(Some)
}

/// An image's path, label, split and group.
type Line = (Box<str>, Box<str>, String, Option<u32>);

fn read(path: &Path, delimiter: u8, source: &DataSource) -> Result<Dataset> {
    let file = crate::plain_file::open(path)?.0;
    let mut builder = csv::ReaderBuilder::new();
    let mut reader = builder.delimiter(delimiter).trim(csv::Trim::All).from_reader(file);
    let header: Vec<String> =
        reader.headers()?.iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
    let column = |names: &[&str]| -> Result<Option<usize>> {
        let is = |name: &String| names.contains(&&*name.to_lowercase().replace([' ', '-'], "_"));
        let found: Vec<usize> = (0..header.len()).filter(|&at| is(&header[at])).collect();
        match found[..] {
            [] => Ok(None),
            [at] => Ok(Some(at)),
            [first, second, ..] => {
                bail!(
                    "its columns {} and {} may both be meant; call one of them otherwise",
                    header[first],
                    header[second]
                )
            }
        }
    };
    let shown = header.join(", ");
    let path_at = column(&PATHS)?
        .with_context(|| format!("no column of images' paths, such as `path`; its first row is {shown}"))?;
    let label_at = column(&LABELS)?
        .with_context(|| format!("no column of labels, such as `label`; its first row is {shown}"))?;
    let (split_at, group_at) = (column(&SPLITS)?, column(&GROUPS)?);
    let mut rows: Vec<Line> = Vec::new();
    let (mut groups, mut by_group): (Vec<String>, HashMap<String, u32>) = Default::default();
    for (record, number) in reader.records().zip(2..) {
        let record = record?;
        for at in [path_at, label_at] {
            ensure!(!record[at].is_empty(), "row {number} has no {}", header[at]);
        }
        let group = group_at.map(|at| {
            *by_group.entry(record[at].to_string()).or_insert_with(|| {
                groups.push(record[at].to_string());
                groups.len() as u32 - 1
            })
        });
        let split = split_at.map(|at| record[at].to_string()).unwrap_or_default();
        rows.push((record[path_at].into(), record[label_at].into(), split, group));
    }
    ensure!(!rows.is_empty(), "it has no rows below its header");
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(rows.len());
    for ((path, ..), number) in rows.iter().zip(2..) {
        if let Some(first) = seen.insert(path, number) {
            bail!("its image {path} is there twice, in rows {first} and {number}");
        }
    }
    // Of all rows, whatever the split: a class is a class where none of its images is a test image.
    let (labels, kind) = classes(&rows, source)?;
    let mut split = None;
    if split_at.is_some() {
        let mut splits: Vec<String> = rows.iter().map(|(_, _, split, _)| split.clone()).collect();
        splits.sort();
        splits.dedup();
        if source.split.as_deref() != Some(".") {
            let (at, asked) = choose(&splits, source.split.as_deref())?;
            rows.retain(|(_, _, split, _)| *split == splits[at]);
            split = asked;
        }
    }
    let classes = match kind {
        Classes::Folders => {
            let place = |label: &str| labels.binary_search_by(|name| name.as_str().cmp(label)).unwrap_or(0);
            rows.iter().map(|(_, label, ..)| place(label)).collect()
        }
        Classes::Numbers | Classes::Unnamed => classes_of(
            rows.iter().map(|(_, label, ..)| label.parse()).collect::<Result<_, _>>()?,
            labels.len(),
        )?,
    };
    let rows = rows.into_iter().zip(classes);
    let images = rows.map(|((path, _, _, group), class)| (path, class as u32, group)).collect();
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let unread: Vec<&str> = (0..header.len())
        .filter(|at| ![Some(path_at), Some(label_at), split_at, group_at].contains(&Some(*at)))
        .map(|at| &*header[at])
        .collect();
    let mut dataset = Dataset::new(labels, kind, Listed { folder, images, groups });
    if !unread.is_empty() {
        dataset.notices.push(format!(
            "of {}, columns that are not read: {}",
            path.display(),
            unread.join(", ")
        ));
    }
    dataset.format = "a table of paths and labels";
    dataset.took.split = split;
    dataset.took.cifar = source.cifar.filter(|_| kind == Classes::Numbers);
    Ok(dataset)
}

/// Names of the classes, and what they are by.
fn classes(rows: &[Line], source: &DataSource) -> Result<(Vec<String>, Classes)> {
    let labels = || rows.iter().map(|(_, label, ..)| &**label);
    if let Some(numbers) = labels().map(|label| label.parse().ok()).collect::<Option<Vec<i64>>>() {
        return Ok(known::numbered(source.cifar, &numbers));
    }
    if let Some(numbers) = labels().map(|label| label.parse().ok()).collect::<Option<Vec<f64>>>() {
        let at = labels().position(|label| label.parse::<i64>().is_err()).unwrap_or(0);
        bail!(
            "row {} has the label {}; a class's number is whole, such as {}",
            at + 2,
            rows[at].1,
            numbers[at].trunc()
        );
    }
    let mut names: Vec<String> = labels().map(str::to_string).collect();
    names.sort();
    names.dedup();
    Ok((names, Classes::Folders))
}

impl Source for Listed {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn label(&self, index: usize) -> usize {
        self.images[index].1 as usize
    }

    fn file(&self, index: usize) -> Option<String> {
        Some(self.images[index].0.to_string())
    }

    fn group(&self, index: usize) -> Option<&str> {
        self.images[index].2.map(|group| &*self.groups[group as usize])
    }

    fn name(&self, index: usize) -> String {
        format!("the image {}", self.folder.join(&*self.images[index].0).display())
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        Ok(Stored::Encoded(read_bytes(&self.folder.join(&*self.images[index].0))?.into()))
    }
}
