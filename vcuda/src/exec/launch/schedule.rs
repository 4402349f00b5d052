//! Runs the warps of a cluster's CTAs in turn until all have exited: barriers, deadlocks, and the time
//! when the engine's pending work lands.

use std::mem::take;

use super::barriers::Barriers;
use super::standstill::Laps;
use super::turn::{CLUSTER, Stop};
use crate::exec::control::ARRIVE;
use crate::exec::cta::Cluster;
use crate::exec::fault::{Fault, FaultKind};
use crate::exec::matrix::group;
use crate::exec::random::Random;
use crate::exec::registers::ALL;
use crate::exec::warp::Warp;

/// Rounds in which every warp only waited in vain or went round a loop, until a piece of pending work lands.
const PATIENCE: u32 = 16;
/// Rounds in which every warp only waited in vain, with no work to land: nobody will ever come.
const DEADLOCK: u32 = 10_000;

/// A cluster lingers when its loops have been this long: what a round counts in which one has yielded that polls
/// memory, and one that does not; and rounds without any, after which all is forgotten.
const LINGERS: u32 = 1024;
const POLLING: u32 = 64;
const WORKING: u32 = 1;
const FORGOTTEN: u32 = 1024;

/// The warps of a cluster, and how far they are.
pub struct Schedule<'a> {
    warps: Vec<Warp<'a>>,
    cluster: &'a Cluster,
    /// Of each CTA.
    barriers: Vec<Barriers>,
    cluster_arrived: u32,
    vain_rounds: u32,
    lost_rounds: u32,
    /// How long its warps have been in loops, up to [`LINGERS`], and rounds since the last one.
    loops: u32,
    rounds_without: u32,
    /// Of each warp, while it is asked whether they ever get out of them; and whether the round has seen work land.
    laps: Vec<Laps>,
    has_landed: bool,
    /// Whose turn comes when, and what shuffles it; by number without.
    turns: Vec<usize>,
    random: Option<Random>,
}

