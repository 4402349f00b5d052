//! CLIP's vision tower on the device: patches to unit features, and back to the gradient of every parameter.

use anyhow::Result;

use super::acts::Acts;
use super::block::Block;
use super::grads::Grads;
use super::weights::{Differentiable, Weights};
use crate::clip::{ClipConfig, VisionLayout};
use crate::gpu::Stream;
use crate::ops::feature::{normalize_backward, normalize_forward};
use crate::ops::norm::{NormGradient, Tokens, norm_backward, norm_forward};
use crate::ops::{Element, Param, Rows};

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

    /// Of the class, and of the positions.
    fn embeddings<E: Element>(&self, weights: &impl Weights<E>) -> [Param; 2] {
        [&self.layout.class_embedding, &self.layout.position_embedding].map(|at| weights.vector(at))
    }

    /// From `acts.patches` to `acts.unit`, of all sequences of `acts`.
    ///
    /// # Errors
    /// The launches' own.
    pub fn forward<E: Element, W: Weights<E>>(
        &self,
        stream: &Stream,
        weights: &W,
        acts: &Acts<E>,
    ) -> Result<()> {
        let (t, c, eps) = (self.config.tokens(), self.config.vision.width, self.config.vision.eps);
        let (at, a, b) = (&self.layout, acts, acts.norm.len());
        weights.embed(stream, &at.patch_embedding, &a.patches, &a.projected)?;
        let [class, position] = self.embeddings(weights);
        let patches = &a.projected.view([b, t - 1, c]);
        let tokens = Tokens { patches, class: &class, position: &position };
        let pre_ln = weights.vector(&at.pre_ln).halves();
        let entering = Rows::new(&a.pre_ln.out, W::STREAM_IN_TERMS);
        norm_forward(stream, entering, a.pre_ln.stats(), tokens, &pre_ln, eps)?;

        let mut x = &a.pre_ln.out;
        for (block, acts) in self.blocks().zip(&a.blocks) {
            block.forward(stream, weights, acts, x)?;
            x = &acts.out;
        }
        let post_ln = weights.vector(&at.post_ln).halves();
        let normed = Rows::new(&a.post_ln.out, W::INPUTS_IN_TERMS);
        let leaving = Rows::new(x, W::STREAM_IN_TERMS);
        norm_forward(stream, normed, a.post_ln.stats(), leaving, &post_ln, eps)?;
        weights.project(stream, &at.projection, &a.post_ln.out, &a.features)?;
        normalize_forward(stream, &a.unit, &a.norm, &a.features)
    }

    /// From `grads.dunit`, the gradient of `acts.unit`, to all else of `grads`.
    ///
    /// * `acts`: what the last forward pass left of the views that `grads` are of.
    ///
    /// # Errors
    /// The launches' own.
    pub fn backward<E: Element, W: Differentiable<E>>(
        &self,
        stream: &Stream,
        weights: &W,
        acts: &Acts<E>,
        grads: &Grads<E>,
    ) -> Result<()> {
        let (t, c) = (self.config.tokens(), self.config.vision.width);
        let (at, a, g, way) = (&self.layout, acts, grads, &grads.way);
        let b = a.norm.len();

        normalize_backward(stream, &g.dfeatures, &g.dunit, &a.unit, &a.norm)?;
        let dnormed = way.dbranch.rows(0..b);
        weights.backward(stream, &at.projection, &g.dfeatures, &dnormed, None)?;
        let (last, last_grads) = (&a.blocks[a.blocks.len() - 1], &g.blocks[g.blocks.len() - 1]);
        let to = NormGradient { dx: &last_grads.dout, partial: &g.post_ln.partial };
        let [weight, _] = weights.vector(&at.post_ln).halves();
        let leaving = Rows::new(&last.out, W::STREAM_IN_TERMS);
        norm_backward(stream, to, &dnormed, leaving, a.post_ln.stats(), &weight, None)?;

        for (i, block) in self.blocks().enumerate().rev() {
            let (x, below) = match i {
                0 => (&a.pre_ln.out, &way.dbranch),
                _ => (&a.blocks[i - 1].out, &g.blocks[i - 1].dout),
            };
            block.backward(stream, weights, &a.blocks[i], &g.blocks[i], way, x, below)?;
        }

        let to = NormGradient { dx: &g.dprojected.view([b, t - 1, c]), partial: &g.pre_ln.partial };
        let [class, position] = self.embeddings(weights);
        let patches = &a.projected.view([b, t - 1, c]);
        let tokens = Tokens { patches, class: &class, position: &position };
        let [weight, _] = weights.vector(&at.pre_ln).halves();
        norm_backward(stream, to, &way.dbranch, tokens, a.pre_ln.stats(), &weight, None)?;
        g.norms.finish(stream)
    }
}
