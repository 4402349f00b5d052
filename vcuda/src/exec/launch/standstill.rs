//! Warps that go round for ever: each has come back to a state that it was in before, and no memory has changed
//! meanwhile, nor has a clock been read. Each then does the same again, whatever the others' turns are.

use crate::exec::calls::Saved;
use crate::exec::groups::Group;
use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

/// All that decides what a warp does next, but for memory.
#[derive(PartialEq)]
struct State {
    regs: Vec<u32>,
    preds: Vec<u32>,
    flags: [u32; 5],
    pc: usize,
    /// Groups that are ready, that have had their turn, that wait for each other, and that are at barriers.
    groups: [Vec<Group>; 3],
    blocked: Vec<(Group, u32)>,
    calls: Vec<Vec<Saved>>,
    products: u64,
}

impl State {
    fn of(warp: &Warp) -> State {
        let kernel = warp.cta.kernel;
        // SAFETY: the register files are the kernel's.
        let (regs, preds) = unsafe {
            let regs = std::slice::from_raw_parts(warp.regs, kernel.slots * LANES);
            (regs.to_vec(), std::slice::from_raw_parts(warp.preds, kernel.preds).to_vec())
        };
        let meetings = warp.meetings.iter().map(|meeting| meeting.group).collect();
        State {
            regs,
            preds,
            flags: [warp.active, warp.carry, warp.budget, warp.cluster_arrived, warp.cluster_owed],
            pc: warp.pc,
            groups: [warp.waiting.clone(), warp.spent.clone(), meetings],
            blocked: warp.blocked.clone(),
            calls: warp.calls.clone(),
            products: warp.products.issued,
        }
    }
}

/// The turns of a warp since memory last changed, ended by a loop or by a wait in vain.
#[derive(Default)]
pub struct Laps {
    turns: u32,
    /// The state after one of them; the distance between those is doubled each time (Brent, 1980).
    mark: Option<State>,
    marked: u32,
    is_closed: bool,
}

impl Laps {
    /// A turn has ended.
    pub fn count(&mut self, warp: &Warp) {
        if self.is_closed {
            return;
        }
        self.turns += 1;
        let state = State::of(warp);
        if self.mark.as_ref() == Some(&state) {
            self.is_closed = true;
        } else if self.turns >= 2 * self.marked {
            (self.mark, self.marked) = (Some(state), self.turns);
        }
    }

    /// Whether the warp was in the state of some turn again.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}
