//! Class token and unit features, `kernels/head.cu`.

use anyhow::Result;

use super::expect_len;
use crate::args;
use crate::gpu::{Gpu, Launch, Slice};

/// `out[b] = inp[b][row[b]]`: the class token (row 0), or a text's end-of-text token.
///
/// * `out`: `(B, C)` fp32, overwritten. `inp`: `(B, T, C)` fp32. `row`: `(B,)`, each below `T`.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn rows_gather(
    gpu: &Gpu,
    out: &Slice<f32>,
    inp: &Slice<f32>,
    row: &Slice<i32>,
    (b, t, c): (usize, usize, usize),
) -> Result<()> {
    expect_len(
        "rows_gather",
        &[("out", out.len(), b * c), ("inp", inp.len(), b * t * c), ("row", row.len(), b)],
    )?;
    gpu.launch("head", "rows_gather", Launch::new(b, 128), args![out, inp, row, t as i32, c as i32])
}

/// The gradient of [`rows_gather`]: `dinp` `(B, T, C)` overwritten, zero but in the chosen rows.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn rows_scatter(
    gpu: &Gpu,
    dinp: &Slice<f32>,
    dout: &Slice<f32>,
    row: &Slice<i32>,
    (b, t, c): (usize, usize, usize),
) -> Result<()> {
    let lens = [("dinp", dinp.len(), b * t * c), ("dout", dout.len(), b * c), ("row", row.len(), b)];
    expect_len("rows_scatter", &lens)?;
    gpu.launch("head", "rows_scatter", Launch::new(b * t, 128), args![dinp, dout, row, t as i32, c as i32])
}

/// `out = inp / |inp|` and `norm = |inp|`, row by row.
///
/// * `out`, `inp`: `(B, D)` fp32. `norm`: `(B,)` fp32. Outputs overwritten.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn normalize_forward(
    gpu: &Gpu,
    out: &Slice<f32>,
    norm: &Slice<f32>,
    inp: &Slice<f32>,
    (b, d): (usize, usize),
) -> Result<()> {
    let lens = [("out", out.len(), b * d), ("inp", inp.len(), b * d), ("norm", norm.len(), b)];
    expect_len("normalize_forward", &lens)?;
    gpu.launch("head", "normalize_forward", Launch::new(b, 128), args![out, norm, inp, d as i32])
}

/// `dinp = (dout − out · <out, dout>) / norm`, with `out` and `norm` as the forward pass left them.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn normalize_backward(
    gpu: &Gpu,
    dinp: &Slice<f32>,
    dout: &Slice<f32>,
    out: &Slice<f32>,
    norm: &Slice<f32>,
    (b, d): (usize, usize),
) -> Result<()> {
    let lens = [
        ("dinp", dinp.len(), b * d),
        ("dout", dout.len(), b * d),
        ("out", out.len(), b * d),
        ("norm", norm.len(), b),
    ];
    expect_len("normalize_backward", &lens)?;
    gpu.launch("head", "normalize_backward", Launch::new(b, 128), args![dinp, dout, out, norm, d as i32])
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

    device_test!(rows_go_out_and_come_back, |gpu| {
        for (b, t, c) in [(3, 50, 768), (2, 7, 33), (1, 1, 1)] {
            let inp: Vec<f32> = (0..b * t * c).map(|i| i as f32).collect();
            let row: Vec<i32> = (0..b).map(|i| ((i * 5 + t - 1) % t) as i32).collect();
            let d_row = gpu.upload(&row)?;
            let out = poisoned(&gpu, b * c);
            rows_gather(&gpu, &out, &gpu.upload(&inp)?, &d_row, (b, t, c))?;
            let dinp = poisoned(&gpu, b * t * c);
            rows_scatter(&gpu, &dinp, &out, &d_row, (b, t, c))?;
            let (out, dinp) = (gpu.read(&out)?, gpu.read(&dinp)?);
            for i in 0..b * t * c {
                let (b, t, c_) = (i / (t * c), i / c % t, i % c);
                let chosen = t as i32 == row[b];
                assert_eq!(dinp[i], if chosen { inp[i] } else { 0.0 });
                assert!(!chosen || out[b * c + c_] == inp[i]);
            }
        }
    });

    device_test!(normalize_equals_the_definition, |gpu| {
        for (b, d) in [(51, 512), (3, 33), (2, 1)] {
            let (inp, dout) = (random(b * d, 3.0, 1), random(b * d, 1.0, 2));
            let (out, norm, dinp) = (poisoned(&gpu, b * d), poisoned(&gpu, b), poisoned(&gpu, b * d));
            normalize_forward(&gpu, &out, &norm, &gpu.upload(&inp)?, (b, d))?;
            normalize_backward(&gpu, &dinp, &gpu.upload(&dout)?, &out, &norm, (b, d))?;
            let (want_out, want_dinp) = normalize_reference(&widen(&inp), &widen(&dout), d);
            assert_close(&gpu.read(&out)?, &want_out, Tolerance::FP32);
            if d > 1 {
                assert_close(&gpu.read(&dinp)?, &want_dinp, Tolerance::FP32);
            } else {
                assert!(gpu.read(&dinp)?.iter().all(|v| v.abs() < 1e-6)); // the truth is exactly 0
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
