//! Layer norm of a batch of images and its gradient, `kernels/norm.cu`.

use anyhow::{Result, bail, ensure};

use super::segment::segment_finish;
use super::width::{expect_aligned, width};
use super::{Element, Param, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Rows of a partial sum of the gradient, as in the kernel.
const CHUNK: usize = 64;
/// Rows of a CTA forward: enough for its weights to cost little, few enough that the last CTAs are not waited for long.
const ROWS: usize = 16;

/// Threads of a CTA, as in the kernel: 24 columns a lane at most, four warps where a row leaves room for them.
fn norm_threads(c: usize) -> Result<usize> {
    let row_warps = c.div_ceil(24 * 32);
    ensure!(row_warps <= 32, "a layer norm of {c} columns is more than a CTA holds");
    Ok(32 * row_warps * (4 / row_warps).max(1))
}

/// `out = (inp − mean) · rstd · weight + bias`, row by row.
///
/// * `out`: `(rows, C)`, overwritten. `stats`: mean and rstd, `(rows,)` fp32, overwritten.
/// * `inp`: `(rows, C)`. `params`: weight and bias, of C each; where each image has its own, of that many equal groups of rows.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn norm_forward<O: Element>(
    stream: &Stream,
    out: &Tensor<O>,
    stats: [&Tensor<f32>; 2],
    inp: &Tensor<f32>,
    [weight, bias]: &[Param; 2],
    eps: f32,
) -> Result<()> {
    let &[rows, c] = inp.shape() else { bail!("norm_forward: inp is {inp:?}, not (rows, C)") };
    let groups = weight.images().unwrap_or(1);
    ensure!(groups > 0 && rows.is_multiple_of(groups), "norm_forward: {rows} rows in {groups} groups");
    ensure!(
        (weight.images(), weight.step()) == (bias.images(), bias.step()),
        "norm_forward: weight is {weight:?}, bias {bias:?}"
    );
    let w = width(c, 4);
    weight.expect("norm_forward: weight", c, w)?;
    bias.expect("norm_forward: bias", c, w)?;
    out.expect("norm_forward: out", [rows, c])?;
    stats[0].expect("norm_forward: mean", [rows])?;
    stats[1].expect("norm_forward: rstd", [rows])?;
    expect_aligned("norm_forward: out", out, w)?;
    expect_aligned("norm_forward: inp", inp, w)?;
    let of_group = rows / groups;
    let kernel = stream.kernel("norm", "norm_forward", &[O::DEFINES, &[("COLUMNS", c as i64)]].concat())?;
    let launch = Launch::over([of_group.div_ceil(ROWS), groups, 1], norm_threads(c)?);
    let [mean, rstd] = stats;
    let (step, of_group, each) = (int(weight.step())?, int(of_group)?, int(ROWS)?);
    let args = args![out, mean, rstd, inp, weight, bias, step, of_group, each, eps];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, launch, args) }
}

/// Where the gradient of a layer norm goes.
pub struct NormGradient<'a, E> {
    /// `(rows, C)` fp32, overwritten.
    pub dx: &'a Tensor<f32>,
    /// `(rows, C)`, overwritten: `dx` as the next product takes it.
    pub dy: Option<&'a Tensor<E>>,
    /// `(S, 3, C)` fp32, overwritten: an image's gradients of weight and bias, and the sum of its rows of `dx`, which is
    /// the gradient of the bias that was added to the rows before.
    pub sums: &'a Tensor<f32>,
    /// Scratch, [`norm_partial_shape`].
    pub partial: &'a Tensor<f32>,
}

/// The scratch that [`norm_backward`] needs for S images of R rows.
pub fn norm_partial_shape(s: usize, r: usize, c: usize) -> [usize; 3] {
    [s, r.div_ceil(CHUNK), 3 * c]
}

