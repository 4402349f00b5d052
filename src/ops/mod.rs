//! One file an operator: its launcher, its definition in plain loops, and its test; the kernels are
//! in `kernels/` under the same stem.
//!
//! Launchers check every buffer's length against the shape, then queue the kernel on the stream.

pub mod attention;
pub mod augment;
pub mod augmenter;
pub mod chain;
pub mod convert;
pub mod draw;
mod element;
pub mod entropy;
pub mod feature;
pub mod linear;
pub mod norm;
pub mod optimizer;
mod param;
pub mod patches;
pub mod pillow;
pub mod pillow_steps;
pub mod preprocess;
mod rows;
pub mod segment;
pub mod select;
pub mod token_embed;
pub mod view;
mod width;

use anyhow::{Result, anyhow, ensure};

pub use element::Element;
pub use optimizer::Optimizer;
pub use param::Param;
pub use rows::Rows;

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
