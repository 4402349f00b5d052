//! Every matrix product, `kernels/linear*.cu`: three layouts, one epilogue, several backends.
//!
//! ```text
//! Linear::nt(&inp, &weight, &out).bias(&bias).addend(&residual).run(stream)        out = inp · Wᵀ + bias + residual
//! Linear::nn(&dout, &weight, &dinp).backward(kind, &kept).run(stream)              dinp = (dout · W) ∘ f'(kept)
//! Linear::tn(&dout, &inp, &dweight).scale(-lr, 1.0).addend(&snapshot).run(stream)  dweight = snapshot - lr doutᵀ · inp
//! ```
//!
//! Where `out` has three dimensions, `(batch, M, N)`, it is that many products; what has two is shared by all of them.

mod backend;
mod matrix;
mod prove;
mod reference;
#[cfg(test)]
mod tests;
mod wgmma;

use anyhow::{Result, ensure};
use bytemuck::{Pod, Zeroable};
use half::f16;

pub use backend::Backend;
pub use matrix::Matrix;
pub use prove::{prove, rehearse_proofs, serving};
pub use reference::{activation_reference, product_reference};

use super::{Element, Param, int};
use crate::clip::Activation;
use crate::gpu::Stream;
use backend::Kind;
use matrix::Place;

/// How the operands of `out (M, N)` lie: `LAYOUT` of `kernels/linear.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A `(M, K)`, B `(N, K)`.
    Nt,
    /// A `(M, K)`, B `(K, N)`.
    Nn,
    /// A `(K, M)`, B `(K, N)`.
    Tn,
}

/// What a product of `E` may come out as: `E` or float32.
pub trait Output<E> {}
impl<E> Output<E> for f32 {}
impl Output<f16> for f16 {}

/// A product that is described and then run: `y = alpha A · B + beta bias + addend`, and what becomes of it.
#[must_use = "a product is computed by `run`"]
pub struct Linear<E, O> {
    layout: Layout,
    a: Matrix<E>,
    b: Matrix<E>,
    out: Matrix<O>,
    second: Second<E>,
    bias: Option<Param>,
    addend: Option<Addend<E>>,
    act: Act<E>,
    in_terms: Option<InTerms<E>>,
    alpha: f32,
    beta: f32,
    backend: Option<Backend>,
}

/// Second terms of A and of B, and what they are times.
struct Second<E> {
    a: Option<Matrix<E>>,
    b: Option<Matrix<E>>,
    scale: f32,
}

enum Act<E> {
    None,
    Forward(Activation, Option<Matrix<E>>),
    Backward(Activation, Matrix<E>),
}

enum Addend<E> {
    Float(Matrix<f32>),
    Terms([Matrix<E>; 2]),
}

/// A result in two terms, beside `out` or in its place.
struct InTerms<E> {
    terms: [Matrix<E>; 2],
    beside: bool,
}

/// `struct Linear` of `kernels/linear.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    a: u64,
    b: u64,
    a2: u64,
    b2: u64,
    out: u64,
    kept: u64,
    bias: u64,
    addend: u64,
    a_step: u64,
    b_step: u64,
    out_step: u64,
    kept_step: u64,
    bias_step: u64,
    addend_step: u64,
    m: i32,
    n: i32,
    k: i32,
    batch: i32,
    a_pitch: i32,
    b_pitch: i32,
    out_pitch: i32,
    kept_pitch: i32,
    addend_pitch: i32,
    alpha: f32,
    beta: f32,
    second: f32,
    /// Bit 0 A, bit 1 B, bit 2 all that the epilogue reads and writes.
    aligned: i32,
    _end: i32,
    rest: u64,
    addend2: u64,
}

impl<E: Element, O: Element + Output<E>> Linear<E, O> {
    /// `out (M, N) = A (M, K) · B (N, K)ᵀ`: a layer forward, with a weight as B.
    pub fn nt(a: impl Into<Matrix<E>>, b: impl Into<Matrix<E>>, out: impl Into<Matrix<O>>) -> Self {
        Linear::new(Layout::Nt, a, b, out)
    }

