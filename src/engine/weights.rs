//! How a tower's layers act: by the weights as they were loaded, by each image's own, or by a step that is folded in.

use std::ops::Range;

use anyhow::Result;

use crate::clip::Activation;
use crate::gpu::{Stream, Tensor};
use crate::ops::linear::{Linear, Matrix, Output};
use crate::ops::{Element, Param};

/// Where a linear layer's parameters lie in a tower's buffer.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    pub weight: &'a Range<usize>,       // (N, K)
    pub bias: Option<&'a Range<usize>>, // (N,)
}

impl<'a> Layer<'a> {
    pub fn new(weight: &'a Range<usize>, bias: &'a Range<usize>) -> Layer<'a> {
        Layer { weight, bias: Some(bias) }
    }

    pub fn without_bias(weight: &'a Range<usize>) -> Layer<'a> {
        Layer { weight, bias: None }
    }
}

/// A tower's parameters, as its forward pass takes them.
///
/// What comes out of a norm, of attention and of an activation is what a linear layer takes next: in terms where
/// [`Weights::INPUTS_IN_TERMS`], as [`crate::ops::Rows`] has it.
pub trait Weights<E: Element> {
    /// Whether the residual stream is in terms.
    const STREAM_IN_TERMS: bool;
    /// Whether what linear layers take is.
    const INPUTS_IN_TERMS: bool;

    /// A bias, a norm, an embedding.
    fn vector(&self, range: &Range<usize>) -> Param;

    /// Within a branch: `out = y`, or `out = f(y)` and y itself to the tensor, where there is one, for the way back, with
    /// `y = inp · Wᵀ + bias`. `inp` `(rows, K)`, `out` `(rows, N)`.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn branch(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<E>,
        act: Option<(Activation, Option<&Tensor<E>>)>,
    ) -> Result<()>;

    /// Into the residual stream: `out = y + addend`, which may be out itself. `out` `(rows, N)`, `addend` `(rows, N or more)`, of
    /// whose rows the first N count; both in terms where [`Weights::STREAM_IN_TERMS`].
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
        addend: &Tensor<f32>,
    ) -> Result<()>;

    /// Out of the tower: `out = y`, without a bias.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn project(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
    ) -> Result<()>;

    /// The same into it, of what is never in terms.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn embed(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
    ) -> Result<()> {
        self.project(stream, weight, inp, out)
    }
}

/// A product's results into the residual stream: see [`Weights::join`]. `images`: as many products, where each has its own weight.
pub fn joined<E: Element>(
    product: Linear<E, f32>,
    out: &Tensor<f32>,
    addend: &Tensor<f32>,
    images: Option<usize>,
) -> Linear<E, f32> {
    let columns = out.shape()[1];
    let terms = |rows: &Tensor<f32>| -> Option<[Matrix<E>; 2]> {
        let terms = E::side_by_side(rows, columns).into_iter().map(|term| term.batched(images));
        terms.collect::<Vec<_>>().try_into().ok()
    };
    match (terms(out), terms(addend)) {
        (Some(out), Some(addend)) => product.in_terms(out, false).addend_in_terms(addend),
        _ => product.addend(Matrix::columns(addend, 0..columns).batched(images)),
    }
}

/// What is more of weights that gradients go through.
pub trait Differentiable<E: Element>: Weights<E> {
    /// `dinp = dout · W`, `(rows, K)`, times `f'(kept)` where that is given.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn backward(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<E>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()>;
}

/// The weights of a tower as they were loaded, shared by all images.
#[derive(Clone)]
pub struct Params<E> {
    /// `(total,)`, in the order of the layout.
    pub flat: Tensor<f32>,
    /// The same as products take them.
    rounded: Tensor<E>,
}

impl<E: Element> Params<E> {
    /// # Errors
    /// Out of device memory.
    pub fn new(stream: &Stream, weights: &[f32]) -> Result<Params<E>> {
        Params::shared(stream, &stream.vector(weights)?)
    }

    /// Of weights that are on the device already.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn shared(stream: &Stream, flat: &Tensor<f32>) -> Result<Params<E>> {
        Ok(Params { flat: flat.clone(), rounded: E::rounded(stream, flat)? })
    }

    /// `(total,)`
    pub fn rounded(&self) -> &Tensor<E> {
        &self.rounded
    }

    /// `(range / columns, columns)`
    pub fn matrix(&self, range: &Range<usize>, columns: usize) -> Tensor<E> {
        self.rounded.slice(range.clone()).view([range.len() / columns, columns])
    }

    /// `inp · Wᵀ + bias`
    fn product<O: Element + Output<E>>(
        &self,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
    ) -> Linear<E, O> {
        let product = Linear::nt(inp, &self.matrix(layer.weight, inp.shape()[1]), out);
        match layer.bias {
            Some(bias) => product.bias(self.vector(bias)),
            None => product,
        }
    }
}

impl<E: Element> Weights<E> for Params<E> {
    // On the way back norms read the first terms, which is half of what they would read else.
    const STREAM_IN_TERMS: bool = E::TERMS > 1;
    const INPUTS_IN_TERMS: bool = false;

    fn vector(&self, range: &Range<usize>) -> Param {
        (&self.flat.slice(range.clone())).into()
    }

    fn branch(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<E>,
        act: Option<(Activation, Option<&Tensor<E>>)>,
    ) -> Result<()> {
        let product = self.product(layer, inp, out);
        match act {
            None => product,
            Some((kind, None)) => product.activation(kind),
            Some((kind, Some(kept))) => product.keeping(kind, kept),
        }
        .run(stream)
    }

    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
        addend: &Tensor<f32>,
    ) -> Result<()> {
        joined(self.product(layer, inp, out), out, addend, None).run(stream)
    }

    fn project(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
    ) -> Result<()> {
        self.product(Layer::without_bias(weight), inp, out).run(stream)
    }
}

impl<E: Element> Differentiable<E> for Params<E> {
    fn backward(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<E>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()> {
        let product = Linear::nn(dout, &self.matrix(weight, dinp.shape()[1]), dinp);
        match kept {
            Some((kind, kept)) => product.backward(kind, kept),
            None => product,
        }
        .run(stream)
    }
}
