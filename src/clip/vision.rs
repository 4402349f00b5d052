//! CLIP's vision tower on the device: image patches to unit features, and the gradient of every
//! parameter.

use std::ops::Range;

use anyhow::Result;

use super::config::ClipConfig;
use super::layout::VisionLayout;
use super::tower::{Tower, halves};
use crate::gpu::{Stream, Tensor};
use crate::ops::head::{normalize_backward, normalize_forward, rows_gather, rows_scatter};
use crate::ops::layernorm::{self, Normed, layernorm_backward, layernorm_forward};
use crate::ops::linear::Linear;
use crate::ops::patch_embed::{self, PatchEmbed, patch_embed_backward, patch_embed_forward};
use crate::ops::sgd::sgd_step;

/// The tower's parameters, its activations for up to `B` images, and the snapshot that undoes a step.
pub struct VisionTower {
    config: ClipConfig,
    pub layout: VisionLayout,
    pub params: Tensor<f32>, // (layout.total,)
    pub grads: Tensor<f32>,  // (layout.total,)
    snapshot: Tensor<f32>,   // (layout.total,)

    /// `(B, T-1, 3·P·P)`: the input, filled by the augmentation.
    pub patches: Tensor<f32>,
    projected: Tensor<f32>, // (B, T-1, C)
    embedded: Tensor<f32>,  // (B, T, C)
    pre_ln: Normed,         // (B, T, C)
    tower: Tower,
    class_row: Tensor<i32>, // (B,) zeros: the class token's row
    class: Tensor<f32>,     // (B, C)
    post_ln: Normed,        // (B, C)
    features: Tensor<f32>,  // (B, D)
    /// `(B, D)`: features of unit norm, the output.
    pub unit: Tensor<f32>,
    norm: Tensor<f32>, // (B,)

    dx: Tensor<f32>,        // (B, T, C)
    dembedded: Tensor<f32>, // (B, T, C)
    dclass: Tensor<f32>,    // (B, C)
    dnormed: Tensor<f32>,   // (B, C)
    dfeatures: Tensor<f32>, // (B, D)
    scratch: Tensor<f32>,
}

