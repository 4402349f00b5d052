//! The types that products take: float32, or float16 with float32 sums.

use anyhow::Result;
use bytemuck::Pod;
use half::f16;

use super::convert::{convert, split};
use super::linear::{Matrix, Output};
use crate::gpu::{Defines, Plan, Stream, Tensor};

/// What products take and what is kept for the gradient: `E` of `kernels/element.cuh`.
pub trait Element: Pod + Send + Sync + Output<Self> {
    /// What a source is compiled with to take this type.
    const DEFINES: Defines<'static>;
    /// Such as `fp16`.
    const NAME: &'static str;
    /// What inner products of a layer's inputs are scaled by where they are stored: a power of two that keeps them finite.
    const INNER_SCALE: f32;
    /// What gradients are scaled by on their way, unless told otherwise: a power of two that keeps small ones.
    const LOSS_SCALE: f32;
    /// How many [`Element::terms`] there are.
    const TERMS: usize;
    /// What the second of them is to be multiplied by.
    const SECOND_TERM: f32;

    /// To the nearest, ties to even.
    fn round(x: f64) -> Self;
    /// Exactly.
    fn widen(self) -> f64;
    /// Whether it has this very number.
    fn holds(x: f32) -> bool;

    /// Weights as products take them: the same memory in float32.
    ///
    /// # Errors
    /// Out of device memory; the launch's own.
    fn rounded(stream: &Stream, weights: &Tensor<f32>) -> Result<Tensor<Self>>;

    /// The terms that values of float32 are split into, which are as exact together: the values themselves, where this is
    /// float32, or parts of `room`, as many as the values are.
    fn terms(values: &Tensor<f32>, room: &[Tensor<Self>]) -> Vec<Tensor<Self>>;

    /// Of rows of float32 in this memory, or of rows of their terms, all first ones of a row and then all second ones: the
    /// terms of the first `columns`.
    fn side_by_side(rows: &Tensor<f32>, columns: usize) -> Vec<Matrix<Self>>;

    /// Writes these terms.
    ///
    /// # Errors
    /// Tensors of other shapes; the launch's own.
    fn split(stream: &Stream, values: &Tensor<f32>, room: &[Tensor<Self>]) -> Result<Vec<Tensor<Self>>>;

    /// Room for the terms of so many values.
    ///
    /// # Errors
    /// The plan's.
    fn room(plan: &mut Plan, name: &str, values: usize) -> Result<Vec<Tensor<Self>>>;
}

impl Element for f32 {
    const DEFINES: Defines<'static> = &[];
    const NAME: &'static str = "fp32";
    const INNER_SCALE: f32 = 1.0;
    const LOSS_SCALE: f32 = 1.0;
    const TERMS: usize = 1;
    const SECOND_TERM: f32 = 1.0;

    fn round(x: f64) -> f32 {
        x as f32
    }

    fn widen(self) -> f64 {
        self.into()
    }

    fn holds(_: f32) -> bool {
        true
    }

    fn rounded(_: &Stream, weights: &Tensor<f32>) -> Result<Tensor<f32>> {
        Ok(weights.clone())
    }

    fn terms(values: &Tensor<f32>, _: &[Tensor<f32>]) -> Vec<Tensor<f32>> {
        vec![values.clone()]
    }

    fn side_by_side(rows: &Tensor<f32>, columns: usize) -> Vec<Matrix<f32>> {
        vec![Matrix::columns(rows, 0..columns)]
    }

    fn split(_: &Stream, values: &Tensor<f32>, room: &[Tensor<f32>]) -> Result<Vec<Tensor<f32>>> {
        Ok(f32::terms(values, room))
    }

    fn room(_: &mut Plan, _: &str, _: usize) -> Result<Vec<Tensor<f32>>> {
        Ok(Vec::new())
    }
}

impl Element for f16 {
    const DEFINES: Defines<'static> = &[("ELEMENT_HALF", 1)];
    const NAME: &'static str = "fp16";
    const INNER_SCALE: f32 = 1.0 / 256.0;
    const LOSS_SCALE: f32 = 4096.0;
    const TERMS: usize = 2;
    // Unscaled, that of a weight of order 0.01 would be where float16 has few digits.
    const SECOND_TERM: f32 = 1.0 / 4096.0;

    fn round(x: f64) -> f16 {
        f16::from_f64(x)
    }

    fn widen(self) -> f64 {
        self.into()
    }

    fn holds(x: f32) -> bool {
        f16::from_f32(x).to_f32() == x
    }

    fn rounded(stream: &Stream, weights: &Tensor<f32>) -> Result<Tensor<f16>> {
        let rounded = stream.alloc(weights.len())?;
        convert(stream, &rounded, weights)?;
        Ok(rounded)
    }

    fn terms(values: &Tensor<f32>, room: &[Tensor<f16>]) -> Vec<Tensor<f16>> {
        room.iter().map(|term| term.slice(0..values.len()).view(values.shape())).collect()
    }

    fn side_by_side(rows: &Tensor<f32>, columns: usize) -> Vec<Matrix<f16>> {
        let rows = rows.halves();
        vec![Matrix::columns(&rows, 0..columns), Matrix::columns(&rows, columns..2 * columns)]
    }

    fn split(stream: &Stream, values: &Tensor<f32>, room: &[Tensor<f16>]) -> Result<Vec<Tensor<f16>>> {
        let terms = f16::terms(values, room);
        split(stream, [&terms[0], &terms[1]], values, 1.0 / Self::SECOND_TERM)?;
        Ok(terms)
    }

    fn room(plan: &mut Plan, name: &str, values: usize) -> Result<Vec<Tensor<f16>>> {
        ["first", "second"].iter().map(|term| plan.tensor(&format!("{name}.{term}"), values)).collect()
    }
}
