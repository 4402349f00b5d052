//! Reads of shared memory by a warpgroup's products.

use super::words::Finding;
use crate::exec::check::{Access, Kind, Place, Reading, Span, Trouble, Watch};
use crate::exec::groups::WARPS;
use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

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
        let warp = self.index as usize % WARPS;
        self.cta.watch.borrow_mut().learn(reading, warp, self.first_thread());
    }

    /// All four have.
    pub fn begin_reading(&mut self, reading: &mut Reading) {
        let warpgroup = self.first_warpgroup() + self.warpgroup();
        self.cta.watch.borrow_mut().begin_reading(reading, warpgroup);
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
        self.read_chunk(host as usize, bytes, |watch, span, lane| watch.unseen_write(reading, by, span, lane))
    }

    /// It has read them.
    pub fn end_chunk(&mut self, reading: &Reading, at: u32, bytes: usize) -> Option<()> {
        let Some(host) = self.chunk(at, bytes) else { return Some(()) };
        if self.cta.options.checks.asynchrony {
            let cluster = self.cta.cluster;
            cluster.engine.borrow_mut().proxy.release(cluster.offset(host), bytes);
        }
        self.read_chunk(host as usize, bytes, |watch, span, lane| watch.written_since(reading, span, lane))
    }

    /// When the products that are complete now were, if the race check is on.
    pub fn end_reading(&mut self) -> Option<u32> {
        self.cta.watch.borrow_mut().end_reading()
    }

    /// The warp has waited for products that were complete then.
    pub fn see_products(&mut self, stamp: u32) {
        let warpgroup = self.first_warpgroup() + self.warpgroup();
        self.cta.watch.borrow_mut().see_products(self.first_thread(), warpgroup, stamp);
    }

    /// A host pointer to bytes of shared memory; those beyond it are found when they are read.
    fn chunk(&self, at: u32, bytes: usize) -> Option<*const u8> {
        let is_inside = at as usize + bytes <= self.cta.shared_bytes;
        is_inside.then(|| self.cta.shared.wrapping_add(at as usize).cast_const())
    }

    /// Bytes are read: what the race check has against that, as `find` asks it given the span and its lane, and what all
    /// checks have.
    #[inline(always)]
    fn read_chunk(
        &mut self,
        at: usize,
        bytes: usize,
        find: impl FnOnce(&mut Watch, &Span, usize) -> Option<Trouble>,
    ) -> Option<()> {
        let cta = self.cta;
        if !cta.memory.is_watched() {
            return Some(());
        }
        let (lane, pc) = (self.warpgroup(), self.pc);
        let span = &Span::one(at, bytes, lane);
        let (line, first_thread) = (cta.kernel.ops[pc].line, self.first_warpgroup());
        let access = Access { span, place: Place::Shared, kind: Kind::Read, first_thread, pc, line };
        let watch = &mut *cta.watch.borrow_mut();
        match find(watch, span, lane).or_else(|| watch.access(cta.memory, &access, |_, _| false)) {
            None => Some(()),
            Some(trouble) => {
                let Finding { kind, what, .. } = self.words(&access, &trouble);
                self.fail_lane(0, kind, what);
                None
            }
        }
    }
}