impl<'a> Schedule<'a> {
    /// For the warps of a cluster's CTAs, `threads` each. `order`: the seed of the warps' turns, which are theirs by
    /// number otherwise.
    #[inline]
    pub fn new(warps: Vec<Warp<'a>>, cluster: &'a Cluster, threads: u32, order: Option<u64>) -> Schedule<'a> {
        Schedule {
            barriers: (0..cluster.ctas).map(|_| Barriers::new(threads)).collect(),
            cluster_arrived: 0,
            vain_rounds: 0,
            lost_rounds: 0,
            loops: 0,
            rounds_without: 0,
            laps: Vec::new(),
            has_landed: false,
            turns: if order.is_some() { (0..warps.len()).collect() } else { Vec::new() },
            random: order.map(Random::new),
            warps,
            cluster,
        }
    }

    /// Whether its warps have been in loops for so long that they may wait for other clusters.
    #[inline]
    pub fn lingers(&self) -> bool {
        self.loops >= LINGERS
    }

    /// Begins to ask anew whether its warps go round for ever, or asks no more.
    pub fn watch_laps(&mut self, wanted: bool) {
        self.laps.clear();
        if wanted {
            self.laps.resize_with(self.warps.len(), Laps::default);
        }
    }

    /// Whether each warp has exited, waits, or has come back to a state that it was in since it was first asked.
    pub fn is_stuck(&self) -> bool {
        let idle = |warp: &Warp| warp.ready() == 0;
        !self.has_landed
            && !self.laps.is_empty()
            && self.warps.iter().zip(&self.laps).all(|(warp, laps)| idle(warp) || laps.is_closed())
    }

    /// Changes of what asynchronous work waits for.
    pub fn changes(&self) -> u64 {
        self.cluster.engine.borrow().changes()
    }

    /// A turn of each warp, until it waits; whether all have exited.
    pub fn round(&mut self) -> Result<bool, Fault> {
        let lingers = self.lingers();
        let Schedule { warps, cluster, barriers, cluster_arrived, turns, random, laps, .. } = self;
        let warps_per_cta = warps.len() / barriers.len();
        let (mut ran, mut in_vain, mut loops, mut polls, mut pauses) = (false, true, false, false, false);
        let before = cluster.engine.borrow().changes();
        if let Some(random) = random {
            random.shuffle(turns);
        }
        for turn in 0..warps.len() {
            let i = turns.get(turn).copied().unwrap_or(turn);
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
                    Stop::Idle => {}
                    Stop::Miss => {
                        warps[i].misses = true;
                        if let Some(laps) = laps.get_mut(i) {
                            laps.count(&warps[i]);
                        }
                        break;
                    }
                    Stop::Pause => {
                        pauses = true;
                        break;
                    }
                    Stop::Yield => {
                        // A loop round nothing but waits in vain is one of them.
                        let only_waits = take(&mut warps[i].misses)
                            && !(warps[i].polls && warps[i].cta.memory.is_watched());
                        if !only_waits {
                            (loops, warps[i].missed) = (true, None);
                            polls |= warps[i].polls;
                        }
                        warps[i].renew_budget(lingers);
                        if let Some(laps) = laps.get_mut(i) {
                            laps.count(&warps[i]);
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
                    let cta = warps[i].cta;
                    let exit = cluster.engine.borrow_mut().exit(cta.memory, cta.rank, cta.index.get());
                    exit.map_err(|blame| cta.fault(blame))?;
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
        self.has_landed = false;
        if loops {
            self.loops = LINGERS.min(self.loops + if polls { POLLING } else { WORKING });
            self.rounds_without = 0;
        } else {
            self.rounds_without += 1;
            if self.rounds_without >= FORGOTTEN {
                (self.loops, self.rounds_without) = (0, 0);
            }
        }
        if in_vain && pauses && !loops {
            return Ok(false); // a warp's turn has ended before it has shown whether it gets anywhere
        }
        let vain = in_vain && cluster.engine.borrow().changes() == before;
        self.vain_rounds = if vain { self.vain_rounds + 1 } else { 0 };
        self.lost_rounds = if vain && !loops { self.lost_rounds + 1 } else { 0 };
        if !ran || self.vain_rounds >= PATIENCE || self.lingers() {
            let cta = self.warps[0].cta;
            let landed = self.cluster.engine.borrow_mut().land_one(cta.memory);
            let landed = landed.map_err(|blame| cta.fault(blame))?;
            if landed.is_some() || group::land_one(&self.warps) {
                (self.vain_rounds, self.lost_rounds, self.has_landed) = (0, 0, true);
                if landed == Some(false) && !loops {
                    // All wait for phases, none of which has ended.
                    self.vain_rounds = PATIENCE - 1;
                }
            } else if !ran || self.lost_rounds >= DEADLOCK {
                return Err(self.deadlock());
            }
        }
        Ok(false)
    }

    #[cold]
    fn deadlock(&self) -> Fault {
        let cta = self.warps[0].cta;
        let mut message = format!("{}: deadlock in CTA {:?}", cta.kernel.name, cta.index.get());
        if self.cluster.ctas > 1 {
            message += &format!(" and the others of its cluster of {}", self.cluster.ctas);
        }
        message += ":";
        for line in self.describe() {
            message += &format!("\n  {line}");
        }
        Fault { kind: FaultKind::Deadlock, message }
    }

    /// Where each warp is.
    #[cold]
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for warp in &self.warps {
            let kernel = warp.cta.kernel;
            let line_of = |pc: usize| kernel.line(kernel.ops[pc].line);
            let name = match self.cluster.ctas {
                1 => format!("warp {}", warp.index),
                _ => format!("CTA {} warp {}", warp.cta.rank, warp.index),
            };
            for (group, id) in &warp.blocked {
                let barrier = if *id == CLUSTER {
                    "the cluster's barrier".to_string()
                } else {
                    format!("barrier {id}")
                };
                let (mask, line) = (group.mask, line_of(group.pc - 1));
                lines.push(format!("{name} lanes {mask:#010x} wait at {barrier}, {line}"));
            }
            lines.extend(warp.describe_meetings(&name));
            let lanes = warp.ready();
            let products = warp.missing_products().filter(|_| lanes != 0);
            if let Some(products) = products {
                lines.push(format!("{name} lanes {lanes:#010x} wait {products}"));
            } else if let (Some(missed), true) = (warp.missed, lanes != 0) {
                let state = self.cluster.engine.borrow().describe(missed.barrier);
                lines.push(format!("{name} lanes {lanes:#010x} wait for {state}, {}", line_of(missed.pc)));
            } else if let (Some((at, pc)), true) = (warp.polled, lanes != 0) {
                let at = warp.name_of(at);
                lines.push(format!("{name} lanes {lanes:#010x} read {at} again and again, {}", line_of(pc)));
            } else if lanes != 0 {
                lines.push(format!("{name} lanes {lanes:#010x} go round a loop, {}", line_of(warp.pc)));
            }
            if warp.dead == ALL {
                lines.push(format!("{name} has exited"));
            }
        }
        lines
    }
}
