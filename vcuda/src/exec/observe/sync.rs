//! What orders threads: barriers and fences; and barriers that the ISA forbids. A barrier of its own calls
//! [`Warp::publish`] where threads arrive and [`Warp::observe`] where they go on.

use crate::exec::check::key::{barrier_of_cluster, barrier_of_cta};
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
            warp.cta.watch.borrow_mut().meet_in_warp(first, members & warp.mask);
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
        warp.cta.watch.borrow_mut().fence(first, mask, op.imm != 0);
        Flow::Next
    }
}

impl Warp<'_> {
    /// Tells the race check that lanes arrive at the barrier whose host address is given.
    #[inline(always)]
    pub fn publish(&mut self, barrier: *const u8, mask: u32) {
        if self.cta.memory.is_watched() {
            self.cta.watch.borrow_mut().publish(barrier as usize, self.first_thread(), mask);
        }
    }

    /// Tells it that lanes go on from that barrier.
    #[inline(always)]
    pub fn observe(&mut self, barrier: *const u8, mask: u32) {
        if self.cta.memory.is_watched() {
            self.cta.watch.borrow_mut().observe(barrier as usize, self.first_thread(), mask);
        }
    }

    /// Lanes arrive at the cluster's barrier, or go on from it.
    pub fn meet_cluster(&mut self, arrives: bool, mask: u32) {
        let key = barrier_of_cluster(self.cta.cluster.number);
        match arrives {
            true => self.publish(key as *const u8, mask),
            false => self.observe(key as *const u8, mask),
        }
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
            let key = barrier_of_cta(self.cta.number, id);
            self.publish(key as *const u8, self.mask);
        }
        Ok(())
    }
}

/// All have come to barrier `id` of a CTA with these warps; `is_common`: it was for all threads that have not exited.
pub fn barrier_done(warps: &[Warp], id: u32, is_common: bool) {
    let cta = warps[0].cta;
    let waiting = |warp: &Warp| {
        let mask =
            warp.blocked.iter().filter(|&&(_, at)| at == id).fold(0, |mask, (group, _)| mask | group.mask);
        (warp.first_thread(), mask)
    };
    let is_all = cta.grid.in_turn == [1; 3] && is_common;
    let come = warps.iter().map(waiting).filter(|&(_, mask)| mask != 0);
    cta.watch.borrow_mut().meet(barrier_of_cta(cta.number, id), is_all, come);
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
