//! Branches, barriers and the end of a thread (PTX ISA 9.7.12, 9.7.13.1), and clocks.

use super::fault::FaultKind;
use super::groups::Group;
use super::op::{Body, Flow, Op};
use super::registers::{ALL, LANES};
use super::warp::Warp;

/// Backward branches that a group of lanes takes before it lets others run.
pub const BUDGET: u32 = 1 << 14;

/// `bra`: to `imm`. Lanes that fall through wait their turn: the lowest pc runs first.
pub struct Branch;
impl Body for Branch {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let target = op.imm as usize;
        let taken = warp.mask;
        let stay = warp.active & !taken;
        let back = target <= warp.pc;
        let next = warp.pc + 1;
        if stay == 0 {
            warp.pc = target;
        } else {
            warp.active = stay;
            warp.pc = next;
            warp.park(Group { pc: target, mask: taken });
        }
        if back {
            warp.budget -= 1;
            if warp.budget == 0 {
                return Flow::Yield;
            }
        }
        Flow::Jump
    }
}

/// `brx.idx`: register `a` picks one of the `b` targets from `imm` in the kernel's table.
pub struct BranchIndexed;
impl Body for BranchIndexed {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the index a slot.
        let index: [u32; LANES] = unsafe { warp.lanes(op.a) };
        let targets = &warp.cta.kernel.targets[op.imm as usize..][..op.b as usize];
        let stay = warp.active & !warp.mask;
        if stay != 0 {
            warp.park(Group { pc: warp.pc + 1, mask: stay });
        }
        let mut left = warp.mask;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            let same = (0..LANES)
                .filter(|&other| left >> other & 1 != 0 && index[other] == index[lane])
                .fold(0u32, |mask, other| mask | 1 << other);
            let Some(&target) = targets.get(index[lane] as usize) else {
                let message = format!("brx.idx: index {} of {} targets", index[lane], targets.len());
                return warp.fail_lane(lane, FaultKind::IllegalInstruction, message);
            };
            warp.park(Group { pc: target, mask: same });
            left &= !same;
        }
        warp.active = 0;
        warp.resume();
        Flow::Jump
    }
}

/// What a barrier does, as [`Barrier`] has it in `imm`.
pub const SYNC: i64 = 0;
/// Counts, but does not wait.
pub const ARRIVE: i64 = 1;
/// Reductions of predicate `c` over the threads: their number to register `d`; all, any to predicate `d`.
pub const COUNT: i64 = 2;
pub const AND: i64 = 3;
pub const OR: i64 = 4;

/// `bar` and `barrier`: barrier in register `a`, threads in `b` (0: all of the CTA); `e` 1: `.aligned`.
pub struct Barrier;
impl Body for Barrier {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let lane = warp.mask.trailing_zeros() as usize & 31;
        // SAFETY: the decoder gave both a slot.
        unsafe { warp.wait = (warp.lanes::<u32>(op.a)[lane], warp.lanes::<u32>(op.b)[lane]) };
        Flow::Barrier
    }
}

/// `exit`, and `ret` of a kernel.
pub struct Exit;
impl Body for Exit {
    #[inline(always)]
    unsafe fn run(_: &mut Warp, _: &Op) -> Flow {
        Flow::Exit
    }
}

/// `trap`.
pub struct Trap;
impl Body for Trap {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, _: &Op) -> Flow {
        let lane = warp.mask.trailing_zeros() as usize & 31;
        warp.fail_lane(lane, FaultKind::IllegalInstruction, "trap".to_string())
    }
}

/// Fences, hints, and waits that order nothing here: a CTA runs on one host thread, and every access
/// is complete when its instruction is.
pub struct Nothing;
impl Body for Nothing {
    #[inline(always)]
    unsafe fn run(_: &mut Warp, _: &Op) -> Flow {
        Flow::Next
    }
}

macro_rules! clock {
    ($name:ident, $lane:ty) => {
        /// Nanoseconds of the host's clock.
        pub struct $name;
        impl Body for $name {
            #[inline(always)]
            unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
                warp.probe_change();
                let now = warp.cta.grid.start.elapsed().as_nanos() as $lane;
                // SAFETY: the decoder gave the destination a slot of its width.
                unsafe { warp.set_lanes(op.d, [now; LANES]) };
                Flow::Next
            }
        }
    };
}
clock!(Clock32, u32);
clock!(Clock64, u64);

impl Warp<'_> {
    /// Writes a barrier's result, once `threads` have come and `votes` of them have said yes.
    pub fn finish_barrier(&mut self, op: &Op, mask: u32, votes: u32, threads: u32) {
        (self.mask, self.writable) = (mask, mask);
        let holds = |yes: bool| if yes { ALL } else { 0 };
        // SAFETY: the decoder gave each kind of barrier the destination it needs.
        unsafe {
            match op.imm {
                COUNT => self.set_lanes(op.d, [votes; LANES]),
                AND => self.set_pred(op.d, holds(votes == threads)),
                OR => self.set_pred(op.d, holds(votes > 0)),
                _ => {}
            }
        }
    }
}
