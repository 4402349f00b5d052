//! Runs the warps of a cluster's CTAs in turn until all have exited: barriers, deadlocks, and the time
//! when the engine's pending work lands. The clusters of a cooperative grid take turns too.

use std::mem::take;

use super::check::{Random, order};
use super::cluster::Cluster;
use super::control::{ARRIVE, COUNT};
use super::fault::{Fault, FaultKind, Origin};
use super::op::{ALL, Flow, Group, LANES, Op, Warp};

/// Why a warp has stopped.
enum Stop {
    Barrier,
    ClusterBarrier,
    Exited,
    Yield,
    Pause,
    Miss,
    Fault,
}

/// The number under which groups wait for the cluster's barrier; a CTA's are below.
const CLUSTER: u32 = 16;

/// Rounds in which every warp only waited in vain or went round a loop, until a piece of pending work lands.
const PATIENCE: u32 = 16;
/// Rounds in which every warp only waited in vain, with no work to land: nobody will ever come.
const DEADLOCK: u32 = 10_000;

/// Backward branches of a turn where a loop may wait for another CTA.
pub const SPINS: u32 = 256;

/// A CTA's barriers and its threads that have not exited.
struct Barriers {
    arrived: [u32; 16],
    wanted: [u32; 16],
    votes: [u32; 16],
    live: u32,
}

/// The warps of a cluster, and how far they are.
pub struct Schedule<'a, 'c> {
    warps: &'a mut [Warp<'c>],
    cluster: &'c Cluster,
    /// Of each CTA.
    barriers: Vec<Barriers>,
    cluster_arrived: u32,
    vain_rounds: u32,
    lost_rounds: u32,
    /// Whose turn comes when, and what shuffles it.
    turns: Vec<usize>,
    random: Option<Random>,
}

/// Runs clusters to their end, a round of each in turn. `order`: the seed of their turns, which are theirs by number
/// otherwise.
pub fn run_in_turn(mut clusters: Vec<Schedule>, order: Option<u64>) -> Result<(), Fault> {
    let mut random = order.map(Random::new);
    while !clusters.is_empty() {
        if let Some(random) = &mut random {
            random.shuffle(&mut clusters);
        }
        let mut i = 0;
        while i < clusters.len() {
            match clusters[i].round()? {
                true => drop(clusters.remove(i)),
                false => i += 1,
            }
        }
    }
    Ok(())
}

