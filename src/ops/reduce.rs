//! Sums over the rows of a matrix, `kernels/reduce.cu`: bias gradients.

use anyhow::{Result, ensure};

use super::expect_len;
use crate::args;
use crate::gpu::{Gpu, Launch, Slice};

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
    gpu: &Gpu,
    out: &Slice<f32>,
    inp: &Slice<f32>,
    scratch: &Slice<f32>,
    (m, n): (usize, usize),
) -> Result<()> {
    expect_len("columns_forward", &[("out", out.len(), n), ("inp", inp.len(), m * n)])?;
    ensure!(scratch.len() >= scratch_len(m, n), "columns_forward: scratch is too short");
    let launch = Launch { grid: [n.div_ceil(128), chunks(m), 1], block: [128, 1, 1], shared_bytes: 0 };
    gpu.launch("reduce", "columns_partial", launch, args![scratch, inp, m as i32, n as i32])?;
    columns_sum(gpu, out, scratch, (chunks(m), n))
}

/// The second step: `out[n] = Σ partial[chunk][n]`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn columns_sum(
    gpu: &Gpu,
    out: &Slice<f32>,
    partial: &Slice<f32>,
    (chunks, n): (usize, usize),
) -> Result<()> {
    expect_len("columns_sum", &[("out", out.len(), n)])?;
    ensure!(partial.len() >= chunks * n, "columns_sum: the partial sums are too few");
    gpu.launch(
        "reduce",
        "columns_sum",
        Launch::per_element(n, 128),
        args![out, partial, chunks as i32, n as i32],
    )
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

    device_test!(kernel_equals_the_definition, |gpu| {
        for (m, n) in [(2500, 96), (64, 130), (65, 1), (1, 33)] {
            let inp = random(m * n, 1.0, 1);
            let (out, scratch) = (poisoned(&gpu, n), poisoned(&gpu, scratch_len(m, n)));
            columns_forward(&gpu, &out, &gpu.upload(&inp)?, &scratch, (m, n))?;
            assert_close(&gpu.read(&out)?, &columns_reference(&inp, n), Tolerance::of_sums(m));
        }
    });
}