    /// `out (M, N) = A (M, K) · B (K, N)`: the gradient of a layer's input, with a weight as B.
    pub fn nn(a: impl Into<Matrix<E>>, b: impl Into<Matrix<E>>, out: impl Into<Matrix<O>>) -> Self {
        Linear::new(Layout::Nn, a, b, out)
    }

    /// `out (M, N) = A (K, M)ᵀ · B (K, N)`: the gradient of a weight, from dout and inp.
    pub fn tn(a: impl Into<Matrix<E>>, b: impl Into<Matrix<E>>, out: impl Into<Matrix<O>>) -> Self {
        Linear::new(Layout::Tn, a, b, out)
    }

    /// A product by its layout.
    pub fn new(
        layout: Layout,
        a: impl Into<Matrix<E>>,
        b: impl Into<Matrix<E>>,
        out: impl Into<Matrix<O>>,
    ) -> Self {
        Linear {
            layout,
            a: a.into(),
            b: b.into(),
            out: out.into(),
            second: Second { a: None, b: None, scale: 0.0 },
            bias: None,
            addend: None,
            act: Act::None,
            in_terms: None,
            alpha: 1.0,
            beta: 1.0,
            backend: None,
        }
    }

    /// With second terms of A, of B or of both, beside the first: `A + scale · a` in the place of A, `B + scale · b` in that of
    /// B, as exact as float32. Of [`Linear::nt`] alone.
    pub fn second_terms(mut self, a: Option<Matrix<E>>, b: Option<Matrix<E>>, scale: f32) -> Self {
        self.second = Second { a, b, scale };
        self
    }

    /// Of N, or of N for each of the batch, added to each row.
    pub fn bias(mut self, bias: impl Into<Param>) -> Self {
        self.bias = Some(bias.into());
        self
    }

    /// `(M, N)` or `(batch, M, N)`, added; may be `out` itself.
    pub fn addend(mut self, addend: impl Into<Matrix<f32>>) -> Self {
        self.addend = Some(Addend::Float(addend.into()));
        self
    }

    /// The same in two terms, [`Element::SECOND_TERM`] apart; they may be those of the result.
    pub fn addend_in_terms(mut self, terms: [Matrix<E>; 2]) -> Self {
        self.addend = Some(Addend::Terms(terms));
        self
    }

    /// The same with an addend, where there is one.
    pub fn addend_if(self, addend: Option<Matrix<f32>>) -> Self {
        match addend {
            Some(addend) => self.addend(addend),
            None => self,
        }
    }

    /// Of the sums, and of the bias.
    pub fn scale(mut self, alpha: f32, beta: f32) -> Self {
        (self.alpha, self.beta) = (alpha, beta);
        self
    }

    /// `out = f(y)`.
    pub fn activation(mut self, kind: Activation) -> Self {
        self.act = Act::Forward(kind, None);
        self
    }

    /// `out = f(y)`, and y itself to `kept`, for the way back.
    pub fn keeping(mut self, kind: Activation, kept: impl Into<Matrix<E>>) -> Self {
        self.act = Act::Forward(kind, Some(kept.into()));
        self
    }

    /// `out = y f'(kept)`.
    pub fn backward(mut self, kind: Activation, kept: impl Into<Matrix<E>>) -> Self {
        self.act = Act::Backward(kind, kept.into());
        self
    }

    /// The result in two terms, `first + second` · [`Element::SECOND_TERM`], for products that take float16: beside `out`, or in
    /// its place, where only its shape counts. Of results in float32 of float16, without what is kept for the way back.
    pub fn in_terms(mut self, terms: [Matrix<E>; 2], beside: bool) -> Self {
        self.in_terms = Some(InTerms { terms, beside });
        self
    }

