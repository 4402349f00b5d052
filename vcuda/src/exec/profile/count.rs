//! The operations that count, and what an access costs: sectors and wavefronts.

use super::counters::{Action, Counters, SECTOR_BYTES, Space, Traffic};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::{GLOBAL, LOCAL, LOCAL_WINDOW, SHARED_WINDOW, SHARED32, SHARED64};
use crate::exec::warp::Warp;

/// 32 banks of 4 bytes.
const WAVEFRONT_BYTES: u64 = 128;

const ACTIONS: [Action; Action::COUNT] = [
    Action::Load,
    Action::Store,
    Action::Atomic,
    Action::CopyAsync,
    Action::Bulk,
    Action::Tensor,
    Action::Matrix,
    Action::Product,
];

/// Counts the warp and its lanes in tally `imm`; `e` is the guard of a guarded instruction, as [`Op`] has it.
pub struct Count;
impl Body for Count {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the guard a predicate.
        let executed = unsafe { warp.let_through(op.e) };
        let active = u64::from(warp.mask.count_ones());
        let tally = &mut warp.cta.counters.borrow_mut().tallies[op.imm as usize];
        tally.issued += 1;
        tally.active += active;
        tally.executed += u64::from(executed.count_ones());
        Flow::Next
    }
}

/// A branch under guard `e`; where `d` is 1, one that goes where register `a` says.
pub struct CountBranch;
impl Body for CountBranch {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the guard a predicate, and the index a slot.
        let (taken, index): (u32, [u32; LANES]) = unsafe { (warp.let_through(op.e), warp.lanes(op.a)) };
        let mut parted = taken != 0 && taken != warp.mask;
        if op.d == 1 {
            let first = index[taken.trailing_zeros() as usize & 31];
            parted |= lanes_of(taken).any(|lane| index[lane] != first);
        }
        let mut counters = warp.cta.counters.borrow_mut();
        counters.branches += 1;
        counters.divergent_branches += u64::from(parted);
        Flow::Next
    }
}

/// An access of `b` bytes a lane at slot `a` plus `imm`: `c` is space + 16 · action + 256 · the number of
/// lanes that take part, `d` and `e` the halves of its own number.
pub struct CountAccess;
impl Body for CountAccess {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let space = op.c as u8 & 15;
        // SAFETY: the decoder gave the address a slot of its width.
        let mut at: [u64; LANES] = unsafe {
            match space {
                SHARED32 => warp.wide_lanes(op.a),
                _ => warp.lanes(op.a),
            }
        };
        at.iter_mut().for_each(|address| *address = address.wrapping_add(op.imm as u64));
        let action = ACTIONS[op.c as usize >> 4 & 15];
        let number = op.d as usize | (op.e as usize) << 16;
        let mask = warp.mask & ((1u64 << (op.c >> 8)) - 1) as u32;
        let mut counters = warp.cta.counters.borrow_mut();
        let excess = match space {
            GLOBAL => counters.global(action, &at, mask, op.b.into()),
            SHARED32 | SHARED64 => counters.shared(action, &at, mask, op.b.into()),
            LOCAL => counters.local(action, &at, mask, op.b.into()),
            _ => counters.generic(action, &at, mask, op.b.into()),
        };
        counters.excess[number] += excess;
        Flow::Next
    }
}

/// A warp's share of the `imm` bytes that a product reads from shared memory.
pub struct CountProduct;
impl Body for CountProduct {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let bytes = op.imm as u64;
        let units = bytes.div_ceil(WAVEFRONT_BYTES);
        let one = Traffic { requests: 1, bytes, units, ideal: units };
        warp.cta.counters.borrow_mut().record(Space::Shared, Action::Product, one);
        Flow::Next
    }
}

impl Warp<'_> {
    /// The lanes of the mask that a guard lets through.
    ///
    /// # Safety
    /// The guard's predicate is in the file.
    unsafe fn let_through(&self, guard: u16) -> u32 {
        match guard {
            0 => self.mask,
            // SAFETY: the caller's; `pred` negates for bit 15.
            _ => self.mask & unsafe { self.pred((guard - 1) >> 1 | ((guard - 1) & 1) << 15) },
        }
    }

    /// Whether the kernel was loaded for counting.
    pub fn is_counted(&self) -> bool {
        self.cta.kernel.marks.tallies > 0
    }

    /// Counts a `cp.async`: generic addresses, and which lanes read.
    pub fn count_copies(&mut self, to: &[u64; LANES], from: &[u64; LANES], bytes: u64, reads: u32) {
        if self.is_counted() {
            let mut counters = self.cta.counters.borrow_mut();
            counters.global(Action::CopyAsync, from, self.mask & reads, bytes);
            counters.shared(Action::CopyAsync, to, self.mask, bytes);
        }
    }

    /// Counts the shared memory that a bulk or tensor copy reads or writes, side by side, as one request.
    pub fn count_shared_stretch(&mut self, action: Action, bytes: u64) {
        if self.is_counted() && bytes > 0 {
            let units = bytes.div_ceil(WAVEFRONT_BYTES);
            let one = Traffic { requests: 1, bytes, units, ideal: units };
            self.cta.counters.borrow_mut().record(Space::Shared, action, one);
        }
    }

    /// Counts an access of all lanes at generic addresses.
    pub fn count_lanes(&mut self, action: Action, at: &[u64; LANES], bytes: u64) {
        if self.is_counted() {
            self.cta.counters.borrow_mut().generic(action, at, self.mask, bytes);
        }
    }

    /// Counts a stretch of global memory that a bulk or tensor copy reads or writes, as one request.
    pub fn count_stretch(&mut self, action: Action, address: u64, bytes: u64, writes: bool) {
        if !self.is_counted() || bytes == 0 {
            return;
        }
        let mut counters = self.cta.counters.borrow_mut();
        let units = (address + bytes).div_ceil(SECTOR_BYTES) - address / SECTOR_BYTES;
        let ideal = bytes.div_ceil(SECTOR_BYTES).min(units);
        counters.record(Space::Global, action, Traffic { requests: 1, bytes, units, ideal });
        let set = if writes { &mut counters.written } else { &mut counters.read };
        set.insert_range(address, bytes);
    }
}

