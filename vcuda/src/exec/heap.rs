//! `malloc` and `free` in device code, from the same memory as `cuMemAlloc`'s (CUDA C++ Programming Guide,
//! 10.36).

use super::check::Kind;
use super::fault::FaultKind;
use super::op::{Body, Flow, Op};
use super::print::load;
use super::registers::lanes_of;
use super::space::LOCAL;
use super::warp::Warp;

/// `malloc`: the size is in local memory where slot `a` says, the address goes where `b` says; 0 if there is no
/// memory, or none is asked for.
pub struct Malloc;
impl Body for Malloc {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the operands narrow slots.
        let [sizes, results] = unsafe { [op.a, op.b].map(|slot| warp.lanes::<u32>(slot)) };
        for lane in lanes_of(warp.mask) {
            let Some(bytes) = load::<LOCAL>(warp, lane, sizes[lane].into()) else { return Flow::Fault };
            let place = warp.pointer::<LOCAL>(lane, results[lane].into(), 8, 8);
            let Some(place) = place else { return Flow::Fault };
            if warp.access(lane, place, 8, Kind::Write).is_none() {
                return Flow::Fault;
            }
            let memory = usize::try_from(bytes).ok().filter(|&bytes| bytes > 0);
            let address = memory.and_then(|bytes| warp.cta.memory.alloc(bytes)).unwrap_or(0);
            // SAFETY: checked just now.
            unsafe { *place.cast::<u64>() = address };
        }
        Flow::Next
    }
}

/// `free`: the address, or 0, is in local memory where slot `a` says.
pub struct Free;
impl Body for Free {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the operand a narrow slot.
        let places: [u32; 32] = unsafe { warp.lanes(op.a) };
        for lane in lanes_of(warp.mask) {
            let Some(address) = load::<LOCAL>(warp, lane, places[lane].into()) else { return Flow::Fault };
            if address != 0 && !warp.cta.memory.free(address) {
                let message = format!("free of {address:#x}, which malloc did not return");
                return warp.fail_lane(lane, FaultKind::IllegalAddress, message);
            }
            warp.cta.ranges.renew(warp.cta.memory);
        }
        Flow::Next
    }
}