impl VisionTower {
    /// Puts `weights` (in `layout`'s order) on the device, with room for `b` images at once.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn new(
        stream: &Stream,
        config: &ClipConfig,
        layout: VisionLayout,
        weights: &[f32],
        b: usize,
    ) -> Result<Self> {
        let (t, c, d) = (config.tokens(), config.vision.width, config.embed_dim);
        let params = stream.vector(weights)?;
        let snapshot = stream.alloc(layout.total)?;
        stream.copy(&snapshot, &params)?;
        Ok(VisionTower {
            config: config.clone(),
            params,
            // Padding between tensors is never written: as zero, a step leaves it alone.
            grads: stream.zeros(layout.total)?,
            snapshot,
            layout,
            patches: stream.alloc(b * (t - 1) * config.patch_len())?,
            projected: stream.alloc(b * (t - 1) * c)?,
            embedded: stream.alloc(b * t * c)?,
            pre_ln: Normed::new(stream, b * t, c)?,
            tower: Tower::for_training(stream, &config.vision, b, t)?,
            class_row: stream.zeros(b)?,
            class: stream.alloc(b * c)?,
            post_ln: Normed::new(stream, b, c)?,
            features: stream.alloc(b * d)?,
            unit: stream.alloc(b * d)?,
            norm: stream.alloc(b)?,
            dx: stream.alloc(b * t * c)?,
            dembedded: stream.alloc(b * t * c)?,
            dclass: stream.alloc(b * c)?,
            dnormed: stream.alloc(b * c)?,
            dfeatures: stream.alloc(b * d)?,
            scratch: stream.alloc(layernorm::backward_scratch_len(b * t, c))?,
        })
    }

    /// Unit features of the first `b` images in `patches`.
    pub fn forward(&self, stream: &Stream, b: usize) -> Result<Tensor<f32>> {
        let (t, c, d) = (self.config.tokens(), self.config.vision.width, self.config.embed_dim);
        let (at, eps) = (&self.layout, self.config.vision.eps);
        let w = |range: &Range<usize>| self.params.slice(range.clone());
        let embedded = self.embedded.slice(0..b * t * c);
        let [weight, class, position] =
            [&at.patch_embedding, &at.class_embedding, &at.position_embedding].map(&w);
        let params = PatchEmbed { weight: &weight, class: &class, position: &position };
        let projected = self.projected.slice(0..b * (t - 1) * c);
        patch_embed_forward(stream, &embedded, &self.batch_patches(b), &params, &projected, self.shape(b))?;
        let pre_ln = self.pre_ln.rows(b * t, c);
        let [weight, bias] = halves(&w(&at.pre_ln));
        layernorm_forward(stream, &pre_ln, &embedded, [&weight, &bias], (b * t, c), eps)?;
        let last = self.tower.forward(stream, &self.params, &at.blocks, &pre_ln.out, b)?;

        let class = self.class.slice(0..b * c);
        rows_gather(stream, &class, &last, &self.class_row.slice(0..b), (b, t, c))?;
        let post_ln = self.post_ln.rows(b, c);
        let [weight, bias] = halves(&w(&at.post_ln));
        layernorm_forward(stream, &post_ln, &class, [&weight, &bias], (b, c), eps)?;
        let features = self.features.slice(0..b * d);
        let projection = w(&at.projection).view([d, c]);
        Linear::nt(&post_ln.out.view([b, c]), &projection, &features.view([b, d])).run(stream)?;
        let unit = self.unit.slice(0..b * d);
        normalize_forward(stream, &unit, &self.norm.slice(0..b), &features, (b, d))?;
        Ok(unit)
    }

    /// From `dunit` `(B, D)`, the gradient of the last forward's output, the gradient of every
    /// parameter, written (=) to `grads`. Takes the first `b` of the images that forward saw.
    pub fn backward(&self, stream: &Stream, dunit: &Tensor<f32>, b: usize) -> Result<()> {
        let (t, c, d) = (self.config.tokens(), self.config.vision.width, self.config.embed_dim);
        let (at, scratch) = (&self.layout, &self.scratch);
        let w = |range: &Range<usize>| self.params.slice(range.clone());
        let dw = |range: &Range<usize>| self.grads.slice(range.clone());

        let dfeatures = self.dfeatures.slice(0..b * d);
        normalize_backward(
            stream,
            &dfeatures,
            dunit,
            &self.unit.slice(0..b * d),
            &self.norm.slice(0..b),
            (b, d),
        )?;
        let post_ln = self.post_ln.rows(b, c);
        let (dfeatures, projection) = (dfeatures.view([b, d]), w(&at.projection).view([d, c]));
        Linear::tn(&dfeatures, &post_ln.out.view([b, c]), &dw(&at.projection).view([d, c])).run(stream)?;
        let dnormed = self.dnormed.slice(0..b * c);
        Linear::nn(&dfeatures, &projection, &dnormed.view([b, c])).run(stream)?;
        let (dclass, class) = (self.dclass.slice(0..b * c), self.class.slice(0..b * c));
        let [weight, _] = halves(&w(&at.post_ln));
        layernorm_backward(
            stream,
            &dclass,
            &dw(&at.post_ln),
            &dnormed,
            &class,
            &weight,
            &post_ln,
            scratch,
            (b, c),
            false,
        )?;
        let dx = self.dx.slice(0..b * t * c);
        rows_scatter(stream, &dx, &dclass, &self.class_row.slice(0..b), (b, t, c))?;

        let pre_ln = self.pre_ln.rows(b * t, c);
        self.tower.backward(stream, &self.grads, &self.params, &at.blocks, &dx, &pre_ln.out, b)?;
        let (dembedded, embedded) = (self.dembedded.slice(0..b * t * c), self.embedded.slice(0..b * t * c));
        let [weight, _] = halves(&w(&at.pre_ln));
        layernorm_backward(
            stream,
            &dembedded,
            &dw(&at.pre_ln),
            &dx,
            &embedded,
            &weight,
            &pre_ln,
            scratch,
            (b * t, c),
            false,
        )?;
        let [weight, class, position] =
            [&at.patch_embedding, &at.class_embedding, &at.position_embedding].map(dw);
        let dparams = PatchEmbed { weight: &weight, class: &class, position: &position };
        let dprojected = self.projected.slice(0..b * (t - 1) * c);
        patch_embed_backward(stream, &dparams, &dembedded, &self.batch_patches(b), &dprojected, self.shape(b))
    }

    /// `params -= learning_rate · grads`.
    pub fn step(&self, stream: &Stream, learning_rate: f32) -> Result<()> {
        sgd_step(stream, &self.params, &self.grads, learning_rate)
    }

    /// Puts the parameters back as they were loaded: one device-to-device copy.
    pub fn restore(&self, stream: &Stream) -> Result<()> {
        stream.copy(&self.params, &self.snapshot)
    }

    /// What enters the first block, as the last forward over `b` images left it.
    pub fn block_input(&self, b: usize) -> Tensor<f32> {
        self.pre_ln.out.slice(0..b * self.config.tokens() * self.config.vision.width)
    }

    /// The residual stream after block `index`, as the last forward over `b` images left it.
    pub fn block_output(&self, index: usize, b: usize) -> Tensor<f32> {
        self.tower.block_output(index, b)
    }

    /// Elements of one image in `patches`.
    pub fn image_len(&self) -> usize {
        (self.config.tokens() - 1) * self.config.patch_len()
    }

    /// Width of the features, `D`.
    pub fn embed_dim(&self) -> usize {
        self.config.embed_dim
    }

    fn batch_patches(&self, b: usize) -> Tensor<f32> {
        self.patches.slice(0..b * self.image_len())
    }

    fn shape(&self, b: usize) -> patch_embed::Shape {
        patch_embed::Shape {
            b,
            t: self.config.tokens(),
            c: self.config.vision.width,
            p: self.config.patch_len(),
        }
    }
}
