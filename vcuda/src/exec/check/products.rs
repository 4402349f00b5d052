//! Reads of shared memory by a warpgroup's products (PTX ISA 9.7.15). They are nobody's own: for the race check each
//! warpgroup is one more thread, after those of its CTA. It reads from when the last of the four warps issues the product
//! until the group is complete, and threads are ordered after that by their own wait. Each warp must have seen the
//! writes of its rows of A, and all four those of B, when it issued the product: nothing makes them wait for each other.

use super::race::{Conflict, Race};
use super::reading::Reading;
use super::{ALL, Finding, Kind, LANES, Span, Warp, examine};
use crate::exec::groups::WARPS;

impl Warp<'_> {
    /// The number of the first of a CTA's warpgroups among the threads that take turns.
    fn first_warpgroup(&self) -> usize {
        let per_cta = self.cta.grid.threads_per_cta();
        (self.cta.number as usize + 1) * per_cta - LANES
    }

    fn warpgroup(&self) -> usize {
        self.index as usize / WARPS
    }

    /// The warp issues the product.
    pub fn learn(&mut self, reading: &mut Reading) {
        if let Some(clocks) = self.cta.watch.borrow_mut().clocks() {
            clocks.learn(&mut reading.known[self.index as usize % WARPS], self.first_thread(), ALL);
        }
    }

    /// All four have.
    pub fn begin_reading(&mut self, reading: &mut Reading) {
        let warpgroup = self.first_warpgroup() + self.warpgroup();
        if let Some(clocks) = self.cta.watch.borrow_mut().clocks() {
            let of_thread = |thread: usize| reading.known.each_ref().map(|known| known[thread]);
            let threads = || (0..reading.known[0].len()).map(of_thread);
            let any: Vec<u32> = threads().map(|[a, b, c, d]| a.max(b).max(c).max(d)).collect();
            reading.common = threads().map(|[a, b, c, d]| a.min(b).min(c).min(d)).collect();
            reading.began = clocks.know(warpgroup, &any);
        }
    }

    /// It reads `bytes` from now on for a warp, or for all four, at an offset in the CTA's shared memory: they must be
    /// there, and nobody may write them. `None` after a fault, as of the following.
    pub fn begin_chunk(&mut self, reading: &Reading, by: Option<usize>, at: u32, bytes: usize) -> Option<()> {
        let Some(host) = self.chunk(at, bytes) else { return Some(()) };
        let cluster = self.cta.cluster;
        if self.cta.options.checks.asynchrony {
            let (offset, line) = (cluster.offset(host), self.cta.kernel.ops[self.pc].line);
            let objection = cluster.engine.borrow_mut().proxy.begin_product(offset, bytes, line);
            self.unless(0, objection)?;
        }
        let known = by.map_or(&reading.common, |warp| &reading.known[warp]);
        self.find_chunk(host as usize, bytes, |race, span, lane| race.unseen_write(span, lane, known))?;
        self.read_chunk(host as usize, bytes)
    }

    /// It has read them.
    pub fn end_chunk(&mut self, reading: &Reading, at: u32, bytes: usize) -> Option<()> {
        let Some(host) = self.chunk(at, bytes) else { return Some(()) };
        if self.cta.options.checks.asynchrony {
            let cluster = self.cta.cluster;
            cluster.engine.borrow_mut().proxy.release(cluster.offset(host), bytes);
        }
        let began = reading.began;
        self.find_chunk(host as usize, bytes, |race, span, lane| race.written_since(span, lane, began))?;
        self.read_chunk(host as usize, bytes)
    }

    /// When the products that are complete now were, if the race check is on.
    pub fn end_reading(&mut self) -> Option<u32> {
        self.cta.watch.borrow_mut().clocks().map(|clocks| clocks.pass())
    }

    /// The warp has waited for products that were complete then.
    pub fn see_products(&mut self, stamp: u32) {
        let warpgroup = self.first_warpgroup() + self.warpgroup();
        if let Some(clocks) = self.cta.watch.borrow_mut().clocks() {
            clocks.see(self.first_thread(), ALL, warpgroup, stamp);
        }
    }

    /// A host pointer to bytes of shared memory; those beyond it are found when they are read.
    fn chunk(&self, at: u32, bytes: usize) -> Option<*const u8> {
        let is_inside = at as usize + bytes <= self.cta.shared_bytes;
        is_inside.then(|| self.cta.shared.wrapping_add(at as usize).cast_const())
    }

    fn span_of_chunk(&self, at: usize, bytes: usize) -> Span {
        let mask = 1 << self.warpgroup();
        Span { at: [at; LANES], bytes, mask, contiguous: false, uniform: false }
    }

    /// What the race check has against bytes being read, as `conflict` finds it given the span and its lane.
    fn find_chunk(
        &mut self,
        at: usize,
        bytes: usize,
        conflict: impl Fn(&mut Race, &Span, usize) -> Option<Conflict>,
    ) -> Option<()> {
        let finding = {
            let watch = &mut *self.cta.watch.borrow_mut();
            watch.race.as_mut().and_then(|race| {
                let span = self.span_of_chunk(at, bytes);
                let conflict = conflict(race, &span, self.warpgroup())?;
                Some(race.finding(self, &conflict, &span, Kind::Read, true))
            })
        };
        self.found(finding)
    }

    fn read_chunk(&mut self, at: usize, bytes: usize) -> Option<()> {
        if !self.cta.memory.is_watched() {
            return Some(());
        }
        let span = self.span_of_chunk(at, bytes);
        let finding = examine(self, &span, self.place(at), Kind::Read, 0, self.first_warpgroup());
        self.found(finding)
    }

    fn found(&mut self, finding: Option<Finding>) -> Option<()> {
        let Some(Finding { kind, what, .. }) = finding else { return Some(()) };
        self.fail_lane(0, kind, what);
        None
    }
}
