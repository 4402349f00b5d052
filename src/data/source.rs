//! Where images and their classes come from: one file a format, and all that the rest of the program knows of it.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;

use super::image::{Rgb8, decode};
use super::{DataSource, Dataset, digest_of};

/// Images with classes, in an order that never changes: an image's index keys its views. Several threads read at once.
///
/// Opening one reads what tells its images, labels and names; their pixels stay where they lie until [`Source::read`].
pub trait Source: Send + Sync {
    /// Images.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of image `index`.
    ///
    /// # Panics
    /// Here and below, if `index` is not below [`Source::len`].
    fn label(&self, index: usize) -> usize;

    /// Where an image lies in the data, `CLASS/NAME` for one; none where images have no names of their own.
    fn file(&self, _index: usize) -> Option<String> {
        None
    }

    /// The part of the data that an image belongs to, whatever its class, such as `fog/3`; none where there are no parts.
    fn group(&self, _index: usize) -> Option<&str> {
        None
    }

    /// What a person calls an image, with all that leads to it.
    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    /// An image as it is stored.
    ///
    /// # Errors
    /// Why it cannot be read; neither which nor where the data lies, since results hold this text.
    fn read(&self, index: usize) -> Result<Stored<'_>>;

    /// See [`Dataset::restore`]; `label` is a class, and `file` is not in its place.
    fn restore(&mut self, _index: usize, _file: &str, _label: usize) {}
}

/// An image as a source has it.
pub enum Stored<'a> {
    /// The bytes of an image's file.
    Encoded(Cow<'a, [u8]>),
    /// `(height, width, 3)` bytes.
    Pixels { width: u32, height: u32, pixels: Cow<'a, [u8]> },
}

impl Stored<'_> {
    /// By which the image is known, see [`digest_of`].
    pub fn digest(&self) -> String {
        match self {
            Stored::Encoded(bytes) => digest_of(bytes),
            Stored::Pixels { pixels, .. } => digest_of(pixels),
        }
    }

    /// The image.
    ///
    /// # Errors
    /// [`decode`]'s.
    pub fn decoded(self) -> Result<Rgb8> {
        match self {
            Stored::Encoded(bytes) => decode(&bytes),
            Stored::Pixels { width, height, pixels } => {
                Ok(Rgb8 { width, height, pixels: pixels.into_owned() })
            }
        }
    }
}

/// Opens what lies at a path, if it is of its format; `None` if it is of another.
pub type Probe = fn(&Path, &DataSource) -> Result<Option<Dataset>>;
