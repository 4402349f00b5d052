//! A pre-norm block of a transformer, of which both of CLIP's towers are made: forward, and backward for vision.
//!
//! ```text
//! x ── ln_1 ── qkv ── attention ── out_proj ── + ── ln_2 ── fc1 ── act ── fc2 ── + ──
//!  └───────────────────────────────────────────┘ └──────────────────────────────┘
//! ```
//!
//! Only the first Q of T tokens go on behind the attention: all of them, or the class token where nobody asks for others.

use anyhow::{Context, Result};

use super::acts::BlockActs;
use super::grads::{BlockGrads, Way};
use super::weights::{Differentiable, Layer, Weights};
use crate::clip::{BlockLayout, TowerConfig};
use crate::gpu::{Stream, Tensor};
use crate::ops::attention::{self, attention_backward, attention_forward};
use crate::ops::norm::{NormGradient, Residual, norm_backward, norm_forward};
use crate::ops::segment::{segment_partial_shape, segment_sum};
use crate::ops::{Element, Rows};

/// A block of a tower.
pub struct Block<'a> {
    pub config: &'a TowerConfig,
    pub at: &'a BlockLayout,
    /// Each token sees itself and those before it alone.
    pub causal: bool,
}

impl Block<'_> {
    fn attention(&self, b: usize, t: usize) -> attention::Shape {
        let TowerConfig { heads: nh, width: c, .. } = *self.config;
        attention::Shape { b, t, nh, hs: c / nh, causal: self.causal }
    }

    /// From `x` `(B·T, C)` to `acts.out` `(B·Q, C)`.
    ///
    /// # Errors
    /// The launches' own.
    pub fn forward<E: Element, W: Weights<E>>(
        &self,
        stream: &Stream,
        weights: &W,
        acts: &BlockActs<E>,
        x: &Tensor<f32>,
    ) -> Result<()> {
        let (at, TowerConfig { width: c, eps, activation, .. }) = (self.at, self.config);
        let ([t, q], b) = (acts.tokens(), acts.lse.shape()[0]);
        let a = acts;
        // The rows of x that go on come first.
        let residual = x.view([b * q, t / q * c]);
        fn input<'a, E: Element, W: Weights<E>>(rows: &'a Tensor<E>) -> Rows<'a, E> {
            Rows::new(rows, W::INPUTS_IN_TERMS)
        }
        let [x, mid] = [x, &a.mid].map(|rows| Rows::new(rows, W::STREAM_IN_TERMS));

        norm_forward(
            stream,
            input::<E, W>(&a.ln1.out),
            a.ln1.stats(),
            x,
            &weights.vector(&at.ln1).halves(),
            *eps,
        )?;
        let qkv = Layer::new(&at.qkv_w, &at.qkv_b);
        weights.branch(stream, qkv, &a.ln1.out, &a.qkv, None)?;
        attention_forward(stream, input::<E, W>(&a.att), &a.lse, &a.qkv, self.attention(b, t), q)?;
        let proj = Layer::new(&at.out_w, &at.out_b);
        weights.join(stream, proj, &a.att, &a.mid, &residual)?;

        norm_forward(
            stream,
            input::<E, W>(&a.ln2.out),
            a.ln2.stats(),
            mid,
            &weights.vector(&at.ln2).halves(),
            *eps,
        )?;
        let fc1 = Layer::new(&at.fc1_w, &at.fc1_b);
        weights.branch(stream, fc1, &a.ln2.out, &a.fc1, Some((*activation, a.fc1_pre.as_ref())))?;
        let fc2 = Layer::new(&at.fc2_w, &at.fc2_b);
        weights.join(stream, fc2, &a.fc1, &a.out, &a.mid)
    }

    /// From the gradient of the block's output to that of its input, and of its parameters.
    ///
    /// * `grads.dout`: the gradient of the output. Overwritten: all else of `grads`.
    /// * `x`: the block's input. `below`: `dout` of the block before, which gets the gradient of the input; of the first block
    ///   `way.dbranch` itself.
    ///
    /// # Errors
    /// The launches' own.
    #[allow(clippy::too_many_arguments)] // forward's operands and their gradients
    pub fn backward<E: Element, W: Differentiable<E>>(
        &self,
        stream: &Stream,
        weights: &W,
        acts: &BlockActs<E>,
        grads: &BlockGrads<E>,
        way: &Way<E>,
        x: &Tensor<f32>,
        below: &Tensor<E>,
    ) -> Result<()> {
        let (at, TowerConfig { width: c, mlp: m, activation, .. }) = (self.at, self.config);
        let ([t, q], b, s) = (acts.tokens(), acts.lse.shape()[0], grads.ln1.sums.shape()[0]);
        let n = b / s;
        let (a, g) = (acts, grads);
        let fc1_pre = a.fc1_pre.as_ref().context("activations of a pass that keeps none")?;
        let scratch = |shape: [usize; 3]| way.scratch.slice(0..shape.iter().product()).view(shape);
        let [dbranch, datt] = [&way.dbranch, &way.datt].map(|rows| rows.rows(0..b * q));
        let [x, mid] = [x, &a.mid].map(|rows| Rows::new(rows, W::STREAM_IN_TERMS));

        weights.backward(stream, &at.fc2_w, &g.dout, &g.dfc1, Some((*activation, fc1_pre)))?;
        if let Some(fc1_b) = &g.fc1_b {
            segment_sum(stream, fc1_b, &g.dfc1, &scratch(segment_partial_shape(s, n * q, *m)))?;
        }
        weights.backward(stream, &at.fc1_w, &g.dfc1, &dbranch, None)?;
        let to = NormGradient { dx: &g.dmid, partial: &g.ln2.partial };
        let [weight, _] = weights.vector(&at.ln2).halves();
        let above = Residual { dx: &g.dout, every: 1 };
        norm_backward(stream, to, &dbranch, mid, a.ln2.stats(), &weight, Some(above))?;

        weights.backward(stream, &at.out_w, &g.dmid, &datt, None)?;
        let shape = self.attention(b, t);
        attention_backward(
            stream,
            &g.dqkv,
            &way.dqkv_b,
            &datt,
            &a.att,
            &a.lse,
            &a.qkv,
            &way.scratch,
            shape,
            q,
        )?;
        if let Some(qkv_b) = &g.qkv_b {
            segment_sum(stream, qkv_b, &way.dqkv_b, &scratch(segment_partial_shape(s, n, 3 * c)))?;
        }
        weights.backward(stream, &at.qkv_w, &g.dqkv, &way.dbranch, None)?;
        let to = NormGradient { dx: below, partial: &g.ln1.partial };
        let [weight, _] = weights.vector(&at.ln1).halves();
        let above = Residual { dx: &g.dmid, every: t / q };
        norm_backward(stream, to, &way.dbranch, x, a.ln1.stats(), &weight, Some(above))
    }
}
