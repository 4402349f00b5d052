//! A product's reads of shared memory, as the race check follows them.

use crate::exec::groups::WARPS;

/// What the race check knows of a product.
#[derive(Default)]
pub struct Reading {
    /// What each warp had seen when it issued it, thread by thread; and what all four had.
    pub known: [Vec<u32>; WARPS],
    pub common: Vec<u32>,
    /// When the last of them did.
    pub began: u32,
}
