//! Keys under which barriers that have no address are known.

use std::ops::Range;

/// A warp's.
pub const WARP: usize = 1;
/// The first CTA's first.
const BARRIERS: usize = 16;
/// A CTA has 16 of them, and a cluster one.
const PER_CTA: u32 = 17;

/// The keys of the barriers of CTAs with these numbers.
pub fn barriers(ctas: &Range<usize>) -> Range<usize> {
    BARRIERS + ctas.start * PER_CTA as usize..BARRIERS + ctas.end * PER_CTA as usize
}

/// The key of a CTA's barrier.
pub fn barrier_of_cta(cta: u32, id: u32) -> usize {
    BARRIERS + (cta * PER_CTA + id) as usize
}

/// The key of a cluster's barrier.
pub fn barrier_of_cluster(cluster: u32) -> usize {
    barrier_of_cta(cluster, PER_CTA - 1)
}
