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

/// What becomes of a linear layer's `y`.
pub enum End<'a, E> {
    /// y itself.
    Plain,
    /// `y + addend`, a matrix `(rows, N)`.
    Add(Matrix<f32>),
    /// `f(y)`, and y to the tensor, for the way back.
    Activation(Activation, &'a Tensor<E>),
}

impl<E: Element> End<'_, E> {
    /// What is added, for a product that comes before the last; and what is left to do.
    pub fn take_addend(self) -> (Option<Matrix<f32>>, Self) {
        match self {
            End::Add(addend) => (Some(addend), End::Plain),
            other => (None, other),
        }
    }

    /// The product with this end; `batch`: it is of three dimensions.
    pub fn of<O: Element + Output<E>>(self, product: Linear<E, O>, batch: Option<usize>) -> Linear<E, O> {
        let batched = |tensor: &Tensor<E>| match batch {
            Some(s) => Matrix::from(tensor).batched(s),
            None => Matrix::from(tensor),
        };
        match self {
            End::Plain => product,
            End::Add(addend) => product.addend(match batch {
                Some(s) => addend.batched(s),
                None => addend,
            }),
            End::Activation(kind, kept) => product.keeping(kind, batched(kept)),
        }
    }
}

/// A tower's parameters, as its forward pass takes them.
pub trait Weights<E: Element> {
    /// A bias, a norm, an embedding.
    fn vector(&self, range: &Range<usize>) -> Param;

    /// `out = inp · Wᵀ + bias`, and its end. `inp` `(rows, K)`, `out` `(rows, N)`.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn linear<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
        end: End<E>,
    ) -> Result<()>;
}

/// What is more of weights that gradients go through.
pub trait Differentiable<E: Element>: Weights<E> {
    /// `dinp = dout · W`, `(rows, K)`, and its end: `f'(kept)`, by which it is multiplied.
    ///
    /// # Errors
    /// A shape that does not fit; the launches' own.
    fn linear_backward<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<O>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()>;
}

/// The weights of a tower as they were loaded, shared by all images.
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
        let flat = stream.vector(weights)?;
        let rounded = E::rounded(stream, &flat)?;
        Ok(Params { flat, rounded })
    }

    /// `(range / columns, columns)`
    pub fn matrix(&self, range: &Range<usize>, columns: usize) -> Tensor<E> {
        self.rounded.slice(range.clone()).view([range.len() / columns, columns])
    }
}

impl<E: Element> Weights<E> for Params<E> {
    fn vector(&self, range: &Range<usize>) -> Param {
        (&self.flat.slice(range.clone())).into()
    }

    fn linear<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
        end: End<E>,
    ) -> Result<()> {
        let mut product = Linear::nt(inp, &self.matrix(layer.weight, inp.shape()[1]), out);
        if let Some(bias) = layer.bias {
            product = product.bias(self.vector(bias));
        }
        end.of(product, None).run(stream)
    }
}

impl<E: Element> Differentiable<E> for Params<E> {
    fn linear_backward<O: Element + Output<E>>(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<O>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()> {
        let mut product = Linear::nn(dout, &self.matrix(weight, dinp.shape()[1]), dinp);
        if let Some((kind, kept)) = kept {
            product = product.backward(kind, kept);
        }
        product.run(stream)
    }
}
