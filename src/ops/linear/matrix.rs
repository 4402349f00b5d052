//! Where an operand or a result of a product lies.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use crate::gpu::Tensor;

/// A matrix `(rows, columns)`, or one for each product of a batch: a tensor of two or three dimensions, some of its columns,
/// or a part of each of its rows.
#[derive(Clone)]
pub struct Matrix<T> {
    tensor: Tensor<T>,
    part: Part,
}

#[derive(Clone)]
enum Part {
    All,
    Columns(Range<usize>),
    /// Elements of each row, so many to a row of the matrix that they are.
    Each(Range<usize>, usize),
}

impl<T> Matrix<T> {
    /// These columns of each row.
    pub fn columns(tensor: &Tensor<T>, columns: Range<usize>) -> Matrix<T> {
        Matrix { tensor: tensor.clone(), part: Part::Columns(columns) }
    }

    /// Of `(batch, n)`, elements `range` of each row, as a matrix whose rows have `columns` of them.
    pub fn each(tensor: &Tensor<T>, range: Range<usize>, columns: usize) -> Matrix<T> {
        Matrix { tensor: tensor.clone(), part: Part::Each(range, columns) }
    }

    /// These rows.
    ///
    /// # Panics
    /// Of a part of each row of a tensor, which has no rows of its own: a bug in the caller.
    pub fn rows(&self, rows: Range<usize>) -> Matrix<T> {
        assert!(!matches!(self.part, Part::Each(..)), "rows of a part of each row");
        Matrix { tensor: self.tensor.rows(rows), part: self.part.clone() }
    }

    /// Of a matrix `(count · rows, columns)`, `count` of as many rows each; itself without a count.
    ///
    /// # Panics
    /// Of another rank, or where the rows are no multiple: a bug in the caller.
    pub fn batched(self, count: impl Into<Option<usize>>) -> Matrix<T> {
        let Some(count) = count.into() else { return self };
        let &[rows, pitch] = self.tensor.shape() else { panic!("{:?} is no matrix", self.tensor) };
        Matrix { tensor: self.tensor.view([count, rows / count, pitch]), part: self.part }
    }
}

impl<T> From<&Tensor<T>> for Matrix<T> {
    fn from(tensor: &Tensor<T>) -> Matrix<T> {
        Matrix { tensor: tensor.clone(), part: Part::All }
    }
}

/// The same in numbers; `pitch` and `step` in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub address: u64,
    /// `None` where all products share it.
    pub batch: Option<usize>,
    pub rows: usize,
    pub columns: usize,
    pub pitch: usize,
    /// From one of the batch to the next, 0 where it is shared.
    pub step: usize,
    /// Whether each row begins at a multiple of 16 bytes.
    pub aligned: bool,
}

impl<T> Matrix<T> {
    pub(super) fn place(&self, what: &str) -> Result<Place> {
        let (batch, rows, pitch, step) = match (self.tensor.shape(), &self.part) {
            (&[batch, step], Part::Each(range, columns)) => {
                ensure!(
                    range.start <= range.end
                        && range.end <= step
                        && range.len().is_multiple_of(*columns.max(&1)),
                    "linear: {what} is {range:?} of {step}, in rows of {columns}"
                );
                (Some(batch), range.len() / columns.max(&1), *columns, step)
            }
            (&[rows, pitch], Part::All | Part::Columns(_)) => (None, rows, pitch, 0),
            (&[batch, rows, pitch], Part::All | Part::Columns(_)) => (Some(batch), rows, pitch, rows * pitch),
            (other, _) => bail!("linear: {what} is {other:?}, neither a matrix nor a batch of them"),
        };
        let (at, columns) = match &self.part {
            Part::All => (0, pitch),
            Part::Each(range, columns) => (range.start, *columns),
            Part::Columns(columns) => {
                ensure!(
                    columns.start <= columns.end && columns.end <= pitch,
                    "linear: columns {columns:?} of {what}, which has {pitch}"
                );
                (columns.start, columns.len())
            }
        };
        let address = self.tensor.address() + (at * size_of::<T>()) as u64;
        let is_whole = |elements: usize| (elements * size_of::<T>()).is_multiple_of(16);
        let aligned = address.is_multiple_of(16) && is_whole(pitch) && is_whole(step);
        Ok(Place { address, batch, rows, columns, pitch, step, aligned })
    }
}

impl Place {
    /// Refuses another shape than the product's.
    pub(super) fn expect(&self, what: &str, batch: Option<usize>, [rows, columns]: [usize; 2]) -> Result<()> {
        ensure!(
            [self.rows, self.columns] == [rows, columns],
            "linear: {what} is ({}, {}), not ({rows}, {columns})",
            self.rows,
            self.columns
        );
        if let (Some(own), Some(batch)) = (self.batch, batch) {
            ensure!(own == batch, "linear: {what} is for {own} products, out for {batch}");
        }
        ensure!(
            self.batch.is_none() || batch.is_some(),
            "linear: {what} is for several products, out for one"
        );
        Ok(())
    }
}
