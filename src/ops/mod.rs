//! One file an operator: its launcher, its definition in plain loops, and its test; the kernels are
//! in `kernels/` under the same stem.
//!
//! Launchers check every buffer's length against the shape, then queue the kernel on the stream.

pub mod attention;
pub mod augment;
pub mod augmenter;
pub mod draw;
pub mod embed;
pub mod entropy;
pub mod feature;
pub mod linear;
pub mod norm;
mod param;
pub mod patches;
pub mod pillow;
pub mod segment;
pub mod step;
pub mod token_embed;
mod width;

use anyhow::{Result, anyhow, ensure};
use bytemuck::Pod;
use half::f16;

pub use param::Param;

use crate::gpu::{Defines, Stream, Tensor};

/// What products take and what is kept for the gradient: `E` of `kernels/element.cuh`.
pub trait Element: Pod + Send + Sync + linear::Output<Self> {
    /// What a source is compiled with to take this type.
    const DEFINES: Defines<'static>;
    /// Such as `fp16`.
    const NAME: &'static str;
    /// To the nearest, ties to even.
    fn round(x: f64) -> Self;
    /// Exactly.
    fn widen(self) -> f64;
    /// What sums of products over a whole row are scaled by where they are stored: a power of two that keeps them finite.
    const INNER_SCALE: f32;
    /// Weights as products take them: the same memory in float32.
    ///
    /// # Errors
    /// Out of device memory; the launch's own.
    fn rounded(stream: &Stream, weights: &Tensor<f32>) -> Result<Tensor<Self>>
    where
        Self: Sized;
}

impl Element for f32 {
    const DEFINES: Defines<'static> = &[];
    const NAME: &'static str = "fp32";
    const INNER_SCALE: f32 = 1.0;

    fn rounded(_: &Stream, weights: &Tensor<f32>) -> Result<Tensor<f32>> {
        Ok(weights.clone())
    }

    fn round(x: f64) -> f32 {
        x as f32
    }

    fn widen(self) -> f64 {
        self.into()
    }
}

impl Element for f16 {
    const DEFINES: Defines<'static> = &[("ELEMENT_HALF", 1)];
    const NAME: &'static str = "fp16";
    const INNER_SCALE: f32 = 1.0 / 256.0;

    fn rounded(stream: &Stream, weights: &Tensor<f32>) -> Result<Tensor<f16>> {
        let rounded = stream.alloc(weights.len())?;
        step::convert(stream, &rounded, weights)?;
        Ok(rounded)
    }

    fn round(x: f64) -> f16 {
        f16::from_f64(x)
    }

    fn widen(self) -> f64 {
        self.into()
    }
}

/// A size as a kernel takes it.
fn int(n: usize) -> Result<i32> {
    i32::try_from(n)
        .map_err(|_| anyhow!("{n} is more than a kernel's 32-bit sizes hold; fewer images at once need less"))
}

/// Refuses a buffer whose length is not what the shape says, before a kernel runs past it.
fn expect_len(operator: &str, buffers: &[(&str, usize, usize)]) -> Result<()> {
    for (name, len, want) in buffers {
        ensure!(len == want, "{operator}: {name} has {len} elements where the shape has {want}");
    }
    Ok(())
}
