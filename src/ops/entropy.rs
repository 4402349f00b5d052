//! Marginal entropy over an image's views: the MEMO loss and its gradient, `kernels/entropy.cu`.

use anyhow::{Result, bail, ensure};

use super::int;
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Shared memory that every GPU has without being asked, and room for what else a CTA keeps there.
const MOST_SHARED_BYTES: usize = 32 << 10;

/// Floats of scratch that [`entropy_forward_backward`] needs: none up to some 2000 views or 4000 classes.
pub fn entropy_scratch_len([b, n, k]: [usize; 3]) -> usize {
    match shared_bytes(n, k) {
        0..=MOST_SHARED_BYTES => 0,
        _ => b * (4 * n + 2 * k),
    }
}

fn shared_bytes(n: usize, k: usize) -> usize {
    size_of::<f32>() * (4 * n + 2 * k)
}

/// Loss and gradient for B images at once (MEMO, arXiv 2110.09506, equation 3), and the average that it is of.
///
/// * `dlogits`: `(B, N, K)` fp32, overwritten with `scale · dH/dlogits`.
/// * `entropy`: `(B,)` fp32, overwritten with `H` in nats.
/// * `average`: `(B, K)` fp32, overwritten with the logarithm of the average prediction.
/// * `logits`: `(B, N, K)` fp32, a row per view.
/// * `weights`: `(B, N)` fp32, of the views in the average: 0 for those that have no part in it, never less, and more for
///   some view of each image. All count alike without them. The numbers are not checked: an image without any weight, or
///   with a view whose logits have no softmax, has NaN for its entropy and gradient.
/// * `scratch`: [`entropy_scratch_len`] floats or more.
///
/// # Errors
/// Tensors of other shapes; an image's views times classes past 32 bits; the launch's own.
#[allow(clippy::too_many_arguments)] // the kernel's operands
pub fn entropy_forward_backward(
    stream: &Stream,
    dlogits: &Tensor<f32>,
    entropy: &Tensor<f32>,
    average: Option<&Tensor<f32>>,
    logits: &Tensor<f32>,
    weights: Option<&Tensor<f32>>,
    scale: f32,
    scratch: &Tensor<f32>,
) -> Result<()> {
    let &[b, n, k] = logits.shape() else {
        bail!("entropy_forward_backward: logits is {logits:?}, not (B, N, K)")
    };
    dlogits.expect("entropy_forward_backward: dlogits", [b, n, k])?;
    entropy.expect("entropy_forward_backward: entropy", [b])?;
    if let Some(average) = average {
        average.expect("entropy_forward_backward: average", [b, k])?;
    }
    if let Some(weights) = weights {
        weights.expect("entropy_forward_backward: weights", [b, n])?;
    }
    let scratch_len = entropy_scratch_len([b, n, k]);
    ensure!(scratch.len() >= scratch_len, "entropy_forward_backward: scratch is too short");
    ensure!(
        n * k <= i32::MAX as usize,
        "entropy_forward_backward: {n} views times {k} classes are more than a kernel's 32-bit sizes hold"
    );
    let (launch, defines, scratch) = match scratch_len {
        0 => (Launch::over([b, 1, 1], 256).shared(shared_bytes(n, k)), &[][..], None),
        _ => (Launch::over([b, 1, 1], 256), &[("SCRATCH", 1)][..], Some(scratch)),
    };
    let kernel = stream.kernel("entropy", "entropy_forward_backward", defines)?;
    let args = args![logits, weights, dlogits, entropy, average, scratch, int(n)?, int(k)?, scale];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, launch, args) }
}

/// The definition, in float64: `(dlogits at scale 1, entropy, average)` of `(B, N, K)` logits and `(B, N)` weights.
pub fn entropy_reference(
    logits: &[f64],
    weights: &[f64],
    [b, n, k]: [usize; 3],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut dlogits, mut average) = (vec![0.0; b * n * k], Vec::with_capacity(b * k));
    let mut entropy = vec![0.0; b];
    for image in 0..b {
        let weights = &weights[image * n..][..n];
        let total: f64 = weights.iter().sum();
        let log_p: Vec<Vec<f64>> = (0..n).map(|i| log_softmax(&logits[(image * n + i) * k..][..k])).collect();
        let log_pbar: Vec<f64> = (0..k)
            .map(|j| log_mean_exp(log_p.iter().map(|row| row[j]).zip(weights.iter().copied())))
            .map(|v| if v < f32::MIN.into() { f32::MIN.into() } else { v })
            .collect();
        entropy[image] = -log_pbar.iter().map(|lp| lp.exp() * lp).sum::<f64>();
        average.extend(&log_pbar);
        for i in 0..n {
            let p: Vec<f64> = log_p[i].iter().map(|z| z.exp()).collect();
            let mean: f64 = p.iter().zip(&log_pbar).map(|(p, lp)| p * lp).sum();
            for j in 0..k {
                dlogits[(image * n + i) * k + j] = -p[j] * (log_pbar[j] - mean) * weights[i] / total;
            }
        }
    }
    (dlogits, entropy, average)
}