impl Counters {
    fn record(&mut self, space: Space, action: Action, one: Traffic) -> u64 {
        let sum = &mut self.traffic[space as usize][action as usize];
        sum.requests += one.requests;
        sum.bytes += one.bytes;
        sum.units += one.units;
        sum.ideal += one.ideal;
        one.units.saturating_sub(one.ideal)
    }

    /// An access to global memory; its sectors beyond the ideal.
    fn global(&mut self, action: Action, at: &[u64; LANES], mask: u32, bytes: u64) -> u64 {
        if mask == 0 {
            return 0;
        }
        let (mut sectors, mut count) = ([0u64; LANES], 0);
        for lane in lanes_of(mask) {
            let sector = at[lane] / SECTOR_BYTES; // an access is aligned to its size: it has one
            if count == 0 || sectors[count - 1] != sector {
                sectors[count] = sector;
                count += 1;
            }
        }
        let sectors = distinct(&mut sectors[..count]);
        for &sector in sectors.iter() {
            if action != Action::Store {
                self.read.insert(sector);
            }
            if matches!(action, Action::Store | Action::Atomic) {
                self.written.insert(sector);
            }
        }
        let bytes = u64::from(mask.count_ones()) * bytes;
        let units = sectors.len() as u64;
        let ideal = bytes.div_ceil(SECTOR_BYTES).min(units);
        self.record(Space::Global, action, Traffic { requests: 1, bytes, units, ideal })
    }

    /// An access to local memory, where the same word of all lanes is one line; its sectors beyond the ideal.
    fn local(&mut self, action: Action, at: &[u64; LANES], mask: u32, bytes: u64) -> u64 {
        let words = bytes.div_ceil(4);
        let sector = |lane: usize, word: u64| ((at[lane] / 4 + word) * 32 + lane as u64) * 4 / SECTOR_BYTES;
        let mut sectors: Vec<u64> =
            lanes_of(mask).flat_map(|lane| (0..words).map(move |word| sector(lane, word))).collect();
        let units = distinct(&mut sectors).len() as u64;
        let bytes = u64::from(mask.count_ones()) * bytes;
        let ideal = bytes.div_ceil(SECTOR_BYTES).min(units);
        self.record(Space::Local, action, Traffic { requests: 1, bytes, units, ideal })
    }

    /// An access to shared memory; its wavefronts beyond one for each part of the warp that goes at a time.
    fn shared(&mut self, action: Action, at: &[u64; LANES], mask: u32, bytes: u64) -> u64 {
        let lanes_at_a_time = match bytes {
            0..=4 => 32,
            8 => 16,
            _ => 8,
        };
        let (mut units, mut ideal) = (0, 0);
        for first in (0..LANES).step_by(lanes_at_a_time) {
            let part = mask & (((1u64 << lanes_at_a_time) - 1) << first) as u32;
            if part != 0 {
                units += wavefronts(at, part, bytes.div_ceil(4));
                ideal += 1;
            }
        }
        let bytes = u64::from(mask.count_ones()) * bytes;
        self.record(Space::Shared, action, Traffic { requests: 1, bytes, units, ideal })
    }

    /// An access at generic addresses: each space's lanes by themselves.
    fn generic(&mut self, action: Action, at: &[u64; LANES], mask: u32, bytes: u64) -> u64 {
        let window = |base: u64| {
            lanes_of(mask).filter(|&lane| at[lane] >> 60 == base >> 60).fold(0u32, |m, lane| m | 1 << lane)
        };
        let inside = at.map(|address| address & (SHARED_WINDOW - 1));
        let (shared, local, global) = (window(SHARED_WINDOW), window(LOCAL_WINDOW), window(0));
        let mut excess = self.global(action, at, global, bytes);
        excess += if shared != 0 { self.shared(action, &inside, shared, bytes) } else { 0 };
        excess + if local != 0 { self.local(action, &inside, local, bytes) } else { 0 }
    }
}

fn distinct(values: &mut [u64]) -> &[u64] {
    if !values.is_sorted() {
        values.sort_unstable();
    }
    let mut count = values.len().min(1);
    for i in 1..values.len() {
        if values[i] != values[count - 1] {
            values[count] = values[i];
            count += 1;
        }
    }
    &values[..count]
}

/// Turns that some lanes' words need: the most distinct words of one of the 32 banks. Lanes that read the
/// same word are served at once.
fn wavefronts(at: &[u64; LANES], mask: u32, words: u64) -> u64 {
    let (mut first, mut used, mut conflict) = ([0u64; 32], 0u32, false);
    let all = || lanes_of(mask).flat_map(|lane| (0..words).map(move |word| at[lane] / 4 + word));
    for word in all() {
        let bank = word as usize % 32;
        conflict |= used >> bank & 1 != 0 && first[bank] != word;
        first[bank] = word;
        used |= 1 << bank;
    }
    if !conflict {
        return 1;
    }
    let mut words: Vec<u64> = all().collect();
    let mut banks = [0u64; 32];
    distinct(&mut words).iter().for_each(|&word| banks[word as usize % 32] += 1);
    banks.into_iter().max().unwrap_or(0)
}
