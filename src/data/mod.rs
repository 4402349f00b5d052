//! Datasets and images, as people have them on disk.

mod cifar;
mod cifar_binary;
mod cifar_python;
mod evaluated;
mod folder;
mod image;
pub mod labels;
mod memory;
pub mod names;
mod pickle;
mod select;
mod shard;
mod source;
mod splits;
mod tensors;
mod unread;
pub mod views;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use self::source::Probe;
pub use cifar::Cifar;
pub use evaluated::Evaluated;
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
    source: Box<dyn Source>,
    notices: Vec<String>,
}

/// What may lie at a path, in the order in which it is looked for.
const PROBES: [Probe; 2] = [cifar::open, folder::open];

/// What tells an image's class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Classes {
    /// Its folder's name; their order is that of the names.
    Folders,
    /// A number beside it.
    Numbers,
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
        bail!("{}: neither CIFAR's files (test.bin) nor one subfolder of images a class", opening())
    }

    /// Images and labels of a safetensors file, class names of a text file.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn from_safetensors(path: &Path, tensor: &str, labels: &Path) -> Result<Dataset> {
        tensors::open(path, tensor, labels)
    }

    fn new(labels: Vec<String>, classes: Classes, source: impl Source + 'static) -> Dataset {
        Dataset { labels, classes, source: Box::new(source), notices: Vec::new() }
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
