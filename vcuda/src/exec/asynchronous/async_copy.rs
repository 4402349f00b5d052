//! `cp.async`: copies of 4 to 16 bytes by single threads, PTX ISA 9.7.9.25.3.

use crate::exec::access::{are_inside32, are_inside64};
use crate::exec::check::Kind;
use crate::exec::engine::barrier::State;
use crate::exec::engine::work::{Copy, Source, Work};
use crate::exec::fault::FaultKind;
use crate::exec::host::{LINE, prefetch};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{ALL, LANES, lanes_of};
use crate::exec::space::{GENERIC, GLOBAL, POISON, SHARED_WINDOW};
use crate::exec::warp::Warp;

/// How many of [`AsyncCopy`]'s bytes come from memory, `Op::e`: all; as many as register `c` says; none
/// where predicate `c` holds.
pub const WHOLE: u16 = 0;
pub const SIZED: u16 = 1;
pub const IGNORED: u16 = 2;

/// With its bytes: the address in shared memory has 32 bits.
pub const NARROW: u16 = 0x100;

/// How far after the registers' addresses a copy's own are, in shared memory and where it copies from, as an operation has it.
pub fn packed(to: i32, from: i32) -> i64 {
    i64::from(from) << 32 | i64::from(to as u32)
}

/// The reverse, as addresses are added to.
#[inline(always)]
fn unpacked(imm: i64) -> (u32, u64) {
    (imm as u32, (imm >> 32) as u64)
}

/// What a lane copies, as a rule.
type Chunk = [u64; 2];

/// Lanes whose neighbouring copies of 16 bytes fill a line.
const LANES_PER_LINE: usize = LINE / 16;

/// What is at each pointer of the one to those of the other, which are elsewhere; the next copy may be so many bytes from
/// there.
///
/// # Safety
/// The pointers lead to as much.
#[inline(always)]
unsafe fn copy<const BYTES: usize>(to: &[*mut u8; LANES], from: &[*mut u8; LANES], step: u64) {
    for lane in 0..LANES {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from[lane], to[lane], BYTES) };
    }
    if step != 0 {
        for lane in (0..LANES).step_by(LANES_PER_LINE) {
            prefetch(from[lane].wrapping_add(step as usize), 1);
        }
    }
}

/// `cp.async` of `d` bytes from global `b` to shared `a`, generic addresses both if that is not [`NARROW`], and so far after
/// them; zeros fill it up.
pub struct AsyncCopy;
impl Body for AsyncCopy {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let is_free =
            !warp.cta.memory.is_watched() && !warp.is_counted() && !warp.cta.options.checks.asynchrony;
        // SAFETY: the decoder gave every operand a slot of its width, or a predicate; so below.
        if is_free && op.d == NARROW | 16 && warp.mask == ALL && unsafe { warp.copies_chunks(op) } {
            return Flow::Next;
        }
        let (after_to, after_from) = unpacked(op.imm);
        let (to, mut from): ([u64; LANES], [u64; LANES]) = unsafe {
            let is_narrow = op.d & NARROW != 0;
            let to = if is_narrow { warp.shared_lanes(op.a, after_to) } else { warp.lanes(op.a) };
            (to, warp.lanes(op.b))
        };
        for lane in 0..LANES {
            from[lane] = from[lane].wrapping_add(after_from);
        }
        let bytes = usize::from(op.d & !NARROW);
        let mut taken = [bytes as u32; LANES];
        match op.e {
            // SAFETY: as above.
            SIZED => taken = unsafe { warp.lanes(op.c) },
            IGNORED => {
                // SAFETY: as above.
                let ignored = unsafe { warp.pred(op.c) };
                for lane in 0..LANES {
                    taken[lane] = if ignored >> lane & 1 != 0 { 0 } else { bytes as u32 };
                }
            }
            _ => {}
        }
        if is_free {
            let is_whole = op.e == WHOLE && warp.mask == ALL;
            if is_whole && warp.copies_at_once(&to, &from, bytes)
                || !is_whole && warp.copies_or_zeros_at_once(&to, &from, &taken, bytes)
            {
                return Flow::Next;
            }
        }
        let reads = (0..LANES).fold(0, |mask, lane| mask | u32::from(taken[lane] > 0) << lane);
        warp.count_copies(&to, &from, bytes as u64, reads);
        let mut copies = [(std::ptr::null_mut(), std::ptr::null(), 0); LANES];
        for lane in lanes_of(warp.mask) {
            let taken = taken[lane] as usize;
            if taken > bytes {
                let message = format!("cp.async of {bytes} bytes with {taken} from its source");
                return warp.fail_lane(lane, FaultKind::IllegalInstruction, message);
            }
            let Some(to) = warp.shared_pointer(lane, to[lane], bytes as u64, bytes as u64) else {
                return Flow::Fault;
            };
            let mut at = std::ptr::null();
            if taken > 0 {
                let Some(from) = warp.pointer::<GLOBAL>(lane, from[lane], taken as u64, bytes as u64) else {
                    return Flow::Fault;
                };
                at = from.cast_const();
            }
            if warp.touch(lane, at, taken, Kind::Read).is_none() {
                return Flow::Fault;
            }
            // Lanes that copy the same to the same place do no harm.
            let is_first = !copies.contains(&(to, at, taken));
            copies[lane] = (to, at, taken);
            if is_first && warp.touch(lane, to, bytes, Kind::Write).is_none() {
                return Flow::Fault;
            }
            let (offset, origin) = (warp.cta.cluster.offset(to), warp.origin(lane));
            let copy = Copy { to, offset, from: at, taken, bytes, lane: lane as u32, origin };
            if warp.cta.options.checks.asynchrony {
                if is_first && warp.free(lane, to, bytes).is_none() {
                    return Flow::Fault;
                }
                // SAFETY: the pointer is checked for as many bytes.
                unsafe { to.write_bytes(POISON, bytes) };
                let number = warp.number();
                warp.cta.cluster.engine.borrow_mut().copy(number, copy);
            } else {
                // SAFETY: both pointers are checked.
                unsafe { copy.land() };
            }
        }
        Flow::Next
    }
}