    /// By this backend and no other, for tests.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Queues the product.
    ///
    /// # Errors
    /// A shape that does not fit the others, sizes past 32 bits; the launch's own.
    pub fn run(self, stream: &Stream) -> Result<()> {
        let params = self.params()?;
        let architecture = stream.architecture();
        let backend = self.backend.unwrap_or_else(|| backend::choose::<E>(architecture, params.aligned));
        ensure!(
            backend == Backend::Simt || size_of::<E>() == size_of::<f16>(),
            "linear: {} multiplies float16 alone, not {}",
            backend.kernel(),
            E::NAME
        );
        let (act, gelu) = match self.act {
            Act::None => (0, false),
            Act::Forward(kind, _) => (1, kind == Activation::Gelu),
            Act::Backward(kind, _) => (2, kind == Activation::Gelu),
        };
        let terms = [&self.second.a, &self.second.b].map(|second| 1 + usize::from(second.is_some()));
        ensure!(terms == [1, 1] || self.layout == Layout::Nt, "linear: second terms in {:?}", self.layout);
        if stream.is_rehearsal() {
            self.note(stream, &params, terms);
        }
        let kind = Kind {
            out_terms: self.in_terms.is_some(),
            addend_terms: matches!(self.addend, Some(Addend::Terms(_))),
            ..Kind::new::<E, O>(self.layout, terms, act, gelu)
        };
        backend.launch(stream, &params, kind)
    }

    /// Multiplications and additions, of the first terms, and the bytes of all operands and results.
    fn note(&self, stream: &Stream, params: &Params, terms: [usize; 2]) {
        let &Params { m, n, k, batch, a_step, b_step, kept_step, bias_step, addend_step, .. } = params;
        let sizes = [batch, m, n, k].map(|size| size as usize);
        let [batch, m, n, k] = sizes.map(|size| size as u64);
        let shared_or_each = |step: u64| if step == 0 { 1 } else { batch };
        let (operand, result, float) = (size_of::<E>() as u64, size_of::<O>() as u64, 4);
        let [a, b] = terms.map(|terms| terms as u64);
        let mut bytes = shared_or_each(a_step) * a * m * k * operand
            + shared_or_each(b_step) * b * n * k * operand
            + batch * m * n * result;
        if matches!(self.act, Act::Forward(_, Some(_)) | Act::Backward(..)) {
            bytes += shared_or_each(kept_step) * m * n * operand;
        }
        if let Some(InTerms { beside, .. }) = self.in_terms {
            bytes += batch * m * n * 2 * operand;
            bytes -= if beside { 0 } else { batch * m * n * result };
        }
        if self.addend.is_some() {
            bytes += shared_or_each(addend_step) * m * n * float;
        }
        if self.bias.is_some() {
            bytes += shared_or_each(bias_step) * n * float;
        }
        stream.note_product(sizes, bytes);
    }

