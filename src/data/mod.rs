//! Datasets and images, as people have them on disk.

mod arrays;
mod bytes;
mod cifar;
mod cifar_binary;
mod cifar_python;
pub mod corruptions;
mod evaluated;
mod folder;
mod halves;
mod image;
mod imagenet;
mod known;
mod known_as;
pub mod labels;
mod labels_json;
mod labels_table;
mod labels_text;
mod matlab;
pub mod names;
#[cfg(test)]
mod names_tests;
mod numpy;
mod pages;
mod parquet;
mod pickle;
mod pixels;
mod select;
mod shard;
mod source;
mod splits;
mod table;
mod tensors;
mod torchvision;
mod unread;
pub mod views;
mod webdataset;
mod zip;
mod zip_folder;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::source::Probe;
pub use cifar::Cifar;
pub use evaluated::Evaluated;
pub use halves::chosen_on;
pub use image::{Rgb8, decode, read_image};
pub use select::Selection;
pub use shard::Shard;
pub use source::{Source, Stored};

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

/// Where a dataset lies, and which of what lies there it is. A run's settings have all but the path, by the flags' names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataSource {
    #[serde(skip)]
    pub path: PathBuf,
    /// The folder of it to take; `.` is the path itself, whose folders are classes then, whatever they look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Of two CIFARs, which.
    #[serde(rename = "dataset", skip_serializing_if = "Option::is_none")]
    pub cifar: Option<Cifar>,
    /// Of images in class folders, beside torchvision's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// Of corrupted images, by which corruptions; `all` is all that are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corruptions: Vec<String>,
    /// And how severely, 1 to 5.
    #[serde(rename = "severity", skip_serializing_if = "Vec::is_empty")]
    pub severities: Vec<usize>,
}

/// Images with labels, in a fixed order.
pub struct Dataset {
    labels: Vec<String>,
    /// What prompts call its classes, where that is not what it calls them itself; and whose names they are.
    names: Option<(Vec<String>, &'static str)>,
    classes: Classes,
    source: Box<dyn Source>,
    notices: Vec<String>,
    format: &'static str,
    /// A file of prompts that comes with the data.
    templates: Option<PathBuf>,
    took: Took,
}

/// What of a [`DataSource`] a format has gone by, beside the path and folders.
#[derive(Default)]
struct Took {
    split: Option<String>,
    cifar: Option<Cifar>,
    extensions: bool,
    corruptions: bool,
}

/// What may lie at a path, in the order in which it is looked for.
const PROBES: [Probe; 11] = [
    cifar::open_folder,
    torchvision::open,
    corruptions::open,
    corruptions::open_tree,
    arrays::open,
    webdataset::open,
    parquet::open,
    zip_folder::open,
    table::open,
    folder::open,
    cifar::open_archive,
];

/// What tells an image's class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Classes {
    /// Its folder's name; their order is that of the names.
    Folders,
    /// A number beside it.
    Numbers,
    /// The same, and nothing says what the numbers stand for.
    Unnamed,
}

impl Dataset {
    /// Opens what is at a path, by the first of the formats that knows it. Each is a file of this folder: CIFAR's own files, or their
    /// `.tar.gz`; NumPy's arrays with labels beside them, CIFAR-10-C and CIFAR-10.1 among them; WebDataset's tar files; Hugging
    /// Face's tables; ZIP archives; tables of paths; torchvision's data sets; a folder with a subfolder of images for each class,
    /// as torchvision's `ImageFolder` reads it, ImageNet and its kin among them. And `FILE.safetensors#TENSOR`: bytes
    /// `(N, H, W, 3)` with `labels` `(N,)` beside them, and the class names in `FILE-labels.txt`'s place, one a line.
    ///
    /// # Errors
    /// What is missing, cut or out of range, with the file and the record; a folder of splits, where none is chosen.
    pub fn open(source: &DataSource) -> Result<Dataset> {
        let DataSource { path, split, .. } = source;
        let folder = split.as_ref().map(|split| path.join(split)).filter(|folder| folder.is_dir());
        let dataset = match folder {
            // The folder is chosen: those in it are classes.
            Some(folder) => {
                Dataset::open_at(&folder, &DataSource { split: Some(".".into()), ..source.clone() })?
            }
            None => Dataset::open_at(path, source)?,
        };
        dataset.obeys(source).with_context(|| format!("opening the dataset {}", path.display()))?;
        Ok(dataset)
    }

    /// Refuses what was asked for, and what this dataset has no part in.
    fn obeys(&self, source: &DataSource) -> Result<()> {
        let Took { split, cifar, extensions, corruptions } = &self.took;
        if let (Some(wanted), true) = (source.cifar, *cifar != source.cifar) {
            bail!("no files of {wanted} are there");
        }
        if let (Some(wanted), None) = (source.split.as_deref().filter(|split| *split != "."), split)
            && !source.path.join(wanted).is_dir()
        {
            bail!("--split {wanted}: no such folder, and what is there has no splits");
        }
        if let (Some(extension), false) = (source.extensions.first(), extensions) {
            bail!("--extensions {extension}: what is there are no folders of images");
        }
        if (!source.corruptions.is_empty() || !source.severities.is_empty()) && !corruptions {
            bail!("--corruptions, --severity: what is there has no corruptions");
        }
        Ok(())
    }

