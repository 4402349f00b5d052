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

    /// Whether products take the matrices without rounding.
    pub fn is_exact(&self) -> bool {
        self.terms.len() == 1
    }
}

/// Room for the patches' terms.
pub struct FineRoom<E>(Vec<Tensor<E>>); // (rows, P) each

impl<E: Element> FineRoom<E> {
    /// Of a tower that takes no patches.
    pub const NONE: FineRoom<E> = FineRoom(Vec::new());

    /// * `patches`: numbers of all of them.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, patches: usize) -> Result<FineRoom<E>> {
        Ok(FineRoom(E::room(plan, "patches", patches)?))
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
    /// `out = inp · Wᵀ + bias + addend`, or what an activation makes of it, and then in terms where those of the input are two.
    ///
    /// * `inputs`: these, of rows of K.
    fn linear(
        &self,
        stream: &Stream,
        layer: Layer,
        (inputs, k): (Vec<Matrix<E>>, usize),
        out: &Tensor<f32>,
        act: Option<Activation>,
        addend: Option<&Tensor<f32>>,
    ) -> Result<()> {
        let &[rows, n] = out.shape() else { unreachable!("out is a matrix") };
        let addend = addend.map(|addend| Matrix::columns(addend, 0..n));
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
            Source::Implicit(_, implicit) => {
                Some(implicit.correction(stream, layer, (&inputs[0], rows), n, addend)?)
            }
            Source::Loaded(_) | Source::Adapted(_) => addend,
        };
        let batched = |terms: Vec<Matrix<E>>| -> Vec<Matrix<E>> {
            terms.into_iter().map(|term| term.batched(images)).collect()
        };
        let inputs = batched(inputs);
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
            let Some(kind) = act else { return product.run(stream) };
            let product = product.activation(kind);
            match batched(E::side_by_side(out, n)).try_into() {
                Ok(terms) => product.in_terms(terms, false),
                Err(_) => product,
            }
            .run(stream)
        };
        // In a rehearsal nobody has looked whether weights have a second term; here, any will do for it.
        stream.rehearse_maybe(|| product(weights[..1].iter().find(|_| E::TERMS > 1)))?;
        product(weights.get(1))
    }
}

impl<E: Element> Weights<f32> for Fine<'_, E> {
    const STREAM_IN_TERMS: bool = false;
    const INPUTS_IN_TERMS: bool = E::TERMS > 1;

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
        self.linear(stream, layer, in_terms(inp), out, act.map(|(kind, _)| kind), None)
    }

    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<f32>,
        out: &Tensor<f32>,
        addend: &Tensor<f32>,
    ) -> Result<()> {
        self.linear(stream, layer, in_terms(inp), out, None, Some(addend))
    }

    fn project(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        inp: &Tensor<f32>,
        out: &Tensor<f32>,
    ) -> Result<()> {
        self.linear(stream, Layer::without_bias(weight), in_terms(inp), out, None, None)
    }

    fn embed(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        inp: &Tensor<f32>,
        out: &Tensor<f32>,
    ) -> Result<()> {
        let terms = E::split(stream, inp, &self.room.0)?;
        let terms = terms.iter().map(Matrix::from).collect();
        self.linear(stream, Layer::without_bias(weight), (terms, inp.shape()[1]), out, None, None)
    }
}

/// What a norm, attention or an activation has left for products, and its columns.
fn in_terms<E: Element>(inp: &Tensor<f32>) -> (Vec<Matrix<E>>, usize) {
    let columns = inp.shape()[1];
    (E::side_by_side(inp, columns), columns)
}
