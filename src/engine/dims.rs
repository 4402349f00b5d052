//! Sizes of a batch.

use crate::clip::ClipConfig;

/// All sizes that tensors have, by the field's symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub s: usize,
    /// Views of each.
    pub n: usize,
    /// Tokens of a sequence: the class token and the patches.
    pub t: usize,
    /// Width of a token.
    pub c: usize,
    /// Of the MLP's hidden layer.
    pub m: usize,
    /// Heads.
    pub nh: usize,
    /// Values of a patch and the zeros behind them.
    pub p: usize,
    /// Width of the features.
    pub d: usize,
    /// Classes.
    pub k: usize,
}

impl Dims {
    /// Of `s` images with `n` views each.
    pub fn new(config: &ClipConfig, s: usize, n: usize, k: usize) -> Dims {
        let vision = &config.vision;
        Dims {
            s,
            n,
            t: config.tokens(),
            c: vision.width,
            m: vision.mlp,
            nh: vision.heads,
            p: config.patch_pitch(),
            d: config.embed_dim,
            k,
        }
    }

    /// The most inputs and outputs that a linear layer has.
    pub fn widest(&self) -> [usize; 2] {
        [self.m.max(self.c).max(self.p), self.m.max(3 * self.c).max(self.d)]
    }

    /// Views of all images.
    pub fn views(&self) -> usize {
        self.s * self.n
    }
}
