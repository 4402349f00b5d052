//! Which views are confident, and what each predicts: `kernels/select.cu`.

use anyhow::{Result, bail, ensure};

use super::int;
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Chooses, of each image's views, the `m` whose predictions have the smallest entropies, of equals the first, as TPT does
/// (arXiv 2209.07511).
///
/// * `weights`: `(B, N)` fp32, overwritten: 1 for those that are chosen, else 0.
/// * `entropies`: `(B, N)` fp32, overwritten: each view's, in nats.
/// * `choices`: `(B, N)`, overwritten: each view's class with the largest logit, of equals the first.
/// * `logits`: `(B, N, K)` fp32. Of a view whose logits are not all finite nothing is right, and it is among the chosen.
///
/// # Errors
/// Tensors of other shapes; none or more than all to be chosen; an image's views times classes past 32 bits; the launch's own.
pub fn select_confident(
    stream: &Stream,
    weights: &Tensor<f32>,
    entropies: &Tensor<f32>,
    choices: Option<&Tensor<i32>>,
    logits: &Tensor<f32>,
    m: usize,
) -> Result<()> {
    let &[b, n, k] = logits.shape() else { bail!("select_confident: logits is {logits:?}, not (B, N, K)") };
    weights.expect("select_confident: weights", [b, n])?;
    entropies.expect("select_confident: entropies", [b, n])?;
    if let Some(choices) = choices {
        choices.expect("select_confident: choices", [b, n])?;
    }
    ensure!((1..=n).contains(&m), "select_confident: {m} of {n} views");
    ensure!(
        n * k <= i32::MAX as usize,
        "select_confident: {n} views times {k} classes are more than a kernel's 32-bit sizes hold"
    );
    let kernel = stream.kernel("select", "select_confident", &[])?;
    let args = args![logits, weights, entropies, choices, int(n)?, int(k)?, int(m)?];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::over([b, 1, 1], 256), args) }
}