/// The gradients of [`norm_forward`]'s input and parameters, and what `residual` brings.
///
/// * `dout`, `inp`: `(rows, C)`, `dout` fp32 or as `dy` is. `stats`: as the forward pass left them. `weight`: of C, shared or
///   each image's own.
/// * `residual`: `(rows / every, C)` fp32 and `every`: added to each `every`-th row from the first. With 1 it may be `dx`
///   itself; with T it is the gradient of class tokens alone.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn norm_backward<E: Element, O: Element>(
    stream: &Stream,
    NormGradient { dx, dy, sums, partial }: NormGradient<'_, E>,
    dout: &Tensor<O>,
    inp: &Tensor<f32>,
    [mean, rstd]: [&Tensor<f32>; 2],
    weight: &Param,
    residual: Option<(&Tensor<f32>, usize)>,
) -> Result<()> {
    let &[rows, c] = inp.shape() else { bail!("norm_backward: inp is {inp:?}, not (rows, C)") };
    let s = sums.shape()[0];
    ensure!(s > 0 && rows.is_multiple_of(s), "norm_backward: {rows} rows of {s} images");
    ensure!(O::NAME == E::NAME || O::NAME == f32::NAME, "norm_backward: dout is {}, dy {}", O::NAME, E::NAME);
    let w = width(c, 4);
    dx.expect("norm_backward: dx", [rows, c])?;
    dout.expect("norm_backward: dout", [rows, c])?;
    sums.expect("norm_backward: sums", [s, 3, c])?;
    partial.expect("norm_backward: partial", norm_partial_shape(s, rows / s, c))?;
    mean.expect("norm_backward: mean", [rows])?;
    rstd.expect("norm_backward: rstd", [rows])?;
    weight.expect("norm_backward: weight", c, w)?;
    ensure!(weight.images().is_none_or(|n| n == s), "norm_backward: weight is {weight:?}, for {s} images");
    for (what, tensor) in [("dx", dx), ("partial", partial), ("inp", inp)] {
        expect_aligned(&format!("norm_backward: {what}"), tensor, w)?;
    }
    expect_aligned("norm_backward: dout", dout, w)?;
    if let Some(dy) = dy {
        dy.expect("norm_backward: dy", [rows, c])?;
        expect_aligned("norm_backward: dy", dy, w)?;
    }
    if let Some((residual, every)) = residual {
        ensure!(every > 0 && rows.is_multiple_of(every), "norm_backward: every {every} of {rows} rows");
        residual.expect("norm_backward: residual", [rows / every, c])?;
        expect_aligned("norm_backward: residual", residual, w)?;
    }
    let out_float = i64::from(O::NAME == f32::NAME);
    let defines = [E::DEFINES, &[("COLUMNS", c as i64), ("OUT_FLOAT", out_float)]].concat();
    let kernel = stream.kernel("norm", "norm_backward", &defines)?;
    let r = rows / s;
    let launch = Launch::over([r.div_ceil(CHUNK), s, 1], norm_threads(c)?);
    let every = int(residual.map_or(1, |(_, every)| every))?;
    let residual = residual.map(|(residual, _)| residual);
    let step = int(weight.step())?;
    let args = args![dx, dy, partial, dout, inp, mean, rstd, weight, step, residual, every, int(r)?];
    // SAFETY: the shapes are the kernel's, checked above; `residual` may be `dx`, of which a thread reads what it writes.
    unsafe { kernel.launch(stream, launch, args) }?;
    segment_finish(stream, &sums.view([s, 3 * c]), partial)
}

/// The definition of a row, in float64: mean, rstd and output.
pub fn norm_reference(inp: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> (f64, f64, Vec<f64>) {
    let c = inp.len() as f64;
    let mean = inp.iter().sum::<f64>() / c;
    let rstd = 1.0 / (inp.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / c + eps).sqrt();
    let out = (0..inp.len()).map(|i| (inp[i] - mean) * rstd * weight[i] + bias[i]).collect();
    (mean, rstd, out)
}

/// The gradient of `Σ dout · norm` over a row, in float64: of input, weight and bias.
pub fn norm_backward_reference(inp: &[f64], weight: &[f64], dout: &[f64], eps: f64) -> [Vec<f64>; 3] {
    let c = inp.len() as f64;
    let (_, rstd, h) = norm_reference(inp, &vec![1.0; inp.len()], &vec![0.0; inp.len()], eps);
    let g: Vec<f64> = dout.iter().zip(weight).map(|(d, w)| d * w).collect();
    let level = g.iter().sum::<f64>() / c;
    let slope = g.iter().zip(&h).map(|(g, h)| g * h).sum::<f64>() / c;
    let dinp = g.iter().zip(&h).map(|(g, h)| rstd * (g - level - h * slope)).collect();
    [dinp, dout.iter().zip(&h).map(|(d, h)| d * h).collect(), dout.to_vec()]
}

#[cfg(test)]
mod tests;
