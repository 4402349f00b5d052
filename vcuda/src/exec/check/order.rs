//! What orders threads, as the race check is told of it: barriers, fences and strong accesses; and barriers
//! that the ISA forbids.
//!
//! A thread's fence covers what it has done and seen. Its strong writes (atomics, `st.release`, `.relaxed`,
//! `.volatile`) then publish that, and whoever reads the same word strongly has seen it. Fences of a CTA's
//! scope count only for words in shared memory. The reader needs no fence: the usual counter of finished CTAs
//! has none there.

use std::ops::Range;

use super::clock::Clocks;
use super::{Kind, Span};
use crate::exec::fault::{Fault, FaultKind};
use crate::exec::groups::Form;
use crate::exec::groups::Role::Unused;
use crate::exec::meeting::{Collective, exited, groups};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::warp::Warp;

/// `bar.warp.sync`: orders the lanes of its mask.
pub struct WarpSync;
impl Body for WarpSync {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.cta.memory.is_watched() {
            return Flow::Next;
        }
        let first = warp.first_thread();
        // SAFETY: a collective.
        for (members, _) in unsafe { groups(warp, op) } {
            if let Some(clocks) = warp.cta.watch.borrow_mut().clocks() {
                let mask = members & warp.mask;
                clocks.publish(WARP, first, mask);
                clocks.observe(WARP, first, mask);
                clocks.forget(WARP);
            }
        }
        Flow::Next
    }
}
impl Collective for WarpSync {
    const FORM: Form = Form { name: "bar.warp.sync", roles: |_| [Unused; 5] };
}

/// `fence` and `membar`; `imm` 1: of a scope wider than the cluster.
pub struct Fence;
impl Body for Fence {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let (first, mask) = (warp.first_thread(), warp.mask);
        if let Some(clocks) = warp.cta.watch.borrow_mut().clocks() {
            clocks.fence(first, mask, op.imm != 0);
        }
        Flow::Next
    }
}

/// Keys of what has no address.
const WARP: usize = 1;
const BARRIERS: usize = 16;
/// A CTA has 16 of them, and a cluster one.
const PER_CTA: u32 = 17;

/// The keys of the barriers of CTAs with these numbers.
pub fn barriers(ctas: &Range<usize>) -> Range<usize> {
    BARRIERS + ctas.start * PER_CTA as usize..BARRIERS + ctas.end * PER_CTA as usize
}

/// What a strong access orders.
#[cold]
#[inline(never)]
pub fn strong(
    clocks: &mut Clocks,
    span: &Span,
    first_thread: usize,
    kind: Kind,
    is_shared: bool,
    flags: u16,
) {
    for lane in lanes_of(span.mask) {
        let key = span.at[lane];
        if flags & super::OBSERVES != 0 {
            clocks.observe(key, first_thread, 1 << lane);
        }
        if flags & super::RELEASES != 0 {
            clocks.fence(first_thread, 1 << lane, true);
        }
        if kind.writes() {
            clocks.publish_fenced(key, first_thread + lane, !is_shared);
        }
    }
}

impl Warp<'_> {
    /// Tells the race check that lanes arrive at the barrier whose host address is given.
    #[inline(always)]
    pub fn publish(&mut self, barrier: *const u8, mask: u32) {
        if self.cta.memory.is_watched()
            && let Some(clocks) = self.cta.watch.borrow_mut().clocks()
        {
            clocks.publish(barrier as usize, self.first_thread(), mask);
        }
    }

    /// Tells it that lanes go on from that barrier.
    #[inline(always)]
    pub fn observe(&mut self, barrier: *const u8, mask: u32) {
        if self.cta.memory.is_watched()
            && let Some(clocks) = self.cta.watch.borrow_mut().clocks()
        {
            clocks.observe(barrier as usize, self.first_thread(), mask);
        }
    }

    /// Lanes arrive at the cluster's barrier, or go on from it.
    pub fn meet_cluster(&mut self, arrives: bool, mask: u32) {
        let key = BARRIERS + (self.cta.cluster.number * PER_CTA + 16) as usize;
        match arrives {
            true => self.publish(key as *const u8, mask),
            false => self.observe(key as *const u8, mask),
        }
    }

    fn barrier_key(&self, id: u32) -> usize {
        BARRIERS + (self.cta.number * PER_CTA + id) as usize
    }

    /// The lanes of the mask come to barrier `id` for `count` threads (0: all): an error where the ISA
    /// forbids it. `waits` is false for `bar.arrive`.
    pub fn meet_barrier(
        &mut self,
        id: u32,
        count: u32,
        waits: bool,
        wanted: Option<u32>,
    ) -> Result<(), Fault> {
        if !self.cta.options.checks.race {
            return Ok(());
        }
        let ops = &self.cta.kernel.ops;
        let aligned = ops[self.pc].e != 0;
        let lane = self.mask.trailing_zeros() as usize;
        let elsewhere = self
            .blocked
            .iter()
            .find(|(group, _)| group.pc != self.pc + 1 && (aligned || ops[group.pc - 1].e != 0));
        let what = match (elsewhere, wanted) {
            (Some((group, other)), _) => Some(format!(
                "a divergent barrier: lanes {:#010x} of the warp are at barrier {id} while lanes {:#010x} wait \
                 at barrier {other} at PTX line {}; all lanes must execute the same one",
                self.mask,
                group.mask,
                ops[group.pc - 1].line
            )),
            _ if !count.is_multiple_of(LANES as u32) => {
                Some(format!("barrier {id} for {count} threads, which is no multiple of {LANES}"))
            }
            (None, Some(wanted)) if wanted != count => {
                Some(format!("barrier {id} for {count} threads; others wait there for {wanted} (0: all)"))
            }
            _ => None,
        };
        if let Some(what) = what {
            self.fail_lane(lane, FaultKind::Sync, what);
            return Err(self.take_fault());
        }
        if !waits {
            let key = self.barrier_key(id);
            self.publish(key as *const u8, self.mask);
        }
        Ok(())
    }
}

/// All have come to barrier `id` of a CTA with these warps; `is_common`: it was for all threads that have not exited.
pub fn barrier_done(warps: &[Warp], id: u32, is_common: bool) {
    let cta = warps[0].cta;
    let mut watch = cta.watch.borrow_mut();
    let Some(clocks) = watch.clocks() else { return };
    let key = warps[0].barrier_key(id);
    let waiting = |warp: &Warp| {
        warp.blocked.iter().filter(|&&(_, at)| at == id).fold(0, |mask, (group, _)| mask | group.mask)
    };
    if cta.grid.in_turn == [1; 3] && is_common && !clocks.knows(key) {
        return clocks.join_all();
    }
    for warp in warps.iter().filter(|warp| waiting(warp) != 0) {
        clocks.publish(key, warp.first_thread(), waiting(warp));
    }
    for warp in warps.iter().filter(|warp| waiting(warp) != 0) {
        clocks.observe(key, warp.first_thread(), waiting(warp));
    }
    clocks.forget(key);
}

/// Before a collective: that its member mask, register `a`, has who executes it, and nobody who has exited.
pub struct Members;
impl Body for Members {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the mask a slot.
        let masks: [u32; LANES] = unsafe { warp.lanes(op.a) };
        for lane in lanes_of(warp.mask) {
            let members = masks[lane];
            let what = match () {
                () if members >> lane & 1 == 0 => {
                    format!("executed by a lane that its member mask {members:#010x} leaves out")
                }
                () if members & warp.dead != 0 => exited(members, warp.dead),
                () => continue,
            };
            return warp.fail_lane(lane, FaultKind::Sync, what);
        }
        Flow::Next
    }
}
