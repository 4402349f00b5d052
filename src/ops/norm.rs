//! Layer norm of a batch of images' rows, or of the tokens that enter the vision tower, and its gradient, `kernels/norm.cu`.

use anyhow::{Result, bail, ensure};
use half::f16;

use super::segment::segment_finish;
use super::width::{expect_aligned, width};
use super::{Element, Param, Rows, int};
use crate::args;
use crate::gpu::{Arg, Defines, Launch, Stream, Tensor};

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

/// What a norm takes.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// `(rows, C)`. In terms if what comes out, or comes back, is float16.
    Rows(Rows<'a, f32>),
    Tokens(Tokens<'a>),
}

/// The tokens that enter the vision tower, each `T` of them `[class; patches] + position`: `(B · T, C)`, which nobody writes.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    /// `(B, T − 1, C)`: the projected patches.
    pub patches: &'a Tensor<f32>,
    /// Of C, and of T · C: shared, or each image's own, for that many equal groups of B.
    pub class: &'a Param,
    pub position: &'a Param,
}

impl<'a> From<&'a Tensor<f32>> for Input<'a> {
    fn from(rows: &'a Tensor<f32>) -> Input<'a> {
        Input::Rows(rows.into())
    }
}

impl<'a> From<Rows<'a, f32>> for Input<'a> {
    fn from(rows: Rows<'a, f32>) -> Input<'a> {
        Input::Rows(rows)
    }
}

impl<'a> From<Tokens<'a>> for Input<'a> {
    fn from(tokens: Tokens<'a>) -> Input<'a> {
        Input::Tokens(tokens)
    }
}

impl Input<'_> {
    /// Rows and columns; of tokens, T; whether rows are in terms.
    ///
    /// * `groups`: of as many images.
    fn expect(&self, operator: &str, groups: usize) -> Result<Shape> {
        let (shape, tensor) = match *self {
            Input::Rows(Rows { tensor, in_terms }) => {
                let &[rows, c] = tensor.shape() else {
                    bail!("{operator}: inp is {tensor:?}, not (rows, C)")
                };
                (Shape { rows, c, tokens: None, in_terms }, tensor)
            }
            Input::Tokens(Tokens { patches, class, position }) => {
                let &[b, patches_of_each, c] = patches.shape() else {
                    bail!("{operator}: patches are {patches:?}, not (B, T - 1, C)")
                };
                let (t, w) = (patches_of_each + 1, width(c, 4));
                class.expect(&format!("{operator}: class"), c, w)?;
                position.expect(&format!("{operator}: position"), t * c, w)?;
                for param in [class, position] {
                    let has = param.images().is_none_or(|images| images == groups);
                    ensure!(has, "{operator}: of {groups} images, and an embedding is {param:?}");
                }
                ensure!(b.is_multiple_of(groups), "{operator}: {b} sequences of {groups} images");
                (Shape { rows: b * t, c, tokens: Some(t), in_terms: false }, patches)
            }
        };
        ensure!(
            groups > 0 && shape.rows.is_multiple_of(groups),
            "{operator}: {} rows of {groups} images",
            shape.rows
        );
        expect_aligned(&format!("{operator}: inp"), tensor, width(shape.c, 4))?;
        Ok(shape)
    }

    /// The kernels' first argument of it, and their last ones. `first`: of rows in terms the first alone are read.
    fn args(&self, first: bool) -> Result<(Tensor<f32>, Vec<Arg>)> {
        Ok(match *self {
            // The same address, of as many bytes as are read.
            Input::Rows(Rows { tensor, in_terms: true }) if first => {
                (tensor.slice(0..tensor.len() / 2), Vec::new())
            }
            Input::Rows(Rows { tensor, .. }) => (tensor.clone(), Vec::new()),
            Input::Tokens(Tokens { patches, class, position }) => {
                let [class_step, position_step] = [int(class.step())?, int(position.step())?];
                (patches.clone(), args![class, position, class_step, position_step].to_vec())
            }
        })
    }
}