impl<'a, 'c> Schedule<'a, 'c> {
    /// For the warps of a cluster's CTAs, `threads` each. Threads are counted at barriers, so that lanes of one warp
    /// may reach it on different paths, as on Volta and later. `order`: the seed of the warps' turns, which are
    /// theirs by number otherwise.
    pub fn new(
        warps: &'a mut [Warp<'c>],
        cluster: &'c Cluster,
        threads: u32,
        order: Option<u64>,
    ) -> Schedule<'a, 'c> {
        let new = || Barriers { arrived: [0; 16], wanted: [0; 16], votes: [0; 16], live: threads };
        Schedule {
            barriers: (0..cluster.ctas).map(|_| new()).collect(),
            cluster_arrived: 0,
            vain_rounds: 0,
            lost_rounds: 0,
            turns: (0..warps.len()).collect(),
            random: order.map(Random::new),
            warps,
            cluster,
        }
    }

    /// A turn of each warp, until it waits; whether all have exited.
    fn round(&mut self) -> Result<bool, Fault> {
        let Schedule { warps, cluster, barriers, cluster_arrived, turns, random, .. } = self;
        let warps_per_cta = warps.len() / barriers.len();
        let (mut ran, mut in_vain, mut loops, mut pauses) = (false, true, false, false);
        let before = cluster.engine.borrow().changes();
        if let Some(random) = random {
            random.shuffle(turns);
        }
        for &i in turns.iter() {
            let rank = i / warps_per_cta;
            loop {
                if warps[i].active == 0 && !warps[i].resume() {
                    break;
                }
                ran = true;
                let before = warps[i].dead;
                let stop = warps[i].run();
                barriers[rank].live -= (warps[i].dead & !before).count_ones();
                match stop {
                    Stop::Barrier => barriers[rank].meet(&mut warps[i])?,
                    Stop::ClusterBarrier => {
                        let warp = &mut warps[i];
                        let arrives = warp.cta.kernel.ops[warp.pc].imm == ARRIVE;
                        if arrives {
                            warp.meet_cluster(true, warp.mask);
                            *cluster_arrived += warp.mask.count_ones();
                            warp.cluster_arrived |= warp.mask;
                        }
                        warp.pass(!arrives, CLUSTER);
                    }
                    Stop::Exited => {}
                    Stop::Miss => break,
                    Stop::Pause => {
                        pauses = true;
                        break;
                    }
                    Stop::Yield => {
                        loops = true;
                        if warps[i].cta.common.is_cooperative() {
                            warps[i].budget = SPINS;
                        }
                        break;
                    }
                    Stop::Fault => return Err(warps[i].take_fault()),
                }
                in_vain = false;
                // An exit may complete a barrier that waits for all who are left.
                let done = barriers[rank].complete(&mut warps[rank * warps_per_cta..][..warps_per_cta]);
                if barriers[rank].live == 0 && cluster.exited.get() >> rank & 1 == 0 {
                    cluster.exited.set(cluster.exited.get() | 1 << rank);
                    cluster.engine.borrow_mut().exit(warps[i].cta)?;
                }
                if done {
                    cluster.engine.borrow_mut().proxy.order();
                }
                let live: u32 = barriers.iter().map(|cta| cta.live).sum();
                if *cluster_arrived > 0 && *cluster_arrived >= live {
                    *cluster_arrived = 0;
                    cluster.engine.borrow_mut().proxy.order();
                    for warp in warps.iter_mut() {
                        warp.cluster_arrived = 0;
                        let gone = warp.blocked.iter().filter(|(_, id)| *id == CLUSTER);
                        let mask = gone.fold(0, |mask, (group, _)| mask | group.mask);
                        warp.meet_cluster(false, mask);
                        warp.release(CLUSTER, 0, 0);
                    }
                }
            }
        }
        if warps.iter().all(|warp| warp.dead == ALL) {
            return Ok(true);
        }
        if in_vain && pauses && !loops {
            return Ok(false); // a warp's turn has ended before it has shown whether it gets anywhere
        }
        let vain = in_vain && cluster.engine.borrow().changes() == before;
        self.vain_rounds = if vain { self.vain_rounds + 1 } else { 0 };
        self.lost_rounds = if vain && !loops { self.lost_rounds + 1 } else { 0 };
        if !ran || self.vain_rounds >= PATIENCE {
            if cluster.engine.borrow_mut().land_one(warps[0].cta)? {
                (self.vain_rounds, self.lost_rounds) = (0, 0);
            } else if !ran || self.lost_rounds >= DEADLOCK {
                return Err(deadlock(warps, cluster));
            }
        }
        Ok(false)
    }
}

impl Barriers {
    /// The lanes of a warp's mask reach a barrier.
    fn meet(&mut self, warp: &mut Warp) -> Result<(), Fault> {
        let (id, count) = warp.wait;
        if id > 15 {
            let lane = warp.mask.trailing_zeros() as usize;
            warp.fail_lane(lane, FaultKind::Sync, format!("barrier {id}: there are 16"));
            return Err(warp.take_fault());
        }
        let waits = warp.cta.kernel.ops[warp.pc].imm != ARRIVE;
        let wanted = (self.arrived[id as usize] > 0).then_some(self.wanted[id as usize]);
        warp.meet_barrier(id, count, waits, wanted)?;
        self.arrived[id as usize] += warp.mask.count_ones();
        self.wanted[id as usize] = count;
        let op = &warp.cta.kernel.ops[warp.pc];
        if op.imm >= COUNT {
            // SAFETY: the decoder gave a reducing barrier a predicate.
            self.votes[id as usize] += unsafe { warp.pred(op.c) & warp.mask }.count_ones();
        }
        warp.pass(waits, id);
        Ok(())
    }

