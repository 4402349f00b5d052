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
pub trait Weights<E: Element> {
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

    /// Into the residual stream: `out = y + addend`, a matrix `(rows, N)` that may be written over, or y.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
        addend: Option<Matrix<f32>>,
    ) -> Result<()>;
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
        addend: Option<Matrix<f32>>,
    ) -> Result<()> {
        let product = self.product(layer, inp, out);
        product.addend_if(addend).run(stream)
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
