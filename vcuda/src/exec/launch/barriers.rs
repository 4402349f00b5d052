//! The barriers of a CTA. Threads are counted there, so that lanes of one warp may reach it on different paths, as on
//! Volta and later.

use crate::exec::control::{ARRIVE, COUNT};
use crate::exec::fault::{Fault, FaultKind};
use crate::exec::observe::sync;
use crate::exec::registers::lanes_of;
use crate::exec::warp::Warp;
use std::mem::take;

/// A CTA's barriers and its threads that have not exited.
pub struct Barriers {
    arrived: [u32; 16],
    wanted: [u32; 16],
    votes: [u32; 16],
    /// Those at which anybody has arrived, a bit each.
    busy: u32,
    pub live: u32,
}

impl Barriers {
    /// For a CTA of so many threads.
    pub fn new(threads: u32) -> Barriers {
        Barriers { arrived: [0; 16], wanted: [0; 16], votes: [0; 16], busy: 0, live: threads }
    }

    /// The lanes of a warp's mask reach a barrier.
    pub fn meet(&mut self, warp: &mut Warp) -> Result<(), Fault> {
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
        self.busy |= 1 << id;
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
    pub fn complete(&mut self, warps: &mut [Warp]) -> bool {
        let mut any = false;
        for id in lanes_of(self.busy) {
            let need = if self.wanted[id] == 0 { self.live } else { self.wanted[id] };
            if self.arrived[id] >= need {
                self.busy &= !(1 << id);
                let is_all = [0, warps[0].cta.launch.threads()].contains(&self.wanted[id]);
                sync::barrier_done(warps, id as u32, is_all);
                let (threads, votes) = (take(&mut self.arrived[id]), take(&mut self.votes[id]));
                warps.iter_mut().for_each(|warp| warp.release(id as u32, votes, threads));
                any = true;
            }
        }
        any
    }
}
