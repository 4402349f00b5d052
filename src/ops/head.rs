//! Class token and unit features, `kernels/head.cu`.

use anyhow::Result;

use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// `out[b] = inp[b][row[b]]`: the class token (row 0), or a text's end-of-text token.
///
/// * `out`: `(B, C)` fp32, overwritten. `inp`: `(B, T, C)` fp32. `row`: `(B,)`, each below `T`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn rows_gather(
    stream: &Stream,
    out: &Tensor<f32>,
    inp: &Tensor<f32>,
    row: &Tensor<i32>,
    (b, t, c): (usize, usize, usize),
) -> Result<()> {
    expect_len(
        "rows_gather",
        &[("out", out.len(), b * c), ("inp", inp.len(), b * t * c), ("row", row.len(), b)],
    )?;
    let kernel = stream.kernel("head", "rows_gather", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(b, 128), args![out, inp, row, int(t)?, int(c)?]) }
}

/// The gradient of [`rows_gather`]: `dinp` `(B, T, C)` overwritten, zero but in the chosen rows.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn rows_scatter(
    stream: &Stream,
    dinp: &Tensor<f32>,
    dout: &Tensor<f32>,
    row: &Tensor<i32>,
    (b, t, c): (usize, usize, usize),
) -> Result<()> {
    let lens = [("dinp", dinp.len(), b * t * c), ("dout", dout.len(), b * c), ("row", row.len(), b)];
    expect_len("rows_scatter", &lens)?;
    let kernel = stream.kernel("head", "rows_scatter", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(b * t, 128), args![dinp, dout, row, int(t)?, int(c)?]) }
}

/// `out = inp / |inp|` and `norm = |inp|`, row by row.
///
/// * `out`, `inp`: `(B, D)` fp32. `norm`: `(B,)` fp32. Outputs overwritten.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn normalize_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    norm: &Tensor<f32>,
    inp: &Tensor<f32>,
    (b, d): (usize, usize),
) -> Result<()> {
    let lens = [("out", out.len(), b * d), ("inp", inp.len(), b * d), ("norm", norm.len(), b)];
    expect_len("normalize_forward", &lens)?;
    let kernel = stream.kernel("head", "normalize_forward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(b, 128), args![out, norm, inp, int(d)?]) }
}

/// `dinp = (dout − out · <out, dout>) / norm`, with `out` and `norm` as the forward pass left them.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn normalize_backward(
    stream: &Stream,
    dinp: &Tensor<f32>,
    dout: &Tensor<f32>,
    out: &Tensor<f32>,
    norm: &Tensor<f32>,
    (b, d): (usize, usize),
) -> Result<()> {
    let lens = [
        ("dinp", dinp.len(), b * d),
        ("dout", dout.len(), b * d),
        ("out", out.len(), b * d),
        ("norm", norm.len(), b),
    ];
    expect_len("normalize_backward", &lens)?;
    let kernel = stream.kernel("head", "normalize_backward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(b, 128), args![dinp, dout, out, norm, int(d)?]) }
}

/// The definition of both, in float64: `(out, dinp)` of `(B, D)` rows.
pub fn normalize_reference(inp: &[f64], dout: &[f64], d: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut dinp) = (Vec::new(), Vec::new());
    for (x, dy) in inp.chunks(d).zip(dout.chunks(d)) {
        let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
        let along: f64 = x.iter().zip(dy).map(|(x, dy)| x / norm * dy).sum();
        out.extend(x.iter().map(|v| v / norm));
        dinp.extend(x.iter().zip(dy).map(|(x, dy)| (dy - x / norm * along) / norm));
    }
    (out, dinp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen};
    use crate::device_test;

    device_test!(rows_go_out_and_come_back, |stream| {
        for (b, t, c) in [(3, 50, 768), (2, 7, 33), (1, 1, 1)] {
            let inp: Vec<f32> = (0..b * t * c).map(|i| i as f32).collect();
            let row: Vec<i32> = (0..b).map(|i| ((i * 5 + t - 1) % t) as i32).collect();
            let d_row = stream.vector(&row)?;
            let out = poisoned(&stream, b * c);
            rows_gather(&stream, &out, &stream.vector(&inp)?, &d_row, (b, t, c))?;
            let dinp = poisoned(&stream, b * t * c);
            rows_scatter(&stream, &dinp, &out, &d_row, (b, t, c))?;
            let (out, dinp) = (stream.read(&out)?, stream.read(&dinp)?);
            for i in 0..b * t * c {
                let (b, t, c_) = (i / (t * c), i / c % t, i % c);
                let chosen = t as i32 == row[b];
                assert_eq!(dinp[i], if chosen { inp[i] } else { 0.0 });
                assert!(!chosen || out[b * c + c_] == inp[i]);
            }
        }
    });

    device_test!(normalize_equals_the_definition, |stream| {
        for (b, d) in [(51, 512), (3, 33), (2, 1)] {
            let (inp, dout) = (random(b * d, 3.0, 1), random(b * d, 1.0, 2));
            let (out, norm, dinp) =
                (poisoned(&stream, b * d), poisoned(&stream, b), poisoned(&stream, b * d));
            normalize_forward(&stream, &out, &norm, &stream.vector(&inp)?, (b, d))?;
            normalize_backward(&stream, &dinp, &stream.vector(&dout)?, &out, &norm, (b, d))?;
            let (want_out, want_dinp) = normalize_reference(&widen(&inp), &widen(&dout), d);
            assert_close(&stream.read(&out)?, &want_out, Tolerance::FP32);
            if d > 1 {
                assert_close(&stream.read(&dinp)?, &want_dinp, Tolerance::FP32);
            } else {
                assert!(stream.read(&dinp)?.iter().all(|v| v.abs() < 1e-6)); // the truth is exactly 0
            }
        }
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        let (inp, weight) = (widen(&random(10, 1.0, 5)), widen(&random(10, 1.0, 6)));
        let loss = |x: &[f64]| -> f64 {
            normalize_reference(x, &weight, 5).0.iter().zip(&weight).map(|(y, w)| y * w).sum()
        };
        finite_difference(&inp, loss, &normalize_reference(&inp, &weight, 5).1);
    }
}
