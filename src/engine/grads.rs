//! What the backward pass leaves behind: of every linear layer the gradient of its output, and of all other parameters each
//! image's own gradient.

use std::ops::Range;

use anyhow::Result;

use super::{Acts, Dims};
use crate::clip::VisionLayout;
use crate::gpu::{Plan, Tensor};
use crate::ops::entropy::entropy_scratch_len;
use crate::ops::norm::norm_partial_shape;
use crate::ops::segment::segment_partial_shape;
use crate::ops::{Element, Param, attention};

/// Of one block. R = N·Q rows an image behind the attention, N·T before it.
pub struct BlockGrads<E> {
    pub dqkv: Tensor<E>,            // (S·N·T, 3C)
    pub dmid: Tensor<E>,            // (S·N·Q, C)
    pub dfc1: Tensor<E>,            // (S·N·Q, M) before the activation
    pub dout: Tensor<E>,            // (S·N·Q, C)
    pub ln1: Tensor<f32>,           // (S, 3, C) weight, bias, and the sum of the rows of its input's gradient
    pub ln2: Tensor<f32>,           // (S, 3, C)
    pub qkv_b: Option<Tensor<f32>>, // (S, 3C)
    pub fc1_b: Option<Tensor<f32>>, // (S, M)
}

/// Of the whole tower.
pub struct Grads<E> {
    pub dunit: Tensor<f32>,   // (S·N, D)
    pub dfeatures: Tensor<E>, // (S·N, D)
    pub post_ln: Tensor<f32>, // (S, 3, C)
    pub blocks: Vec<BlockGrads<E>>,
    pub pre_ln: Tensor<f32>,   // (S, 3, C)
    pub position: Tensor<f32>, // (S, T, C)
    pub class: Tensor<f32>,    // (S, C)
    pub dprojected: Tensor<E>, // (S·N·(T - 1), C)
    pub way: Way<E>,
}

/// What is overwritten from block to block on the way down.
pub struct Way<E> {
    /// [`Way::low`] of all tokens, `(S·N·T, C)`, and of class tokens, `(S·N, C)`.
    dx_low: Option<Tensor<E>>,
    dclass_low: Option<Tensor<E>>,
    /// What comes out of a branch before its norm, `(S·N·T, C)`.
    pub dbranch: Tensor<E>,
    pub datt: Tensor<E>,        // (S·N·T, C)
    pub dembedded: Tensor<f32>, // (S·N·T, C) of what enters the first block, then of what the first norm takes
    pub dqkv_b: Tensor<f32>,    // (S·N, 3C) of each view
    pub scratch: Tensor<f32>,   // of the loss and of the sums
}

impl<E: Element> Grads<E> {
    /// * `biases`: also the gradients of those that no norm sums up on its way.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layers: usize, biases: bool) -> Result<Grads<E>> {
        let &Dims { s, n, t, c, m, nh, d, k, .. } = dims;
        let b = dims.views();
        let block = |plan: &mut Plan, layer: usize| {
            let q = if layer + 1 == layers { 1 } else { t };
            let bias = |plan: &mut Plan, name, n| biases.then(|| plan.tensor(name, [s, n])).transpose();
            Ok(BlockGrads {
                dqkv: plan.tensor("dqkv", [b * t, 3 * c])?,
                dmid: plan.tensor("dmid", [b * q, c])?,
                dfc1: plan.tensor("dfc1", [b * q, m])?,
                dout: plan.tensor("dout", [b * q, c])?,
                ln1: plan.tensor("ln1", [s, 3, c])?,
                ln2: plan.tensor("ln2", [s, 3, c])?,
                qkv_b: bias(plan, "qkv_b", 3 * c)?,
                fc1_b: bias(plan, "fc1_b", m)?,
            })
        };
        let blocks = (0..layers)
            .map(|layer| plan.part(&format!("block {layer}"), |plan| block(plan, layer)))
            .collect::<Result<_>>()?;
        let attention = attention::Shape { b, t, nh, hs: c / nh, causal: false };
        let scratch_len = [
            entropy_scratch_len([s, n, k]),
            attention::backward_scratch_len::<E>(attention),
            norm_partial_shape(s, n * t, c).iter().product(),
            segment_partial_shape(s, n * t, m).iter().product(),
            segment_partial_shape(s, n, 3 * c).iter().product(),
        ];
        Ok(Grads {
            dunit: plan.tensor("dunit", [b, d])?,
            dfeatures: plan.tensor("dfeatures", [b, d])?,
            post_ln: plan.tensor("post_ln", [s, 3, c])?,
            blocks,
            pre_ln: plan.tensor("pre_ln", [s, 3, c])?,
            position: plan.tensor("position", [s, t, c])?,
            class: plan.tensor("class", [s, c])?,
            dprojected: plan.tensor("dprojected", [b * (t - 1), c])?,
            way: Way {
                dx_low: (E::TERMS > 1).then(|| plan.tensor("dx_low", [b * t, c])).transpose()?,
                dclass_low: (E::TERMS > 1).then(|| plan.tensor("dclass_low", [b, c])).transpose()?,
                dbranch: plan.tensor("dbranch", [b * t, c])?,
                datt: plan.tensor("datt", [b * t, c])?,
                dembedded: plan.tensor("dembedded", [b * t, c])?,
                dqkv_b: plan.tensor("dqkv_b", [b, 3 * c])?,
                scratch: plan.tensor("scratch", scratch_len.into_iter().max().unwrap_or(0))?,
            },
        })
    }

    /// The part of the first `s` images, each of `n` views.
    pub fn images(&self, s: usize, n: usize) -> Grads<E> {
        let b = s * n;
        let of_images = |tensor: &Tensor<f32>| tensor.rows(0..s);
        let whole = self.dunit.shape()[0];
        let rows = |count: usize| 0..count / whole * b;
        let of_views = |tensor: &Tensor<E>| tensor.rows(rows(tensor.shape()[0]));
        let floats = |tensor: &Tensor<f32>| tensor.rows(rows(tensor.shape()[0]));
        let block = |block: &BlockGrads<E>| BlockGrads {
            dqkv: of_views(&block.dqkv),
            dmid: of_views(&block.dmid),
            dfc1: of_views(&block.dfc1),
            dout: of_views(&block.dout),
            ln1: of_images(&block.ln1),
            ln2: of_images(&block.ln2),
            qkv_b: block.qkv_b.as_ref().map(of_images),
            fc1_b: block.fc1_b.as_ref().map(of_images),
        };
        let way = &self.way;
        Grads {
            dunit: floats(&self.dunit),
            dfeatures: of_views(&self.dfeatures),
            post_ln: of_images(&self.post_ln),
            blocks: self.blocks.iter().map(block).collect(),
            pre_ln: of_images(&self.pre_ln),
            position: of_images(&self.position),
            class: of_images(&self.class),
            dprojected: of_views(&self.dprojected),
            way: Way {
                dx_low: way.dx_low.as_ref().map(of_views),
                dclass_low: way.dclass_low.as_ref().map(of_views),
                dbranch: of_views(&way.dbranch),
                datt: of_views(&way.datt),
                dembedded: floats(&way.dembedded),
                dqkv_b: floats(&way.dqkv_b),
                scratch: way.scratch.clone(),
            },
        }
    }
}