    /// Lets the CTA's warps go on from barriers that all have reached; whether there are any.
    fn complete(&mut self, warps: &mut [Warp]) -> bool {
        let mut any = false;
        for id in 0..16 {
            let need = if self.wanted[id] == 0 { self.live } else { self.wanted[id] };
            if self.arrived[id] > 0 && self.arrived[id] >= need {
                order::barrier_done(warps, id as u32, self.live);
                let (threads, votes) = (take(&mut self.arrived[id]), take(&mut self.votes[id]));
                warps.iter_mut().for_each(|warp| warp.release(id as u32, votes, threads));
                any = true;
            }
        }
        any
    }
}

#[cold]
fn deadlock(warps: &[Warp], cluster: &Cluster) -> Fault {
    let cta = warps[0].cta;
    let kernel = cta.kernel;
    let mut message = format!("{}: deadlock in CTA {:?}", kernel.name, cta.index);
    if cluster.ctas > 1 {
        message += &format!(" and the others of its cluster of {}", cluster.ctas);
    }
    message += ":";
    for warp in warps {
        let name = match cluster.ctas {
            1 => format!("warp {}", warp.index),
            _ => format!("CTA {} warp {}", warp.cta.rank, warp.index),
        };
        for (group, id) in &warp.blocked {
            let barrier =
                if *id == CLUSTER { "the cluster's barrier".to_string() } else { format!("barrier {id}") };
            let (mask, line) = (group.mask, kernel.line(kernel.ops[group.pc - 1].line));
            message += &format!("\n  {name} lanes {mask:#010x} wait at {barrier}, {line}");
        }
        if let Some(missed) = warp.missed.filter(|_| warp.active != 0 || !warp.waiting.is_empty()) {
            let lanes = warp.waiting.iter().fold(warp.active, |mask, group| mask | group.mask);
            let (line, state) =
                (kernel.line(kernel.ops[missed.pc].line), cluster.engine.borrow().describe(missed.barrier));
            message += &format!("\n  {name} lanes {lanes:#010x} wait for {state}, {line}");
        }
        if warp.dead == ALL {
            message += &format!("\n  {name} has exited");
        }
    }
    Fault { kind: FaultKind::Deadlock, message }
}

impl Warp<'_> {
    /// Runs until something else must happen.
    fn run(&mut self) -> Stop {
        let ops: &[Op] = &self.cta.kernel.ops;
        loop {
            if self.pc >= self.merge_pc {
                self.resume();
            }
            // SAFETY: every path ends in an exit, and branch targets are inside (the lowering's promise).
            let op = unsafe { ops.get_unchecked(self.pc) };
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
            // SAFETY: the lowering gave the operation slots of the kernel's register file, and the host's
            // version of it.
            match unsafe { (op.run)(self, op) } {
                Flow::Next => self.pc += 1,
                Flow::Jump => {}
                Flow::Exit => {
                    self.dead |= mask;
                    self.active &= !mask;
                    self.pc += 1;
                    if self.active == 0 && !self.resume() {
                        return Stop::Exited;
                    }
                }
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

    /// The lanes of the mask go on from a barrier, or wait for it; those that the guard left out go on.
    fn pass(&mut self, waits: bool, id: u32) {
        if waits {
            self.blocked.push((Group { pc: self.pc + 1, mask: self.mask }, id));
            self.active &= !self.mask;
        }
        if self.active != 0 {
            self.pc += 1;
        }
    }

    /// Lets the groups at barrier `id` run again, with the result if it reduces.
    fn release(&mut self, id: u32, votes: u32, threads: u32) {
        let (free, rest) = self.blocked.drain(..).partition(|&(_, at)| at == id);
        let free: Vec<(Group, u32)> = free;
        self.blocked = rest;
        for (group, _) in free {
            if id != CLUSTER {
                self.finish_barrier(&self.cta.kernel.ops[group.pc - 1], group.mask, votes, threads);
            }
            self.park(group);
        }
    }

    /// The current instruction of a lane.
    pub fn origin(&self, lane: usize) -> Origin {
        let thread = self.index * LANES as u32 + lane as u32;
        Origin { cta: self.cta.index, thread, line: self.cta.kernel.ops[self.pc].line }
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
}
