//! Images of one size, pixels one behind the other: in NumPy's arrays, and in the binary forms that data sets have of their own.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};

use super::bytes::Bytes;
use super::source::{Source, Stored};
use crate::ops::view::MAX_SIDE;

/// How an image's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// `(H, W, 3)`
    Interleaved,
    /// `(H, W)`: a grey image, as which each of its three channels is it.
    Grey,
    /// `(3, H, W)`
    Planes,
    /// `(3, W, H)`: planes column by column, as MATLAB has them.
    PlanesByColumns,
}

/// `count` images.
pub struct Pixels {
    bytes: Bytes,
    count: usize,
    width: usize,
    height: usize,
    layout: Layout,
}

impl Pixels {
    /// # Errors
    /// No image, no pixel, sides that no image may have, other bytes than these images have.
    pub fn new(
        bytes: Bytes,
        count: usize,
        (width, height): (usize, usize),
        layout: Layout,
    ) -> Result<Pixels> {
        ensure!(count > 0, "it has no image");
        ensure!(width > 0 && height > 0, "its images have no pixels");
        ensure!(
            width.max(height) <= MAX_SIDE,
            "{MAX_SIDE} pixels a side are the most that views are made of"
        );
        let pixels = Pixels { bytes, count, width, height, layout };
        let (there, wanted) = (pixels.bytes.len(), pixels.image_bytes() as u128 * count as u128);
        ensure!(u128::from(there) == wanted, "it has {there} bytes; {count} images have {wanted}");
        Ok(pixels)
    }

    pub fn len(&self) -> usize {
        self.count
    }

    fn image_bytes(&self) -> usize {
        let channels = if self.layout == Layout::Grey { 1 } else { 3 };
        self.width * self.height * channels
    }

    /// One of them, `(H, W, 3)`.
    ///
    /// # Errors
    /// The host's.
    fn read(&self, index: usize) -> Result<Stored<'_>> {
        let (width, height, len) = (self.width, self.height, self.image_bytes());
        let bytes = self.bytes.read(index as u64 * len as u64, len)?;
        let plane = width * height;
        let pixels = match self.layout {
            Layout::Interleaved => bytes,
            Layout::Grey => bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
            Layout::Planes => (0..len).map(|at| bytes[at % 3 * plane + at / 3]).collect(),
            Layout::PlanesByColumns => {
                let from = |at: usize| at % 3 * plane + at / 3 % width * height + at / 3 / width;
                (0..len).map(|at| bytes[from(at)]).collect()
            }
        };
        Ok(Stored::Pixels { width: width as u32, height: height as u32, pixels })
    }
}

/// Rows of arrays, part by part; a row's label is the same in every array.
pub struct Rows {
    parts: Vec<Part>,
    /// Each part's first index, and the end.
    starts: Vec<usize>,
    labels: Vec<usize>,
}

/// Rows of one array.
pub struct Part {
    pub group: Option<String>,
    pub pixels: Arc<Pixels>,
    pub rows: Range<usize>,
}

impl Rows {
    /// * `labels`: of every row.
    pub fn new(parts: Vec<Part>, labels: Vec<usize>) -> Rows {
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.rows.len());
        }
        Rows { parts, starts, labels }
    }

    /// All rows of one array.
    pub fn of(pixels: Pixels, labels: Vec<usize>) -> Rows {
        let rows = 0..pixels.len();
        Rows::new(vec![Part { group: None, pixels: pixels.into(), rows }], labels)
    }

    /// The part that an image is of, and its row.
    fn place(&self, index: usize) -> (&Part, usize) {
        let at = self.starts.partition_point(|&start| start <= index) - 1;
        let part = &self.parts[at];
        (part, part.rows.start + index - self.starts[at])
    }
}

impl Source for Rows {
    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn label(&self, index: usize) -> usize {
        self.labels[self.place(index).1]
    }

    fn group(&self, index: usize) -> Option<&str> {
        self.place(index).0.group.as_deref()
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        let (part, row) = self.place(index);
        part.pixels.read(row)
    }
}

/// Numbers as classes, of which there are so many.
///
/// # Errors
/// The first that is none.
pub fn classes_of(labels: Vec<i64>, classes: usize) -> Result<Vec<usize>> {
    let class = |(row, label): (usize, i64)| match usize::try_from(label) {
        Ok(label) if label < classes => Ok(label),
        _ => bail!("image {row} has label {label}; there are {classes} classes"),
    };
    labels.into_iter().enumerate().map(class).collect()
}
