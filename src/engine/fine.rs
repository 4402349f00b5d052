//! The forward pass of the predicted images, as exact as float32 in whatever type products take.
//!
//! What a step changes is small beside what float16's digits lose on the way through a tower, so an image that is predicted,
//! before and after, passes through it in float32: where products take float16, both operands of them go in two terms,
//! `x = x₁ + x₂` and `W = W₁ + W₂`, and `x Wᵀ = x₁ W₁ᵀ + x₂ W₁ᵀ + x₁ W₂ᵀ`, in one pass over them. There are fifty times as many
//! views.

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
    /// * `weights`: what `params` was made of; in a rehearsal they pass for exact. `matrices`: where linear layers' weights are
    ///   among them.
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
        Loaded::with(stream, params, stream.is_rehearsal() || matrices.all(holds))
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

/// Room for the inputs' terms.
pub struct FineRoom<E>(Vec<Tensor<E>>); // (rows, widest input) each

impl<E: Element> FineRoom<E> {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, rows: usize, input: usize) -> Result<FineRoom<E>> {
        Ok(FineRoom(E::room(plan, "inputs", rows * input)?))
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
        let (&[_, k], n) = (inp.shape(), out.shape()[1]) else { unreachable!("inp is a matrix") };
        let inputs = E::split(stream, inp, &self.room.0)?;
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
        let addend = match &self.source {
            Source::Implicit(_, implicit) => Some(implicit.correction(stream, layer, &inputs[0], n, addend)?),
            Source::Loaded(_) | Source::Adapted(_) => addend,
        };
        let inputs: Vec<Matrix<E>> = inputs.iter().map(|term| Matrix::from(term).batched(images)).collect();
        let product = |second_weight: Option<&Matrix<E>>| -> Result<()> {
            let product =
                Linear::nt(inputs[0].clone(), weights[0].clone(), Matrix::from(out).batched(images))
                    .second_terms(inputs.get(1).cloned(), second_weight.cloned(), E::SECOND_TERM)
                    .addend_if(addend.clone().map(|addend| addend.batched(images)));
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
        };
        // In a rehearsal nobody has looked whether weights have a second term; here, any will do for it.
        stream.rehearse_maybe(|| product(weights[..1].iter().find(|_| E::TERMS > 1)))?;
        product(weights.get(1))
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
