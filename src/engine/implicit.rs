//! The step folded into the prediction: no weight changes, and none has a gradient.
//!
//! After one plain step with rate r, a linear layer with inputs X and output gradients dY of an image's views is
//!
//! ```text
//! y = x (W - r dYᵀ X)ᵀ + b - r Σ dY = x Wᵀ + b - r (x Xᵀ + 1) dY
//! ```
//!
//! so three products of a few rows take the place of the gradients of weight and bias. Norms and embeddings take the step explicitly, each
//! image its own.
//!
//! An image passes through the tower once for each rate, and once as it is, which is a rate of 0: all passes of all images at
//! once, since they share the weights. Rows lie by pass, then by image.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};

use super::Dims;
use super::grads::Kept;
use super::weights::Layer;
use crate::clip::VisionLayout;
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix};
use crate::ops::optimizer::{Step, Steps, step_plain, table_bytes};
use crate::ops::{Element, Param};

/// Room for the corrections of so many passes.
pub struct Room<E> {
    vectors: Tensor<f32>, // (passes·S, vectors)
    inner: Tensor<E>,     // (S·T, N·T, and a few columns more): x Xᵀ, or 1 more
    sums: Tensor<f32>,    // (passes·S·T, widest output)
    ones: Tensor<f32>,    // (N·T,)
    table: Tensor<u8>,    // of the vectors' step
    /// How many of the sums are of the first pass.
    of_first: usize,
}

impl<E: Element> Room<E> {
    /// * `kept`: of as many images.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(
        plan: &mut Plan,
        dims: &Dims,
        layout: &VisionLayout,
        kept: &Kept<E>,
        passes: usize,
    ) -> Result<Room<E>> {
        let &Dims { s, n, t, .. } = dims;
        let of_first = s * t * dims.widest()[1];
        Ok(Room {
            vectors: plan.tensor("vectors", [passes * s, layout.vectors_len()])?,
            inner: plan.tensor("inner", s * t * pitch(n * t))?,
            sums: plan.tensor("sums", passes * of_first)?,
            ones: plan.tensor("ones", n * t)?,
            table: plan.tensor("table", table_bytes(kept.vectors.iter().map(|(range, _)| range.len())))?,
            of_first,
        })
    }
}

/// Elements from one row of x Xᵀ to the next: each begins at a multiple of 16 bytes, where fast copies may.
fn pitch(columns: usize) -> usize {
    columns.next_multiple_of(8)
}

/// One step of each image at each rate.
pub struct Implicit<E> {
    kept: Kept<E>,
    vectors: Tensor<f32>, // (passes·S, vectors)
    inner: Tensor<E>,     // as the room's, and so below
    sums: Tensor<f32>,    // those of the first pass are zeros
    of_first: usize,
    ones: Tensor<f32>,
    /// Of each pass: 0, then the learning rates over the loss scale.
    rates: Vec<f32>,
    /// Where a vector begins among the room's, by where it begins in the layout.
    places: HashMap<usize, usize>,
    steps: Steps,
}

impl<E: Element> Implicit<E> {
    /// * `params`: `(total,)`, in the layout's order. `rates`: of each pass, the learning rate over the loss scale; the first is 0.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(
        stream: &Stream,
        params: &Tensor<f32>,
        kept: Kept<E>,
        room: &Room<E>,
        rates: Vec<f32>,
    ) -> Result<Implicit<E>> {
        let (s, mut places, mut at) = (kept.images, HashMap::new(), 0);
        for (range, _) in &kept.vectors {
            places.insert(range.start, at);
            // As in the layout: accesses of several neighbours begin where they may.
            at = (at + range.len()).next_multiple_of(VisionLayout::ALIGN);
        }
        let step = |(range, grad): &(Range<usize>, Param)| Step {
            param: (&params.slice(range.clone())).into(),
            grad: grad.clone(),
            column: places[&range.start],
        };
        let vectors = room.vectors.rows(0..rates.len() * s);
        let steps = kept.vectors.iter().map(step).collect();
        let steps = Steps::new(stream, &room.table, [s, vectors.shape()[1]], steps)?;
        let ones = room.ones.clone();
        stream.write(&ones, &vec![1.0; ones.len()])?;
        let (inner, sums, of_first) = (room.inner.clone(), room.sums.clone(), room.of_first);
        stream.fill_bytes(&sums.slice(0..of_first), 0)?;
        Ok(Implicit { kept, vectors, inner, sums, of_first, ones, rates, places, steps })
    }

    /// Takes the vectors' step.
    ///
    /// * `flags`: `(S,)`, `|= 1` where a gradient is not finite.
    ///
    /// # Errors
    /// The launch's own.
    pub fn step(&self, stream: &Stream, flags: &Tensor<u32>) -> Result<()> {
        let s = flags.len();
        self.rates.iter().enumerate().try_for_each(|(pass, &rate)| {
            let own = self.vectors.rows(pass * s..(pass + 1) * s);
            step_plain(stream, &self.steps, &own, flags, rate)
        })
    }

    /// A vector after the step, each pass's and image's own.
    pub fn vector(&self, range: &Range<usize>) -> Param {
        let at = self.places[&range.start];
        Param::each(&self.vectors, at..at + range.len())
    }

    /// What is added to `x Wᵀ + b`, `(passes·S·rows, N)`: `addend - r (x Xᵀ + 1) dY`, each pass by its rate, in the addend itself;
    /// or, where there is none, in a place of its own until the next. Without the 1 where there is no bias.
    ///
    /// * `inp`: x, `(passes·S·rows, K)`, and how many rows these are. `addend`: `(passes·S·rows, N)`, which nobody needs any more.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    pub fn correction(
        &self,
        stream: &Stream,
        layer: Layer,
        (inp, rows): (&Matrix<E>, usize),
        n: usize,
        addend: Option<Matrix<f32>>,
    ) -> Result<Matrix<f32>> {
        let mut layers = self.kept.layers.iter();
        let kept = layers.find(|kept| kept.weight == *layer.weight).context("a layer without a gradient")?;
        let s = self.kept.images;
        let [x, dy] = [&kept.inp, &kept.dout].map(|rows| Matrix::from(rows).batched(s));
        let (of_pass, views) = (rows / self.rates.len(), kept.inp.shape()[0] / s);
        let has_addend = addend.is_some();
        let sum = addend.unwrap_or_else(|| {
            // The first pass, whose rate is 0, ends where zeros do, whatever its size.
            let start = self.of_first - of_pass * n;
            (&self.sums.slice(start..start + rows * n).view([rows, n])).into()
        });
        let inner = self.inner.slice(0..of_pass * pitch(views)).view([of_pass, pitch(views)]);
        let inner = || Matrix::columns(&inner, 0..views).batched(s);
        for (pass, rate) in self.rates.iter().enumerate().skip(1) {
            let rows = pass * of_pass..(pass + 1) * of_pass;
            let own = inp.rows(rows.clone()).batched(s);
            let inner_product = Linear::nt(own, x.clone(), inner()).scale(E::INNER_SCALE, E::INNER_SCALE);
            let inner_product = match layer.bias {
                Some(_) => inner_product.bias(&self.ones.slice(0..views)),
                None => inner_product,
            };
            inner_product.run(stream)?;
            let out = sum.rows(rows).batched(s);
            let product = Linear::nn(inner(), dy.clone(), out.clone()).scale(-rate / E::INNER_SCALE, 1.0);
            product.addend_if(has_addend.then_some(out)).run(stream)?;
        }
        Ok(sum)
    }
}
