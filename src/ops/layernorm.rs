//! Layer norm over the last dimension and its gradient, `kernels/layernorm.cu`.

use anyhow::{Result, ensure};

use super::reduce::{chunks, columns_sum};
use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// A layer norm's output and the statistics that its gradient needs.
pub struct Normed {
    pub out: Tensor<f32>,  // (N, C)
    pub mean: Tensor<f32>, // (N,)
    pub rstd: Tensor<f32>, // (N,)
}

impl Normed {
    /// # Errors
    /// Out of device memory.
    pub fn new(stream: &Stream, n: usize, c: usize) -> Result<Normed> {
        Ok(Normed { out: stream.alloc(n * c)?, mean: stream.alloc(n)?, rstd: stream.alloc(n)? })
    }

    /// The first `n` rows.
    pub fn rows(&self, n: usize, c: usize) -> Normed {
        Normed { out: self.out.slice(0..n * c), mean: self.mean.slice(0..n), rstd: self.rstd.slice(0..n) }
    }
}

/// `out = (inp − mean) · rstd · weight + bias`, row by row.
///
/// * `normed`: `(N, C)` and statistics `(N,)`, fp32, overwritten.
/// * `inp`: `(N, C)`. `weight`, `bias`: `(C,)`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn layernorm_forward(
    stream: &Stream,
    normed: &Normed,
    inp: &Tensor<f32>,
    [weight, bias]: [&Tensor<f32>; 2],
    (n, c): (usize, usize),
    eps: f32,
) -> Result<()> {
    let Normed { out, mean, rstd } = normed;
    let lens = [
        ("out", out.len(), n * c),
        ("mean", mean.len(), n),
        ("rstd", rstd.len(), n),
        ("inp", inp.len(), n * c),
        ("weight", weight.len(), c),
        ("bias", bias.len(), c),
    ];
    expect_len("layernorm_forward", &lens)?;
    let args = args![out, mean, rstd, inp, weight, bias, int(n)?, int(c)?, eps];
    let kernel = stream.kernel("layernorm", "layernorm_forward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(n.div_ceil(4), 128), args) }
}

/// Floats of scratch that [`layernorm_backward`] needs.
pub fn backward_scratch_len(n: usize, c: usize) -> usize {
    chunks(n) * 2 * c
}

/// The gradients of [`layernorm_forward`]'s input and parameters.
///
/// * `dinp`: `(N, C)` fp32, overwritten, or added to where `accumulate`.
/// * `dparams`: `(2, C)` fp32, overwritten: the weight's gradient, then the bias's.
/// * `normed`: as the forward pass left it. `scratch`: [`backward_scratch_len`] floats or more.
///
/// # Errors
/// A buffer of another length; the launch's own.
#[allow(clippy::too_many_arguments)] // forward's operands and their gradients
pub fn layernorm_backward(
    stream: &Stream,
    dinp: &Tensor<f32>,
    dparams: &Tensor<f32>,
    dout: &Tensor<f32>,
    inp: &Tensor<f32>,
    weight: &Tensor<f32>,
    normed: &Normed,
    scratch: &Tensor<f32>,
    (n, c): (usize, usize),
    accumulate: bool,
) -> Result<()> {
    let Normed { mean, rstd, .. } = normed;
    let lens = [
        ("dinp", dinp.len(), n * c),
        ("dparams", dparams.len(), 2 * c),
        ("dout", dout.len(), n * c),
        ("inp", inp.len(), n * c),
        ("weight", weight.len(), c),
        ("mean", mean.len(), n),
        ("rstd", rstd.len(), n),
    ];
    expect_len("layernorm_backward", &lens)?;
    ensure!(scratch.len() >= backward_scratch_len(n, c), "layernorm_backward: scratch is too short");
    let launch = Launch::over([c.div_ceil(128), chunks(n), 1], 128);
    let args = args![scratch, dout, inp, mean, rstd, int(n)?, int(c)?];
    let kernel = stream.kernel("layernorm", "layernorm_backward_params", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, launch, args) }?;
    columns_sum(stream, dparams, scratch, (chunks(n), 2 * c))?;
    let args = args![dinp, dout, inp, weight, mean, rstd, int(n)?, int(c)?, accumulate as i32];
    let kernel = stream.kernel("layernorm", "layernorm_backward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(n.div_ceil(4), 128), args) }
}

/// The definition of a row, in float64: its output.
pub fn layernorm_reference(inp: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let c = inp.len() as f64;
    let mean = inp.iter().sum::<f64>() / c;
    let rstd = 1.0 / (inp.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / c + eps).sqrt();
    (0..inp.len()).map(|i| (inp[i] - mean) * rstd * weight[i] + bias[i]).collect()
}

/// The gradient of `Σ dout · layernorm` over a row, in float64: of input, weight and bias.
pub fn layernorm_backward_reference(
    inp: &[f64],
    weight: &[f64],
    dout: &[f64],
    eps: f64,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let c = inp.len() as f64;
    let (ones, zeros) = (vec![1.0; inp.len()], vec![0.0; inp.len()]);
    let h = layernorm_reference(inp, &ones, &zeros, eps);
    let mean = inp.iter().sum::<f64>() / c;
    let rstd = 1.0 / (inp.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / c + eps).sqrt();
    let g: Vec<f64> = dout.iter().zip(weight).map(|(d, w)| d * w).collect();
    let sum = g.iter().sum::<f64>() / c;
    let along = g.iter().zip(&h).map(|(g, h)| g * h).sum::<f64>() / c;
    let dinp = g.iter().zip(&h).map(|(g, h)| rstd * (g - sum - h * along)).collect();
    (dinp, dout.iter().zip(&h).map(|(d, h)| d * h).collect(), dout.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen};
    use crate::device_test;

    const EPS: f32 = 1e-5;

    device_test!(kernels_equal_the_definition, |stream| {
        // Means of 100 leave float32 about 7e-6 of a deviation; sums of squares would leave 1e-3.
        for (n, c, mean) in [(130, 768, 0.0), (65, 33, 0.0), (3, 64, 0.0), (1, 1, 0.0), (9, 257, 100.0)] {
            let inp: Vec<f32> = random(n * c, 2.0, 1).iter().map(|x| mean + x).collect();
            let dout = random(n * c, 1.0, 2);
            let (weight, bias) = (random(c, 1.0, 3), random(c, 1.0, 4));
            let before = random(n * c, 1.0, 5);
            let (d_inp, d_dout) = (stream.vector(&inp)?, stream.vector(&dout)?);
            let (d_weight, d_bias) = (stream.vector(&weight)?, stream.vector(&bias)?);
            let normed = Normed {
                out: poisoned(&stream, n * c),
                mean: poisoned(&stream, n),
                rstd: poisoned(&stream, n),
            };
            layernorm_forward(&stream, &normed, &d_inp, [&d_weight, &d_bias], (n, c), EPS)?;

            let bound = |terms| if mean == 0.0 { Tolerance::of_sums(terms) } else { Tolerance::FP32 };
            let (w, b, eps) = (widen(&weight), widen(&bias), f64::from(EPS));
            let (mut out, mut dinp) = (Vec::new(), Vec::new());
            let mut dparams = vec![0.0; 2 * c];
            for (x, dy) in inp.chunks(c).zip(dout.chunks(c)) {
                let (x, dy) = (widen(x), widen(dy));
                out.extend(layernorm_reference(&x, &w, &b, eps));
                let (dx, dw, db) = layernorm_backward_reference(&x, &w, &dy, eps);
                dinp.extend(dx);
                dparams[..c].iter_mut().zip(dw).for_each(|(sum, d)| *sum += d);
                dparams[c..].iter_mut().zip(db).for_each(|(sum, d)| *sum += d);
            }
            assert_close(&stream.read(&normed.out)?, &out, Tolerance::FP32);

            let scratch = poisoned(&stream, backward_scratch_len(n, c));
            for accumulate in [false, true] {
                let d_dinp = if accumulate { stream.vector(&before)? } else { poisoned(&stream, n * c) };
                let d_params = poisoned(&stream, 2 * c);
                let weight = &d_weight;
                layernorm_backward(
                    &stream,
                    &d_dinp,
                    &d_params,
                    &d_dout,
                    &d_inp,
                    weight,
                    &normed,
                    &scratch,
                    (n, c),
                    accumulate,
                )?;
                let offset = if accumulate { widen(&before) } else { vec![0.0; n * c] };
                let want: Vec<f64> = dinp.iter().zip(&offset).map(|(d, o)| d + o).collect();
                // The gradient of a row of one element is exactly 0.
                let tolerance = if c == 1 { Tolerance::EXACT } else { bound(c) };
                assert_close(&stream.read(&d_dinp)?, &want, tolerance);
                assert_close(&stream.read(&d_params)?, &dparams, bound(n));
            }
        }
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        let (x, w, b, g) = (
            widen(&random(7, 2.0, 1)),
            widen(&random(7, 1.0, 2)),
            widen(&random(7, 1.0, 3)),
            widen(&random(7, 1.0, 4)),
        );
        let f = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
            layernorm_reference(x, w, b, 1e-5).iter().zip(&g).map(|(y, g)| y * g).sum()
        };
        let (dx, dw, db) = layernorm_backward_reference(&x, &w, &g, 1e-5);
        finite_difference(&x, |x| f(x, &w, &b), &dx);
        finite_difference(&w, |w| f(&x, w, &b), &dw);
        finite_difference(&b, |b| f(&x, &w, b), &db);
    }
}
