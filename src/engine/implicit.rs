//! The step folded into the prediction: no weight changes, and none has a gradient.
//!
//! After one plain step with rate r, a linear layer with inputs X and output gradients dY of an image's views is
//!
//! ```text
//! y = x (W - r dYᵀ X)ᵀ + b - r Σ dY = x Wᵀ - r (x Xᵀ) dY + b'
//! ```
//!
//! so three products of a few rows take the place of the weight's gradient. Vectors, b' among them, take the step explicitly,
//! each image its own.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};

use super::Dims;
use super::grads::Kept;
use super::weights::{End, Layer, Params, Weights};
use crate::clip::VisionLayout;
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix, Output};
use crate::ops::step::{Step, Steps, step_images};
use crate::ops::{Element, Param};

/// Room for the corrections.
pub struct Room<E> {
    vectors: Tensor<f32>, // (S, vectors)
    base: Tensor<f32>,    // (S·T, M or 3C): x Wᵀ
    inner: Tensor<E>,     // (S·T, N·T): x Xᵀ
}

impl<E: Element> Room<E> {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layout: &VisionLayout) -> Result<Room<E>> {
        let &Dims { s, n, t, .. } = dims;
        Ok(Room {
            vectors: plan.tensor("vectors", [s, layout.vectors_len()])?,
            base: plan.tensor("base", s * t * dims.widest_layer())?,
            inner: plan.tensor("inner", s * t * n * t)?,
        })
    }
}

/// The weights of one step, as a forward pass of each image's original takes them.
pub struct Implicit<'a, E> {
    params: &'a Params<E>,
    kept: &'a Kept<E>,
    room: &'a Room<E>,
    rate: f32,
    /// Where a vector begins among the room's, by where it begins in the layout.
    places: HashMap<usize, usize>,
    steps: Steps,
}

impl<'a, E: Element> Implicit<'a, E> {
    /// * `rate`: the learning rate over the loss scale.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn new(
        stream: &Stream,
        params: &'a Params<E>,
        kept: &'a Kept<E>,
        room: &'a Room<E>,
        rate: f32,
    ) -> Result<Implicit<'a, E>> {
        let (mut places, mut at) = (HashMap::new(), 0);
        let vectors = room.vectors.rows(0..kept.images);
        let step = |(range, grad): &(Range<usize>, Param)| {
            let out = Param::each(&vectors, at..at + range.len());
            places.insert(range.start, at);
            // As in the layout: accesses of several neighbours begin where they may.
            at = (at + range.len()).next_multiple_of(VisionLayout::ALIGN);
            Step { param: params.vector(range), grad: grad.clone(), out }
        };
        let steps = Steps::new(stream, kept.images, kept.vectors.iter().map(step).collect())?;
        Ok(Implicit { params, kept, room, rate, places, steps })
    }

    /// Takes the vectors' step.
    ///
    /// * `flags`: `(S,)`, `|= 1` where a gradient is not finite.
    ///
    /// # Errors
    /// The launch's own.
    pub fn step(&self, stream: &Stream, flags: &Tensor<u32>) -> Result<()> {
        step_images(stream, &self.steps, flags, self.rate)
    }
}

impl<E: Element> Weights<E> for Implicit<'_, E> {
    fn vector(&self, range: &Range<usize>) -> Param {
        let at = self.places[&range.start];
        Param::each(&self.room.vectors.rows(0..self.kept.images), at..at + range.len())
    }

    fn linear<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
        end: End<E>,
    ) -> Result<()> {
        let mut kept = self.kept.layers.iter();
        let kept = kept.find(|kept| kept.weight == *layer.weight).context("a layer without a gradient")?;
        let (s, &[rows, k], n) = (self.kept.images, inp.shape(), out.shape()[1]) else { unreachable!() };
        let batched = |tensor: &Tensor<E>| Matrix::from(tensor).batched(s);
        let views = kept.inp.shape()[0] / s;
        let base = self.room.base.slice(0..rows * n).view([rows, n]);
        let inner = self.room.inner.slice(0..rows * views).view([s, rows / s, views]);

        // By no image's own rows alone, so that the tiles are full.
        let product = Linear::nt(inp, &self.params.matrix(layer.weight, k), &base);
        let (addend, end) = end.take_addend();
        match addend {
            Some(addend) => product.addend(addend),
            None => product,
        }
        .run(stream)?;
        Linear::nt(batched(inp), batched(&kept.inp), &inner).scale(E::INNER_SCALE, 1.0).run(stream)?;
        let correction = Linear::nn(&inner, batched(&kept.dout), Matrix::from(out).batched(s))
            .scale(-self.rate / E::INNER_SCALE, 1.0)
            .addend(Matrix::from(&base).batched(s));
        let correction = match layer.bias {
            Some(bias) => correction.bias(self.vector(bias)),
            None => correction,
        };
        end.of(correction, Some(s)).run(stream)
    }
}
