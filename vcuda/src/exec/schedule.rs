//! The warps of a CTA in turn on one host thread, until all have exited: barriers, deadlocks.

use std::mem::take;

use super::control::{ARRIVE, COUNT};
use super::fault::{Fault, FaultKind};
use super::op::{ALL, Flow, Group, LANES, Op, Warp};

/// Why a warp stopped for now.
enum Stop {
    Barrier,
    Exited,
    Yield,
    Fault,
}

/// Runs a CTA's warps in turn until all have exited. Threads are counted at barriers, so that lanes of
/// one warp may reach it on different paths, as on Volta and later.
pub fn run_warps(warps: &mut [Warp], threads: u32) -> Result<(), Fault> {
    let mut arrived = [0u32; 16];
    let mut wanted = [0u32; 16];
    let mut votes = [0u32; 16];
    let mut live = threads;
    loop {
        let mut progress = false;
        for i in 0..warps.len() {
            loop {
                if warps[i].active == 0 && !warps[i].resume() {
                    break;
                }
                progress = true;
                let before = warps[i].dead;
                let stop = warps[i].run();
                let gone = (warps[i].dead & !before).count_ones();
                live -= gone;
                match stop {
                    Stop::Barrier => {
                        let warp = &mut warps[i];
                        let (id, count) = warp.wait;
                        if id > 15 {
                            let message = format!("barrier {id}: there are 16");
                            warp.fail_lane(
                                warp.mask.trailing_zeros() as usize,
                                FaultKind::IllegalInstruction,
                                message,
                            );
                            return Err(warp.take_fault());
                        }
                        arrived[id as usize] += warp.mask.count_ones();
                        wanted[id as usize] = count;
                        let op = &warp.cta.kernel.ops[warp.pc];
                        if op.imm >= COUNT {
                            // SAFETY: the decoder gave a reducing barrier a predicate.
                            votes[id as usize] += unsafe { warp.pred(op.c) & warp.mask }.count_ones();
                        }
                        if op.imm != ARRIVE {
                            warp.blocked.push((Group { pc: warp.pc + 1, mask: warp.mask }, id));
                            warp.active &= !warp.mask;
                        }
                        if warp.active != 0 {
                            warp.pc += 1; // the lanes that the guard left out go on
                        }
                    }
                    Stop::Exited => {}
                    Stop::Yield => break,
                    Stop::Fault => return Err(warps[i].take_fault()),
                }
                // An exit may complete a barrier that waits for all who are left.
                for id in 0..16 {
                    let need = if wanted[id] == 0 { live } else { wanted[id] };
                    if arrived[id] > 0 && arrived[id] >= need {
                        let (threads, votes) = (take(&mut arrived[id]), take(&mut votes[id]));
                        warps.iter_mut().for_each(|warp| warp.release(id as u32, votes, threads));
                    }
                }
            }
        }
        if warps.iter().all(|warp| warp.dead == ALL) {
            return Ok(());
        }
        if !progress {
            return Err(deadlock(warps));
        }
    }
}

#[cold]
fn deadlock(warps: &[Warp]) -> Fault {
    let kernel = warps[0].cta.kernel;
    let mut message = format!("{}: deadlock in CTA {:?}:", kernel.name, warps[0].cta.index);
    for warp in warps {
        for (group, id) in &warp.blocked {
            let line = kernel.ops[group.pc - 1].line;
            message += &format!(
                "\n  warp {} lanes {:#010x} wait at barrier {id}, PTX line {line}",
                warp.index, group.mask
            );
        }
        if warp.dead == ALL {
            message += &format!("\n  warp {} has exited", warp.index);
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
                Flow::Yield => {
                    self.rotate();
                    return Stop::Yield;
                }
                Flow::Fault => return Stop::Fault,
            }
        }
    }

    /// Lets the groups at barrier `id` run again, with the result if it reduces.
    fn release(&mut self, id: u32, votes: u32, threads: u32) {
        let (free, rest) = self.blocked.drain(..).partition(|&(_, at)| at == id);
        let free: Vec<(Group, u32)> = free;
        self.blocked = rest;
        for (group, _) in free {
            self.finish_barrier(&self.cta.kernel.ops[group.pc - 1], group.mask, votes, threads);
            self.park(group);
        }
    }

    /// A fault of one lane, with where it happened.
    #[cold]
    pub fn fail_lane(&mut self, lane: usize, kind: FaultKind, what: String) -> Flow {
        let (cta, kernel) = (self.cta, self.cta.kernel);
        let [bx, by, _] = cta.launch.block;
        let thread = self.index * LANES as u32 + lane as u32;
        let thread = [thread % bx, thread / bx % by, thread / bx / by];
        let line = kernel.ops[self.pc].line;
        let source = kernel.source_lines.get(&line).map_or(String::new(), |at| format!(" ({at})"));
        let message = format!(
            "{}: {what}; PTX line {line}{source}, CTA {:?}, thread {thread:?}",
            kernel.name, cta.index
        );
        self.fail(kind, message)
    }

    fn take_fault(&mut self) -> Fault {
        let (kind, message) = self
            .fault
            .take()
            .unwrap_or((FaultKind::IllegalInstruction, "a fault without a reason".to_string()));
        Fault { kind, message }
    }
}
