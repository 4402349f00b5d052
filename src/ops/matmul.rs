//! Matrix products, `kernels/matmul.cu`: the three layouts of a linear layer `out = inp · Wᵀ + bias`
//! and its gradients.

use anyhow::Result;

use super::{expect_len, int};
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};

/// Rows and columns of the output, and the length of the sums.
#[derive(Clone, Copy, Debug)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
}

/// `out = inp · Wᵀ + bias + residual`.
///
/// * `out`, `residual`: `(M, N)` fp32; out overwritten, and may be the residual itself.
/// * `inp`: `(M, K)`. `weight`: `(N, K)`. `bias`: `(N,)`.
///
/// # Errors
/// A buffer of another length; the launch's own.
#[allow(clippy::too_many_arguments)] // a linear layer has that many parts
pub fn matmul_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    inp: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: Option<&Tensor<f32>>,
    residual: Option<&Tensor<f32>>,
    (m, k, n): (usize, usize, usize),
) -> Result<()> {
    let lens = [
        ("out", out.len(), m * n),
        ("inp", inp.len(), m * k),
        ("weight", weight.len(), n * k),
        ("bias", bias.map_or(n, Tensor::len), n),
        ("residual", residual.map_or(m * n, Tensor::len), m * n),
    ];
    expect_len("matmul_forward", &lens)?;
    launch(
        stream,
        ["matmul_nt_64", "matmul_nt_128"],
        Shape { m, n, k },
        out,
        [inp, weight],
        [k, k],
        bias,
        residual,
    )
}

/// `dinp = dout · W`: the gradient of [`matmul_forward`]'s input.
///
/// * `dinp`: `(M, K)` fp32, overwritten. `dout`: `(M, N)`. `weight`: `(N, K)`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn matmul_backward_input(
    stream: &Stream,
    dinp: &Tensor<f32>,
    dout: &Tensor<f32>,
    weight: &Tensor<f32>,
    (m, k, n): (usize, usize, usize),
) -> Result<()> {
    let lens = [("dinp", dinp.len(), m * k), ("dout", dout.len(), m * n), ("weight", weight.len(), n * k)];
    expect_len("matmul_backward_input", &lens)?;
    let shape = Shape { m, n: k, k: n };
    launch(stream, ["matmul_nn_64", "matmul_nn_128"], shape, dinp, [dout, weight], [n, k], None, None)
}

/// `dweight = doutᵀ · inp`: the gradient of [`matmul_forward`]'s weight.
///
/// * `dweight`: `(N, K)` fp32, overwritten. `dout`: `(M, N)`. `inp`: `(M, K)`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn matmul_backward_weight(
    stream: &Stream,
    dweight: &Tensor<f32>,
    dout: &Tensor<f32>,
    inp: &Tensor<f32>,
    (m, k, n): (usize, usize, usize),
) -> Result<()> {
    let lens = [("dweight", dweight.len(), n * k), ("dout", dout.len(), m * n), ("inp", inp.len(), m * k)];
    expect_len("matmul_backward_weight", &lens)?;
    let shape = Shape { m: n, n: k, k: m };
    launch(stream, ["matmul_tn_64", "matmul_tn_128"], shape, dweight, [dout, inp], [n, k], None, None)
}

