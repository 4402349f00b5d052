//! `alloca`, `stacksave` and `stackrestore` (PTX ISA, "Stack Manipulation Instructions"): what a function takes of its
//! thread's stack while it runs, from the end of local memory down; calls take theirs from below, and give back what
//! the callee took.

use super::fault::FaultKind;
use super::op::{Body, Flow, Op};
use super::registers::{LANES, lanes_of};
use super::warp::Warp;

/// `alloca` of `a` bytes, 64 bits, to `d`, an address in local memory; `b`: where the lane's stack ends, `c`: where its
/// frame begins. `imm`: the alignment, and from bit 32 on the bytes of the frame.
pub struct Alloca;
impl Body for Alloca {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (sizes, mut ends, frames): ([u64; LANES], [u32; LANES], [u32; LANES]) =
            unsafe { (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.c)) };
        let (align, frame_bytes) = (op.imm as u32, (op.imm >> 32) as u64);
        let local_bytes = warp.cta.kernel.local_bytes_per_thread;
        for lane in lanes_of(warp.mask) {
            let (end, bottom) = (u64::from(ends[lane]), u64::from(frames[lane]) + frame_bytes);
            let start = end.checked_sub(sizes[lane]).map(|start| start & !u64::from(align - 1));
            let Some(start) = start.filter(|&start| start >= bottom && end <= local_bytes as u64) else {
                let message =
                    format!("alloca of {} bytes: {} are left", sizes[lane], end.saturating_sub(bottom));
                return warp.fail_lane(lane, FaultKind::IllegalAddress, message);
            };
            // SAFETY: inside the lane's part of the warp's local memory.
            let at = unsafe { warp.local.add(lane * local_bytes + start as usize) };
            warp.cta.watch.borrow_mut().renew(at, (end - start) as usize);
            ends[lane] = start as u32;
        }
        // SAFETY: as above.
        unsafe {
            warp.set_lanes(op.b, ends);
            warp.set_lanes(op.d, ends.map(u64::from));
        }
        Flow::Next
    }
}
