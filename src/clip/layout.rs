//! Where each parameter lies in one buffer of float32: a whole tower is one allocation.

use std::ops::Range;

use super::config::{ClipConfig, TowerConfig};

/// Every parameter begins at a multiple of this many floats (256 bytes); the padding is zero.
const ALIGN: usize = 64;

/// A block's parameters, as ranges of the buffer. A norm is its weight, then its bias.
#[derive(Clone, Debug)]
pub struct BlockLayout {
    pub ln1: Range<usize>,   // (2, C)
    pub qkv_w: Range<usize>, // (3C, C)
    pub qkv_b: Range<usize>, // (3C,)
    pub out_w: Range<usize>, // (C, C)
    pub out_b: Range<usize>, // (C,)
    pub ln2: Range<usize>,   // (2, C)
    pub fc1_w: Range<usize>, // (M, C)
    pub fc1_b: Range<usize>, // (M,)
    pub fc2_w: Range<usize>, // (C, M)
    pub fc2_b: Range<usize>, // (C,)
}

/// The vision tower's parameters, in the order in which data flows.
#[derive(Clone, Debug)]
pub struct VisionLayout {
    pub class_embedding: Range<usize>,    // (C,)
    pub patch_embedding: Range<usize>,    // (C, 3·P·P and zeros), see `patch_pitch`
    pub position_embedding: Range<usize>, // (T, C)
    pub pre_ln: Range<usize>,             // (2, C)
    pub blocks: Vec<BlockLayout>,
    pub post_ln: Range<usize>,    // (2, C)
    pub projection: Range<usize>, // (D, C)
    /// Floats in all, a multiple of 64.
    pub total: usize,
}

/// The text tower's parameters; none of a model without one.
#[derive(Clone, Debug, Default)]
pub struct TextLayout {
    pub token_embedding: Range<usize>,    // (V, C)
    pub position_embedding: Range<usize>, // (77, C)
    pub blocks: Vec<BlockLayout>,
    pub final_ln: Range<usize>,   // (2, C)
    pub projection: Range<usize>, // (D, C)
    /// Floats in all, a multiple of 64.
    pub total: usize,
}

#[derive(Default)]
struct Cursor(usize);

impl Cursor {
    fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.0;
        self.0 = (start + len).next_multiple_of(ALIGN);
        start..start + len
    }

    fn block(&mut self, TowerConfig { width: c, mlp: m, .. }: &TowerConfig) -> BlockLayout {
        BlockLayout {
            ln1: self.take(2 * c),
            qkv_w: self.take(3 * c * c),
            qkv_b: self.take(3 * c),
            out_w: self.take(c * c),
            out_b: self.take(*c),
            ln2: self.take(2 * c),
            fc1_w: self.take(m * c),
            fc1_b: self.take(*m),
            fc2_w: self.take(c * m),
            fc2_b: self.take(*c),
        }
    }
}

impl TextLayout {
    /// The weights of linear layers.
    pub fn matrices(&self) -> impl Iterator<Item = Range<usize>> {
        std::iter::once(self.projection.clone()).chain(of_blocks(&self.blocks))
    }
}

fn of_blocks(blocks: &[BlockLayout]) -> impl Iterator<Item = Range<usize>> {
    blocks.iter().flat_map(|at| [&at.qkv_w, &at.out_w, &at.fc1_w, &at.fc2_w]).cloned()
}

impl VisionLayout {
    /// Every parameter begins at a multiple of this many floats.
    pub const ALIGN: usize = ALIGN;

    /// The weights of linear layers.
    pub fn matrices(&self) -> impl Iterator<Item = Range<usize>> {
        [&self.patch_embedding, &self.projection].into_iter().cloned().chain(of_blocks(&self.blocks))
    }

    /// Floats of all norms and embeddings, each at a multiple of [`VisionLayout::ALIGN`].
    pub fn vectors_len(&self) -> usize {
        let ends = [&self.class_embedding, &self.position_embedding, &self.pre_ln, &self.post_ln];
        let all = ends.into_iter().chain(self.blocks.iter().flat_map(|at| [&at.ln1, &at.ln2]));
        all.map(|range| range.len().next_multiple_of(ALIGN)).sum()
    }
}

impl ClipConfig {
    /// The vision tower's buffer.
    pub fn vision_layout(&self) -> VisionLayout {
        let c = self.vision.width;
        let mut at = Cursor::default();
        VisionLayout {
            class_embedding: at.take(c),
            patch_embedding: at.take(c * self.patch_pitch()),
            position_embedding: at.take(self.tokens() * c),
            pre_ln: at.take(2 * c),
            blocks: (0..self.vision.layers).map(|_| at.block(&self.vision)).collect(),
            post_ln: at.take(2 * c),
            projection: at.take(self.embed_dim * c),
            total: at.0,
        }
    }

    /// The text tower's buffer.
    pub fn text_layout(&self) -> TextLayout {
        let Some(text) = &self.text else { return TextLayout::default() };
        let c = text.tower.width;
        let mut at = Cursor::default();
        TextLayout {
            token_embedding: at.take(text.vocab_size * c),
            position_embedding: at.take(text.context_length * c),
            blocks: (0..text.tower.layers).map(|_| at.block(&text.tower)).collect(),
            final_ln: at.take(2 * c),
            projection: at.take(self.embed_dim * c),
            total: at.0,
        }
    }
}
