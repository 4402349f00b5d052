//! `cp.async.bulk` and its reductions in one dimension, `st.async` and `red.async`: PTX ISA 9.7.9.25.4 and
//! 9.7.9.12.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::barrier::Barrier;
use super::engine::{Source, Work};
use crate::exec::check;
use crate::exec::fault::{Blame, Fault, FaultKind};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::profile::Action;
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::{GLOBAL, POISON};
use crate::exec::warp::Warp;

/// "To one CTA": there is no mask of CTAs.
pub const NO_MASK: u16 = u16::MAX;

/// What a copy does with its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reduce {
    Store,
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
}

const REDUCES: [Reduce; 9] = [
    Reduce::Store,
    Reduce::Add,
    Reduce::Min,
    Reduce::Max,
    Reduce::Inc,
    Reduce::Dec,
    Reduce::And,
    Reduce::Or,
    Reduce::Xor,
];

/// An element of a reduction, or of a tensor, in the order of `CUtensorMapDataType`. Bits are the unsigned integers
/// of their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    F32,
    F64,
    Bf16,
}

const KINDS: [Kind; 10] = [
    Kind::U8,
    Kind::U16,
    Kind::U32,
    Kind::S32,
    Kind::U64,
    Kind::S64,
    Kind::F16,
    Kind::F32,
    Kind::F64,
    Kind::Bf16,
];

/// Both in a number, for `Op::imm`.
pub fn encode(reduce: Reduce, kind: Kind) -> i64 {
    reduce as i64 | (kind as i64) << 4
}

pub fn decode(imm: i64) -> (Reduce, Kind) {
    (REDUCES[imm as usize & 15], KINDS[imm as usize >> 4 & 15])
}

impl Kind {
    /// By its place in the list.
    pub fn from_number(number: usize) -> Option<Kind> {
        KINDS.get(number).copied()
    }

    pub fn bytes(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::U16 | Kind::F16 | Kind::Bf16 => 2,
            Kind::U32 | Kind::S32 | Kind::F32 => 4,
            Kind::U64 | Kind::S64 | Kind::F64 => 8,
        }
    }
}

macro_rules! integer_reduce {
    ($name:ident, $word:ty, $signed:ty) => {
        fn $name(reduce: Reduce, signed: bool, old: $word, new: $word) -> $word {
            match reduce {
                Reduce::Store => new,
                Reduce::Add => old.wrapping_add(new),
                Reduce::Min if signed => (old as $signed).min(new as $signed) as $word,
                Reduce::Max if signed => (old as $signed).max(new as $signed) as $word,
                Reduce::Min => old.min(new),
                Reduce::Max => old.max(new),
                Reduce::Inc if old >= new => 0,
                Reduce::Inc => old + 1,
                Reduce::Dec if old == 0 || old > new => new,
                Reduce::Dec => old - 1,
                Reduce::And => old & new,
                Reduce::Or => old | new,
                Reduce::Xor => old ^ new,
            }
        }
    };
}
integer_reduce!(reduce32, u32, i32);
integer_reduce!(reduce64, u64, i64);

/// Halves are summed in float32 and rounded once more, which is exact enough to give the rounded sum:
/// 24 bits are at least twice 11, and 2. Of a number and a NaN the number is the lesser and the greater.
fn reduce_half(reduce: Reduce, old: f32, new: f32) -> f32 {
    let is_less = old.total_cmp(&new).is_lt();
    match reduce {
        Reduce::Min | Reduce::Max if old.is_nan() => new,
        Reduce::Min | Reduce::Max if new.is_nan() => old,
        Reduce::Min => {
            if is_less {
                old
            } else {
                new
            }
        }
        Reduce::Max => {
            if is_less {
                new
            } else {
                old
            }
        }
        _ => old + new,
    }
}