/// The definition of one image's, in float64: entropies, choices, and whether each view is chosen.
pub fn select_reference(logits: &[f64], k: usize, m: usize) -> (Vec<f64>, Vec<usize>, Vec<bool>) {
    let choice = |x: &[f64]| (0..k).rev().max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap_or(0);
    let entropy = |x: &[f64]| {
        let surest = choice(x);
        let below = |j: usize| x[surest] - x[j];
        let others: f64 = (0..k).filter(|&j| j != surest).map(|j| (-below(j)).exp()).sum();
        others.ln_1p() + (0..k).map(|j| (-below(j)).exp() * below(j)).sum::<f64>() / (1.0 + others)
    };
    let entropies: Vec<f64> = logits.chunks(k).map(entropy).collect();
    let mut order: Vec<usize> = (0..entropies.len()).collect();
    order.sort_by(|&a, &b| entropies[a].total_cmp(&entropies[b])); // stable
    let mut chosen = vec![false; order.len()];
    order[..m].iter().for_each(|&i| chosen[i] = true);
    (entropies, logits.chunks(k).map(choice).collect(), chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random, widen};
    use crate::device_test;

    type Selected = (Vec<f32>, Vec<i32>, Vec<f32>);

    /// Entropies, choices, weights.
    fn run(stream: &Stream, shape: [usize; 3], logits: &[f32], m: usize) -> Result<Selected> {
        let [b, n, _] = shape;
        let (weights, entropies) = (poisoned(stream, [b, n]), poisoned(stream, [b, n]));
        let choices = stream.upload([b, n], &vec![-1; b * n])?;
        let logits = stream.upload(shape, logits)?;
        select_confident(stream, &weights, &entropies, Some(&choices), &logits, m)?;
        let chosen = stream.read(&weights)?;
        select_confident(stream, &weights, &entropies, None, &logits, m)?;
        assert_eq!(stream.read(&weights)?, chosen);
        Ok((stream.read(&entropies)?, stream.read(&choices)?, chosen))
    }

    device_test!(the_kernel_chooses_as_the_definition_does, |stream| {
        for ([b, n, k], spread, m) in [
            ([3, 50, 100], 4.0, 5),
            ([2, 1, 10], 4.0, 1),
            ([2, 2, 33], 4.0, 1),
            ([1, 2048, 20], 4.0, 204),
            ([2, 301, 7], 2.0, 301),
            ([2, 7, 1003], 8.0, 3),
            ([1, 5, 1], 1.0, 2),
            // Nearly all are all but sure of their classes.
            ([1, 60, 10], 40.0, 6),
        ] {
            let logits = random(b * n * k, spread, (n + k) as u64);
            let (entropies, choices, weights) = run(&stream, [b, n, k], &logits, m)?;
            for image in 0..b {
                let of_image = |i: usize| image * n + i;
                let rows = widen(&logits[of_image(0) * k..][..n * k]);
                let (want_h, want_c, want_w) = select_reference(&rows, k, m);
                let small = Tolerance { relative: 1e-5, ..Tolerance::absolute(1e-30) };
                assert_close(&entropies[of_image(0)..][..n], &want_h, small);
                for i in 0..n {
                    let at = format!("view {i} of {n}, image {image}, {k} classes");
                    assert_eq!(choices[of_image(i)] as usize, want_c[i], "{at}");
                    assert_eq!(weights[of_image(i)], f32::from(u8::from(want_w[i])), "{at}");
                }
            }
        }
    });

    device_test!(of_equals_the_first_are_chosen, |stream| {
        // Views 1, 3 and 4 are the same but for their classes; 0 is less sure, 2 more.
        let view = |high: f32, at: usize| (0..4).map(move |j| if j == at { high } else { 0.0 });
        let all = [view(1.0, 0), view(3.0, 2), view(9.0, 1), view(3.0, 3), view(3.0, 0)];
        let logits: Vec<f32> = all.into_iter().flatten().collect();
        for (m, want) in [(1, [0, 0, 1, 0, 0]), (2, [0, 1, 1, 0, 0]), (3, [0, 1, 1, 1, 0]), (5, [1; 5])] {
            let (_, choices, weights) = run(&stream, [1, 5, 4], &logits, m)?;
            assert_eq!(choices, [0, 2, 1, 3, 0]);
            assert_eq!(weights, want.map(|one| one as f32), "{m} of 5");
        }
        // Of equal logits the first, in whichever lane it is.
        let mut logits = vec![0.0; 2 * 70];
        for at in [33, 64, 40] {
            logits[at] = 1.0;
        }
        logits[70 + 69] = 2.0;
        logits[70 + 5] = 2.0;
        assert_eq!(run(&stream, [1, 2, 70], &logits, 1)?.1, [33, 5]);
    });

    device_test!(a_view_of_no_numbers_is_seen, |stream| {
        let mut logits = random(6 * 9, 3.0, 4);
        logits[4 * 9 + 3] = f32::NAN;
        logits[5 * 9] = f32::INFINITY;
        let (_, _, weights) = run(&stream, [1, 6, 9], &logits, 1)?;
        assert_eq!(weights[4..], [1.0, 1.0]);
    });

    device_test!(other_shapes_are_refused_by_name, |stream| {
        let (logits, flat) = (stream.zeros::<f32>([2, 3, 4])?, stream.zeros::<f32>([6])?);
        let (rows, choices) = (stream.zeros::<f32>([2, 3])?, stream.zeros::<i32>([3, 2])?);
        let refuse = |weights, entropies, choices, logits, m| {
            select_confident(&stream, weights, entropies, choices, logits, m)
                .expect_err("refused")
                .to_string()
        };
        assert!(refuse(&rows, &rows, None, &flat, 1).contains("not (B, N, K)"));
        assert!(refuse(&flat, &rows, None, &logits, 1).contains("weights is (6), not (2, 3)"));
        assert!(refuse(&rows, &flat, None, &logits, 1).contains("entropies is (6), not (2, 3)"));
        assert!(refuse(&rows, &rows, Some(&choices), &logits, 1).contains("choices is (3, 2), not (2, 3)"));
        assert!(refuse(&rows, &rows, None, &logits, 0).contains("0 of 3 views"));
        assert!(refuse(&rows, &rows, None, &logits, 4).contains("4 of 3 views"));
    });
}
