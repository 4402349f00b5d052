//! From tokens to unit features, and back, `kernels/feature.cu`: one token's row of each sequence, and L2 normalisation.

use anyhow::{Result, bail, ensure};

use super::width::{expect_aligned, width};
use super::{Element, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// `out[b] = inp[b][row[b]]`, or the class token's row.
///
/// * `out`: `(B, C)` fp32, overwritten. `inp`: `(B, T, C)` fp32. `row`: `(B,)`, each below T.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn token_gather(
    stream: &Stream,
    out: &Tensor<f32>,
    inp: &Tensor<f32>,
    row: Option<&Tensor<i32>>,
) -> Result<()> {
    let [b, t, c] = token_shapes("token_gather", inp, out, row)?;
    let kernel = stream.kernel("feature", "token_gather", &[("WIDTH", width(c, 4) as i64)])?;
    // SAFETY: the shapes are the kernel's, checked above; that rows exist is the caller's word, and where they end up.
    unsafe { kernel.launch(stream, Launch::new(b, 192), args![out, inp, row, int(t)?, int(c)?]) }
}

/// The gradient of [`token_gather`]: `dout` in its rows, and zero elsewhere.
///
/// * `dinp`: `(B, T, C)` fp32, overwritten. `dout`: `(B, C)` fp32.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn token_scatter(
    stream: &Stream,
    dinp: &Tensor<f32>,
    dout: &Tensor<f32>,
    row: Option<&Tensor<i32>>,
) -> Result<()> {
    let [b, t, c] = token_shapes("token_scatter", dinp, dout, row)?;
    let kernel = stream.kernel("feature", "token_scatter", &[("WIDTH", width(c, 4) as i64)])?;
    // SAFETY: the shapes are the kernel's, checked above; rows that do not exist are written nowhere.
    unsafe { kernel.launch(stream, Launch::new(b * t, 192), args![dinp, dout, row, int(t)?, int(c)?]) }
}

fn token_shapes(
    what: &str,
    tokens: &Tensor<f32>,
    rows: &Tensor<f32>,
    row: Option<&Tensor<i32>>,
) -> Result<[usize; 3]> {
    let &[b, t, c] = tokens.shape() else { bail!("{what}: the tokens are {tokens:?}, not (B, T, C)") };
    ensure!(t > 0, "{what}: the tokens are {tokens:?}, none");
    rows.expect(&format!("{what}: the rows"), [b, c])?;
    if let Some(row) = row {
        row.expect(&format!("{what}: row"), [b])?;
    }
    expect_aligned(&format!("{what}: the tokens"), tokens, width(c, 4))?;
    expect_aligned(&format!("{what}: the rows"), rows, width(c, 4))?;
    Ok([b, t, c])
}

/// `norm = |inp|`, `out = inp / norm`, row by row.
///
/// * `out`: `(B, D)`, `norm`: `(B,)` fp32, overwritten. `inp`: `(B, D)` fp32.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn normalize_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    norm: &Tensor<f32>,
    inp: &Tensor<f32>,
) -> Result<()> {
    let &[b, d] = inp.shape() else { bail!("normalize_forward: inp is {inp:?}, not (B, D)") };
    out.expect("normalize_forward: out", [b, d])?;
    norm.expect("normalize_forward: norm", [b])?;
    let w = width(d, 4);
    expect_aligned("normalize_forward: out", out, w)?;
    expect_aligned("normalize_forward: inp", inp, w)?;
    let kernel = stream.kernel("feature", "normalize_forward", &[("WIDTH", w as i64)])?;
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::new(b.div_ceil(4), 128), args![out, norm, inp, int(b)?, int(d)?]) }
}

/// The gradient of [`normalize_forward`].
///
/// * `dinp`: `(B, D)`, overwritten: what the projection's backward products take. `dout`: `(B, D)` fp32.
/// * `out`, `norm`: as the forward pass left them.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn normalize_backward<E: Element>(
    stream: &Stream,
    dinp: &Tensor<E>,
    dout: &Tensor<f32>,
    out: &Tensor<f32>,
    norm: &Tensor<f32>,
) -> Result<()> {
    let &[b, d] = out.shape() else { bail!("normalize_backward: out is {out:?}, not (B, D)") };
    dinp.expect("normalize_backward: dinp", [b, d])?;
    dout.expect("normalize_backward: dout", [b, d])?;
    norm.expect("normalize_backward: norm", [b])?;
    let w = width(d, 4);
    expect_aligned("normalize_backward: dinp", dinp, w)?;
    expect_aligned("normalize_backward: dout", dout, w)?;
    expect_aligned("normalize_backward: out", out, w)?;
    let defines = [E::DEFINES, &[("WIDTH", w as i64)]].concat();
    let kernel = stream.kernel("feature", "normalize_backward", &defines)?;
    let args = args![dinp, dout, out, norm, int(b)?, int(d)?];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::new(b.div_ceil(4), 128), args) }
}