/// Subnormals are zero to a reduction of float32.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// Applies `reduce` with `bytes` at `from` to those at `to`, element by element.
///
/// # Safety
/// Both have as many bytes, whole elements, and `to` is aligned for them; what others do there in this
/// launch meanwhile is atomic, or a race of the kernel's.
pub unsafe fn apply(reduce: Reduce, kind: Kind, to: *mut u8, from: *const u8, bytes: usize) {
    if reduce == Reduce::Store {
        // SAFETY: the caller's; a copy goes from one memory to another.
        return unsafe { std::ptr::copy(from, to, bytes) };
    }
    for at in (0..bytes).step_by(kind.bytes()) {
        // SAFETY: the caller's.
        unsafe {
            let (to, from) = (to.add(at), from.add(at));
            match kind.bytes() {
                1 | 2 => {
                    let new = *from.cast::<u16>();
                    let combine = |old: u16| match kind {
                        Kind::Bf16 => {
                            let value = |bits| half::bf16::from_bits(bits).to_f32();
                            half::bf16::from_f32(reduce_half(reduce, value(old), value(new))).to_bits()
                        }
                        _ => {
                            let value = |bits| half::f16::from_bits(bits).to_f32();
                            half::f16::from_f32(reduce_half(reduce, value(old), value(new))).to_bits()
                        }
                    };
                    let _ = AtomicU16::from_ptr(to.cast())
                        .fetch_update(Relaxed, Relaxed, |old| Some(combine(old)));
                }
                4 => {
                    let new = *from.cast::<u32>();
                    let combine = |old: u32| match kind {
                        Kind::F32 => {
                            let value = |bits| flushed(f32::from_bits(bits));
                            flushed(value(old) + value(new)).to_bits()
                        }
                        _ => reduce32(reduce, kind == Kind::S32, old, new),
                    };
                    let _ = AtomicU32::from_ptr(to.cast())
                        .fetch_update(Relaxed, Relaxed, |old| Some(combine(old)));
                }
                _ => {
                    let new = *from.cast::<u64>();
                    let combine = |old: u64| match kind {
                        Kind::F64 => (f64::from_bits(old) + f64::from_bits(new)).to_bits(),
                        _ => reduce64(reduce, kind == Kind::S64, old, new),
                    };
                    let _ = AtomicU64::from_ptr(to.cast())
                        .fetch_update(Relaxed, Relaxed, |old| Some(combine(old)));
                }
            }
        }
    }
}

/// `cp.async.bulk` and `cp.reduce.async.bulk` into shared memory: to `a`, from `b` (global, or the CTA's
/// shared), `c` bytes, barrier `d`, CTAs of mask `e` (all generic addresses); `imm` as [`encode`] has it.
pub struct BulkLoad;
impl Body for BulkLoad {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (to, from, bytes, barriers): ([u64; LANES], [u64; LANES], [u32; LANES], [u64; LANES]) =
            unsafe { (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.c), warp.lanes(op.d)) };
        for lane in lanes_of(warp.mask) {
            // SAFETY: as above.
            let ctas = unsafe { warp.cta_mask(op.e, lane) };
            let count = bytes[lane];
            if warp.bulk_size(lane, count).is_none() {
                return Flow::Fault;
            }
            let Some(targets) = warp.targets(lane, to[lane], barriers[lane], ctas, count, count.into(), 16)
            else {
                return Flow::Fault;
            };
            let is_global = from[lane] >> 60 == 0;
            let from = match is_global {
                true => warp.pointer::<GLOBAL>(lane, from[lane], count.into(), 16),
                false => warp.shared_pointer(lane, from[lane], count.into(), 16),
            };
            let Some(from) = from else { return Flow::Fault };
            if is_global {
                warp.count_stretch(Action::Bulk, from as u64, count.into(), false);
            }
            if !is_global && warp.readable(lane, from, count as usize).is_none() {
                return Flow::Fault;
            }
            warp.count_shared_stretch(Action::Bulk, u64::from(count) * targets.pointers.len() as u64);
            let (reduce, kind) = decode(op.imm);
            if is_global && warp.touch(lane, from, count as usize, check::Kind::Read).is_none() {
                return Flow::Fault;
            }
            let Some(writes) = warp.claim(lane, &targets, count as usize, reduce) else { return Flow::Fault };
            let mut work = targets.work(warp, lane, Source::Memory(from, count as usize), writes);
            if !is_global {
                work.reads = (warp.cta.cluster.offset(from), count as usize);
            }
            let (pointers, bytes) = (targets.pointers, count as usize);
            let done = warp.cta.cluster.engine.borrow_mut().load(warp.cta.memory, work, move |from, _| {
                for to in pointers {
                    // SAFETY: the pointers were checked when the copy was issued.
                    unsafe { apply(reduce, kind, to, from, bytes) };
                }
                Ok(())
            });
            if let Err(blame) = done {
                return warp.fail_with(blame);
            }
        }
        Flow::Next
    }
}