impl<E> Way<E> {
    /// What the gradient of the residual stream has beyond the digits of E, where there is more: of all tokens, or of
    /// class tokens alone, which is all that there is behind the last attention.
    pub fn low(&self, all: bool) -> Option<&Tensor<E>> {
        if all { self.dx_low.as_ref() } else { self.dclass_low.as_ref() }
    }
}

/// A linear layer's part in the step: its weight's gradient is `doutᵀ · inp`, of each image.
pub struct KeptLayer<E> {
    pub weight: Range<usize>,
    /// Where there is one and it was summed, with each image's gradient.
    pub bias: Option<(Range<usize>, Param)>,
    pub inp: Tensor<E>,  // (S·R, K)
    pub dout: Tensor<E>, // (S·R, N)
}

/// All that a step is made of.
pub struct Kept<E> {
    pub images: usize,
    pub layers: Vec<KeptLayer<E>>,
    /// Of norms and embeddings, each image's gradient.
    pub vectors: Vec<(Range<usize>, Param)>,
}

impl<E: Element> Kept<E> {
    /// * `acts`: of the views that `grads` are of.
    pub fn new(layout: &VisionLayout, acts: &Acts<E>, grads: &Grads<E>) -> Kept<E> {
        let images = grads.class.shape()[0];
        let all = |grad: &Tensor<f32>| Param::from(&grad.view([images, grad.len() / images]));
        // Of a norm's sums: its own two parameters, and the bias that was added before it.
        let own = |sums: &Tensor<f32>| all(sums).slice(0..sums.len() / images / 3 * 2);
        let before = |sums: &Tensor<f32>| {
            let n = sums.len() / images;
            all(sums).slice(n / 3 * 2..n)
        };
        let layer = |weight: &Range<usize>, bias, inp: &Tensor<E>, dout: &Tensor<E>| KeptLayer {
            weight: weight.clone(),
            bias,
            inp: inp.clone(),
            dout: dout.clone(),
        };

        let mut layers = vec![layer(&layout.patch_embedding, None, &acts.patches, &grads.dprojected)];
        let mut vectors = vec![
            (layout.class_embedding.clone(), all(&grads.class)),
            (layout.position_embedding.clone(), all(&grads.position)),
            (layout.pre_ln.clone(), own(&grads.pre_ln)),
        ];
        for (i, at) in layout.blocks.iter().enumerate() {
            let (acts, grad) = (&acts.blocks[i], &grads.blocks[i]);
            let bias = |at: &Range<usize>, grad| Some((at.clone(), grad));
            let sums = |at, grad: &Option<Tensor<f32>>| grad.as_ref().and_then(|grad| bias(at, all(grad)));
            let after = grads.blocks.get(i + 1).map_or(&grads.post_ln, |next| &next.ln1);
            layers.extend([
                layer(&at.qkv_w, sums(&at.qkv_b, &grad.qkv_b), &acts.ln1.out, &grad.dqkv),
                layer(&at.out_w, bias(&at.out_b, before(&grad.ln2)), &acts.att, &grad.dmid),
                layer(&at.fc1_w, sums(&at.fc1_b, &grad.fc1_b), &acts.ln2.out, &grad.dfc1),
                layer(&at.fc2_w, bias(&at.fc2_b, before(after)), &acts.fc1, &grad.dout),
            ]);
            vectors.extend([(at.ln1.clone(), own(&grad.ln1)), (at.ln2.clone(), own(&grad.ln2))]);
        }
        layers.push(layer(&layout.projection, None, &acts.post_ln.out, &grads.dfeatures));
        vectors.push((layout.post_ln.clone(), own(&grads.post_ln)));
        Kept { images, layers, vectors }
    }

    /// All that is no matrix: [`Kept::vectors`] and the layers' biases.
    pub fn vectors_and_biases(&self) -> impl Iterator<Item = &(Range<usize>, Param)> {
        self.vectors.iter().chain(self.layers.iter().filter_map(|layer| layer.bias.as_ref()))
    }
}
