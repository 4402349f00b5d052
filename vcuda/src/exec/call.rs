//! Calls that cannot be written out in place: of recursive functions, and through addresses.
//!
//! Such a function is decoded once a kernel, before the kernel's own body. Each lane has a stack of its own:
//! a call saves the lane's registers, the return puts them back. The lane's variables are in local memory, the
//! callee's after its caller's; a special register says where they begin.

use super::calls::Saved;
use super::fault::FaultKind;
use super::groups::Group;
use super::op::{Body, Flow, Op};
use super::registers::{LANES, lanes_of};
use super::space::STACK_BYTES;
use super::warp::Warp;

/// Registers that a lane's calls may save.
const MAX_SAVED_BYTES: usize = 1 << 20;

/// `call`: `imm` is its site; register `a` has the callee's address where the site names none.
pub struct Call;
impl Body for Call {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the address a wide slot, and the frame a narrow one.
        unsafe { call(warp, op) }
    }
}

/// # Safety
/// As [`Body::run`].
#[inline(never)]
unsafe fn call(warp: &mut Warp, op: &Op) -> Flow {
    let kernel = warp.cta.kernel;
    let (calls, size) = (&kernel.calls, kernel.local_bytes_per_thread);
    let site = &calls.sites[op.imm as usize];
    // SAFETY: the caller's; an address slot is read only where there is one.
    let (mut frames, addresses): ([u32; LANES], [u64; LANES]) = unsafe {
        (warp.lanes(calls.frame), if site.function.is_none() { warp.lanes(op.a) } else { [0; LANES] })
    };
    let ends = ends(warp);
    let (mask, stay, next) = (warp.mask, warp.active & !warp.mask, warp.pc + 1);
    warp.calls.resize_with(LANES, Vec::new);
    let mut targets = [next; LANES];
    for lane in lanes_of(mask) {
        let function = match site.function {
            Some(index) => calls.functions.get(index),
            None => calls.functions.iter().find(|function| function.address == addresses[lane]),
        };
        let Some(function) = function else {
            let message = format!("a call of {:#x}, which is no function's address", addresses[lane]);
            return warp.fail_lane(lane, FaultKind::IllegalAddress, message);
        };
        let (caller, callee) = (frames[lane] as usize, frames[lane] as usize + site.caller_bytes);
        let saved_bytes = warp.calls[lane].len() * 4 * (2 * calls.registers[0] + calls.registers[1]);
        if callee + function.frame_bytes.max(site.callee_bytes) > ends[lane] as usize
            || saved_bytes > MAX_SAVED_BYTES
        {
            let message =
                format!("{} calls deep: the stack of {STACK_BYTES} bytes is full", warp.calls[lane].len());
            return warp.fail_lane(lane, FaultKind::IllegalAddress, message);
        }
        for passed in &site.arguments {
            // SAFETY: both are inside the lane's local memory: the caller's variables are, the callee's were
            // checked just now.
            unsafe {
                let local = warp.local.add(lane * size);
                pass(
                    warp,
                    local.add(caller + passed.caller),
                    local.add(callee + passed.callee),
                    passed.bytes,
                );
            }
        }
        let saved = save(warp, lane, next, op.imm as usize, (frames[lane], ends[lane]));
        warp.calls[lane].push(saved);
        (frames[lane], targets[lane]) = (callee as u32, function.pc);
    }
    set_slot(warp, warp.cta.kernel.calls.frame, frames);
    part(warp, targets, stay, next)
}

/// Where each lane's stack ends.
fn ends(warp: &Warp) -> [u32; LANES] {
    let size = warp.cta.kernel.local_bytes_per_thread as u32;
    match warp.cta.kernel.calls.end {
        // SAFETY: the decoder gave it a narrow slot. A `stackrestore` may have left anything there.
        Some(slot) => unsafe { warp.lanes::<u32>(slot) }.map(|end| end.min(size)),
        None => [size; LANES],
    }
}

/// The end of a called function.
pub struct Return;
impl Body for Return {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the frame a narrow slot.
        unsafe { come_back(warp, op) }
    }
}

