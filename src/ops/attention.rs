//! Multi-head self-attention and its gradient, `kernels/attention.cu`.

use anyhow::{Result, ensure};

use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Samples, tokens, heads, width of a head; whether a token sees only itself and what is before it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub b: usize,
    pub t: usize,
    pub nh: usize,
    pub hs: usize,
    pub causal: bool,
}

impl Shape {
    fn tokens(&self) -> usize {
        self.b * self.t
    }

    fn width(&self) -> usize {
        self.nh * self.hs
    }

    fn rows(&self) -> usize {
        self.b * self.nh * self.t
    }

    fn launch(&self) -> Launch {
        Launch::over([self.b * self.nh, self.t.div_ceil(32), 1], 128)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.hs as f32).sqrt()
    }
}

/// `out = softmax(Q Kᵀ / sqrt(HS)) V`, head by head.
///
/// * `out`: `(B, T, C)` fp32. `lse`: `(B, NH, T)`, for the gradient. Both overwritten.
/// * `qkv`: `(B, T, 3C)`: queries, keys, values, each head after head.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn attention_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    lse: &Tensor<f32>,
    qkv: &Tensor<f32>,
    shape: Shape,
) -> Result<()> {
    let (n, c) = (shape.tokens(), shape.width());
    let lens = [("out", out.len(), n * c), ("lse", lse.len(), shape.rows()), ("qkv", qkv.len(), n * 3 * c)];
    expect_len("attention_forward", &lens)?;
    let Shape { t, nh, hs, causal, .. } = shape;
    let args = args![out, lse, qkv, int(t)?, int(nh)?, int(hs)?, shape.scale(), causal as i32];
    let kernel = stream.kernel("attention", "attention_forward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, shape.launch(), args) }
}

/// Floats of scratch that [`attention_backward`] needs.
pub fn backward_scratch_len(shape: Shape) -> usize {
    shape.rows()
}

/// The gradient of [`attention_forward`]'s input.
///
/// * `dqkv`: `(B, T, 3C)` fp32, overwritten. `dout`: `(B, T, C)`.
/// * `out`, `lse`, `qkv`: the forward pass's. `scratch`: [`backward_scratch_len`] floats or more.
///
/// # Errors
/// A buffer of another length; the launch's own.
#[allow(clippy::too_many_arguments)] // forward's operands and their gradients
pub fn attention_backward(
    stream: &Stream,
    dqkv: &Tensor<f32>,
    dout: &Tensor<f32>,
    out: &Tensor<f32>,
    lse: &Tensor<f32>,
    qkv: &Tensor<f32>,
    scratch: &Tensor<f32>,
    shape: Shape,
) -> Result<()> {
    let (n, c) = (shape.tokens(), shape.width());
    let lens = [
        ("dqkv", dqkv.len(), n * 3 * c),
        ("dout", dout.len(), n * c),
        ("out", out.len(), n * c),
        ("lse", lse.len(), shape.rows()),
        ("qkv", qkv.len(), n * 3 * c),
    ];
    expect_len("attention_backward", &lens)?;
    ensure!(scratch.len() >= backward_scratch_len(shape), "attention_backward: scratch is too short");
    let Shape { t, nh, hs, causal, .. } = shape;
    let (t, nh, hs) = (int(t)?, int(nh)?, int(hs)?);
    let (scale, causal) = (shape.scale(), causal as i32);
    let args = args![dqkv, scratch, dout, out, qkv, lse, t, nh, hs, scale, causal];
    let kernel = stream.kernel("attention", "attention_backward_q", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, shape.launch(), args) }?;
    let args = args![dqkv, scratch, dout, qkv, lse, t, nh, hs, scale, causal];
    let kernel = stream.kernel("attention", "attention_backward_kv", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, shape.launch(), args) }
}

/// The definition, in float64: `(B, T, C)` of `(B, T, 3, NH, HS)`.
pub fn attention_reference(qkv: &[f64], shape: Shape) -> Vec<f64> {
    let Shape { b, t, nh, hs, .. } = shape;
    let c = nh * hs;
    let mut out = vec![0.0; b * t * c];
    for (image, head, query) in (0..b * nh * t).map(|i| (i / (nh * t), i / t % nh, i % t)) {
        let p = probabilities(qkv, shape, image, head, query);
        for d in 0..hs {
            let value = |key: usize| qkv[at(shape, image, key, 2, head) + d];
            out[(image * t + query) * c + head * hs + d] = (0..t).map(|key| p[key] * value(key)).sum();
        }
    }
    out
}

