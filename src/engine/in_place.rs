//! The step taken in place: weights of each image's own, the snapshot that they start from, and how gradients change them.

use std::ops::Range;

use anyhow::Result;

use super::grads::Kept;
use super::weights::{Differentiable, End, Layer, Params, Weights};
use crate::clip::{Activation, VisionLayout};
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix, Output};
use crate::ops::step::{Step, Steps, step_images};
use crate::ops::{Element, Param};

/// Each image's own weights.
pub struct Adapted {
    pub flat: Tensor<f32>, // (S, total)
}

impl Adapted {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, s: usize, layout: &VisionLayout) -> Result<Adapted> {
        Ok(Adapted { flat: plan.tensor("adapted", [s, layout.total])? })
    }

    /// Of the first `s` images.
    pub fn images(&self, s: usize) -> Adapted {
        Adapted { flat: self.flat.rows(0..s) }
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
    adapted: &Adapted,
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
    step_images(stream, &steps, flags, rate)
}

impl Weights<f32> for Adapted {
    fn vector(&self, range: &Range<usize>) -> Param {
        Param::each(&self.flat, range.clone())
    }

    fn linear<O: Element + Output<f32>>(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<f32>,
        out: &Tensor<O>,
        end: End<f32>,
    ) -> Result<()> {
        let s = self.flat.shape()[0];
        let weight = Matrix::each(&self.flat, layer.weight.clone(), inp.shape()[1]);
        let mut product = Linear::nt(Matrix::from(inp).batched(s), weight, Matrix::from(out).batched(s));
        if let Some(bias) = layer.bias {
            product = product.bias(self.vector(bias));
        }
        end.of(product, Some(s)).run(stream)
    }
}

impl Differentiable<f32> for Adapted {
    fn linear_backward<O: Element + Output<f32>>(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<f32>,
        dinp: &Tensor<O>,
        kept: Option<(Activation, &Tensor<f32>)>,
    ) -> Result<()> {
        let s = self.flat.shape()[0];
        let weight = Matrix::each(&self.flat, weight.clone(), dinp.shape()[1]);
        let mut product = Linear::nn(Matrix::from(dout).batched(s), weight, Matrix::from(dinp).batched(s));
        if let Some((kind, kept)) = kept {
            product = product.backward(kind, Matrix::from(kept).batched(s));
        }
        product.run(stream)
    }
}
