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
pub struct NormGradient<'a, D, E> {
    /// `(rows, C)`, overwritten.
    pub dx: &'a Tensor<D>,
    /// `(rows, C)`, overwritten: what `dx` has no digits for, over [`Element::SECOND_TERM`].
    pub low: Option<&'a Tensor<E>>,
    /// `(S, 3, C)` fp32, overwritten: an image's gradients of weight and bias, and the sum of its rows of `dx`, which is
    /// the gradient of the bias that was added to the rows before.
    pub sums: &'a Tensor<f32>,
    /// Scratch, [`norm_partial_shape`].
    pub partial: &'a Tensor<f32>,
}

/// What a gradient adds that goes around the norm.
pub struct Residual<'a, E> {
    /// `(rows / every, C)`
    pub dx: &'a Tensor<E>,
    /// Likewise, as [`NormGradient::low`], which it may be where `every` is 1.
    pub low: Option<&'a Tensor<E>>,
    /// It is that of each `every`-th row from the first: of all, or with T of class tokens alone.
    pub every: usize,
}

/// The scratch that [`norm_backward`] needs for S images of R rows.
pub fn norm_partial_shape(s: usize, r: usize, c: usize) -> [usize; 3] {
    [s, r.div_ceil(CHUNK), 3 * c]
}

/// The gradients of [`norm_forward`]'s input and parameters, and what `residual` brings.
///
/// * `dout`, `inp`: `(rows, C)`. `stats`: as the forward pass left them. `weight`: of C, shared or each image's own.
/// * `to.dx`: as `dout` is, or fp32, and then it may be `dout`.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn norm_backward<D: Element, E: Element>(
    stream: &Stream,
    NormGradient { dx, low, sums, partial }: NormGradient<'_, D, E>,
    dout: &Tensor<E>,
    inp: &Tensor<f32>,
    [mean, rstd]: [&Tensor<f32>; 2],
    weight: &Param,
    residual: Option<Residual<'_, E>>,
) -> Result<()> {
    let &[rows, c] = inp.shape() else { bail!("norm_backward: inp is {inp:?}, not (rows, C)") };
    let s = sums.shape()[0];
    ensure!(s > 0 && rows.is_multiple_of(s), "norm_backward: {rows} rows of {s} images");
    ensure!(D::NAME == E::NAME || D::NAME == f32::NAME, "norm_backward: dout is {}, dx {}", E::NAME, D::NAME);
    ensure!(low.is_none() || D::NAME == E::NAME, "norm_backward: dx is {}, and has no lower digits", D::NAME);
    let w = width(c, 4);
    sums.expect("norm_backward: sums", [s, 3, c])?;
    partial.expect("norm_backward: partial", norm_partial_shape(s, rows / s, c))?;
    mean.expect("norm_backward: mean", [rows])?;
    rstd.expect("norm_backward: rstd", [rows])?;
    weight.expect("norm_backward: weight", c, w)?;
    ensure!(weight.images().is_none_or(|n| n == s), "norm_backward: weight is {weight:?}, for {s} images");
    expect_aligned("norm_backward: partial", partial, w)?;
    expect_aligned("norm_backward: inp", inp, w)?;
    expect_rows("dx", Some(dx), rows, c)?;
    for (what, tensor) in [("low", low), ("dout", Some(dout))] {
        expect_rows(what, tensor, rows, c)?;
    }
    let every = residual.as_ref().map_or(1, |residual| residual.every);
    ensure!(every > 0 && rows.is_multiple_of(every), "norm_backward: every {every} of {rows} rows");
    let [above, above_low] = residual.map_or([None, None], |Residual { dx, low, .. }| [Some(dx), low]);
    for (what, tensor) in [("residual", above), ("residual_low", above_low)] {
        expect_rows(what, tensor, rows / every, c)?;
    }
    let dx_float = i64::from(D::NAME == f32::NAME);
    let defines = [E::DEFINES, &[("COLUMNS", c as i64), ("DX_FLOAT", dx_float)]].concat();
    let kernel = stream.kernel("norm", "norm_backward", &defines)?;
    let r = rows / s;
    let launch = Launch::over([r.div_ceil(CHUNK), s, 1], norm_threads(c)?);
    let (step, every, second, r) = (int(weight.step())?, int(every)?, E::SECOND_TERM, int(r)?);
    let args =
        args![dx, low, partial, dout, inp, mean, rstd, weight, step, above, above_low, every, second, r];
    // SAFETY: the shapes are the kernel's, checked above; `dx` may be `dout`, and `low` what the residual has, of which a
    // thread reads what it writes.
    unsafe { kernel.launch(stream, launch, args) }?;
    segment_finish(stream, &sums.view([s, 3 * c]), partial)
}

fn expect_rows<T: Element>(what: &str, tensor: Option<&Tensor<T>>, rows: usize, c: usize) -> Result<()> {
    let Some(tensor) = tensor else { return Ok(()) };
    let what = format!("norm_backward: {what}");
    tensor.expect(&what, [rows, c])?;
    expect_aligned(&what, tensor, width(c, 4))
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