/// The gradient of `Σ dout · attention`, in float64: `(B, T, 3, NH, HS)`.
pub fn attention_backward_reference(qkv: &[f64], dout: &[f64], shape: Shape) -> Vec<f64> {
    let Shape { b, t, nh, hs, .. } = shape;
    let (c, scale) = (nh * hs, 1.0 / (hs as f64).sqrt());
    let mut dqkv = vec![0.0; qkv.len()];
    for (image, head, query) in (0..b * nh * t).map(|i| (i / (nh * t), i / t % nh, i % t)) {
        let p = probabilities(qkv, shape, image, head, query);
        let dy = &dout[(image * t + query) * c + head * hs..][..hs];
        let dp: Vec<f64> = (0..t)
            .map(|key| dy.iter().zip(&qkv[at(shape, image, key, 2, head)..]).map(|(d, v)| d * v).sum())
            .collect();
        let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        let q = at(shape, image, query, 0, head);
        for key in 0..t {
            let (k, v) = (at(shape, image, key, 1, head), at(shape, image, key, 2, head));
            let ds = p[key] * (dp[key] - mean) * scale;
            for d in 0..hs {
                dqkv[q + d] += ds * qkv[k + d];
                dqkv[k + d] += ds * qkv[q + d];
                dqkv[v + d] += p[key] * dy[d];
            }
        }
    }
    dqkv
}

/// Where head `head` of query (0), key (1) or value (2) `token` begins.
fn at(shape: Shape, image: usize, token: usize, part: usize, head: usize) -> usize {
    (((image * shape.t + token) * 3 + part) * shape.nh + head) * shape.hs
}

fn probabilities(qkv: &[f64], shape: Shape, image: usize, head: usize, query: usize) -> Vec<f64> {
    let Shape { t, hs, causal, .. } = shape;
    let q = &qkv[at(shape, image, query, 0, head)..][..hs];
    let scores: Vec<f64> = (0..t)
        .map(|key| match causal && key > query {
            true => f64::NEG_INFINITY,
            false => {
                let k = &qkv[at(shape, image, key, 1, head)..][..hs];
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (hs as f64).sqrt()
            }
        })
        .collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen};
    use crate::device_test;

    /// Shape and spread of the values: image and text heads, tiles met exactly and by one more or less,
    /// heads of several passes and odd ones, one token, scores so far apart that few of a row count.
    const CASES: [(Shape, f32); 10] = [
        (Shape { b: 2, t: 50, nh: 3, hs: 64, causal: false }, 1.5),
        (Shape { b: 1, t: 77, nh: 2, hs: 64, causal: true }, 1.5),
        (Shape { b: 1, t: 129, nh: 1, hs: 80, causal: false }, 1.5),
        (Shape { b: 1, t: 128, nh: 1, hs: 16, causal: true }, 1.5),
        (Shape { b: 1, t: 65, nh: 1, hs: 131, causal: true }, 1.5),
        (Shape { b: 1, t: 33, nh: 1, hs: 128, causal: false }, 1.5),
        (Shape { b: 3, t: 17, nh: 5, hs: 7, causal: false }, 1.5),
        (Shape { b: 1, t: 63, nh: 1, hs: 32, causal: false }, 4.0),
        (Shape { b: 1, t: 31, nh: 2, hs: 1, causal: true }, 3.0),
        (Shape { b: 1, t: 1, nh: 1, hs: 1, causal: false }, 1.5),
    ];

    device_test!(kernels_equal_the_definition, |stream| {
        for (shape, spread) in CASES {
            let (n, c) = (shape.tokens(), shape.width());
            let (qkv, dout) = (random(n * 3 * c, spread, 1), random(n * c, 1.0, 2));
            let (d_qkv, d_dout) = (stream.vector(&qkv)?, stream.vector(&dout)?);
            let run = || -> Result<[Vec<f32>; 2]> {
                let (out, lse) = (poisoned(&stream, n * c), poisoned(&stream, shape.rows()));
                attention_forward(&stream, &out, &lse, &d_qkv, shape)?;
                let (dqkv, scratch) =
                    (poisoned(&stream, n * 3 * c), poisoned(&stream, backward_scratch_len(shape)));
                attention_backward(&stream, &dqkv, &d_dout, &out, &lse, &d_qkv, &scratch, shape)?;
                Ok([stream.read(&out)?, stream.read(&dqkv)?])
            };
            let got = run()?;
            assert_close(&got[0], &attention_reference(&widen(&qkv), shape), Tolerance::FP32);
            let want = attention_backward_reference(&widen(&qkv), &widen(&dout), shape);
            assert_close(&got[1], &want, Tolerance::FP32);
            assert_eq!(got, run()?, "another run gives other bits");
        }
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        for causal in [false, true] {
            let shape = Shape { b: 1, t: 4, nh: 2, hs: 3, causal };
            let (qkv, g) = (widen(&random(72, 1.0, 1)), widen(&random(24, 1.0, 2)));
            let f = |x: &[f64]| attention_reference(x, shape).iter().zip(&g).map(|(y, g)| y * g).sum();
            finite_difference(&qkv, f, &attention_backward_reference(&qkv, &g, shape));
        }
    }
}
