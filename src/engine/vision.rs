//! CLIP's vision tower on the device: patches to unit features, and back to the gradient of every parameter.

use anyhow::Result;

use super::acts::Acts;
use super::block::Block;
use super::grads::Grads;
use super::weights::{Differentiable, Layer, Weights};
use crate::clip::{ClipConfig, VisionLayout};
use crate::gpu::Stream;
use crate::ops::Element;
use crate::ops::embed::{embed_backward, embed_forward};
use crate::ops::feature::{normalize_backward, normalize_forward};
use crate::ops::norm::{NormGradient, norm_backward, norm_forward, norm_partial_shape};

/// A model's vision tower.
#[derive(Clone)]
pub struct Vision {
    pub config: ClipConfig,
    pub layout: VisionLayout,
}

impl Vision {
    fn blocks(&self) -> impl DoubleEndedIterator<Item = Block<'_>> + ExactSizeIterator {
        let config = &self.config.vision;
        self.layout.blocks.iter().map(move |at| Block { config, at, causal: false })
    }

    /// From `acts.patches` to `acts.unit`, of all sequences of `acts`.
    ///
    /// # Errors
    /// The launches' own.
    pub fn forward<E: Element>(
        &self,
        stream: &Stream,
        weights: &impl Weights<E>,
        acts: &Acts<E>,
    ) -> Result<()> {
        let (t, c, eps) = (self.config.tokens(), self.config.vision.width, self.config.vision.eps);
        let (at, a, b) = (&self.layout, acts, acts.norm.len());
        weights.join(stream, Layer::without_bias(&at.patch_embedding), &a.patches, &a.projected, None)?;
        let (embedded, projected) = (a.embedded.view([b, t, c]), a.projected.view([b, t - 1, c]));
        let [class, position] = [&at.class_embedding, &at.position_embedding].map(|at| weights.vector(at));
        embed_forward(stream, &embedded, &projected, &class, &position)?;
        let pre_ln = weights.vector(&at.pre_ln).halves();
        norm_forward(stream, &a.pre_ln.out, a.pre_ln.stats(), &a.embedded, &pre_ln, eps)?;

        let mut x = &a.pre_ln.out;
        for (block, acts) in self.blocks().zip(&a.blocks) {
            block.forward(stream, weights, acts, x)?;
            x = &acts.out;
        }
        let post_ln = weights.vector(&at.post_ln).halves();
        norm_forward(stream, &a.post_ln.out, a.post_ln.stats(), x, &post_ln, eps)?;
        weights.join(stream, Layer::without_bias(&at.projection), &a.post_ln.out, &a.features, None)?;
        normalize_forward(stream, &a.unit, &a.norm, &a.features)
    }

    /// From `grads.dunit`, the gradient of `acts.unit`, to all else of `grads`.
    ///
    /// * `acts`: what the last forward pass left of the views that `grads` are of.
    ///
    /// # Errors
    /// The launches' own.
    pub fn backward<E: Element>(
        &self,
        stream: &Stream,
        weights: &impl Differentiable<E>,
        acts: &Acts<E>,
        grads: &Grads<E>,
    ) -> Result<()> {
        let (t, c) = (self.config.tokens(), self.config.vision.width);
        let (at, a, g, way) = (&self.layout, acts, grads, &grads.way);
        let (b, s) = (a.norm.len(), g.class.shape()[0]);
        let partial = |rows: usize| {
            let shape = norm_partial_shape(s, rows / s, c);
            way.scratch.slice(0..shape.iter().product()).view(shape)
        };

        normalize_backward(stream, &g.dfeatures, &g.dunit, &a.unit, &a.norm)?;
        let dnormed = way.dbranch.rows(0..b);
        weights.backward(stream, &at.projection, &g.dfeatures, &dnormed, None)?;
        let (last, last_grads) = (&a.blocks[a.blocks.len() - 1], &g.blocks[g.blocks.len() - 1]);
        // The last block lets the class token alone go on, of two at least.
        let (dx, low) = (&last_grads.dout, way.low(false));
        let to = NormGradient { dx, low, sums: &g.post_ln, partial: &partial(b) };
        let [weight, _] = weights.vector(&at.post_ln).halves();
        norm_backward(stream, to, &dnormed, &last.out, a.post_ln.stats(), &weight, None)?;

        for (i, block) in self.blocks().enumerate().rev() {
            let (x, below) = match i {
                0 => (&a.pre_ln.out, None),
                _ => (&a.blocks[i - 1].out, Some(&g.blocks[i - 1].dout)),
            };
            block.backward(stream, weights, &a.blocks[i], &g.blocks[i], way, x, below)?;
        }

        let dembedded = &way.dembedded;
        let to = NormGradient { dx: dembedded, low: None, sums: &g.pre_ln, partial: &partial(b * t) };
        let [weight, _] = weights.vector(&at.pre_ln).halves();
        norm_backward(stream, to, dembedded, &a.embedded, a.pre_ln.stats(), &weight, None)?;
        let (dprojected, dembedded) = (g.dprojected.view([b, t - 1, c]), dembedded.view([b, t, c]));
        embed_backward(stream, &dprojected, &g.position, &g.class, &dembedded)
    }
}
