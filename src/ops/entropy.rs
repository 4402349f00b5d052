//! Marginal entropy over an image's views: the MEMO loss and its gradient, `kernels/entropy.cu`.

use anyhow::Result;

use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Images, views per image, classes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub b: usize,
    pub n: usize,
    pub k: usize,
}

/// Loss and gradient for `b` images at once (MEMO, arXiv 2110.09506, equation 3).
///
/// * `dlogits`: `(B, N, K)` fp32, overwritten with `scale · dH/dlogits`.
/// * `entropy`: `(B,)` fp32, overwritten with `H` in nats.
/// * `logits`: `(B, N, K)` fp32, a row per view.
///
/// # Errors
/// A buffer of another length; the launch's own: shared memory (`3 N + K` floats) past the device's
/// limit is refused there by name.
pub fn entropy_forward_backward(
    stream: &Stream,
    dlogits: &Tensor<f32>,
    entropy: &Tensor<f32>,
    logits: &Tensor<f32>,
    shape: Shape,
    scale: f32,
) -> Result<()> {
    let Shape { b, n, k } = shape;
    expect_len(
        "entropy_forward_backward",
        &[
            ("logits", logits.len(), b * n * k),
            ("dlogits", dlogits.len(), b * n * k),
            ("entropy", entropy.len(), b),
        ],
    )?;
    let launch = Launch::over([b, 1, 1], 256).shared(4 * (3 * n + k));
    let kernel = stream.kernel("entropy", "entropy_forward_backward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, launch, args![logits, dlogits, entropy, int(n)?, int(k)?, scale]) }
}

/// The definition, in float64: `(dlogits at scale 1, entropy)` of `(B, N, K)` logits.
pub fn entropy_reference(logits: &[f64], Shape { b, n, k }: Shape) -> (Vec<f64>, Vec<f64>) {
    let mut dlogits = vec![0.0; b * n * k];
    let mut entropy = vec![0.0; b];
    for image in 0..b {
        let log_p: Vec<Vec<f64>> = (0..n).map(|i| log_softmax(&logits[(image * n + i) * k..][..k])).collect();
        let log_pbar: Vec<f64> = (0..k)
            .map(|j| log_sum_exp(log_p.iter().map(|row| row[j])) - (n as f64).ln())
            .map(|v| v.max(f32::MIN.into()))
            .collect();
        entropy[image] = -log_pbar.iter().map(|lp| lp.exp() * lp).sum::<f64>();
        for i in 0..n {
            let p: Vec<f64> = log_p[i].iter().map(|z| z.exp()).collect();
            let mean: f64 = p.iter().zip(&log_pbar).map(|(p, lp)| p * lp).sum();
            for j in 0..k {
                dlogits[(image * n + i) * k + j] = -p[j] * (log_pbar[j] - mean) / n as f64;
            }
        }
    }
    (dlogits, entropy)
}

fn log_softmax(x: &[f64]) -> Vec<f64> {
    let lse = log_sum_exp(x.iter().copied());
    x.iter().map(|v| v - lse).collect()
}

fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = x.clone().fold(f64::NEG_INFINITY, f64::max);
    top + x.map(|v| (v - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen, within};
    use crate::device_test;

    /// Real size, odd tails, one view, one class, and logits so peaked that most classes underflow.
    const CASES: [(Shape, f32); 5] = [
        (Shape { b: 3, n: 50, k: 100 }, 4.0),
        (Shape { b: 2, n: 7, k: 1003 }, 1.0),
        (Shape { b: 1, n: 1, k: 10 }, 1.0),
        (Shape { b: 1, n: 5, k: 1 }, 1.0),
        (Shape { b: 2, n: 16, k: 33 }, 300.0),
    ];

    device_test!(kernel_equals_the_definition, |stream| {
        for (shape, spread) in CASES {
            let logits = random(shape.b * shape.n * shape.k, spread, 7);
            let (dlogits, entropy) = (poisoned(&stream, logits.len()), poisoned(&stream, shape.b));
            entropy_forward_backward(&stream, &dlogits, &entropy, &stream.vector(&logits)?, shape, 8.0)?;
            let (want_d, want_h) = entropy_reference(&widen(&logits), shape);
            let want_d: Vec<f64> = want_d.iter().map(|d| 8.0 * d).collect();
            assert_close(&stream.read(&entropy)?, &want_h, Tolerance::FP32);
            // A view that is sure has a gradient far smaller than its terms, and it is as exact.
            assert_close(&stream.read(&dlogits)?, &want_d, within(2e-6));
        }
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        let shape = Shape { b: 1, n: 4, k: 6 };
        let x = widen(&random(24, 2.0, 3));
        finite_difference(&x, |x| entropy_reference(x, shape).1[0], &entropy_reference(&x, shape).0);
    }
}
