//! One file an operator: its launcher, its definition in plain loops, and its test; the kernels are
//! in `kernels/` under the same stem.
//!
//! Launchers check every buffer's length against the shape, then queue the kernel on the stream.

pub mod activation;
pub mod attention;
pub mod augment;
pub mod draw;
pub mod entropy;
pub mod head;
pub mod layernorm;
pub mod matmul;
pub mod patch_embed;
pub mod pillow;
pub mod reduce;
pub mod sgd;
pub mod token_embed;

use anyhow::{Result, ensure};

/// Refuses a buffer whose length is not what the shape says, before a kernel runs past it.
fn expect_len(operator: &str, buffers: &[(&str, usize, usize)]) -> Result<()> {
    for (name, len, want) in buffers {
        ensure!(len == want, "{operator}: {name} has {len} elements where the shape has {want}");
    }
    Ok(())
}
