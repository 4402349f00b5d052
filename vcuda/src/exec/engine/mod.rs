//! What a cluster has under way besides its warps: the mbarriers it has initialised, and asynchronous
//! copies.
//!
//! Work is done when it is issued, unless [`Checks::asynchrony`](crate::exec::options::Checks) asks for the
//! adversary: then it lands at the latest moment that the ISA allows, so that whoever does not wait for it
//! reads what was there before, which is poison. A thread's `cp.async` land when the thread waits for
//! their group; work that an mbarrier announces lands when no warp gets any further without it, one piece
//! at a time in an order drawn from the seed; stores read shared memory when their group is waited for.

pub mod barrier;
mod proxy;
pub mod work;

use std::mem::take;

use crate::exec::fault::{Blame, FaultKind};
use crate::memory::Memory;
use barrier::{Barrier, State};
use proxy::Proxy;
use work::{Copy, Job, Work};

enum Task {
    Move(Job),
    /// `cp.async.mbarrier.arrive`: once the copies before this number, of this warp and lane, have landed.
    Arrive {
        warp: usize,
        lane: u32,
        before: u64,
    },
}

struct Pending {
    work: Work,
    task: Task,
    /// Number of the bulk group that a store is in.
    group: u32,
}

/// Groups that a thread has committed.
#[derive(Clone, Copy, Default)]
struct Groups {
    copies: u32,
    bulk: u32,
}

/// A warp's copies under way, with their number and their group.
#[derive(Default)]
struct Lane {
    copies: Vec<(Copy, u64, u32)>,
    groups: [Groups; 32],
}

#[derive(Default)]
pub struct Engine {
    /// For the adversary: work lands as late as it may.
    is_late: bool,
    /// Initialised barriers: host address, and the word that is there.
    barriers: Vec<(usize, u64)>,
    changes: u64,
    /// How often a phase of one has ended.
    phases: u64,
    warps: Vec<Lane>,
    issued: u64,
    loads: Vec<Pending>,
    stores: Vec<Pending>,
    random: u64,
    pub proxy: Proxy,
}

impl Engine {
    /// Begins with nothing, in the room that it has.
    #[inline]
    pub fn begin(&mut self, seed: u64, is_late: bool) {
        self.is_late = is_late;
        self.barriers.clear();
        (self.changes, self.phases, self.issued) = (0, 0, 0);
        self.warps.clear();
        self.loads.clear();
        self.stores.clear();
        self.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        self.proxy.begin();
    }

    /// How often a barrier has changed, or products have been computed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Products have been computed: whoever has waited for them gets on.
    pub fn note_change(&mut self) {
        self.changes += 1;
    }

    fn find(&self, barrier: Barrier) -> Option<usize> {
        self.barriers.iter().position(|&(at, _)| at == barrier.host as usize)
    }

    /// A barrier's state.
    ///
    /// # Errors
    /// There is no barrier, or something has been stored over it.
    pub fn state(&self, barrier: Barrier) -> Result<State, String> {
        let at = barrier.address;
        let Some(found) = self.find(barrier) else {
            return Err(format!("no mbarrier has been initialised at shared {at:#x}"));
        };
        // SAFETY: a barrier is eight aligned bytes of the cluster's shared memory.
        let word = unsafe { *barrier.host.cast::<u64>() };
        if word != self.barriers[found].1 {
            return Err(format!("the mbarrier at shared {at:#x} has been overwritten with {word:#018x}"));
        }
        Ok(State::decode(word))
    }

    fn set(&mut self, barrier: Barrier, index: usize, state: State) {
        let word = state.encode();
        self.barriers[index].1 = word;
        // SAFETY: as in `state`.
        unsafe { *barrier.host.cast::<u64>() = word };
        self.changes += 1;
    }

    /// `mbarrier.init`.
    pub fn init(&mut self, barrier: Barrier, state: State) -> Result<(), String> {
        if self.state(barrier).is_ok() {
            let at = barrier.address;
            return Err(format!("the mbarrier at shared {at:#x} is in use; mbarrier.inval comes first"));
        }
        let index = self.find(barrier).unwrap_or_else(|| {
            self.barriers.push((barrier.host as usize, 0));
            self.barriers.len() - 1
        });
        self.set(barrier, index, state);
        Ok(())
    }

    /// `mbarrier.inval`.
    pub fn invalidate(&mut self, barrier: Barrier) -> Result<(), String> {
        self.state(barrier)?;
        self.barriers.retain(|&(at, _)| at != barrier.host as usize);
        Ok(())
    }