    fn open_at(path: &Path, source: &DataSource) -> Result<Dataset> {
        if let Some((file, tensor)) = path.to_str().and_then(|text| text.split_once(".safetensors#")) {
            let labels = format!("{}-labels.txt", file.trim_end_matches("-images"));
            let file = format!("{file}.safetensors");
            return Dataset::from_safetensors(Path::new(&file), tensor, Path::new(&labels));
        }
        let opening = || format!("opening the dataset {}", path.display());
        std::fs::metadata(path).with_context(opening)?;
        for probe in PROBES {
            if let Some(dataset) = probe(path, source)? {
                return Ok(dataset);
            }
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
        bail!(
            "{}: neither a data set's files (CIFAR's test.bin; .npy, .tar, .parquet, …) nor one subfolder of images a class",
            opening()
        )
    }

    /// Images and labels of a safetensors file, class names of a text file.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn from_safetensors(path: &Path, tensor: &str, labels: &Path) -> Result<Dataset> {
        tensors::open(path, tensor, labels)
    }

    fn new(labels: Vec<String>, classes: Classes, source: impl Source + 'static) -> Dataset {
        let (notices, format, templates, took) = (Vec::new(), "", None, Took::default());
        Dataset { labels, names: None, classes, source: Box::new(source), notices, format, templates, took }
    }

    pub fn len(&self) -> usize {
        self.source.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class names, by label.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What prompts call its classes unless told otherwise, where that is not [`Dataset::labels`]; and whose names they are.
    pub fn names(&self) -> Option<(&[String], &'static str)> {
        self.names.as_ref().map(|(names, whose)| (&names[..], *whose))
    }

    /// What it is, in a few words.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// A file of prompts that lies beside the data.
    pub fn templates(&self) -> Option<&Path> {
        self.templates.as_deref()
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
        (index < self.len()).then(|| self.source.file(index))?
    }

    /// The part of the data that an image belongs to, whatever its class: a corruption and its severity, `fog/3`. None where
    /// there are no such parts.
    pub fn group(&self, index: usize) -> Option<&str> {
        (index < self.len()).then(|| self.source.group(index))?
    }

    /// The class of image `index`.
    ///
    /// # Panics
    /// As [`Dataset::get`].
    pub fn label(&self, index: usize) -> usize {
        self.source.label(index)
    }

    /// Gives a file that was in the data, and is there no more, its place back, so that those behind it have theirs: the index
    /// keys an image's views. To be read it is missing. Does nothing where it is in its place, or where images are no files.
    pub fn restore(&mut self, index: usize, file: &str, label: usize) {
        if self.file(index).as_deref() != Some(file) && label < self.labels.len() {
            self.source.restore(index, file, label);
        }
    }

    /// An image's digest, as its [`Sample`] has it.
    ///
    /// # Errors
    /// An image that cannot be read, named.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn digest(&self, index: usize) -> Result<String> {
        Ok(self.source.read(index).with_context(|| self.reading(index))?.digest())
    }

    /// Image `index` and its label.
    ///
    /// # Errors
    /// An image that cannot be read, named.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn get(&self, index: usize) -> Result<Sample> {
        self.sample(index).with_context(|| self.reading(index))
    }

    /// The same; the error says why, and not which.
    pub fn sample(&self, index: usize) -> Result<Sample> {
        let stored = self.source.read(index)?;
        let digest = stored.digest();
        Ok(Sample { image: stored.decoded()?, label: self.label(index), digest })
    }

    fn reading(&self, index: usize) -> String {
        format!("reading {}", self.source.name(index))
    }
}

/// By which an image is known: the first 16 hex digits of SHA-256 over its file's bytes, or over its pixels where it has no file.
pub fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The error of a path that has several datasets, of which none was asked for.
#[derive(Debug)]
pub struct Several {
    pub parts: Parts,
    text: String,
}

/// What there are several of.
#[derive(Clone, Debug)]
pub enum Parts {
    /// To be asked for by [`DataSource::split`].
    Splits(Vec<String>),
    /// By [`DataSource::corruptions`] and [`DataSource::severities`].
    Corruptions,
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Several {}

/// Of splits or versions by these names, which: the one that is asked for, or the only one. And its name, where it was asked for.
///
/// # Errors
/// Several, of which none is asked for, or another.
fn choose(there: &[String], asked: Option<&str>) -> Result<(usize, Option<String>)> {
    match (asked.filter(|split| *split != "."), there) {
        (None, [_]) => Ok((0, None)),
        (None, several) => {
            let tests =
                ["test", "val", "validation"].map(|known| several.iter().find(|split| *split == known));
            let first = tests.into_iter().flatten().next().unwrap_or(&several[0]);
            let text = format!("it has the splits {}; say --split {first}", several.join(", "));
            Err(Several { parts: Parts::Splits(several.to_vec()), text }.into())
        }
        (Some(split), several) => match several.iter().position(|there| there == split) {
            Some(at) => Ok((at, Some(split.to_string()))),
            None => bail!("--split {split}: no such split; there are {}", several.join(", ")),
        },
    }
}