/// `cp.async.bulk` and `cp.reduce.async.bulk` from shared `b` to global `a`, `c` bytes; `imm` as above.
pub struct BulkStore;
impl Body for BulkStore {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (to, from, bytes): ([u64; LANES], [u64; LANES], [u32; LANES]) =
            unsafe { (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.c)) };
        let mut stores = [None; LANES];
        for lane in lanes_of(warp.mask) {
            let count = bytes[lane];
            if warp.bulk_size(lane, count).is_none() {
                return Flow::Fault;
            }
            let Some(to) = warp.pointer::<GLOBAL>(lane, to[lane], count.into(), 16) else {
                return Flow::Fault;
            };
            warp.count_stretch(Action::Bulk, to as u64, count.into(), true);
            warp.count_shared_stretch(Action::Bulk, count.into());
            let Some(from) = warp.shared_pointer(lane, from[lane], count.into(), 16) else {
                return Flow::Fault;
            };
            let (reduce, kind) = decode(op.imm);
            if warp.readable(lane, from, count as usize).is_none() {
                return Flow::Fault;
            }
            let access = if reduce == Reduce::Store { check::Kind::Write } else { check::Kind::Atomic };
            // Lanes that store the same to the same place do no harm.
            let store = Some((to, from, count));
            let is_first = !stores.contains(&store);
            stores[lane] = store;
            if (is_first || reduce != Reduce::Store) && warp.touch(lane, to, count as usize, access).is_none()
            {
                return Flow::Fault;
            }
            let work = warp.store_work(lane, from, count as usize);
            let done = warp.cta.cluster.engine.borrow_mut().store(warp.cta.memory, work, move |from, _| {
                // SAFETY: the pointers were checked when the copy was issued.
                unsafe { apply(reduce, kind, to, from, count as usize) };
                Ok(())
            });
            if let Err(blame) = done {
                return warp.fail_with(blame);
            }
        }
        Flow::Next
    }
}

/// `cp.async.bulk.wait_group` of all but the latest `imm` groups; `e` 1: `.read`.
pub struct BulkWait;
impl Body for BulkWait {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if warp.cta.options.checks.asynchrony {
            let (number, mask, but, read) = (warp.number(), warp.mask, op.imm as u32, op.e != 0);
            let done =
                warp.cta.cluster.engine.borrow_mut().wait_stores(warp.cta.memory, number, mask, but, read);
            let reads = match done {
                Ok(reads) => reads,
                Err(blame) => return warp.fail_with(blame),
            };
            // Only those who come after the thread that waits come after the reads.
            for (lane, from, bytes) in reads {
                if warp.touch(lane, from, bytes, check::Kind::Read).is_none() {
                    return Flow::Fault;
                }
            }
        }
        Flow::Next
    }
}

/// `st.async` and `red.async` of `N` words `b` (then `c`, and those of the list at `imm >> 8`) to shared
/// `a`, barrier `d`, both generic addresses; the low byte of `imm` as [`encode`] has it.
pub struct StoreAsync;
impl Body for StoreAsync {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let (reduce, kind) = decode(op.imm & 0xff);
        let (list, count) = ((op.imm >> 8) as usize, op.e as usize);
        let bytes = count * kind.bytes();
        let slots: Vec<u16> = warp.cta.kernel.lists[list..][..count].to_vec();
        // SAFETY: the decoder gave every operand a slot of its width.
        let (to, barriers): ([u64; LANES], [u64; LANES]) = unsafe { (warp.lanes(op.a), warp.lanes(op.d)) };
        for lane in lanes_of(warp.mask) {
            let mut values = Vec::with_capacity(bytes);
            for &slot in &slots {
                // SAFETY: as above.
                unsafe {
                    match kind.bytes() {
                        4 => values.extend(warp.lanes::<u32>(slot)[lane].to_le_bytes()),
                        _ => values.extend(warp.lanes::<u64>(slot)[lane].to_le_bytes()),
                    }
                }
            }
            let Some(targets) =
                warp.targets(lane, to[lane], barriers[lane], None, bytes as u32, bytes as u64, bytes as u64)
            else {
                return Flow::Fault;
            };
            let Some(writes) = warp.claim(lane, &targets, bytes, reduce) else { return Flow::Fault };
            let work = targets.work(warp, lane, Source::Taken(values), writes);
            let to = targets.pointers[0];
            let done = warp.cta.cluster.engine.borrow_mut().load(warp.cta.memory, work, move |from, _| {
                // SAFETY: the pointer was checked when the store was issued.
                unsafe { apply(reduce, kind, to, from, bytes) };
                Ok(())
            });
            if let Err(blame) = done {
                return warp.fail_with(blame);
            }
        }
        Flow::Next
    }
}

/// Where a copy goes: host pointers in one CTA or many, and their barriers.
pub struct Targets {
    pub pointers: Vec<*mut u8>,
    barriers: Vec<Barrier>,
    ranks: u32,
    /// Bytes that each barrier is told of.
    bytes: u32,
}