fn log_softmax(x: &[f64]) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = x.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
    x.iter().map(|v| v - top - log_sum).collect()
}

/// `ln(Σ w exp(z) / Σ w)` of pairs of z and w. The largest z with a weight is taken off first: what is left never underflows.
fn log_mean_exp(x: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let weighed = x.filter(|&(_, w)| w > 0.0);
    let top = weighed.clone().fold(f64::NEG_INFINITY, |top, (z, _)| top.max(z));
    let total: f64 = weighed.clone().map(|(_, w)| w).sum();
    top + (weighed.map(|(z, w)| w * (z - top).exp()).sum::<f64>() / total).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen, within};
    use crate::device_test;

    /// Real sizes, odd tails, one view, one class, logits so peaked that most classes underflow, more classes than shared memory has
    /// room for.
    const CASES: [([usize; 3], f32); 11] = [
        ([9, 50, 100], 4.0),
        ([3, 50, 1000], 4.0),
        ([2, 7, 1003], 1.0),
        ([1, 1, 10], 1.0),
        ([1, 5, 1], 1.0),
        ([2, 16, 33], 300.0),
        ([3, 5, 8173], 4.0),
        // Averages are the nearer to each other the more views there are, and as exact.
        ([1, 2, 33], 1.0),
        ([1, 64, 1003], 1.0),
        ([1, 2048, 20], 1.0),
        ([1, 2048, 101], 1.0),
    ];

    /// Gradient at scale 8, entropy and average.
    fn run(
        stream: &Stream,
        [b, n, k]: [usize; 3],
        logits: &[f32],
        weights: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>)> {
        let (dlogits, entropy) = (poisoned(stream, [b, n, k]), poisoned(stream, [b]));
        let average = poisoned(stream, [b, k]);
        let logits = stream.upload([b, n, k], logits)?;
        let weights = weights.map(|weights| stream.upload([b, n], weights)).transpose()?;
        let scratch = poisoned(stream, entropy_scratch_len([b, n, k]));
        let (average, weights) = (Some(&average), weights.as_ref());
        entropy_forward_backward(stream, &dlogits, &entropy, average, &logits, weights, 8.0, &scratch)?;
        let average = stream.read(average.expect("as above"))?;
        // Without it all else is the same.
        let all = (stream.read(&dlogits)?, stream.read(&entropy)?);
        entropy_forward_backward(stream, &dlogits, &entropy, None, &logits, weights, 8.0, &scratch)?;
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let [dlogits, entropy] = [stream.read(&dlogits)?, stream.read(&entropy)?];
        assert_eq!((bits(&all.0), bits(&all.1)), (bits(&dlogits), bits(&entropy)));
        Ok((all.0, all.1, average))
    }

    device_test!(kernel_equals_the_definition, |stream| {
        for (shape, spread) in CASES {
            let [b, n, k] = shape;
            let logits = random(b * n * k, spread, 7);
            // All views, the half that is selected (of one the one), and any weights.
            let ones = vec![1.0; b * n];
            let half: Vec<f32> = (0..b * n).map(|i| f32::from(u8::from(i % n * 7 % 4 < 2))).collect();
            let any: Vec<f32> = random(b * n, 1.0, 8).iter().map(|w| w.abs() + 0.01).collect();
            for weights in [None, Some(ones), Some(half), Some(any)] {
                let (dlogits, entropy, average) = run(&stream, shape, &logits, weights.as_deref())?;
                let wide = weights.as_ref().map_or(vec![1.0; b * n], |weights| widen(weights));
                let (want_d, want_h, want_a) = entropy_reference(&widen(&logits), &wide, shape);
                let want_d: Vec<f64> = want_d.iter().map(|d| 8.0 * d).collect();
                assert_close(&entropy, &want_h, Tolerance::FP32);
                assert_close(&average, &want_a, Tolerance { relative: 1e-6, ..Tolerance::absolute(1e-6) });
                // A view that is sure has a gradient far smaller than its terms, and it is as exact.
                assert_close(&dlogits, &want_d, within(2e-6));
                // The last image by itself has the same bits.
                let last = weights.as_ref().map(|weights| &weights[(b - 1) * n..]);
                let (alone_d, alone_h, alone_a) = run(&stream, [1, n, k], &logits[(b - 1) * n * k..], last)?;
                assert_eq!((&alone_d[..], alone_h[0]), (&dlogits[(b - 1) * n * k..], entropy[b - 1]));
                assert_eq!(alone_a, average[(b - 1) * k..]);
            }
        }
    });

    device_test!(what_is_no_number_is_none_for_its_image_alone, |stream| {
        let (shape, [n, k]) = ([3, 5, 33], [5, 33]);
        let plain = random(3 * n * k, 4.0, 9);
        let (want_d, want_h, want_a) = run(&stream, shape, &plain, None)?;
        for bad in [f32::NAN, f32::INFINITY] {
            let mut logits = plain.clone();
            logits[n * k + 2 * k + 7] = bad;
            let (dlogits, entropy, average) = run(&stream, shape, &logits, None)?;
            assert!(entropy[1].is_nan() && average[k..2 * k].iter().all(|x| x.is_nan()), "{bad}");
            assert!(dlogits[n * k..2 * n * k].iter().all(|x| x.is_nan()), "{bad}");
            assert!(entropy_reference(&widen(&logits), &[1.0; 15], shape).1[1].is_nan());
            for image in [0, 2] {
                let of = image * n * k..(image + 1) * n * k;
                assert_eq!((entropy[image], &dlogits[of.clone()]), (want_h[image], &want_d[of]));
                assert_eq!(average[image * k..(image + 1) * k], want_a[image * k..(image + 1) * k]);
            }
        }
    });

    device_test!(views_without_weight_might_as_well_not_be_there, |stream| {
        let (k, chosen) = (20, [1, 4, 5]);
        // The second number is past what shared memory has room for.
        for (n, needs_scratch) in [(8, false), (2048, true)] {
            assert_eq!(entropy_scratch_len([1, n, k]) > 0, needs_scratch);
            // The others are sure of classes that no chosen one thinks of: their part would be the largest.
            let mut logits = random(n * k, 2.0, 5);
            for i in (0..n).filter(|i| !chosen.contains(i)) {
                logits[i * k + i % k] = 500.0;
            }
            let weights: Vec<f32> = (0..n).map(|i| f32::from(u8::from(chosen.contains(&i)))).collect();
            let only: Vec<f32> = chosen.iter().flat_map(|i| logits[i * k..][..k].to_vec()).collect();
            let (all_d, all_h, all_a) = run(&stream, [1, n, k], &logits, Some(&weights))?;
            let (only_d, only_h, only_a) = run(&stream, [1, chosen.len(), k], &only, None)?;
            assert_eq!((all_h, all_a), (only_h, only_a));
            for i in 0..n {
                let want = match chosen.iter().position(|&at| at == i) {
                    Some(at) => &only_d[at * k..][..k],
                    None => &vec![0.0; k][..],
                };
                assert_eq!(&all_d[i * k..][..k], want, "view {i} of {n}");
            }
        }
    });

    device_test!(other_shapes_are_refused_by_name, |stream| {
        let [logits, flat] = [stream.zeros::<f32>([2, 3, 4])?, stream.zeros::<f32>([6, 4])?];
        let (entropy, weights) = (stream.zeros::<f32>([2])?, stream.zeros::<f32>([3, 2])?);
        let refuse = |dlogits: &Tensor<f32>, logits: &Tensor<f32>, weights: Option<&Tensor<f32>>| {
            let scratch = &flat;
            let done =
                entropy_forward_backward(&stream, dlogits, &entropy, None, logits, weights, 1.0, scratch);
            done.expect_err("refused").to_string()
        };
        assert!(refuse(&logits, &flat, None).contains("not (B, N, K)"));
        assert!(refuse(&flat, &logits, None).contains("dlogits is (6, 4), not (2, 3, 4)"));
        assert!(refuse(&logits, &logits, Some(&weights)).contains("weights is (3, 2), not (2, 3)"));
        // Of a rehearsal, as no device has so much.
        let vast = stream.gpu().rehearse(|stream| {
            let (logits, entropy) = (stream.alloc([1, 60_000, 40_000])?, stream.alloc(1)?);
            let scratch = stream.alloc(entropy_scratch_len([1, 60_000, 40_000]))?;
            entropy_forward_backward(stream, &logits, &entropy, None, &logits, None, 1.0, &scratch)
        });
        assert!(vast.expect_err("refused").to_string().contains("60000 views times 40000 classes"));
        let many = stream.zeros::<f32>([2, 3, 10_000])?;
        assert!(refuse(&many, &many, None).contains("scratch is too short"));
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        let shape = [1, 4, 6];
        let x = widen(&random(24, 2.0, 3));
        for weights in [[1.0; 4], [0.5, 0.0, 1.0, 2.0]] {
            let gradient = entropy_reference(&x, &weights, shape).0;
            finite_difference(&x, |x| entropy_reference(x, &weights, shape).1[0], &gradient);
        }
    }

    #[test]
    fn the_definition_is_right_where_logits_are_far_apart() {
        // Of two classes a view is sure of the one, by so much that the other's probability is no number.
        let sure = entropy_reference(&[2000.0, 0.0, 2000.0, 0.0], &[1.0, 3.0], [1, 2, 2]);
        assert_eq!(sure, (vec![0.0; 4], vec![0.0], vec![0.0, -2000.0]));
        // Two that are sure of different ones: H is that of their weights.
        let split = entropy_reference(&[2000.0, 0.0, 0.0, 2000.0], &[1.0, 3.0], [1, 2, 2]).1[0];
        assert!((split - (0.25 * 4f64.ln() + 0.75 * (4f64 / 3.0).ln())).abs() < 1e-15);
        // One class is no question, whatever the weights.
        assert_eq!(
            entropy_reference(&[5.0, -3.0, 7.0], &[0.1, 0.2, 0.7], [1, 3, 1]),
            (vec![0.0; 3], vec![0.0], vec![0.0])
        );
    }
}
