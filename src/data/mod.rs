//! Datasets and images, as people have them on disk.

mod cifar;
mod cifar_binary;
mod cifar_python;
mod folder;
mod image;
pub mod labels;
mod pickle;
mod tensors;
pub mod views;

use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

pub use image::{Rgb8, read_image};

/// An image and its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub image: Rgb8,
    pub label: usize,
}

/// Images with labels, in a fixed order.
pub struct Dataset {
    labels: Vec<String>,
    images: Images,
}

enum Images {
    /// Whole in memory: `(N, H, W, 3)` bytes.
    Memory { pixels: Vec<u8>, width: u32, height: u32, classes: Vec<usize> },
    /// One file an image.
    Files(Vec<(std::path::PathBuf, usize)>),
}

impl Dataset {
    /// Opens what is at `path`:
    ///
    /// * CIFAR-100's binary folder (`test.bin`, `fine_label_names.txt`), its python folder as torchvision
    ///   leaves it (`test`, `meta`), or CIFAR-10's of either kind; the folder around it; or the
    ///   `.tar.gz` as downloaded from the University of Toronto, `cifar-100-binary.tar.gz` or
    ///   `cifar-100-python.tar.gz`, whose members lie in a folder of the same name. A record of `test.bin`
    ///   is a coarse label, a fine label, and 1,024 bytes each of red, green and blue, row by row; only
    ///   the test images and the fine labels are read;
    /// * a folder with a subfolder of images for each class, in the order of their names;
    /// * `FILE.safetensors#TENSOR`: bytes `(N, H, W, 3)` with `labels` `(N,)` beside them, and the
    ///   class names in `FILE-labels.txt`'s place, one a line.
    ///
    /// # Errors
    /// What is missing, cut or out of range, with the file and the record.
    pub fn open(path: &Path) -> Result<Dataset> {
        if let Some((file, tensor)) = path.to_str().and_then(|text| text.split_once(".safetensors#")) {
            let labels = format!("{}-labels.txt", file.trim_end_matches("-images"));
            let file = format!("{file}.safetensors");
            return Dataset::from_safetensors(Path::new(&file), tensor, Path::new(&labels));
        }
        let metadata =
            std::fs::metadata(path).with_context(|| format!("opening the dataset {}", path.display()))?;
        if !metadata.is_dir() {
            return cifar::open_archive(path);
        }
        if let Some(dataset) = cifar::open_folder(path)? {
            return Ok(dataset);
        }
        match folder::open(path)? {
            Some(dataset) => Ok(dataset),
            None => bail!(
                "opening the dataset {}: neither CIFAR's files (test.bin) nor one subfolder of images a class",
                path.display()
            ),
        }
    }

    /// Images and labels of a safetensors file, class names of a text file.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn from_safetensors(path: &Path, tensor: &str, labels: &Path) -> Result<Dataset> {
        tensors::open(path, tensor, labels)
    }

    pub fn len(&self) -> usize {
        match &self.images {
            Images::Memory { classes, .. } => classes.len(),
            Images::Files(files) => files.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class names, by label.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// A digest of the images and their labels: of all pixels in memory, else of the files' names and sizes.
    /// Where the dataset lies does not matter.
    ///
    /// # Errors
    /// A file that is gone.
    pub fn fingerprint(&self) -> Result<String> {
        let mut digest = Sha256::new();
        match &self.images {
            Images::Memory { pixels, width, height, classes } => {
                digest.update(format!("{width} {height} {classes:?}"));
                digest.update(pixels);
            }
            Images::Files(files) => {
                for (path, label) in files {
                    let size =
                        std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
                    let name = path.file_name().unwrap_or_default();
                    digest.update(format!("{name:?} {size} {label}\n"));
                }
            }
        }
        Ok(digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Image `index` and its label.
    ///
    /// # Errors
    /// A file that cannot be read.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn get(&self, index: usize) -> Result<Sample> {
        match &self.images {
            Images::Memory { pixels, width, height, classes } => {
                let len = *width as usize * *height as usize * 3;
                let pixels = pixels[index * len..(index + 1) * len].to_vec();
                Ok(Sample { image: Rgb8 { width: *width, height: *height, pixels }, label: classes[index] })
            }
            Images::Files(files) => {
                let (path, label) = &files[index];
                Ok(Sample { image: read_image(path)?, label: *label })
            }
        }
    }
}