    /// Changes a barrier's state.
    pub fn update(
        &mut self,
        barrier: Barrier,
        change: impl FnOnce(&mut State) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut state = self.state(barrier)?;
        let phase = state.phase;
        change(&mut state).map_err(|what| format!("{what} (mbarrier at shared {:#x})", barrier.address))?;
        if state.phase != phase {
            self.phases += 1;
            self.proxy.order();
        }
        if let Some(index) = self.find(barrier) {
            self.set(barrier, index, state);
        }
        Ok(())
    }

    /// A barrier in words.
    pub fn describe(&self, barrier: Barrier) -> String {
        let at = barrier.address;
        match self.state(barrier) {
            Ok(State { phase, expected, pending, tx }) => format!(
                "the mbarrier at shared {at:#x} (phase {phase} modulo 8, {pending} of {expected} arrivals \
                 pending, tx-count {tx})"
            ),
            Err(what) => what,
        }
    }

    /// Starts work that mbarriers announce.
    pub fn load(
        &mut self,
        memory: &Memory,
        work: Work,
        job: impl FnOnce(*const u8, &Memory) -> Result<(), String> + 'static,
    ) -> Result<(), Blame> {
        let pending = self.start(memory, work, job)?;
        self.loads.extend(pending);
        Ok(())
    }

    /// Starts work of the thread's current bulk group.
    pub fn store(
        &mut self,
        memory: &Memory,
        work: Work,
        job: impl FnOnce(*const u8, &Memory) -> Result<(), String> + 'static,
    ) -> Result<(), Blame> {
        let group = self.warp(work.warp()).groups[work.lane()].bulk;
        let pending = self.start(memory, work, job)?;
        self.stores.extend(pending.map(|pending| Pending { group, ..pending }));
        Ok(())
    }

    /// Does work at once, or, for the adversary, leaves it pending: until it lands nobody may write what it
    /// reads, or touch what it writes.
    fn start(
        &mut self,
        memory: &Memory,
        work: Work,
        job: impl FnOnce(*const u8, &Memory) -> Result<(), String> + 'static,
    ) -> Result<Option<Pending>, Blame> {
        if !self.is_late {
            finish(memory, &work, job)?;
            self.complete(&work)?;
            return Ok(None);
        }
        self.proxy.hold(work.reads.0, work.reads.1, work.origin.line);
        for &(offset, bytes) in &work.writes {
            self.proxy.expect(offset, bytes, work.origin.line);
        }
        Ok(Some(Pending { work, task: Task::Move(Box::new(job)), group: 0 }))
    }

    /// Starts a `cp.async` of a warp's lane; `warp` counts through the cluster.
    pub fn copy(&mut self, warp: usize, copy: Copy) {
        self.proxy.expect(copy.offset, copy.bytes, copy.origin.line);
        self.issued += 1;
        let number = self.issued;
        let own = self.warp(warp);
        let group = own.groups[copy.lane as usize].copies;
        own.copies.push((copy, number, group));
    }

    /// Commits the current groups of the lanes of `mask`.
    pub fn commit(&mut self, warp: usize, mask: u32, bulk: bool) {
        for (lane, groups) in self.warp(warp).groups.iter_mut().enumerate() {
            let count = if bulk { &mut groups.bulk } else { &mut groups.copies };
            *count += mask >> lane & 1;
        }
    }

    /// Lands the `cp.async` of the lanes of `mask`, but for their latest groups; all if `but` is `None`.
    pub fn wait_copies(&mut self, warp: usize, mask: u32, but: Option<u32>) {
        let groups = self.warp(warp).groups;
        self.land_copies(warp, |lane, _, group| {
            let waited = but.is_none_or(|but| group.saturating_add(but) < groups[lane].copies);
            mask >> lane & 1 != 0 && waited
        });
    }

    /// Lets `barrier` know when the lane's `cp.async` so far have landed.
    pub fn arrive_after(&mut self, warp: usize, lane: u32, work: Work) {
        let task = Task::Arrive { warp, lane, before: self.issued + 1 };
        self.loads.push(Pending { work, task, group: 0 });
    }