/// # Safety
/// As [`Body::run`].
#[inline(never)]
unsafe fn come_back(warp: &mut Warp, _: &Op) -> Flow {
    let kernel = warp.cta.kernel;
    let (calls, size) = (&kernel.calls, kernel.local_bytes_per_thread);
    // SAFETY: the caller's.
    let mut frames: [u32; LANES] = unsafe { warp.lanes(calls.frame) };
    let mut ends = ends(warp);
    let (mask, stay, next) = (warp.mask, warp.active & !warp.mask, warp.pc + 1);
    let mut targets = [next; LANES];
    for lane in lanes_of(mask) {
        let Some(saved) = warp.calls.get_mut(lane).and_then(Vec::pop) else {
            let message = "a return without a call".to_string();
            return warp.fail_lane(lane, FaultKind::IllegalInstruction, message);
        };
        let (caller, callee) = (saved.frame as usize, frames[lane] as usize);
        for passed in &calls.sites[saved.site].results {
            // SAFETY: as for the call's arguments.
            unsafe {
                let local = warp.local.add(lane * size);
                pass(
                    warp,
                    local.add(callee + passed.callee),
                    local.add(caller + passed.caller),
                    passed.bytes,
                );
            }
        }
        restore(warp, lane, &saved);
        (frames[lane], ends[lane], targets[lane]) = (saved.frame, saved.end, saved.pc);
    }
    set_slot(warp, calls.frame, frames);
    if let Some(slot) = calls.end {
        set_slot(warp, slot, ends);
    }
    part(warp, targets, stay, next)
}

/// Copies a parameter or a result, and what the checks know of it.
///
/// # Safety
/// Both places have so many bytes, in the warp's local memory.
unsafe fn pass(warp: &Warp, from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's.
    unsafe { from.copy_to(to, bytes) };
    warp.cta.watch.borrow_mut().carry(from, to, bytes);
}

fn set_slot(warp: &mut Warp, slot: u16, values: [u32; LANES]) {
    // SAFETY: the decoder gave frames and ends a narrow slot.
    unsafe { warp.set_lanes_of_mask(slot, values) };
}

/// Sends the lanes of the mask where they go, and those that the guard left out to `next`.
fn part(warp: &mut Warp, targets: [usize; LANES], stay: u32, next: usize) -> Flow {
    for lane in lanes_of(warp.mask) {
        warp.park(Group { pc: targets[lane], mask: 1 << lane });
    }
    if stay != 0 {
        warp.park(Group { pc: next, mask: stay });
    }
    warp.active = 0;
    warp.resume();
    Flow::Jump
}

fn save(warp: &Warp, lane: usize, pc: usize, site: usize, (frame, end): (u32, u32)) -> Saved {
    let kernel = warp.cta.kernel;
    let [wide, narrow] = kernel.calls.registers;
    let places = (0..2 * wide).map(|i| i / 2 * 2 * LANES + 2 * lane + i % 2);
    let places = places.chain((0..narrow).map(|i| (2 * wide + i) * LANES + lane));
    // SAFETY: the kernel's register file begins with so many 64-bit and 32-bit registers, and has so many
    // predicates.
    let (registers, preds) = unsafe {
        let preds = (0..kernel.preds).map(|i| *warp.preds.add(i) >> lane & 1 != 0).collect();
        (places.map(|i| *warp.regs.add(i)).collect(), preds)
    };
    Saved { pc, site, frame, end, registers, preds }
}

fn restore(warp: &mut Warp, lane: usize, saved: &Saved) {
    let [wide, narrow] = warp.cta.kernel.calls.registers;
    let words = saved.registers.as_chunks::<2>().0;
    // SAFETY: as in `save`, which made the lists.
    unsafe {
        for i in 0..wide {
            let at = warp.regs.add(i * 2 * LANES + 2 * lane);
            [*at, *at.add(1)] = words[i];
        }
        for i in 0..narrow {
            *warp.regs.add((2 * wide + i) * LANES + lane) = saved.registers[2 * wide + i];
        }
        for (i, &value) in saved.preds.iter().enumerate() {
            let pred = &mut *warp.preds.add(i);
            *pred = *pred & !(1 << lane) | (value as u32) << lane;
        }
    }
}
