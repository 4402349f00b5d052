//! Warps that go round for ever: each has come back to a state that it was in before, and no memory has changed
//! meanwhile, nor has a clock been read. Each then does the same again, whatever the others' turns are.

use crate::exec::call::Saved;
use crate::exec::op::{LANES, Warp};

/// All that decides what a warp does next, but for memory.
#[derive(PartialEq)]
struct State {
    regs: Vec<u32>,
    preds: Vec<u32>,
    flags: [u32; 6],
    places: [usize; 2],
    /// Groups that are ready, and groups at barriers.
    groups: Vec<(usize, u32, Option<u32>)>,
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
        let ready = warp.waiting.iter().map(|group| (group.pc, group.mask, None));
        let blocked = warp.blocked.iter().map(|(group, id)| (group.pc, group.mask, Some(*id)));
        State {
            regs,
            preds,
            flags: [
                warp.active,
                warp.carry,
                warp.budget,
                warp.ahead.into(),
                warp.cluster_arrived,
                warp.cluster_owed,
            ],
            places: [warp.pc, warp.turn],
            groups: ready.chain(blocked).collect(),
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