/// The definition of a row's normalisation, in float64: its length, and the unit row.
pub fn normalize_reference(inp: &[f64]) -> (f64, Vec<f64>) {
    let norm = inp.iter().map(|x| x * x).sum::<f64>().sqrt();
    (norm, inp.iter().map(|x| x / norm).collect())
}

/// The gradient of `Σ dout · normalize` over a row, in float64.
pub fn normalize_backward_reference(inp: &[f64], dout: &[f64]) -> Vec<f64> {
    let (norm, out) = normalize_reference(inp);
    let along: f64 = out.iter().zip(dout).map(|(y, dy)| y * dy).sum();
    out.iter().zip(dout).map(|(y, dy)| (dy - y * along) / norm).collect()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen};
    use crate::device_test;

    device_test!(one_token_goes_and_comes_back, |stream| {
        for [b, t, c] in [[12, 50, 768], [3, 5, 33], [1, 1, 1], [2, 77, 512]] {
            let tokens = random(b * t * c, 1.0, 1);
            let rows: Vec<i32> = (0..b).map(|b| (b * 7 % t) as i32).collect();
            let d_rows = stream.vector(&rows)?;
            for row in [None, Some(&d_rows)] {
                let at = |b: usize| row.map_or(0, |_| rows[b] as usize);
                let (out, dinp) = (poisoned(&stream, [b, c]), poisoned(&stream, [b, t, c]));
                token_gather(&stream, &out, &stream.upload([b, t, c], &tokens)?, row)?;
                let want: Vec<f32> =
                    (0..b).flat_map(|b| &tokens[(b * t + at(b)) * c..][..c]).copied().collect();
                assert_eq!(stream.read(&out)?, want);
                token_scatter(&stream, &dinp, &out, row)?;
                let mut back = vec![0.0; b * t * c];
                (0..b).for_each(|b| back[(b * t + at(b)) * c..][..c].copy_from_slice(&want[b * c..][..c]));
                assert_eq!(stream.read(&dinp)?, back);
            }
        }
    });

    fn normalize<E: Element>(stream: &Stream) -> Result<()> {
        for [b, d] in [[459, 512], [5, 33], [1, 1], [3, 768]] {
            let (inp, dout) = (random(b * d, 3.0, 1), random(b * d, 1.0, 2));
            let (out, norm) = (poisoned(stream, [b, d]), poisoned(stream, [b]));
            let dinp = poisoned::<E>(stream, [b, d]);
            normalize_forward(stream, &out, &norm, &stream.upload([b, d], &inp)?)?;
            normalize_backward(stream, &dinp, &stream.upload([b, d], &dout)?, &out, &norm)?;
            let (mut lengths, mut units, mut want) = (Vec::new(), Vec::new(), Vec::new());
            for (x, dy) in inp.chunks(d).zip(dout.chunks(d)) {
                let (length, unit) = normalize_reference(&widen(x));
                lengths.push(length);
                units.extend(unit);
                want.extend(normalize_backward_reference(&widen(x), &widen(dy)));
            }
            assert_close(
                &stream.read(&norm)?,
                &lengths,
                Tolerance { relative: 1e-6, ..Tolerance::absolute(0.0) },
            );
            assert_close(&stream.read(&out)?, &units, Tolerance::FP32);
            let got: Vec<f64> = stream.read(&dinp)?.iter().map(|x| x.widen()).collect();
            // A row of one element has no direction to change: what is left of 1 - 1 · 1 by roundings.
            let unit = if E::NAME == "fp32" { 0.0 } else { 1.0 / 2048.0 };
            let bound = Tolerance { relative: 1e-5 + unit, ..Tolerance::absolute(1e-6 + unit * 1e-4) };
            assert_close(&got, &want, bound);
        }
        Ok(())
    }

    device_test!(normalisation_equals_the_definition, |stream| {
        normalize::<f32>(&stream)?;
        normalize::<f16>(&stream)?;
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        let (x, g) = (widen(&random(6, 2.0, 1)), widen(&random(6, 1.0, 2)));
        let f = |x: &[f64]| normalize_reference(x).1.iter().zip(&g).map(|(y, g)| y * g).sum();
        finite_difference(&x, f, &normalize_backward_reference(&x, &g));
    }
}
