//! A vector of parameters: one for all images of a batch, or each image's own.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::width::aligned_for;
use crate::gpu::{Arg, Tensor};

/// A bias, a norm's weight, an embedding: `(n,)`, or `(S, n)`, whose rows may be parts of longer ones.
#[derive(Clone, Debug)]
pub struct Param {
    tensor: Tensor<f32>,
    at: usize,
    len: usize,
    images: Option<usize>,
}

impl Param {
    /// Columns of `(S, pitch)`: each image's own.
    ///
    /// # Panics
    /// Of another rank, or if the columns are not inside: a bug in the caller, like any index.
    pub fn each(rows: &Tensor<f32>, columns: Range<usize>) -> Param {
        let &[images, pitch] = rows.shape() else { panic!("{rows:?} has no rows of parameters") };
        assert!(columns.start <= columns.end && columns.end <= pitch, "{columns:?} of {pitch}");
        Param { tensor: rows.clone(), at: columns.start, len: columns.len(), images: Some(images) }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Param {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        Param { at: self.at + range.start, len: range.len(), ..self.clone() }
    }

    /// The two of a norm, which lie one behind the other: weight and bias.
    pub fn halves(&self) -> [Param; 2] {
        let n = self.len / 2;
        [self.slice(0..n), self.slice(n..2 * n)]
    }

    /// `n`
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `S`, where each image has its own.
    pub fn images(&self) -> Option<usize> {
        self.images
    }

    /// Elements from one image's to the next's, 0 where all share one.
    pub fn step(&self) -> usize {
        self.images.map_or(0, |_| self.tensor.shape()[1])
    }

    /// Device address of the first image's first element.
    pub fn address(&self) -> u64 {
        self.tensor.address() + (self.at * size_of::<f32>()) as u64
    }

    /// Refuses a vector of another length, or that begins where accesses of `width` neighbours may not.
    pub(super) fn expect(&self, what: &str, len: usize, width: usize) -> Result<()> {
        ensure!(self.len == len, "{what} has {} elements, not {len}", self.len);
        aligned_for::<f32>(what, self.address(), width)?;
        aligned_for::<f32>(what, (self.step() * size_of::<f32>()) as u64, width)
    }
}

impl From<&Tensor<f32>> for Param {
    /// `(n,)` is shared, `(S, n)` each image's own.
    ///
    /// # Panics
    /// Of another rank.
    fn from(tensor: &Tensor<f32>) -> Param {
        match *tensor.shape() {
            [len] => Param { tensor: tensor.clone(), at: 0, len, images: None },
            [_, len] => Param::each(tensor, 0..len),
            _ => panic!("{tensor:?} is no vector of parameters"),
        }
    }
}

impl From<&Param> for Param {
    fn from(param: &Param) -> Param {
        param.clone()
    }
}

impl From<&Param> for Arg {
    fn from(param: &Param) -> Arg {
        Arg::from(param.address())
    }
}