/// Of an input.
struct Shape {
    rows: usize,
    c: usize,
    tokens: Option<usize>,
    in_terms: bool,
}

impl Shape {
    fn defines(&self, element: Defines<'static>, out_terms: bool) -> Vec<(&'static str, i64)> {
        let mut defines = element.to_vec();
        defines.push(("COLUMNS", self.c as i64));
        defines.extend(self.tokens.map(|t| ("TOKENS", t as i64)));
        for (name, is_so) in [("INP_TERMS", self.in_terms), ("OUT_TERMS", out_terms)] {
            defines.extend(is_so.then_some((name, (1.0 / f16::SECOND_TERM) as i64)));
        }
        defines
    }
}

/// `out = (inp − mean) · rstd · weight + bias`, row by row.
///
/// * `out`: `(rows, C)`, overwritten; only float32 may be in terms. `stats`: mean and rstd, `(rows,)` fp32, overwritten.
/// * `params`: weight and bias, of C each; where each image has its own, of that many equal groups of rows.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn norm_forward<'a, O: Element>(
    stream: &Stream,
    out: impl Into<Rows<'a, O>>,
    stats: [&Tensor<f32>; 2],
    inp: impl Into<Input<'a>>,
    [weight, bias]: &[Param; 2],
    eps: f32,
) -> Result<()> {
    let (inp, Rows { tensor: out, in_terms: out_terms }) = (inp.into(), out.into());
    let groups = weight.images().unwrap_or(1);
    let shape = inp.expect("norm_forward", groups)?;
    let Shape { rows, c, in_terms, .. } = shape;
    ensure!(!out_terms || O::NAME == f32::NAME, "norm_forward: {} in terms", O::NAME);
    ensure!(!in_terms || O::NAME == f16::NAME, "norm_forward: inp in terms, and out is {}", O::NAME);
    out.expect("norm_forward: out", [rows, c])?;
    for (what, of_row) in ["mean", "rstd"].iter().zip(stats) {
        of_row.expect(&format!("norm_forward: {what}"), [rows])?;
    }
    let w = width(c, 4);
    for (what, param) in [("weight", weight), ("bias", bias)] {
        param.expect(&format!("norm_forward: {what}"), c, w)?;
        let same = param.images() == weight.images() && param.step() == weight.step();
        ensure!(same, "norm_forward: {what} is {param:?}, weight {weight:?}");
    }
    expect_aligned("norm_forward: out", out, w)?;
    let of_group = rows / groups;
    let element = if out_terms { f16::DEFINES } else { O::DEFINES };
    let kernel = stream.kernel("norm", "norm_forward", &shape.defines(element, out_terms))?;
    let launch = Launch::over([of_group.div_ceil(ROWS), groups, 1], norm_threads(c)?);
    let [mean, rstd] = stats;
    let (step, of_group, each) = (int(weight.step())?, int(of_group)?, int(ROWS)?);
    let (inp, last) = inp.args(false)?;
    let mut args = args![out, mean, rstd, &inp, weight, bias, step, of_group, each, eps].to_vec();
    args.extend(last);
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, launch, &args) }
}

/// Where the gradient of a layer norm goes.
pub struct NormGradient<'a, E> {
    /// `(rows, C)`, overwritten; of tokens that of their patches, `(B, T − 1, C)`.
    pub dx: &'a Tensor<E>,
    /// [`norm_partial_shape`], overwritten. What [`norm_sums`] makes of it: an image's gradients of weight and bias, and the sum of
    /// its rows of `dx`, which is the gradient of the bias that was added to the rows before. Of tokens the last third is that
    /// of the positions, `(T, C)`, and its first row that of the class.
    pub partial: &'a Tensor<f32>,
}

/// What a gradient adds that goes around the norm, in float32 as all of it until it is stored.
pub struct Residual<'a, E> {
    /// `(rows / every, C)`
    pub dx: &'a Tensor<E>,
    /// It is that of each `every`-th row from the first: of all, or with T of class tokens alone.
    pub every: usize,
}

