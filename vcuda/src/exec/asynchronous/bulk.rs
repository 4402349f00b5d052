//! `cp.async.bulk` and its reductions in one dimension, `st.async` and `red.async`: PTX ISA 9.7.9.25.4 and
//! 9.7.9.12.

use super::reduce::{Reduce, apply, decode};
use crate::exec::check;
use crate::exec::engine::work::Source;
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::profile::Action;
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::GLOBAL;
use crate::exec::warp::Warp;

/// `cp.async.bulk` and `cp.reduce.async.bulk` into shared memory: to `a`, from `b` (global, or the CTA's
/// shared), `c` bytes, barrier `d`, CTAs of mask `e` (all generic addresses); `imm` as [`encode`](super::reduce::encode) has it.
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
/// `a`, barrier `d`, both generic addresses; the low byte of `imm` as [`encode`](super::reduce::encode) has it.
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

impl Warp<'_> {
    /// Checks the size of a bulk copy; `None` after a fault.
    fn bulk_size(&mut self, lane: usize, bytes: u32) -> Option<()> {
        if bytes.is_multiple_of(16) {
            return Some(());
        }
        let message = format!("a bulk copy of {bytes} bytes: it must be a multiple of 16");
        self.fail_lane(lane, FaultKind::MisalignedAddress, message);
        None
    }
}
