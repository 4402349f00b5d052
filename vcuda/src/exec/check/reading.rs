//! Reads of shared memory by a warpgroup's products (PTX ISA 9.7.15). They are nobody's own: for the race check each
//! warpgroup is one more thread, after those of its CTA. It reads from when the last of the four warps issues the product
//! until the group is complete, and threads are ordered after that by their own wait. Each warp must have seen the
//! writes of its rows of A, and all four those of B, when it issued the product: nothing makes them wait for each other.

use super::span::Span;
use super::watch::{Trouble, Watch};
use crate::exec::groups::WARPS;
use crate::exec::registers::ALL;

/// What the race check knows of a product.
#[derive(Default)]
pub struct Reading {
    /// What each warp had seen when it issued it, thread by thread; and what all four had.
    known: [Vec<u32>; WARPS],
    common: Vec<u32>,
    /// When the last of them did.
    began: u32,
}

impl Reading {
    /// What a warp, or all four, must have seen of what the product reads for it.
    fn known(&self, by: Option<usize>) -> &[u32] {
        by.map_or(&self.common, |warp| &self.known[warp])
    }
}

impl Watch {
    /// One of the four warps issues the product.
    pub fn learn(&mut self, reading: &mut Reading, warp: usize, first_thread: usize) {
        if let Some(clocks) = self.clocks() {
            clocks.learn(&mut reading.known[warp], first_thread, ALL);
        }
    }

    /// All four have; they are one more thread.
    pub fn begin_reading(&mut self, reading: &mut Reading, warpgroup: usize) {
        if let Some(clocks) = self.clocks() {
            let of_thread = |thread: usize| reading.known.each_ref().map(|known| known[thread]);
            let threads = || (0..reading.known[0].len()).map(of_thread);
            let any: Vec<u32> = threads().map(|[a, b, c, d]| a.max(b).max(c).max(d)).collect();
            reading.common = threads().map(|[a, b, c, d]| a.min(b).min(c).min(d)).collect();
            reading.began = clocks.know(warpgroup, &any);
        }
    }

    /// A write of what a lane of the span reads for a warp, or for all four, that these had not seen.
    pub fn unseen_write(
        &mut self,
        reading: &Reading,
        by: Option<usize>,
        span: &Span,
        lane: usize,
    ) -> Option<Trouble> {
        let race = self.race.as_mut()?;
        race.unseen_write(span, lane, reading.known(by)).map(Trouble::Race)
    }

    /// A write of it since the product began.
    pub fn written_since(&mut self, reading: &Reading, span: &Span, lane: usize) -> Option<Trouble> {
        self.race.as_mut()?.written_since(span, lane, reading.began).map(Trouble::Race)
    }

    /// When the products that are complete now were, if the race check is on.
    pub fn end_reading(&mut self) -> Option<u32> {
        self.clocks().map(|clocks| clocks.pass())
    }

    /// A warp has waited for products of its warpgroup that were complete then.
    pub fn see_products(&mut self, first_thread: usize, warpgroup: usize, stamp: u32) {
        if let Some(clocks) = self.clocks() {
            clocks.see(first_thread, ALL, warpgroup, stamp);
        }
    }
}
