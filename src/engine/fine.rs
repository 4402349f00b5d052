//! The forward pass of the predicted images, as exact as float32 in whatever type products take.
//!
//! What a step changes is small beside what float16's digits lose on the way through a tower, so an image that is predicted,
//! before and after, passes through it in float32: where products take float16, both operands of them go in two terms,
//! `x = x₁ + x₂` and `W = W₁ + W₂`, and `x Wᵀ = x₁ W₁ᵀ + x₂ W₁ᵀ + x₁ W₂ᵀ`. There are fifty times as many views.

use std::ops::Range;

use anyhow::Result;

use super::implicit::Implicit;
use super::in_place::Adapted;
use super::weights::{Layer, Params, Weights};
use crate::clip::Activation;
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix};
use crate::ops::{Element, Param};

/// The weights as they were loaded, in terms.
#[derive(Clone)]
pub struct Loaded<E> {
    pub flat: Tensor<f32>, // (total,)
    /// `(total,)` each: one where the weights have no more digits than products take.
    terms: Vec<Tensor<E>>,
}

impl<E: Element> Loaded<E> {
    /// * `weights`: what `params` was made of. `matrices`: where linear layers' weights are among them.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn new(
        stream: &Stream,
        params: &Params<E>,
        weights: &[f32],
        mut matrices: impl Iterator<Item = Range<usize>>,
    ) -> Result<Loaded<E>> {
        let holds = |range: Range<usize>| weights[range].iter().all(|&x| E::holds(x));
        Loaded::with(stream, params, !stream.is_rehearsal() && matrices.all(holds))
    }

    /// * `is_exact`: whether products take the matrices without rounding.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn with(stream: &Stream, params: &Params<E>, is_exact: bool) -> Result<Loaded<E>> {
        let flat = params.flat.clone();
        let first = params.rounded().clone();
        let terms = match is_exact {
            true => vec![first],
            // The first term is what it was rounded to.
            false => E::split(stream, &flat, &[first, stream.alloc(flat.len())?])?,
        };
        Ok(Loaded { flat, terms })
    }
}

/// Room for products of some rows.
pub struct FineRoom<E> {
    terms: Vec<Tensor<E>>, // (rows, widest input) of the inputs
    base: Tensor<f32>,     // (rows, widest output): sums of the smaller products
}

impl<E: Element> FineRoom<E> {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, rows: usize, [input, output]: [usize; 2]) -> Result<FineRoom<E>> {
        Ok(FineRoom {
            terms: E::room(plan, "inputs", rows * input)?,
            base: plan.tensor("base", rows * output)?,
        })
    }
}

/// Which weights. With a step folded in, sequences are of all its passes.
pub enum Source<'a, E> {
    Loaded(&'a Loaded<E>),
    Adapted(&'a Adapted<E>),
    Implicit(&'a Loaded<E>, &'a Implicit<E>),
}

/// Weights for a pass in float32.
pub struct Fine<'a, E> {
    pub source: Source<'a, E>,
    pub room: &'a FineRoom<E>,
}

impl<E: Element> Fine<'_, E> {
    /// `out = f(inp · Wᵀ + bias + addend)`
    fn linear(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<f32>,
        out: &Tensor<f32>,
        act: Option<Activation>,
        addend: Option<Matrix<f32>>,
    ) -> Result<()> {
        let (&[rows, k], n) = (inp.shape(), out.shape()[1]) else { unreachable!("inp is a matrix") };
        let inputs = E::split(stream, inp, &self.room.terms)?;
        let of_loaded = |term: &Tensor<E>| (&term.slice(layer.weight.clone()).view([n, k])).into();
        let (weights, images): (Vec<Matrix<E>>, Option<usize>) = match &self.source {
            Source::Loaded(loaded) | Source::Implicit(loaded, _) => {
                (loaded.terms.iter().map(of_loaded).collect(), None)
            }
            Source::Adapted(adapted) => {
                let terms = adapted.terms();
                let each = |term| Matrix::each(term, layer.weight.clone(), k);
                (terms.iter().map(each).collect(), Some(adapted.images()))
            }
        };
        let base = self.room.base.slice(0..rows * n).view([rows, n]);
        let term = |i: usize| Matrix::from(&inputs[i]).batched(images);
        let batched = |matrix: Matrix<f32>| matrix.batched(images);

        let mut sum = addend;
        let smaller = [(1, 0), (0, 1)];
        for (i, j) in smaller.into_iter().filter(|&(i, j)| i < inputs.len() && j < weights.len()) {
            let product = Linear::nt(term(i), weights[j].clone(), batched((&base).into()));
            product.scale(E::SECOND_TERM, 1.0).addend_if(sum.map(batched)).run(stream)?;
            sum = Some((&base).into());
        }
        if let Source::Implicit(loaded, implicit) = &self.source {
            if inputs.len() == 1 {
                // There was no smaller product: a sum of nothing, and what is added to it.
                let weight = loaded.terms[0].slice(layer.weight.clone()).view([n, k]);
                let [x, w] = [&inputs[0], &weight].map(|all| Matrix::columns(all, 0..0));
                Linear::nt(x, w, &base).addend_if(sum).run(stream)?;
            }
            implicit.correct(stream, layer, &inputs[0], &base)?;
            sum = Some((&base).into());
        }
        let product =
            Linear::nt(term(0), weights[0].clone(), batched(out.into())).addend_if(sum.map(batched));
        let product = match (layer.bias, &self.source) {
            (Some(bias), Source::Adapted(adapted)) => product.bias(adapted.vector(bias)),
            (Some(bias), Source::Loaded(loaded) | Source::Implicit(loaded, _)) => {
                product.bias(&loaded.flat.slice(bias.clone()))
            }
            (None, _) => product,
        };
        match act {
            Some(kind) => product.activation(kind),
            None => product,
        }
        .run(stream)
    }
}

impl<E: Element> Weights<f32> for Fine<'_, E> {
    fn vector(&self, range: &Range<usize>) -> Param {
        match &self.source {
            Source::Loaded(loaded) => (&loaded.flat.slice(range.clone())).into(),
            Source::Adapted(adapted) => Param::each(&adapted.flat, range.clone()),
            Source::Implicit(_, implicit) => implicit.vector(range),
        }
    }

    fn branch(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<f32>,
        out: &Tensor<f32>,
        act: Option<(Activation, Option<&Tensor<f32>>)>,
    ) -> Result<()> {
        self.linear(stream, layer, inp, out, act.map(|(kind, _)| kind), None)
    }

    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<f32>,
        out: &Tensor<f32>,
        addend: Option<Matrix<f32>>,
    ) -> Result<()> {
        self.linear(stream, layer, inp, out, None, addend)
    }
}
