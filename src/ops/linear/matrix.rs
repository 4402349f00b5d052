//! Where an operand or a result of a product lies.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use crate::gpu::Tensor;

/// A matrix `(rows, columns)`, or one for each product of a batch: a tensor of two or three dimensions, or some of its
/// columns.
pub struct Matrix<'a, T> {
    tensor: &'a Tensor<T>,
    columns: Option<Range<usize>>,
}

impl<'a, T> Matrix<'a, T> {
    /// These columns of each row.
    pub fn columns(tensor: &'a Tensor<T>, columns: Range<usize>) -> Matrix<'a, T> {
        Matrix { tensor, columns: Some(columns) }
    }
}

impl<'a, T> From<&'a Tensor<T>> for Matrix<'a, T> {
    fn from(tensor: &'a Tensor<T>) -> Matrix<'a, T> {
        Matrix { tensor, columns: None }
    }
}

/// The same in numbers; `pitch` and `step` in elements.
#[derive(Clone, Copy, Debug)]
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

impl<T> Matrix<'_, T> {
    pub(super) fn place(&self, what: &str) -> Result<Place> {
        let (batch, rows, pitch) = match *self.tensor.shape() {
            [rows, columns] => (None, rows, columns),
            [batch, rows, columns] => (Some(batch), rows, columns),
            ref other => bail!("linear: {what} is {other:?}, neither a matrix nor a batch of them"),
        };
        let columns = self.columns.clone().unwrap_or(0..pitch);
        ensure!(
            columns.start <= columns.end && columns.end <= pitch,
            "linear: columns {columns:?} of {what}, which has {pitch}"
        );
        let address = self.tensor.address() + (columns.start * size_of::<T>()) as u64;
        Ok(Place {
            address,
            batch,
            rows,
            columns: columns.len(),
            pitch,
            step: if batch.is_some() { rows * pitch } else { 0 },
            aligned: address.is_multiple_of(16) && (pitch * size_of::<T>()).is_multiple_of(16),
        })
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
