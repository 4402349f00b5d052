//! 32 threads that run together: where each of them is, and what they wait for.

use std::mem::take;
use std::ops::{Deref, DerefMut};

use super::calls::Saved;
use super::cta::Cta;
use super::fault::{Fault, FaultKind, Origin};
use super::groups::{Group, Meeting};
use super::matrix::warpgroup::Pending;
use super::op::Flow;
use super::registers::{LANES, Registers};
use crate::exec::engine::barrier::Missed;

/// 32 threads: their registers and where each of them is.
pub struct Warp<'a> {
    pub registers: Registers<'a>,
    /// The running group.
    pub pc: usize,
    pub active: u32,
    /// Groups that wait to run, and the lowest `pc` among them.
    pub waiting: Vec<Group>,
    pub merge_pc: usize,
    /// Groups that run again when all of those have had their turn.
    pub spent: Vec<Group>,
    /// Groups that wait for lanes of the warp.
    pub meetings: Vec<Meeting>,
    /// Groups at a barrier, with its number.
    pub blocked: Vec<(Group, u32)>,
    /// Lanes that have exited or never were.
    pub dead: u32,
    pub index: u32,
    pub wait: (u32, u32),
    /// Lanes that have arrived in the current phase of the cluster's barrier, and lanes that have not
    /// waited since they arrived.
    pub cluster_arrived: u32,
    pub cluster_owed: u32,
    /// The last wait in vain, and whether there has been one since the last yield.
    pub missed: Option<Missed>,
    pub misses: bool,
    /// What it has polled last while it was watched: the host address, and where.
    pub polled: Option<(usize, usize)>,
    /// Backward branches until the next yield, and whether it has polled memory, or may have, since the last one.
    pub budget: u32,
    pub polls: bool,
    pub local: *mut u8,
    /// What each lane comes back to from its calls, the last one last; empty before the first call.
    pub calls: Vec<Vec<Saved>>,
    pub cta: &'a Cta<'a>,
    pub fault: Option<(FaultKind, String)>,
    /// Matrix products under way.
    pub products: Pending,
}

impl Warp<'_> {
    /// Stops the launch.
    #[cold]
    pub fn fail(&mut self, kind: FaultKind, message: String) -> Flow {
        self.fault = Some((kind, message));
        Flow::Fault
    }

    /// The current instruction of a lane.
    #[inline]
    pub fn origin(&self, lane: usize) -> Origin {
        let thread = self.index * LANES as u32 + lane as u32;
        Origin { cta: self.cta.index.get(), thread, line: self.cta.kernel.ops[self.pc].line }
    }

    /// A fault of one lane, with where it happened.
    #[cold]
    pub fn fail_lane(&mut self, lane: usize, kind: FaultKind, what: String) -> Flow {
        let message = self.cta.kernel.blame(&what, self.cta.launch.block, self.origin(lane));
        self.fail(kind, message)
    }

    pub fn take_fault(&mut self) -> Fault {
        let (kind, message) = self
            .fault
            .take()
            .unwrap_or((FaultKind::IllegalInstruction, "a fault without a reason".to_string()));
        Fault { kind, message }
    }

    /// The warp's number in its cluster, with room for 32 in each CTA.
    #[inline]
    pub fn number(&self) -> usize {
        (self.cta.rank * 32 + self.index) as usize
    }

    /// Sets a group aside to run later, joined with one that waits at the same place.
    #[inline]
    pub fn park(&mut self, group: Group) {
        match self.waiting.iter_mut().find(|other| other.pc == group.pc) {
            Some(other) => other.mask |= group.mask,
            None => self.waiting.push(group),
        }
        self.merge_pc = self.merge_pc.min(group.pc);
    }

    /// Continues with the lowest group that can run, the current one included; false if there is none. Those that have
    /// had their turn can when no other is left.
    #[inline]
    pub fn resume(&mut self) -> bool {
        if self.active != 0 {
            self.park(Group { pc: self.pc, mask: self.active });
        }
        if self.waiting.is_empty() {
            while let Some(group) = self.spent.pop() {
                self.park(group);
            }
        }
        let lowest = (0..self.waiting.len()).min_by_key(|&i| self.waiting[i].pc);
        let next = lowest.map(|i| self.waiting.swap_remove(i));
        self.merge_pc = self.waiting.iter().map(|group| group.pc).min().unwrap_or(usize::MAX);
        (self.pc, self.active) = next.map_or((0, 0), |group| (group.pc, group.mask));
        next.is_some()
    }

    /// After a long loop, or a wait in vain: the others have their turn first, although the group is the lowest. It may
    /// wait for what they have yet to do, as for a lock that a lane of the same warp holds.
    #[inline]
    pub fn rotate(&mut self) {
        if !self.waiting.is_empty() || !self.spent.is_empty() {
            self.spent.push(Group { pc: self.pc, mask: take(&mut self.active) });
            self.resume();
        }
    }
}

impl<'a> Deref for Warp<'a> {
    type Target = Registers<'a>;

    #[inline(always)]
    fn deref(&self) -> &Registers<'a> {
        &self.registers
    }
}

impl DerefMut for Warp<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.registers
    }
}
