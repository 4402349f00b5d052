//! Images of one size that are in memory whole.

use std::borrow::Cow;

use anyhow::Result;

use super::source::{Source, Stored};

/// As many images as there are `classes`.
pub struct Memory {
    /// `(N, height, width, 3)`.
    pub pixels: Vec<u8>,
    pub width: u32,
    pub height: u32,
    /// Each image's.
    pub classes: Vec<usize>,
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.classes.len()
    }

    fn label(&self, index: usize) -> usize {
        self.classes[index]
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        let len = self.width as usize * self.height as usize * 3;
        let pixels = Cow::Borrowed(&self.pixels[index * len..(index + 1) * len]);
        Ok(Stored::Pixels { width: self.width, height: self.height, pixels })
    }
}