    fn params(&self) -> Result<Params> {
        let out = self.out.place("out")?;
        let (mut a, mut b) = (self.a.place("A")?, self.b.place("B")?);
        let ([m, n], batch) = ([out.rows, out.columns], out.batch);
        let k = if self.layout == Layout::Tn { a.rows } else { a.columns };
        a.expect("A", batch, if self.layout == Layout::Tn { [k, m] } else { [m, k] })?;
        b.expect("B", batch, if self.layout == Layout::Nt { [n, k] } else { [k, n] })?;
        // Of no columns the sum is nothing, and what is added stays.
        ensure!(k > 0 || size_of::<E>() == size_of::<f32>(), "linear: sums of nothing, in {}", E::NAME);

        let lies = |place: &Place| Place { address: 0, aligned: true, ..*place };
        let second = |what: &str, second: &Option<Matrix<E>>, first: &mut Place| -> Result<u64> {
            let Some(second) = second else { return Ok(0) };
            let second = second.place(what)?;
            ensure!(
                lies(&second) == lies(first),
                "linear: {what} is {second:?}, where the first term is {first:?}"
            );
            first.aligned &= second.aligned;
            Ok(second.address)
        };
        let a2 = second("A's second term", &self.second.a, &mut a)?;
        let b2 = second("B's second term", &self.second.b, &mut b)?;

        let has_out = self.in_terms.as_ref().is_none_or(|terms| terms.beside);
        let mut aligned = out.aligned || !has_out;
        let mut beside = |what: &str, place: Result<Place>| -> Result<Option<Place>> {
            let place = place?;
            place.expect(what, batch, [m, n])?;
            aligned &= place.aligned;
            Ok(Some(place))
        };
        let kept = match &self.act {
            Act::Forward(_, Some(kept)) | Act::Backward(_, kept) => beside("kept", kept.place("kept"))?,
            Act::None | Act::Forward(_, None) => None,
        };
        let mut both = |what: &str, [first, second]: &[Matrix<E>; 2]| -> Result<[Option<Place>; 2]> {
            let (first, second) = (beside(what, first.place(what))?, beside(what, second.place(what))?);
            let same = first.as_ref().map(lies) == second.as_ref().map(lies);
            ensure!(same, "linear: {what}: the second term is {second:?}, where the first is {first:?}");
            Ok([first, second])
        };
        let (kept, rest) = match &self.in_terms {
            None => (kept, None),
            Some(InTerms { terms, .. }) => {
                let sizes = [size_of::<E>(), size_of::<O>()];
                ensure!(sizes == [2, 4], "linear: {} of {} in terms", O::NAME, E::NAME);
                let keeps = matches!(self.act, Act::Forward(_, Some(_)) | Act::Backward(..));
                ensure!(!keeps, "linear: a result in terms, and what is kept for the way back");
                let [first, second] = both("out in terms", terms)?;
                (first, second)
            }
        };
        let [addend, addend2] = match &self.addend {
            Some(Addend::Terms(terms)) => both("addend", terms)?,
            Some(Addend::Float(addend)) => [beside("addend", addend.place("addend"))?, None],
            None => [None, None],
        };
        let is_written = matches!(self.act, Act::Forward(..)) || self.in_terms.is_some();
        ensure!(
            !is_written || kept.is_none_or(|kept| kept.batch == batch),
            "linear: kept is shared by all products of a batch"
        );
        ensure!(
            batch.is_none_or(|batch| batch <= 65_535),
            "linear: {batch:?} products at once, of 65535 that a grid has room for"
        );
        if let Some(bias) = &self.bias {
            bias.expect("linear: bias", n, 1)?;
            ensure!(
                bias.images().is_none() || bias.images() == batch,
                "linear: bias is {bias:?}, for {batch:?} products"
            );
            aligned &= bias.address().is_multiple_of(16) && bias.step().is_multiple_of(4);
        }
        let has_second_operand = self.second.a.is_some() || self.second.b.is_some();
        let second_scale = if has_second_operand { self.second.scale } else { E::SECOND_TERM };
        ensure!(
            second_scale == E::SECOND_TERM || rest.is_none() && addend2.is_none(),
            "linear: second terms are times {second_scale} and {}",
            E::SECOND_TERM
        );
        let of = |place: &Option<Place>, value: fn(&Place) -> usize| place.as_ref().map_or(0, value);
        Ok(Params {
            a: a.address,
            b: b.address,
            a2,
            b2,
            out: if has_out { out.address } else { 0 },
            kept: kept.map_or(0, |kept| kept.address),
            bias: self.bias.as_ref().map_or(0, Param::address),
            addend: addend.map_or(0, |addend| addend.address),
            a_step: a.step as u64,
            b_step: b.step as u64,
            out_step: out.step as u64,
            kept_step: of(&kept, |kept| kept.step) as u64,
            bias_step: self.bias.as_ref().map_or(0, Param::step) as u64,
            addend_step: of(&addend, |addend| addend.step) as u64,
            m: int(m)?,
            n: int(n)?,
            k: int(k)?,
            batch: int(batch.unwrap_or(1))?,
            a_pitch: int(a.pitch)?,
            b_pitch: int(b.pitch)?,
            out_pitch: int(out.pitch)?,
            kept_pitch: int(of(&kept, |kept| kept.pitch))?,
            addend_pitch: int(of(&addend, |addend| addend.pitch))?,
            alpha: self.alpha,
            beta: self.beta,
            second: second_scale,
            aligned: i32::from(a.aligned) | i32::from(b.aligned) << 1 | i32::from(aligned) << 2,
            _end: 0,
            rest: rest.map_or(0, |rest| rest.address),
            addend2: addend2.map_or(0, |addend| addend.address),
        })
    }
}
