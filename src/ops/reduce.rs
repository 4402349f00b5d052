//! Sums over the rows of a matrix, `kernels/reduce.cu`: bias gradients.

use anyhow::{Result, ensure};

use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Rows that one partial sum covers.
const CHUNK: usize = 64;

/// Partial sums of `m` rows.
pub fn chunks(m: usize) -> usize {
    m.div_ceil(CHUNK)
}

/// Floats of scratch that [`columns_forward`] needs.
pub fn scratch_len(m: usize, n: usize) -> usize {
    chunks(m) * n
}

/// `out[n] = Σ_m inp[m][n]`.
///
/// * `out`: `(N,)` fp32, overwritten. `inp`: `(M, N)`. `scratch`: [`scratch_len`] floats or more.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn columns_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    inp: &Tensor<f32>,
    scratch: &Tensor<f32>,
    (m, n): (usize, usize),
) -> Result<()> {
    expect_len("columns_forward", &[("out", out.len(), n), ("inp", inp.len(), m * n)])?;
    ensure!(scratch.len() >= scratch_len(m, n), "columns_forward: scratch is too short");
    let launch = Launch::over([n.div_ceil(128), chunks(m), 1], 128);
    let kernel = stream.kernel("reduce", "columns_partial", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, launch, args![scratch, inp, int(m)?, int(n)?]) }?;
    columns_sum(stream, out, scratch, (chunks(m), n))
}

/// The second step: `out[n] = Σ partial[chunk][n]`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn columns_sum(
    stream: &Stream,
    out: &Tensor<f32>,
    partial: &Tensor<f32>,
    (chunks, n): (usize, usize),
) -> Result<()> {
    expect_len("columns_sum", &[("out", out.len(), n)])?;
    ensure!(partial.len() >= chunks * n, "columns_sum: the partial sums are too few");
    let kernel = stream.kernel("reduce", "columns_sum", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n, 128), args![out, partial, int(chunks)?, int(n)?]) }
}

/// The definition, in float64.
pub fn columns_reference(inp: &[f32], n: usize) -> Vec<f64> {
    (0..n).map(|column| inp.iter().skip(column).step_by(n).map(|&x| f64::from(x)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random};
    use crate::device_test;

    device_test!(kernel_equals_the_definition, |stream| {
        for (m, n) in [(2500, 96), (64, 130), (65, 1), (1, 33)] {
            let inp = random(m * n, 1.0, 1);
            let (out, scratch) = (poisoned(&stream, n), poisoned(&stream, scratch_len(m, n)));
            columns_forward(&stream, &out, &stream.vector(&inp)?, &scratch, (m, n))?;
            assert_close(&stream.read(&out)?, &columns_reference(&inp, n), Tolerance::of_sums(m));
        }
    });
}