    /// Does the stores of the lanes of `mask` but for their latest `but` groups, or only reads what they
    /// store. What of the cluster's shared memory they have read only now: by which lane, where, and how many bytes.
    pub fn wait_stores(
        &mut self,
        memory: &Memory,
        warp: usize,
        mask: u32,
        but: u32,
        read: bool,
    ) -> Result<Vec<(usize, *const u8, usize)>, Blame> {
        let groups = self.warp(warp).groups;
        let mut reads = Vec::new();
        let waited = |pending: &Pending| {
            let lane = pending.work.lane();
            let late = pending.group.saturating_add(but) < groups[lane].bulk;
            pending.work.warp() == warp && mask >> lane & 1 != 0 && late
        };
        if read {
            for pending in self.stores.iter_mut().filter(|pending| waited(pending)) {
                reads.extend(pending.work.read());
                pending.work.source.take();
                let (offset, bytes) = take(&mut pending.work.reads);
                self.proxy.release(offset, bytes);
            }
            return Ok(reads);
        }
        for pending in self.stores.extract_if(.., |pending| waited(pending)).collect::<Vec<_>>() {
            reads.extend(pending.work.read());
            self.land(memory, pending)?;
        }
        Ok(reads)
    }

    /// Lands one piece of the work that mbarriers announce, if there is any: whether that ends a phase of one.
    pub fn land_one(&mut self, memory: &Memory) -> Result<Option<bool>, Blame> {
        if self.loads.is_empty() {
            return Ok(None);
        }
        let phases = self.phases;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pick = (self.random >> 16) as usize % self.loads.len();
        let pending = self.loads.swap_remove(pick);
        self.land(memory, pending)?;
        Ok(Some(self.phases != phases))
    }

    /// The last thread of a CTA exits: its stores are done, and nothing else may be under way.
    pub fn exit(&mut self, memory: &Memory, rank: u32, index: [u32; 3]) -> Result<(), Blame> {
        for pending in self.stores.extract_if(.., |pending| pending.work.rank == rank).collect::<Vec<_>>() {
            self.land(memory, pending)?;
        }
        let own = self.warps.iter().skip(rank as usize * 32).take(32);
        let copy = own.flat_map(|warp| &warp.copies).map(|(copy, ..)| copy.origin).next();
        let load = self.loads.iter().find(|pending| pending.work.targets >> rank & 1 != 0);
        match copy.or(load.map(|pending| pending.work.origin)) {
            None => Ok(()),
            Some(origin) => {
                let what = format!(
                    "CTA {index:?} exits before this copy into its shared memory has been waited for"
                );
                Err(Blame { kind: FaultKind::Asynchrony, what, origin })
            }
        }
    }

    fn warp(&mut self, warp: usize) -> &mut Lane {
        if self.warps.len() <= warp {
            self.warps.resize_with(warp + 1, Lane::default);
        }
        &mut self.warps[warp]
    }

    /// Lands the copies of a warp that `chosen` says yes to, given lane, number and group. What they write,
    /// they write as ordinary stores do.
    fn land_copies(&mut self, warp: usize, chosen: impl Fn(usize, u64, u32) -> bool) {
        let mut copies = take(&mut self.warp(warp).copies);
        copies.retain(|(copy, number, group)| {
            let lands = chosen(copy.lane as usize, *number, *group);
            if lands {
                // SAFETY: checked when it was issued; a copy that lands after its CTA has exited is a fault.
                unsafe { copy.land() };
                self.proxy.land(copy.offset, copy.bytes);
                self.proxy.store(copy.offset, copy.bytes, warp, copy.origin.line);
            }
            !lands
        });
        self.warps[warp].copies = copies;
    }

    fn land(&mut self, memory: &Memory, pending: Pending) -> Result<(), Blame> {
        match pending.task {
            Task::Move(job) => {
                self.proxy.release(pending.work.reads.0, pending.work.reads.1);
                pending.work.writes.iter().for_each(|&(offset, bytes)| self.proxy.land(offset, bytes));
                finish(memory, &pending.work, job)?;
                self.complete(&pending.work)
            }
            Task::Arrive { warp, lane, before } => {
                self.land_copies(warp, |at, number, _| at == lane as usize && number < before);
                for (barrier, _) in &pending.work.completes {
                    self.update(*barrier, |state| state.arrive(1))
                        .map_err(|what| pending.work.blame(FaultKind::Asynchrony, what))?;
                }
                Ok(())
            }
        }
    }

    fn complete(&mut self, work: &Work) -> Result<(), Blame> {
        for (barrier, bytes) in &work.completes {
            self.update(*barrier, |state| state.transact(-i64::from(*bytes)))
                .map_err(|what| work.blame(FaultKind::Asynchrony, what))?;
        }
        Ok(())
    }
}

fn finish(
    memory: &Memory,
    work: &Work,
    job: impl FnOnce(*const u8, &Memory) -> Result<(), String>,
) -> Result<(), Blame> {
    job(work.source.at(), memory).map_err(|what| work.blame(FaultKind::IllegalAddress, what))
}