/// `cp.async.commit_group`; `imm` 1: of the bulk copies.
pub struct CommitGroup;
impl Body for CommitGroup {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if warp.cta.options.checks.asynchrony {
            warp.cta.cluster.engine.borrow_mut().commit(warp.number(), warp.mask, op.imm != 0);
        }
        Flow::Next
    }
}

/// `cp.async.wait_group` of all but the latest `imm` groups; `cp.async.wait_all` for −1.
pub struct WaitCopies;
impl Body for WaitCopies {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if warp.cta.options.checks.asynchrony {
            let but = u32::try_from(op.imm).ok();
            warp.cta.cluster.engine.borrow_mut().wait_copies(warp.number(), warp.mask, but);
        }
        Flow::Next
    }
}

/// `cp.async.mbarrier.arrive` at generic address `a`; `imm` 1: `.noinc`.
pub struct ArriveAfterCopies;
impl Body for ArriveAfterCopies {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the address a slot of its width.
        let at: [u64; LANES] = unsafe { warp.lanes(op.a) };
        for lane in lanes_of(warp.mask) {
            let Some(barrier) = warp.barrier(lane, at[lane]) else { return Flow::Fault };
            if warp.touch(lane, barrier.host, size_of::<u64>(), Kind::Atomic).is_none() {
                return Flow::Fault;
            }
            let mut engine = warp.cta.cluster.engine.borrow_mut();
            let later = warp.cta.options.checks.asynchrony;
            let done = engine.update(barrier, |state: &mut State| {
                if op.imm == 0 {
                    state.owe()?;
                }
                if later { Ok(()) } else { state.arrive(1) }
            });
            if later && done.is_ok() {
                let (rank, source) = (warp.cta.rank, Source::Taken(Vec::new()));
                let completes = vec![(barrier, 0)];
                let (origin, writes) = (warp.origin(lane), Vec::new());
                let work = Work {
                    origin,
                    rank,
                    targets: 1 << rank,
                    source,
                    reads: (0, 0),
                    reads_all: false,
                    writes,
                    completes,
                };
                engine.arrive_after(warp.number(), lane as u32, work);
            }
            drop(engine);
            if let Err(message) = done {
                return warp.fail_lane(lane, FaultKind::IllegalInstruction, message);
            }
            // The copies are the lane's own writes: whoever waits for the barrier comes after them.
            warp.publish(barrier.host, 1 << lane);
        }
        Flow::Next
    }
}

