//! Two things about shared memory, where [`Checks::asynchrony`](super::run::Checks) asks for them.
//!
//! What ordinary stores have left there that bulk copies may not see yet: they read through the async
//! proxy, and only a `fence.proxy.async` orders the two (PTX ISA 8.6). A fence covers the stores of its
//! own warp, and those that a barrier has ordered before it.
//!
//! And what copies under way have yet to write, which nobody else may touch, or to read, which nobody may
//! write.

use std::ops::Range;

use super::access::{GENERIC, SHARED_WINDOW, SHARED32};
use super::check::Kind;
use super::fault::FaultKind;
use super::op::{Body, Flow, LANES, Op, Warp, lanes_of};

/// What a bulk copy reads is made of these, and what copies write of words.
const GRANULE_BYTES: usize = 16;
const WORD_BYTES: usize = 4;

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
    /// One a word: the PTX lines of the copies that will write it, and read it; or 0.
    expected: Vec<u32>,
    held: Vec<u32>,
}

fn words(offset: usize, bytes: usize) -> Range<usize> {
    offset / WORD_BYTES..(offset + bytes).div_ceil(WORD_BYTES)
}

fn put(lines: &mut Vec<u32>, words: Range<usize>, line: u32) {
    if lines.len() < words.end {
        lines.resize(words.end, 0);
    }
    lines[words].fill(line);
}

fn find(lines: &[u32], words: Range<usize>) -> Option<u32> {
    let end = words.end.min(lines.len());
    lines[words.start.min(end)..end].iter().copied().find(|&line| line != 0)
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

    /// A copy from `line` will write there, and makes what has been stored there before pointless.
    pub fn expect(&mut self, offset: usize, bytes: usize, line: u32) {
        put(&mut self.expected, words(offset, bytes), line);
        let end = (offset + bytes).div_ceil(GRANULE_BYTES).min(self.marks.len());
        let start = (offset / GRANULE_BYTES).min(end);
        self.marks[start..end].fill(Mark::default());
    }

    /// The copy has landed.
    pub fn land(&mut self, offset: usize, bytes: usize) {
        put(&mut self.expected, words(offset, bytes), 0);
    }

    /// A copy from `line` will read there.
    pub fn hold(&mut self, offset: usize, bytes: usize, line: u32) {
        put(&mut self.held, words(offset, bytes), line);
    }

    /// The copy has read.
    pub fn release(&mut self, offset: usize, bytes: usize) {
        put(&mut self.held, words(offset, bytes), 0);
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
    fn unfenced(&self, offset: usize, bytes: usize) -> Option<u32> {
        let end = (offset + bytes).div_ceil(GRANULE_BYTES).min(self.marks.len());
        let start = (offset / GRANULE_BYTES).min(end);
        self.marks[start..end].iter().find(|mark| mark.warp != 0).map(|mark| mark.line)
    }
}

/// Before an access of `e` bytes at address `a` plus `imm`, in `SPACE`: a store if `b` is 1.
pub struct Touch<const SPACE: u8>;
impl<const SPACE: u8> Body for Touch<SPACE> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the address a slot of its width.
        let at: [u64; LANES] = unsafe {
            match SPACE {
                SHARED32 => warp.lanes::<u32>(op.a).map(u64::from),
                _ => warp.lanes(op.a),
            }
        };
        let (cta, bytes) = (warp.cta, op.e as usize);
        for lane in lanes_of(warp.mask) {
            let at = at[lane].wrapping_add(op.imm as u64);
            if SPACE == GENERIC && at >> 60 != SHARED_WINDOW >> 60 {
                continue;
            }
            // An address that is wrong is the access's own fault.
            let Ok(host) = cta.shared_at(at & !SHARED_WINDOW, bytes as u64) else { continue };
            if warp.reach(lane, host, bytes, op.b).is_none() {
                return Flow::Fault;
            }
        }
        Flow::Next
    }
}

/// What [`Touch`] is about.
pub const LOAD: u16 = 0;
pub const STORE: u16 = 1;

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
    /// Before a lane loads or stores `bytes` of shared memory at a host pointer: what [`Touch`] does; `None`
    /// after a fault.
    pub fn reach(&mut self, lane: usize, host: *const u8, bytes: usize, access: u16) -> Option<()> {
        if !self.cta.options.checks.asynchrony {
            return Some(());
        }
        if access == LOAD {
            return self.landed(lane, host, bytes);
        }
        self.free(lane, host, bytes)?;
        let (cluster, line) = (self.cta.cluster, self.cta.kernel.ops[self.pc].line);
        let (offset, number) = (cluster.offset(host), self.number());
        cluster.engine.borrow_mut().proxy.store(offset, bytes, number, line);
        Some(())
    }

    /// Checks that no copy has yet to write any of `bytes` of shared memory at a host pointer; `None` after a
    /// fault.
    pub fn landed(&mut self, lane: usize, host: *const u8, bytes: usize) -> Option<()> {
        let cluster = self.cta.cluster;
        let expected = find(&cluster.engine.borrow().proxy.expected, words(cluster.offset(host), bytes));
        let Some(line) = expected else { return Some(()) };
        let message = format!(
            "this touches shared memory that the copy of PTX line {line} has yet to write: nobody has waited for it"
        );
        self.fail_lane(lane, FaultKind::Asynchrony, message);
        None
    }

    /// The same, and that no copy has yet to read any of them.
    pub fn free(&mut self, lane: usize, host: *const u8, bytes: usize) -> Option<()> {
        self.landed(lane, host, bytes)?;
        let cluster = self.cta.cluster;
        let held = find(&cluster.engine.borrow().proxy.held, words(cluster.offset(host), bytes));
        let Some(line) = held else { return Some(()) };
        let message = format!(
            "this writes shared memory that the copy of PTX line {line} has yet to read: nobody has waited for it"
        );
        self.fail_lane(lane, FaultKind::Asynchrony, message);
        None
    }

    /// Checks that the async proxy may read `bytes` of shared memory at a host pointer: they have landed, and
    /// no store is unfenced; `None` after a fault.
    pub fn readable(&mut self, lane: usize, host: *const u8, bytes: usize) -> Option<()> {
        self.landed(lane, host, bytes)?;
        let cluster = self.cta.cluster;
        let unfenced = cluster.engine.borrow().proxy.unfenced(cluster.offset(host), bytes);
        let Some(line) = unfenced else { return self.touch(lane, host, bytes, Kind::Read) };
        let message = format!(
            "this reads shared memory through the async proxy that PTX line {line} has stored to, and no \
             fence.proxy.async comes between"
        );
        self.fail_lane(lane, FaultKind::Asynchrony, message);
        None
    }
}
