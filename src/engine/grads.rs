//! What the backward pass leaves behind: of every linear layer the gradient of its output, and of all other parameters each
//! image's own gradient.

use std::ops::Range;

use anyhow::Result;

use super::{Acts, Dims};
use crate::clip::VisionLayout;
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::entropy::entropy_scratch_len;
use crate::ops::norm::{norm_partial_shape, norm_sums};
use crate::ops::segment::segment_partial_shape;
use crate::ops::{Element, Param, attention};

/// Of one block. R = N·Q rows an image behind the attention, N·T before it.
pub struct BlockGrads<E> {
    pub dqkv: Tensor<E>, // (S·N·T, 3C)
    pub dmid: Tensor<E>, // (S·N·Q, C)
    pub dfc1: Tensor<E>, // (S·N·Q, M) before the activation
    pub dout: Tensor<E>, // (S·N·Q, C)
    pub ln1: NormGrads,
    pub ln2: NormGrads,
    pub qkv_b: Option<Tensor<f32>>, // (S, 3C)
    pub fc1_b: Option<Tensor<f32>>, // (S, M)
}

/// Of a norm.
pub struct NormGrads {
    pub sums: Tensor<f32>, // (S, 3, C) weight, bias, and the sum of the rows of its input's gradient
    pub partial: Tensor<f32>, // (S, 3, chunks, C) of which these are made
}

/// Of norms of as many rows, whose sums are finished together.
pub struct AllNormGrads {
    sums: Tensor<f32>,    // (norms, S, 3, C)
    partial: Tensor<f32>, // (norms, S, 3, chunks, C)
    /// Images at hand, of S.
    images: usize,
}

impl AllNormGrads {
    fn plan(
        plan: &mut Plan,
        name: &str,
        norms: usize,
        [s, kinds, chunks, c]: [usize; 4],
    ) -> Result<AllNormGrads> {
        Ok(AllNormGrads {
            sums: plan.tensor(&format!("{name}.sums"), [norms, s, kinds, c])?,
            partial: plan.tensor(&format!("{name}.partial"), [norms, s, kinds, chunks, c])?,
            images: s,
        })
    }

    /// Of the first `s` images. A norm's lie where they are, however many these are: tables of their addresses hold for all.
    fn images(&self, s: usize) -> AllNormGrads {
        AllNormGrads { sums: self.sums.clone(), partial: self.partial.clone(), images: s }
    }

    fn norm(&self, norm: usize) -> NormGrads {
        let of = |tensor: &Tensor<f32>| {
            tensor.rows(norm..norm + 1).view(&tensor.shape()[1..]).rows(0..self.images)
        };
        NormGrads { sums: of(&self.sums), partial: of(&self.partial) }
    }

    /// Of all S images, in one launch: those beyond the ones at hand are nobody's.
    ///
    /// # Errors
    /// The launch's own.
    pub fn finish(&self, stream: &Stream) -> Result<()> {
        let &[norms, s, kinds, chunks, c] = self.partial.shape() else { unreachable!("as it was planned") };
        let partial = self.partial.view([norms * s, kinds, chunks, c]);
        norm_sums(stream, &self.sums.view([norms * s, kinds, c]), &partial)
    }
}

/// The norms of a tower by their rows.
pub struct Norms {
    pub entering: AllNormGrads, // of tokens that no block has made
    pub tokens: AllNormGrads,
    pub class: AllNormGrads, // of class tokens alone: behind the last attention
}

impl Norms {
    fn all(&self) -> [&AllNormGrads; 3] {
        [&self.entering, &self.tokens, &self.class]
    }

    fn images(&self, s: usize) -> Norms {
        let [entering, tokens, class] = self.all().map(|norms| norms.images(s));
        Norms { entering, tokens, class }
    }

    fn pre_ln(&self) -> NormGrads {
        self.entering.norm(0)
    }

    /// Both of a block.
    fn of_block(&self, block: usize, is_last: bool) -> [NormGrads; 2] {
        let second = if is_last { self.class.norm(0) } else { self.tokens.norm(2 * block + 1) };
        [self.tokens.norm(2 * block), second]
    }

    fn post_ln(&self) -> NormGrads {
        self.class.norm(1)
    }

    /// Before the first batch of a size: what no image has written is read too, see [`AllNormGrads::finish`].
    ///
    /// # Errors
    /// The driver's.
    pub fn clear(&self, stream: &Stream) -> Result<()> {
        self.all().into_iter().try_for_each(|norms| stream.fill_bytes(&norms.partial, 0))
    }

    /// Finishes all sums.
    ///
    /// # Errors
    /// The launches' own.
    pub fn finish(&self, stream: &Stream) -> Result<()> {
        self.all().into_iter().try_for_each(|norms| norms.finish(stream))
    }
}

/// Of the whole tower.
pub struct Grads<E> {
    pub dunit: Tensor<f32>,   // (S·N, D)
    pub dfeatures: Tensor<E>, // (S·N, D)
    pub post_ln: NormGrads,
    pub blocks: Vec<BlockGrads<E>>,
    pub pre_ln: NormGrads, // of whose parts the last third is that of the positions, (T, C) each image
    pub dprojected: Tensor<E>, // (S·N·(T - 1), C)
    pub norms: Norms,
    pub way: Way<E>,
}