impl Warp<'_> {
    /// Copies 16 bytes for each lane of a whole warp where that is plainly valid; else nothing, and false.
    ///
    /// # Safety
    /// The register file has what the operation names.
    #[inline(always)]
    unsafe fn copies_chunks(&self, op: &Op) -> bool {
        const BYTES: u64 = 16;
        // SAFETY: the caller's; nobody writes to these registers meanwhile.
        let (to, from): (&[u32; LANES], &[u64; LANES]) =
            unsafe { (self.register(op.a), self.register(op.b)) };
        let is_whole = match op.e {
            WHOLE => true,
            SIZED => {
                // SAFETY: likewise.
                let taken: &[u32; LANES] = unsafe { self.register(op.c) };
                taken.iter().fold(0, |differ, taken| differ | taken ^ BYTES as u32) == 0
            }
            _ => false,
        };
        let (after_to, after_from) = unpacked(op.imm);
        let (start, end) = self.cta.ranges.last(self.pc);
        let (mut places, mut sources, mut far) = ([0; LANES], [0; LANES], [0; LANES]);
        for lane in 0..LANES {
            places[lane] = to[lane].wrapping_add(after_to);
        }
        for lane in 0..LANES {
            sources[lane] = from[lane].wrapping_add(after_from);
        }
        for lane in 0..LANES {
            far[lane] = sources[lane].wrapping_sub(start);
        }
        let is_inside = are_inside32(&places, self.cta.shared_bytes as u32, BYTES as u32)
            && are_inside64(&far, end - start, BYTES);
        let odd = places.iter().fold(0, |odd, place| odd | place);
        let odd_source = sources.iter().fold(0, |odd, source| odd | source);
        if !is_whole || !is_inside || (u64::from(odd) | odd_source) % BYTES != 0 {
            return false;
        }
        let soon = self.cta.ranges.soon(self.pc, self.index, from[0]);
        // Read again one by one: the compiler would take the vectors of just now apart.
        let (to, from) = std::hint::black_box((to, from));
        for lane in 0..LANES {
            // SAFETY: both were checked for as many bytes, and are aligned.
            unsafe {
                let to = self.cta.shared.add(to[lane].wrapping_add(after_to) as usize).cast::<Chunk>();
                *to = *(from[lane].wrapping_add(after_from) as *const Chunk);
            }
        }
        for distance in soon {
            for lane in (0..LANES).step_by(LANES_PER_LINE) {
                prefetch(from[lane].wrapping_add(after_from).wrapping_add(distance) as *const u8, 1);
            }
        }
        true
    }

    /// Does a whole warp's `cp.async` where that is plainly valid; else nothing, and false.
    #[inline(always)]
    fn copies_at_once(&self, to: &[u64; LANES], from: &[u64; LANES], bytes: usize) -> bool {
        if to[0] >> 60 != SHARED_WINDOW >> 60 {
            return false;
        }
        let to = self.window(GENERIC, to[0]).pointers(to, bytes as u64);
        let step = if bytes == 16 { self.cta.ranges.step(self.pc, self.index, from[0]) } else { 0 };
        let from = self.window(GLOBAL, from[0]).pointers(from, bytes as u64);
        let (Some(to), Some(from)) = (to, from) else { return false };
        // SAFETY: both were checked for as many bytes, and are aligned.
        unsafe {
            match bytes {
                4 => copy::<4>(&to, &from, step),
                8 => copy::<8>(&to, &from, step),
                _ => copy::<16>(&to, &from, step),
            }
        }
        true
    }

    /// The same of some lanes, and of those that take nothing, to whom zeros are what they copy; none takes a part.
    #[inline(always)]
    fn copies_or_zeros_at_once(
        &self,
        to: &[u64; LANES],
        from: &[u64; LANES],
        taken: &[u32; LANES],
        bytes: usize,
    ) -> bool {
        let (mut takes, mut parts) = (0, 0);
        for lane in 0..LANES {
            takes |= u32::from(taken[lane] == bytes as u32) << lane;
            parts |= u32::from(taken[lane] != bytes as u32 && taken[lane] != 0) << lane;
        }
        takes &= self.mask;
        let any = self.mask.trailing_zeros() as usize & 31;
        if parts & self.mask != 0 || to[any] >> 60 != SHARED_WINDOW >> 60 {
            return false;
        }
        // Lanes without a place are given another's while places are checked.
        let source = from[takes.trailing_zeros() as usize & 31];
        let (mut places, mut sources) = (*to, *from);
        for lane in 0..LANES {
            places[lane] = if self.mask >> lane & 1 != 0 { to[lane] } else { to[any] };
            sources[lane] = if takes >> lane & 1 != 0 { from[lane] } else { source };
        }
        let Some(mut to) = self.window(GENERIC, to[any]).pointers(&places, bytes as u64) else {
            return false;
        };
        let (zeros, mut nowhere) = ([0u8; 16], [0u8; 16]);
        let (mut from, mut step) = ([zeros.as_ptr().cast_mut(); LANES], 0);
        if takes != 0 {
            let Some(found) = self.window(GLOBAL, source).pointers(&sources, bytes as u64) else {
                return false;
            };
            for lane in 0..LANES {
                from[lane] = if takes >> lane & 1 != 0 { found[lane] } else { from[lane] };
            }
            step = if bytes == 16 { self.cta.ranges.step(self.pc, self.index, sources[0]) } else { 0 };
        }
        for lane in 0..LANES {
            to[lane] = if self.mask >> lane & 1 != 0 { to[lane] } else { nowhere.as_mut_ptr() };
        }
        // SAFETY: as above; of those that are neither's, 16 bytes are here.
        unsafe {
            match bytes {
                4 => copy::<4>(&to, &from, step),
                8 => copy::<8>(&to, &from, step),
                _ => copy::<16>(&to, &from, step),
            }
        }
        true
    }

    /// The host pointer at a generic address that must be in shared memory; `None` after a fault.
    pub fn shared_pointer(&mut self, lane: usize, address: u64, bytes: u64, align: u64) -> Option<*mut u8> {
        if address >> 60 != SHARED_WINDOW >> 60 {
            let message = format!("the address {address:#x} is not in shared memory");
            self.fail_lane(lane, FaultKind::IllegalAddress, message);
            return None;
        }
        self.pointer::<GENERIC>(lane, address, bytes, align)
    }
}