/// What [`norm_backward`] leaves of the sums over S images' rows: of each kind of the three, in chunks of their R rows, or of
/// all rows of each of so many tokens.
pub fn norm_partial_shape(s: usize, r: usize, c: usize, tokens: Option<usize>) -> [usize; 4] {
    [s, 3, tokens.unwrap_or(r.div_ceil(CHUNK)), c]
}

/// Finishes the sums of as many images' norms as there are.
///
/// * `sums`: `(S, 3, C)`, overwritten. `partial`: [`norm_partial_shape`].
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn norm_sums(stream: &Stream, sums: &Tensor<f32>, partial: &Tensor<f32>) -> Result<()> {
    let &[s, 3, chunks, c] = partial.shape() else { bail!("norm_sums: partial is {partial:?}") };
    sums.expect("norm_sums: sums", [s, 3, c])?;
    segment_finish(stream, &sums.view([3 * s, c]), &partial.view([3 * s, chunks, c]))
}

/// The gradients of [`norm_forward`]'s input and parameters, and what `residual` brings.
///
/// * `dout`: `(rows, C)`, which `to.dx` may be. `inp`: of rows in terms the first alone count, which are as exact as `dout` is.
///   `stats`: as the forward pass left them. `weight`: of C, shared or each image's own.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn norm_backward<'a, E: Element>(
    stream: &Stream,
    NormGradient { dx, partial }: NormGradient<'_, E>,
    dout: &Tensor<E>,
    inp: impl Into<Input<'a>>,
    [mean, rstd]: [&Tensor<f32>; 2],
    weight: &Param,
    residual: Option<Residual<'_, E>>,
) -> Result<()> {
    let (inp, s) = (inp.into(), partial.shape()[0]);
    let shape = inp.expect("norm_backward", s)?;
    let Shape { rows, c, tokens, in_terms } = shape;
    ensure!(!in_terms || E::NAME == f16::NAME, "norm_backward: inp in terms, and dout is {}", E::NAME);
    let (w, r) = (width(c, 4), rows / s);
    let partial_shape = norm_partial_shape(s, r, c, tokens);
    partial.expect("norm_backward: partial", partial_shape)?;
    mean.expect("norm_backward: mean", [rows])?;
    rstd.expect("norm_backward: rstd", [rows])?;
    weight.expect("norm_backward: weight", c, w)?;
    ensure!(weight.images().is_none_or(|n| n == s), "norm_backward: weight is {weight:?}, for {s} images");
    expect_aligned("norm_backward: partial", partial, w)?;
    match tokens {
        None => dx.expect("norm_backward: dx", [rows, c])?,
        Some(t) => dx.expect("norm_backward: dx", [rows / t, t - 1, c])?,
    }
    dout.expect("norm_backward: dout", [rows, c])?;
    let (above, every) = residual.map_or((None, 1), |Residual { dx, every }| (Some(dx), every));
    ensure!(every > 0 && rows.is_multiple_of(every), "norm_backward: every {every} of {rows} rows");
    above.map_or(Ok(()), |above| above.expect("norm_backward: residual", [rows / every, c]))?;
    for tensor in [Some(dx), Some(dout), above].into_iter().flatten() {
        expect_aligned("norm_backward: a gradient", tensor, w)?;
    }
    let kernel = stream.kernel("norm", "norm_backward", &shape.defines(E::DEFINES, false))?;
    let launch = Launch::over([partial_shape[2], s, 1], norm_threads(c)?);
    let (step, every, r) = (int(weight.step())?, int(every)?, int(r)?);
    let (inp, last) = inp.args(true)?;
    let mut args = args![dx, partial, dout, &inp, mean, rstd, weight, step, above, every, r].to_vec();
    args.extend(last);
    // SAFETY: the shapes are the kernel's, checked above; `dx` may be `dout`, of which a thread reads what it writes.
    unsafe { kernel.launch(stream, launch, &args) }
}

/// The tokens of one sequence, one rounding an element.
pub fn tokens_reference(patches: &[f32], class: &[f32], position: &[f32]) -> Vec<f32> {
    class.iter().chain(patches).zip(position).map(|(token, place)| token + place).collect()
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
