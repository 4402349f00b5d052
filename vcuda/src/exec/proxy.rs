//! What ordinary stores have left in shared memory that bulk copies may not see yet: they read through
//! the async proxy, and only a `fence.proxy.async` orders the two (PTX ISA 8.6). Tracked where
//! [`Checks::asynchrony`](super::run::Checks) asks for it.
//!
//! A fence covers the stores of its own warp, and those that a barrier has ordered before it.

use super::access::{GENERIC, SHARED_WINDOW, SHARED32};
use super::fault::FaultKind;
use super::op::{Body, Flow, LANES, Op, Warp, lanes_of};

const GRANULE_BYTES: usize = 16;

/// The last store to a granule: by which warp of the cluster (0: none since the fence, else its number
/// and 1), after how many barriers, from which PTX line.
#[derive(Clone, Copy, Default)]
struct Mark {
    warp: u32,
    epoch: u32,
    line: u32,
}

#[derive(Default)]
pub struct Proxy {
    /// One a granule of the cluster's shared memory, as far as there have been stores.
    marks: Vec<Mark>,
    epoch: u32,
}

impl Proxy {
    /// A barrier has let threads go on.
    pub fn order(&mut self) {
        self.epoch += 1;
    }

    /// A warp stores `bytes` at `offset` in the cluster's shared memory.
    pub fn store(&mut self, offset: usize, bytes: usize, warp: usize, line: u32) {
        let (first, last) = (offset / GRANULE_BYTES, (offset + bytes - 1) / GRANULE_BYTES);
        if self.marks.len() <= last {
            self.marks.resize(last + 1, Mark::default());
        }
        self.marks[first..=last].fill(Mark { warp: warp as u32 + 1, epoch: self.epoch, line });
    }

    /// The async proxy itself writes there.
    pub fn overwrite(&mut self, offset: usize, bytes: usize) {
        let end = (offset + bytes).div_ceil(GRANULE_BYTES).min(self.marks.len());
        let start = (offset / GRANULE_BYTES).min(end);
        self.marks[start..end].fill(Mark::default());
    }

    /// `fence.proxy.async` of a warp.
    pub fn fence(&mut self, warp: usize) {
        for mark in &mut self.marks {
            if mark.warp == warp as u32 + 1 || mark.epoch < self.epoch {
                mark.warp = 0;
            }
        }
    }

    /// Where a store in this range came from that no fence has covered: its PTX line.
    pub fn unfenced(&self, offset: usize, bytes: usize) -> Option<u32> {
        let end = (offset + bytes).div_ceil(GRANULE_BYTES).min(self.marks.len());
        let start = (offset / GRANULE_BYTES).min(end);
        self.marks[start..end].iter().find(|mark| mark.warp != 0).map(|mark| mark.line)
    }
}

/// Before a store of `e` bytes at address `a` plus `imm`, in `SPACE`.
pub struct StoreMark<const SPACE: u8>;
impl<const SPACE: u8> Body for StoreMark<SPACE> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the address a slot of its width.
        let at: [u64; LANES] = unsafe {
            match SPACE {
                SHARED32 => warp.lanes::<u32>(op.a).map(u64::from),
                _ => warp.lanes(op.a),
            }
        };
        let (cta, number, bytes) = (warp.cta, warp.number(), op.e as usize);
        let line = cta.kernel.ops[warp.pc].line;
        let mut engine = cta.cluster.engine.borrow_mut();
        for lane in lanes_of(warp.mask) {
            let at = at[lane].wrapping_add(op.imm as u64);
            if SPACE == GENERIC && at >> 60 != SHARED_WINDOW >> 60 {
                continue;
            }
            if let Ok(host) = cta.shared_at(at & !SHARED_WINDOW, bytes as u64) {
                engine.proxy.store(cta.cluster.offset(host), bytes, number, line);
            }
        }
        Flow::Next
    }
}

/// `fence.proxy.async`, of shared memory.
pub struct ProxyFence;
impl Body for ProxyFence {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, _: &Op) -> Flow {
        warp.cta.cluster.engine.borrow_mut().proxy.fence(warp.number());
        Flow::Next
    }
}

impl Warp<'_> {
    /// Checks that the async proxy may read `bytes` of shared memory at a host pointer; `None` after a fault.
    pub fn fenced(&mut self, lane: usize, host: *const u8, bytes: usize) -> Option<()> {
        let cluster = self.cta.cluster;
        let unfenced = cluster.engine.borrow().proxy.unfenced(cluster.offset(host), bytes);
        let Some(line) = unfenced else { return Some(()) };
        let message = format!(
            "this reads shared memory through the async proxy that PTX line {line} has stored to, and no \
             fence.proxy.async comes between"
        );
        self.fail_lane(lane, FaultKind::IllegalInstruction, message);
        None
    }
}
