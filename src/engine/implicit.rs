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
use super::weights::Layer;
use crate::clip::VisionLayout;
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix};
use crate::ops::step::{Step, Steps, step_images};
use crate::ops::{Element, Param};

/// Room for the corrections.
pub struct Room<E> {
    vectors: Tensor<f32>, // (S, vectors)
    inner: Tensor<E>,     // (S·T, N·T, and a few columns more): x Xᵀ
}

impl<E: Element> Room<E> {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layout: &VisionLayout) -> Result<Room<E>> {
        let &Dims { s, n, t, .. } = dims;
        Ok(Room {
            vectors: plan.tensor("vectors", [s, layout.vectors_len()])?,
            inner: plan.tensor("inner", s * t * pitch(n * t))?,
        })
    }
}

/// Elements from one row of x Xᵀ to the next: each begins at a multiple of 16 bytes, where fast copies may.
fn pitch(columns: usize) -> usize {
    columns.next_multiple_of(8)
}

/// One step of each image.
pub struct Implicit<E> {
    kept: Kept<E>,
    vectors: Tensor<f32>, // (S, vectors)
    inner: Tensor<E>,     // as the room's
    rate: f32,
    /// Where a vector begins among the room's, by where it begins in the layout.
    places: HashMap<usize, usize>,
    steps: Steps,
}

impl<E: Element> Implicit<E> {
    /// * `params`: `(total,)`, in the layout's order. `rate`: the learning rate over the loss scale.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn new(
        stream: &Stream,
        params: &Tensor<f32>,
        kept: Kept<E>,
        room: &Room<E>,
        rate: f32,
    ) -> Result<Implicit<E>> {
        let (mut places, mut at) = (HashMap::new(), 0);
        let vectors = room.vectors.rows(0..kept.images);
        let step = |(range, grad): &(Range<usize>, Param)| {
            let out = Param::each(&vectors, at..at + range.len());
            places.insert(range.start, at);
            // As in the layout: accesses of several neighbours begin where they may.
            at = (at + range.len()).next_multiple_of(VisionLayout::ALIGN);
            Step { param: (&params.slice(range.clone())).into(), grad: grad.clone(), out }
        };
        let steps = Steps::new(stream, kept.images, kept.vectors.iter().map(step).collect())?;
        Ok(Implicit { kept, vectors, inner: room.inner.clone(), rate, places, steps })
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

    /// A vector after the step, each image's own.
    pub fn vector(&self, range: &Range<usize>) -> Param {
        let at = self.places[&range.start];
        Param::each(&self.vectors, at..at + range.len())
    }

    /// `base - r (x Xᵀ) dY`, to be finished: x is `inp` `(rows, K)`, base is x Wᵀ.
    ///
    /// # Errors
    /// A shape that does not fit; the launch's own.
    pub fn correction(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        base: &Tensor<f32>,
        out: &Tensor<f32>,
    ) -> Result<Linear<E, f32>> {
        let mut layers = self.kept.layers.iter();
        let kept = layers.find(|kept| kept.weight == *layer.weight).context("a layer without a gradient")?;
        let s = self.kept.images;
        let [x, dy] = [&kept.inp, &kept.dout].map(|rows| Matrix::from(rows).batched(s));
        let (rows, views) = (inp.shape()[0] / s, kept.inp.shape()[0] / s);
        let inner = self.inner.slice(0..s * rows * pitch(views)).view([s, rows, pitch(views)]);
        let inner = || Matrix::columns(&inner, 0..views);
        Linear::nt(Matrix::from(inp).batched(s), x, inner()).scale(E::INNER_SCALE, 1.0).run(stream)?;
        let correction = Linear::nn(inner(), dy, Matrix::from(out).batched(s));
        Ok(correction.scale(-self.rate / E::INNER_SCALE, 1.0).addend(Matrix::from(base).batched(s)))
    }
}