/// What is overwritten from block to block on the way down.
pub struct Way<E> {
    /// What comes out of a branch before its norm, `(S·N·T, C)`; at the end what enters the first block.
    pub dbranch: Tensor<E>,
    pub datt: Tensor<E>,      // (S·N·T, C)
    pub dqkv_b: Tensor<f32>,  // (S·N, 3C) of each view
    pub scratch: Tensor<f32>, // of the loss and of the sums
}

impl<E: Element> Grads<E> {
    /// * `biases`: also the gradients of those that no norm sums up on its way.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layers: usize, biases: bool) -> Result<Grads<E>> {
        let &Dims { s, n, t, c, m, nh, d, k, .. } = dims;
        let b = dims.views();
        let norms = plan.part("norms", |plan| {
            let rows = |tokens| norm_partial_shape(s, n * tokens, c, None);
            let entering = norm_partial_shape(s, n * t, c, Some(t));
            Ok(Norms {
                entering: AllNormGrads::plan(plan, "entering", 1, entering)?,
                tokens: AllNormGrads::plan(plan, "tokens", 2 * layers - 1, rows(t))?,
                class: AllNormGrads::plan(plan, "class", 2, rows(1))?,
            })
        })?;
        let block = |plan: &mut Plan, layer: usize| {
            let is_last = layer + 1 == layers;
            let q = if is_last { 1 } else { t };
            let [ln1, ln2] = norms.of_block(layer, is_last);
            let bias = |plan: &mut Plan, name, n| biases.then(|| plan.tensor(name, [s, n])).transpose();
            Ok(BlockGrads {
                dqkv: plan.tensor("dqkv", [b * t, 3 * c])?,
                dmid: plan.tensor("dmid", [b * q, c])?,
                dfc1: plan.tensor("dfc1", [b * q, m])?,
                dout: plan.tensor("dout", [b * q, c])?,
                ln1,
                ln2,
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
            segment_partial_shape(s, n * t, m).iter().product(),
            segment_partial_shape(s, n, 3 * c).iter().product(),
        ];
        Ok(Grads {
            dunit: plan.tensor("dunit", [b, d])?,
            dfeatures: plan.tensor("dfeatures", [b, d])?,
            post_ln: norms.post_ln(),
            blocks,
            pre_ln: norms.pre_ln(),
            dprojected: plan.tensor("dprojected", [b * (t - 1), c])?,
            norms,
            way: Way {
                dbranch: plan.tensor("dbranch", [b * t, c])?,
                datt: plan.tensor("datt", [b * t, c])?,
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
        let norms = self.norms.images(s);
        let block = |(layer, block): (usize, &BlockGrads<E>)| {
            let [ln1, ln2] = norms.of_block(layer, layer + 1 == self.blocks.len());
            BlockGrads {
                dqkv: of_views(&block.dqkv),
                dmid: of_views(&block.dmid),
                dfc1: of_views(&block.dfc1),
                dout: of_views(&block.dout),
                ln1,
                ln2,
                qkv_b: block.qkv_b.as_ref().map(of_images),
                fc1_b: block.fc1_b.as_ref().map(of_images),
            }
        };
        let way = &self.way;
        Grads {
            dunit: floats(&self.dunit),
            dfeatures: of_views(&self.dfeatures),
            post_ln: norms.post_ln(),
            blocks: self.blocks.iter().enumerate().map(block).collect(),
            pre_ln: norms.pre_ln(),
            dprojected: of_views(&self.dprojected),
            norms,
            way: Way {
                dbranch: of_views(&way.dbranch),
                datt: of_views(&way.datt),
                dqkv_b: floats(&way.dqkv_b),
                scratch: way.scratch.clone(),
            },
        }
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
        let images = grads.pre_ln.sums.shape()[0];
        let all = |grad: &Tensor<f32>| Param::from(&grad.view([images, grad.len() / images]));
        // Of a norm's sums: its own two parameters, and the bias that was added before it.
        let own = |norm: &NormGrads| all(&norm.sums).slice(0..norm.sums.len() / images / 3 * 2);
        let last_third = |sums: &Tensor<f32>| {
            let n = sums.len() / images;
            all(sums).slice(n / 3 * 2..n)
        };
        let before = |norm: &NormGrads| last_third(&norm.sums);
        let position = last_third(&grads.pre_ln.partial);
        let layer = |weight: &Range<usize>, bias, inp: &Tensor<E>, dout: &Tensor<E>| KeptLayer {
            weight: weight.clone(),
            bias,
            inp: inp.clone(),
            dout: dout.clone(),
        };

        let mut layers = vec![layer(&layout.patch_embedding, None, &acts.patches, &grads.dprojected)];
        let mut vectors = vec![
            (layout.class_embedding.clone(), position.slice(0..layout.class_embedding.len())),
            (layout.position_embedding.clone(), position),
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
