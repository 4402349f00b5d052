//! The step taken in place: weights of each image's own, the snapshot that they start from, and how gradients change them.

use std::ops::Range;

use anyhow::Result;

use super::Dims;
use super::grads::Kept;
use super::weights::{Differentiable, End, Layer, Params, Weights};
use crate::clip::{Activation, VisionLayout};
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix, Output};
use crate::ops::step::{Step, Steps, step_images};
use crate::ops::{Element, Param};

/// Each image's own weights.
pub struct Adapted<E> {
    pub flat: Tensor<f32>, // (S, total)
    /// The same as products take them, `(S, total)` each: never rounded to the digits of one float16, by which a step would
    /// be lost.
    terms: Vec<Tensor<E>>,
    base: Tensor<f32>, // (S·R, widest layer): products with the later terms
}

impl<E: Element> Adapted<E> {
    /// `rows`: of a forward pass, in all.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layout: &VisionLayout, rows: usize) -> Result<Adapted<E>> {
        let flat = plan.tensor("adapted", [dims.s, layout.total])?;
        let terms = E::terms(plan, &flat)?;
        let base_len = if terms.len() > 1 { rows * dims.widest_layer() } else { 0 };
        Ok(Adapted { terms, base: plan.tensor("base", base_len)?, flat })
    }

    /// Of the first `s` images.
    pub fn images(&self, s: usize) -> Adapted<E> {
        let terms = self.terms.iter().map(|term| term.rows(0..s)).collect();
        Adapted { flat: self.flat.rows(0..s), terms, base: self.base.clone() }
    }
}

/// What a step changes each image's weights from.
pub enum Snapshot<'a, E> {
    /// The weights as they were loaded.
    Loaded(&'a Params<E>),
    /// Those that the step before left.
    Own,
}

/// `W' = W - rate · g`, of every parameter and image: the products of the gradients start from the snapshot and write the
/// adapted weights at once, so that there is no buffer of gradients and nothing to restore.
///
/// * `flags`: `(S,)`, `|= 1` where the gradient of a vector is not finite.
/// * `rate`: the learning rate over the loss scale.
///
/// # Errors
/// Out of device memory; the launches' own.
pub fn step_in_place<E: Element>(
    stream: &Stream,
    adapted: &Adapted<E>,
    snapshot: Snapshot<E>,
    kept: &Kept<E>,
    flags: &Tensor<u32>,
    rate: f32,
) -> Result<()> {
    let s = kept.images;
    for layer in &kept.layers {
        let ([_, n], [_, k]) = (layer.dout.shape(), layer.inp.shape()) else { unreachable!() };
        let out = || Matrix::each(&adapted.flat, layer.weight.clone(), *k);
        let from = match &snapshot {
            Snapshot::Loaded(params) => (&params.flat.slice(layer.weight.clone()).view([*n, *k])).into(),
            Snapshot::Own => out(),
        };
        let [dout, inp] = [&layer.dout, &layer.inp].map(|rows| Matrix::from(rows).batched(s));
        Linear::tn(dout, inp, out()).scale(-rate, 1.0).addend(from).run(stream)?;
    }
    let step = |(range, grad): &(Range<usize>, Param)| {
        let out = Param::each(&adapted.flat, range.clone());
        let param = match &snapshot {
            Snapshot::Loaded(params) => params.vector(range),
            Snapshot::Own => out.clone(),
        };
        Step { param, grad: grad.clone(), out }
    };
    let steps = Steps::new(stream, s, kept.vectors.iter().map(step).collect())?;
    step_images(stream, &steps, flags, rate)?;
    E::split(stream, &adapted.terms, &adapted.flat)
}

impl<E: Element> Weights<E> for Adapted<E> {
    fn vector(&self, range: &Range<usize>) -> Param {
        Param::each(&self.flat, range.clone())
    }

    fn linear<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
        end: End<E>,
    ) -> Result<()> {
        let s = self.flat.shape()[0];
        let (rows, n) = (out.shape()[0], out.shape()[1]);
        let (mut end, mut lower) = (end, None);
        if let [_, second] = &self.terms[..] {
            let base = self.base.slice(0..rows * n).view([rows, n]);
            let small = Linear::nt(
                Matrix::from(inp).batched(s),
                each(second, layer.weight, inp),
                Matrix::from(&base).batched(s),
            );
            let (addend, rest) = end.take_addend();
            let small = small.scale(E::SECOND_TERM, 1.0);
            match addend {
                Some(addend) => small.addend(addend.batched(s)),
                None => small,
            }
            .run(stream)?;
            (end, lower) = (rest, Some(base));
        }
        let mut product = Linear::nt(
            Matrix::from(inp).batched(s),
            each(&self.terms[0], layer.weight, inp),
            Matrix::from(out).batched(s),
        );
        if let Some(bias) = layer.bias {
            product = product.bias(self.vector(bias));
        }
        if let Some(lower) = &lower {
            product = product.addend(Matrix::from(lower).batched(s));
        }
        end.of(product, Some(s)).run(stream)
    }
}

impl<E: Element> Differentiable<E> for Adapted<E> {
    fn linear_backward<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<O>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()> {
        let s = self.flat.shape()[0];
        // Of the first terms alone: a gradient has no more digits itself.
        let weight = each(&self.terms[0], weight, dinp);
        let mut product = Linear::nn(Matrix::from(dout).batched(s), weight, Matrix::from(dinp).batched(s));
        if let Some((kind, kept)) = kept {
            product = product.backward(kind, Matrix::from(kept).batched(s));
        }
        product.run(stream)
    }
}

/// Each image's weight of a layer whose inputs are as wide as `inp`.
fn each<E, T>(term: &Tensor<E>, weight: &Range<usize>, inp: &Tensor<T>) -> Matrix<E> {
    Matrix::each(term, weight.clone(), inp.shape()[1])
}
