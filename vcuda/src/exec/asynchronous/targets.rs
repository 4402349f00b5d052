//! Where copies go, and what they read.

use super::reduce::Reduce;
use crate::exec::check;
use crate::exec::engine::barrier::Barrier;
use crate::exec::engine::work::{Source, Work};
use crate::exec::fault::{Blame, Fault, FaultKind};
use crate::exec::op::Flow;
use crate::exec::space::POISON;
use crate::exec::warp::Warp;

/// "To one CTA": there is no mask of CTAs.
pub const NO_MASK: u16 = u16::MAX;

/// Where a copy goes: host pointers in one CTA or many, and their barriers.
pub struct Targets {
    pub pointers: Vec<*mut u8>,
    barriers: Vec<Barrier>,
    ranks: u32,
    /// Bytes that each barrier is told of.
    bytes: u32,
}

impl Targets {
    pub fn work(&self, warp: &Warp, lane: usize, source: Source, writes: Vec<(usize, usize)>) -> Work {
        let completes = self.barriers.iter().map(|&barrier| (barrier, self.bytes)).collect();
        let (origin, rank) = (warp.origin(lane), warp.cta.rank);
        Work { origin, rank, targets: self.ranks, source, reads: (0, 0), reads_all: true, writes, completes }
    }
}

impl Warp<'_> {
    /// The CTAs that a multicast goes to: the low 16 bits of register `slot`.
    ///
    /// # Safety
    /// The slot is in the register file, or [`NO_MASK`].
    pub unsafe fn cta_mask(&self, slot: u16, lane: usize) -> Option<u32> {
        // SAFETY: the caller's.
        (slot != NO_MASK).then(|| unsafe { self.lanes::<u32>(slot)[lane] & 0xffff })
    }

    /// The destinations at shared `to`, or in each CTA of a mask, for a copy that tells `barrier` of
    /// `counted` bytes and touches `bytes`; `None` after a fault.
    #[allow(clippy::too_many_arguments)]
    pub fn targets(
        &mut self,
        lane: usize,
        to: u64,
        barrier: u64,
        ctas: Option<u32>,
        counted: u32,
        bytes: u64,
        align: u64,
    ) -> Option<Targets> {
        let cta = self.cta;
        let own = cta.rank_of(to);
        if cta.rank_of(barrier) != own {
            let message = format!("a copy to shared {to:#x} with an mbarrier in another CTA, {barrier:#x}");
            self.fail_lane(lane, FaultKind::IllegalInstruction, message);
            return None;
        }
        let ranks = ctas.unwrap_or(1 << own.min(31));
        let mut targets = Targets { pointers: Vec::new(), barriers: Vec::new(), ranks, bytes: counted };
        for rank in (0..32u64).filter(|rank| ranks >> rank & 1 != 0) {
            let place = |address: u64| if ctas.is_some() { cta.mapped(address, rank) } else { address };
            targets.pointers.push(self.shared_pointer(lane, place(to), bytes, align)?);
            // Its completion is an operation on the barrier, which must have been set up before.
            let barrier = self.barrier(lane, place(barrier))?;
            self.touch(lane, barrier.host, size_of::<u64>(), check::Kind::Atomic)?;
            targets.barriers.push(barrier);
        }
        Some(targets)
    }

    /// What a copy will write, as [`Work`] has it, if the adversary is asked for: it holds nothing that may be
    /// read before, and no other copy may be about to write it. Reductions may meet each other, and what was there
    /// counts. The write is the lane's own, and whoever waits for its barrier comes after it. `None` after a fault.
    pub fn claim(
        &mut self,
        lane: usize,
        targets: &Targets,
        bytes: usize,
        reduce: Reduce,
    ) -> Option<Vec<(usize, usize)>> {
        let kind = if reduce == Reduce::Store { check::Kind::Write } else { check::Kind::Atomic };
        for &to in &targets.pointers {
            self.touch(lane, to, bytes, kind)?;
        }
        targets.barriers.iter().for_each(|barrier| self.publish(barrier.host, 1 << lane));
        if !self.cta.options.checks.asynchrony || reduce != Reduce::Store {
            return Some(Vec::new());
        }
        let mut writes = Vec::with_capacity(targets.pointers.len());
        for &to in &targets.pointers {
            self.free(lane, to, bytes)?;
            // SAFETY: the pointers are checked for as many bytes.
            unsafe { to.write_bytes(POISON, bytes) };
            writes.push((self.cta.cluster.offset(to), bytes));
        }
        Some(writes)
    }

    /// Work of a lane that reads `bytes` of shared memory.
    pub fn store_work(&self, lane: usize, from: *const u8, bytes: usize) -> Work {
        let (origin, rank, source) = (self.origin(lane), self.cta.rank, Source::Memory(from, bytes));
        let reads = (self.cta.cluster.offset(from), bytes);
        Work {
            origin,
            rank,
            targets: 0,
            source,
            reads,
            reads_all: true,
            writes: Vec::new(),
            completes: Vec::new(),
        }
    }

    pub fn fail_with(&mut self, blame: Blame) -> Flow {
        let Fault { kind, message } = self.cta.fault(blame);
        self.fail(kind, message)
    }
}