#[allow(clippy::too_many_arguments)] // the kernel's own
fn launch(
    stream: &Stream,
    names: [&'static str; 2],
    Shape { m, n, k }: Shape,
    out: &Tensor<f32>,
    operands: [&Tensor<f32>; 2],
    row_lens: [usize; 2],
    bias: Option<&Tensor<f32>>,
    residual: Option<&Tensor<f32>>,
) -> Result<()> {
    // The wide tile multiplies twice as much for each load, unless half of it would lie outside.
    let wide = n > 64;
    let columns = if wide { 128 } else { 64 };
    let aligned = |slice: &Tensor<f32>, row: usize| slice.is_aligned(16) && row.is_multiple_of(4);
    let out_aligned = [Some(out), bias, residual].into_iter().flatten().all(|slice| aligned(slice, n));
    let vector = aligned(operands[0], row_lens[0]) as i32
        | (aligned(operands[1], row_lens[1]) as i32) << 1
        | (out_aligned as i32) << 2;
    let launch = Launch::over([n.div_ceil(columns), m.div_ceil(64), 1], 128);
    let optional = |slice: Option<&Tensor<f32>>| slice.map_or(Arg::NULL, Arg::from);
    let kernel = stream.kernel("matmul", names[wide as usize], &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe {
        kernel.launch(
            stream,
            launch,
            args![
                out,
                operands[0],
                operands[1],
                optional(bias),
                optional(residual),
                int(m)?,
                int(n)?,
                int(k)?,
                vector
            ],
        )
    }
}

/// The definition, in float64: `out (M, N) = A · B`, with `a(m, k)` and `b(k, n)`.
pub fn matmul_reference(
    (m, n, k): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let element = |i: usize| (0..k).map(|h| f64::from(a(i / n, h)) * f64::from(b(h, i % n))).sum();
    (0..m * n).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random};
    use crate::device_test;

    /// (M, K, N): both tiles, whole and ragged, rows that are and are not multiples of 16 bytes, one.
    const CASES: [(usize, usize, usize); 9] = [
        (256, 48, 128),
        (129, 65, 132),
        (450, 96, 100),
        (50, 768, 70),
        (7, 5, 3),
        (1, 1, 1),
        (64, 16, 64),
        (65, 31, 257),
        (127, 128, 130),
    ];

    device_test!(forward_equals_the_definition, |stream| {
        for (m, k, n) in CASES {
            let (inp, weight) = (random(m * k, 1.0, 1), random(n * k, 1.0, 2));
            let (bias, residual) = (random(n, 1.0, 3), random(m * n, 1.0, 4));
            let (d_inp, d_weight) = (stream.vector(&inp)?, stream.vector(&weight)?);
            let product = matmul_reference((m, n, k), |i, h| inp[i * k + h], |h, j| weight[j * k + h]);
            let tolerance = Tolerance::of_sums(k);

            let run = || -> Result<Vec<f32>> {
                let out = poisoned(&stream, m * n);
                matmul_forward(&stream, &out, &d_inp, &d_weight, None, None, (m, k, n))?;
                stream.read(&out)
            };
            let out = run()?;
            assert_close(&out, &product, tolerance);
            assert_eq!(out, run()?, "another run gives other bits");

            let out = stream.vector(&residual)?;
            let d_bias = stream.vector(&bias)?;
            matmul_forward(&stream, &out, &d_inp, &d_weight, Some(&d_bias), Some(&out), (m, k, n))?;
            let want: Vec<f64> =
                (0..m * n).map(|i| product[i] + f64::from(bias[i % n]) + f64::from(residual[i])).collect();
            assert_close(&stream.read(&out)?, &want, tolerance);
        }
    });

    device_test!(gradients_equal_the_definition, |stream| {
        for (m, k, n) in CASES {
            let (inp, weight, dout) = (random(m * k, 1.0, 1), random(n * k, 1.0, 2), random(m * n, 1.0, 3));
            let d_dout = stream.vector(&dout)?;
            let dinp = poisoned(&stream, m * k);
            matmul_backward_input(&stream, &dinp, &d_dout, &stream.vector(&weight)?, (m, k, n))?;
            let want = matmul_reference((m, k, n), |i, j| dout[i * n + j], |j, h| weight[j * k + h]);
            assert_close(&stream.read(&dinp)?, &want, Tolerance::of_sums(n));

            let dweight = poisoned(&stream, n * k);
            matmul_backward_weight(&stream, &dweight, &d_dout, &stream.vector(&inp)?, (m, k, n))?;
            let want = matmul_reference((n, k, m), |j, i| dout[i * n + j], |i, h| inp[i * k + h]);
            assert_close(&stream.read(&dweight)?, &want, Tolerance::of_sums(m));
        }
    });

    device_test!(unaligned_rows_give_the_same, |stream| {
        let (m, k, n) = (70, 64, 68);
        let (inp, weight) = (random(m * k + 1, 1.0, 1), random(n * k, 1.0, 2));
        let run = |inp: &Tensor<f32>| -> Result<Vec<f32>> {
            let out = poisoned(&stream, m * n);
            matmul_forward(&stream, &out, inp, &stream.vector(&weight)?, None, None, (m, k, n))?;
            stream.read(&out)
        };
        let shifted = stream.vector(&inp)?.slice(1..m * k + 1);
        assert_eq!(run(&shifted)?, run(&stream.vector(&inp[1..])?)?);
    });

    #[test]
    fn the_gradients_are_the_products_derivatives() {
        // f = sum(out · g): linear in each operand, so differences are exact up to rounding.
        let (m, k, n) = (2, 3, 4);
        let (inp, weight, g) = (random(m * k, 1.0, 1), random(n * k, 1.0, 2), random(m * n, 1.0, 3));
        let f = |inp: &[f32], weight: &[f32]| -> f64 {
            let out = matmul_reference((m, n, k), |i, h| inp[i * k + h], |h, j| weight[j * k + h]);
            out.iter().zip(&g).map(|(x, &g)| x * f64::from(g)).sum()
        };
        let dinp = matmul_reference((m, k, n), |i, j| g[i * n + j], |j, h| weight[j * k + h]);
        let dweight = matmul_reference((n, k, m), |j, i| g[i * n + j], |i, h| inp[i * k + h]);
        for i in 0..m * k {
            let mut moved = inp.clone();
            moved[i] += 0.5;
            let slope = (f(&moved, &weight) - f(&inp, &weight)) / f64::from(moved[i] - inp[i]);
            assert!((slope - dinp[i]).abs() < 1e-6);
        }
        for i in 0..n * k {
            let mut moved = weight.clone();
            moved[i] += 0.5;
            let slope = (f(&inp, &moved) - f(&inp, &weight)) / f64::from(moved[i] - weight[i]);
            assert!((slope - dweight[i]).abs() < 1e-6);
        }
    }
}
