//! A warp's turn: its operations, one after the other, until something else must happen.

use crate::exec::control::BUDGET;
use crate::exec::groups::Group;
use crate::exec::op::{Flow, Op};
use crate::exec::warp::Warp;

/// Why a warp has stopped.
pub(super) enum Stop {
    Barrier,
    ClusterBarrier,
    /// No lane can run.
    Idle,
    Yield,
    Pause,
    Miss,
    Fault,
}

/// The number under which groups wait for the cluster's barrier; a CTA's are below.
pub(super) const CLUSTER: u32 = 16;

/// Backward branches of a turn where a loop may wait for another CTA, and where it most probably does.
const SPINS: u32 = 256;
const LINGERING_SPINS: u32 = 32;

impl Warp<'_> {
    /// Runs until something else must happen.
    pub(super) fn run(&mut self) -> Stop {
        let ops: &[Op] = &self.cta.kernel.ops;
        loop {
            if self.pc >= self.merge_pc {
                self.resume();
            }
            // SAFETY: every path ends in an exit, and branch targets are inside (the lowering's promise).
            let mut op = unsafe { ops.get_unchecked(self.pc) };
            let mut mask = self.active;
            if op.guard != 0 {
                // SAFETY: the lowering gave the guard a predicate.
                let value = unsafe { *self.preds.add((op.guard - 1) as usize >> 1) };
                mask &= if (op.guard - 1) & 1 != 0 { !value } else { value };
                if mask == 0 {
                    self.pc += 1;
                    continue;
                }
            }
            self.mask = mask;
            self.writable = mask | self.dead;
            let flow = loop {
                // SAFETY: the lowering gave the operation slots of the kernel's register file, and the host's
                // version of it.
                let flow = unsafe { (op.run)(self, op) };
                if flow != Flow::Next || op.guard != 0 {
                    break flow;
                }
                // Straight on with the same lanes, unless the next operation has a guard or others wait there.
                // SAFETY: as above.
                let next = unsafe { ops.get_unchecked(self.pc + 1) };
                if next.guard != 0 || self.pc + 1 >= self.merge_pc {
                    break flow;
                }
                self.pc += 1;
                op = next;
            };
            match flow {
                Flow::Next => self.pc += 1,
                Flow::Jump => {}
                Flow::Exit => {
                    self.dead |= mask;
                    self.active &= !mask;
                    self.pc += 1;
                    if !self.meetings.is_empty() && !self.leave(mask) {
                        return Stop::Fault;
                    }
                    if self.active == 0 && !self.resume() {
                        return Stop::Idle;
                    }
                }
                Flow::Idle => return Stop::Idle,
                Flow::Barrier => return Stop::Barrier,
                Flow::ClusterBarrier => return Stop::ClusterBarrier,
                Flow::Yield => {
                    self.rotate();
                    return Stop::Yield;
                }
                Flow::Pause => return Stop::Pause,
                Flow::Miss => {
                    self.pc += 1;
                    self.rotate();
                    return Stop::Miss;
                }
                Flow::Fault => return Stop::Fault,
            }
        }
    }

    /// The lanes that can run.
    pub(super) fn ready(&self) -> u32 {
        self.waiting.iter().chain(&self.spent).fold(self.active, |mask, group| mask | group.mask)
    }

    /// Backward branches until it yields again.
    #[inline]
    pub(super) fn renew_budget(&mut self, lingers: bool) {
        let cta = self.cta;
        let is_short = self.polls || cta.grid.is_cooperative() || cta.options.is_unkind();
        self.budget = match is_short {
            true if lingers => LINGERING_SPINS,
            true => SPINS,
            false => BUDGET,
        };
        self.polls = cta.kernel.polls && !cta.memory.is_watched();
    }

    /// The lanes of the mask go on from a barrier, or wait for it; those that the guard left out go on.
    pub(super) fn pass(&mut self, waits: bool, id: u32) {
        if waits {
            self.blocked.push((Group { pc: self.pc + 1, mask: self.mask }, id));
            self.active &= !self.mask;
        }
        if self.active != 0 {
            self.pc += 1;
        }
    }

    /// Lets the groups at barrier `id` run again, with the result if it reduces.
    pub(super) fn release(&mut self, id: u32, votes: u32, threads: u32) {
        while let Some(place) = self.blocked.iter().position(|&(_, at)| at == id) {
            let (group, _) = self.blocked.remove(place);
            if id != CLUSTER {
                self.finish_barrier(&self.cta.kernel.ops[group.pc - 1], group.mask, votes, threads);
            }
            self.park(group);
        }
    }
}