impl Targets {
    pub fn work(&self, warp: &Warp, lane: usize, source: Source, writes: Vec<(usize, usize)>) -> Work {
        let completes = self.barriers.iter().map(|&barrier| (barrier, self.bytes)).collect();
        let (origin, rank) = (warp.origin(lane), warp.cta.rank);
        Work { origin, rank, targets: self.ranks, source, reads: (0, 0), reads_all: true, writes, completes }
    }
}

impl Warp<'_> {
    /// The CTAs that a multicast goes to: the low 16 bits of register `slot`.
    ///
    /// # Safety
    /// The slot is in the register file, or [`NO_MASK`].
    pub unsafe fn cta_mask(&self, slot: u16, lane: usize) -> Option<u32> {
        // SAFETY: the caller's.
        (slot != NO_MASK).then(|| unsafe { self.lanes::<u32>(slot)[lane] & 0xffff })
    }

    /// The destinations at shared `to`, or in each CTA of a mask, for a copy that tells `barrier` of
    /// `counted` bytes and touches `bytes`; `None` after a fault.
    #[allow(clippy::too_many_arguments)]
    pub fn targets(
        &mut self,
        lane: usize,
        to: u64,
        barrier: u64,
        ctas: Option<u32>,
        counted: u32,
        bytes: u64,
        align: u64,
    ) -> Option<Targets> {
        let cta = self.cta;
        let own = cta.rank_of(to);
        if cta.rank_of(barrier) != own {
            let message = format!("a copy to shared {to:#x} with an mbarrier in another CTA, {barrier:#x}");
            self.fail_lane(lane, FaultKind::IllegalInstruction, message);
            return None;
        }
        let ranks = ctas.unwrap_or(1 << own.min(31));
        let mut targets = Targets { pointers: Vec::new(), barriers: Vec::new(), ranks, bytes: counted };
        for rank in (0..32u64).filter(|rank| ranks >> rank & 1 != 0) {
            let place = |address: u64| if ctas.is_some() { cta.mapped(address, rank) } else { address };
            targets.pointers.push(self.shared_pointer(lane, place(to), bytes, align)?);
            // Its completion is an operation on the barrier, which must have been set up before.
            let barrier = self.barrier(lane, place(barrier))?;
            self.touch(lane, barrier.host, size_of::<u64>(), check::Kind::Atomic)?;
            targets.barriers.push(barrier);
        }
        Some(targets)
    }

    /// Checks the size of a bulk copy; `None` after a fault.
    fn bulk_size(&mut self, lane: usize, bytes: u32) -> Option<()> {
        if bytes.is_multiple_of(16) {
            return Some(());
        }
        let message = format!("a bulk copy of {bytes} bytes: it must be a multiple of 16");
        self.fail_lane(lane, FaultKind::MisalignedAddress, message);
        None
    }

    /// What a copy will write, as [`Work`] has it, if the adversary is asked for: it holds nothing that may be
    /// read before, and no other copy may be about to write it. Reductions may meet each other, and what was there
    /// counts. The write is the lane's own, and whoever waits for its barrier comes after it. `None` after a fault.
    pub fn claim(
        &mut self,
        lane: usize,
        targets: &Targets,
        bytes: usize,
        reduce: Reduce,
    ) -> Option<Vec<(usize, usize)>> {
        let kind = if reduce == Reduce::Store { check::Kind::Write } else { check::Kind::Atomic };
        for &to in &targets.pointers {
            self.touch(lane, to, bytes, kind)?;
        }
        targets.barriers.iter().for_each(|barrier| self.publish(barrier.host, 1 << lane));
        if !self.cta.options.checks.asynchrony || reduce != Reduce::Store {
            return Some(Vec::new());
        }
        let mut writes = Vec::with_capacity(targets.pointers.len());
        for &to in &targets.pointers {
            self.free(lane, to, bytes)?;
            // SAFETY: the pointers are checked for as many bytes.
            unsafe { to.write_bytes(POISON, bytes) };
            writes.push((self.cta.cluster.offset(to), bytes));
        }
        Some(writes)
    }

    /// Work of a lane that reads `bytes` of shared memory.
    pub fn store_work(&self, lane: usize, from: *const u8, bytes: usize) -> Work {
        let (origin, rank, source) = (self.origin(lane), self.cta.rank, Source::Memory(from, bytes));
        let reads = (self.cta.cluster.offset(from), bytes);
        Work {
            origin,
            rank,
            targets: 0,
            source,
            reads,
            reads_all: true,
            writes: Vec::new(),
            completes: Vec::new(),
        }
    }

    pub fn fail_with(&mut self, blame: Blame) -> Flow {
        let Fault { kind, message } = self.cta.fault(blame);
        self.fail(kind, message)
    }
}
