//! The step taken in place: weights of each image's own, the snapshot that they start from, and how gradients change them.

use std::ops::Range;

use anyhow::Result;

use super::Dims;
use super::grads::Kept;
use super::weights::{Differentiable, Layer, Weights};
use crate::clip::{Activation, VisionLayout};
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix, Output};
use crate::ops::optimizer::{Step, Steps, step_plain};
use crate::ops::{Element, Param};

/// Each image's own weights.
pub struct Adapted<E> {
    pub flat: Tensor<f32>, // (S, total)
    /// For the same in terms: rounded to the digits of one float16, a step would be lost.
    room: Vec<Tensor<E>>,
    base: Tensor<f32>, // (S·N·T, widest output): products of the views with the second terms
}

impl<E: Element> Adapted<E> {
    /// `again`: the views pass through them as well.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layout: &VisionLayout, again: bool) -> Result<Adapted<E>> {
        let flat = plan.tensor("adapted", [dims.s, layout.total])?;
        let room = E::room(plan, "adapted", dims.s * layout.total)?;
        let rows = if again && !room.is_empty() { dims.views() * dims.t } else { 0 };
        Ok(Adapted { flat, room, base: plan.tensor("base", rows * dims.widest()[1])? })
    }

    /// Makes zeros of what lies between parameters: it is split into terms with them, and no step writes it.
    ///
    /// # Errors
    /// The driver's.
    pub fn clear(&self, stream: &Stream) -> Result<()> {
        stream.fill_bytes(&self.flat, 0)
    }

    /// That of the first `s` images.
    pub fn first(&self, s: usize) -> Adapted<E> {
        Adapted { flat: self.flat.rows(0..s), room: self.room.clone(), base: self.base.clone() }
    }

    /// `S`
    pub fn images(&self) -> usize {
        self.flat.shape()[0]
    }

    /// `(S, total)` each, the first of them what products take alone.
    pub fn terms(&self) -> Vec<Tensor<E>> {
        E::terms(&self.flat, &self.room)
    }
}

/// Steps of each image.
pub struct InPlace<E> {
    pub adapted: Adapted<E>,
    kept: Kept<E>,
    snapshot: Tensor<f32>, // (total,)
    from_snapshot: Steps,
    from_own: Steps,
}

impl<E: Element> InPlace<E> {
    /// * `snapshot`: `(total,)`, the weights that the first step starts from, in the layout's order.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn new(
        stream: &Stream,
        snapshot: &Tensor<f32>,
        adapted: Adapted<E>,
        kept: Kept<E>,
    ) -> Result<InPlace<E>> {
        let steps = |from: &dyn Fn(&Range<usize>) -> Param| {
            let step = |(range, grad): &(Range<usize>, Param)| Step {
                param: from(range),
                grad: grad.clone(),
                column: range.start,
            };
            Steps::new(stream, &adapted.flat, kept.vectors_and_biases().map(step).collect())
        };
        let from_snapshot = steps(&|range| (&snapshot.slice(range.clone())).into())?;
        let from_own = steps(&|range| adapted.vector(range))?;
        Ok(InPlace { adapted, kept, snapshot: snapshot.clone(), from_snapshot, from_own })
    }

    /// `W' = W - rate · g`, of every parameter and image, from the snapshot at the first step, then from what the step before
    /// has left: the products of the gradients start from W and write W' at once, so that there is no buffer of gradients, and
    /// nothing to restore.
    ///
    /// * `flags`: `(S,)`, `|= 1` where the gradient of a vector is not finite.
    /// * `rate`: the learning rate over the loss scale.
    ///
    /// # Errors
    /// The launches' own.
    pub fn step(&self, stream: &Stream, is_first: bool, flags: &Tensor<u32>, rate: f32) -> Result<()> {
        let InPlace { adapted, kept, snapshot, from_snapshot, from_own } = self;
        for layer in &kept.layers {
            let (n, k) = (layer.dout.shape()[1], layer.inp.shape()[1]);
            let own = Matrix::each(&adapted.flat, layer.weight.clone(), k);
            let from = match is_first {
                true => (&snapshot.slice(layer.weight.clone()).view([n, k])).into(),
                false => own.clone(),
            };
            let [dout, inp] = [&layer.dout, &layer.inp].map(|rows| Matrix::from(rows).batched(kept.images));
            Linear::tn(dout, inp, own).scale(-rate, 1.0).addend(from).run(stream)?;
        }
        step_plain(stream, if is_first { from_snapshot } else { from_own }, flags, rate)?;
        E::split(stream, &adapted.flat, &adapted.room)?;
        Ok(())
    }
}

impl<E: Element> Adapted<E> {
    /// `inp · Wᵀ + bias + addend`, of each image's rows by its own weight.
    fn product<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
        addend: Option<Matrix<f32>>,
    ) -> Result<Linear<E, O>> {
        let (s, terms) = (self.images(), self.terms());
        let weight = |term| Matrix::each(term, layer.weight.clone(), inp.shape()[1]);
        let batched = || Matrix::from(inp).batched(s);
        let mut sum = addend.map(|addend| addend.batched(s));
        if let [_, second] = &terms[..] {
            let base = self.base.slice(0..out.len()).view(out.shape());
            let product = Linear::nt(batched(), weight(second), Matrix::from(&base).batched(s));
            let product = product.scale(E::SECOND_TERM, 1.0);
            product.addend_if(sum.take()).run(stream)?;
            sum = Some(Matrix::from(&base).batched(s));
        }
        let mut product = Linear::nt(batched(), weight(&terms[0]), Matrix::from(out).batched(s));
        if let Some(bias) = layer.bias {
            product = product.bias(self.vector(bias));
        }
        Ok(product.addend_if(sum))
    }
}

impl<E: Element> Weights<E> for Adapted<E> {
    fn vector(&self, range: &Range<usize>) -> Param {
        Param::each(&self.flat, range.clone())
    }

    fn branch(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<E>,
        act: Option<(Activation, Option<&Tensor<E>>)>,
    ) -> Result<()> {
        let product = self.product(stream, layer, inp, out, None)?;
        match act {
            None => product,
            Some((kind, None)) => product.activation(kind),
            Some((kind, Some(kept))) => product.keeping(kind, Matrix::from(kept).batched(self.images())),
        }
        .run(stream)
    }

    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
        addend: Option<Matrix<f32>>,
    ) -> Result<()> {
        self.product(stream, layer, inp, out, addend)?.run(stream)
    }
}

impl<E: Element> Differentiable<E> for Adapted<E> {
    fn backward(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<E>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()> {
        let s = self.images();
        // By the first terms alone: a gradient has no more digits itself.
        let weight = Matrix::each(&self.terms()[0], weight.clone(), dinp.shape()[1]);
        let product = Linear::nn(Matrix::from(dout).batched(s), weight, Matrix::from(dinp).batched(s));
        match kept {
            Some((kind, kept)) => product.backward(kind, Matrix::from(kept).batched(s)),
            None => product,
        }
        .run(stream)
    }
}
