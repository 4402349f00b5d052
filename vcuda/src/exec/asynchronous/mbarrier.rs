//! Instructions on barriers in shared memory, PTX ISA 9.7.13.15.

use crate::exec::check::Kind;
use crate::exec::engine::barrier::{Barrier, Missed, State};
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::{GENERIC, SHARED_WINDOW};
use crate::exec::warp::Warp;

/// What an instruction does to a barrier; the low bits of `Op::imm`.
pub const INIT: i64 = 0;
pub const INVALIDATE: i64 = 1;
pub const ARRIVE: i64 = 2;
pub const EXPECT: i64 = 3;
pub const COMPLETE: i64 = 4;
pub const KIND: i64 = 7;
/// Modifiers of [`ARRIVE`]: drops out too, expects operand `c` bytes first, must not end the phase.
pub const DROP: i64 = 8;
pub const EXPECT_TX: i64 = 16;
pub const NO_COMPLETE: i64 = 32;

/// Everything but waits: on the barrier at generic address `a`, `b` the count or the bytes, `c` the bytes
/// of an arrival that expects some; `d` gets an arrival's token.
pub struct Mbarrier;
impl Body for Mbarrier {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (at, count, bytes): ([u64; LANES], [u32; LANES], [u32; LANES]) =
            unsafe { (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.c)) };
        let mut tokens = [0u64; LANES];
        for lane in lanes_of(warp.mask) {
            let Some(barrier) = warp.barrier(lane, at[lane]) else { return Flow::Fault };
            let (count, bytes) = (count[lane], i64::from(bytes[lane]));
            // Who arrives at a barrier that is no more is told so; the words are anybody's afterwards.
            let access = if op.imm & KIND == INIT { Kind::Write } else { Kind::Atomic };
            if warp.touch(lane, barrier.host, size_of::<u64>(), access).is_none() {
                return Flow::Fault;
            }
            let mut engine = warp.cta.cluster.engine.borrow_mut();
            let done = match op.imm & KIND {
                INIT => State::new(count).and_then(|state| engine.init(barrier, state)),
                INVALIDATE => engine.invalidate(barrier),
                EXPECT => engine.update(barrier, |state| state.transact(count.into())),
                COMPLETE => engine.update(barrier, |state| state.transact(-i64::from(count))),
                _ => engine.update(barrier, |state| {
                    tokens[lane] = state.encode();
                    if op.imm & EXPECT_TX != 0 {
                        state.transact(bytes)?;
                    }
                    if op.imm & DROP != 0 {
                        state.drop_out(count)?;
                    }
                    match op.imm & NO_COMPLETE {
                        0 => state.arrive(count),
                        _ => state.arrive_no_complete(count),
                    }
                }),
            };
            drop(engine);
            if let Err(message) = done {
                return warp.fail_lane(lane, FaultKind::Sync, message);
            }
            if op.imm & KIND == ARRIVE {
                warp.publish(barrier.host, 1 << lane);
            }
        }
        if op.imm & KIND == ARRIVE {
            // SAFETY: an arrival has a destination.
            unsafe { warp.set_lanes(op.d, tokens) };
        }
        Flow::Next
    }
}

/// `mbarrier.test_wait` and `try_wait`: predicate `d` says whether the phase is over at the barrier at
/// generic address `a`: the phase of token `b`, or (`imm` 1) the one of parity `b`.
pub struct Wait;
impl Body for Wait {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (at, token): ([u64; LANES], [u64; LANES]) = unsafe {
            match op.imm {
                0 => (warp.lanes(op.a), warp.lanes(op.b)),
                _ => (warp.lanes(op.a), warp.wide_lanes(op.b)),
            }
        };
        let (mut over, mut left) = (0, warp.mask);
        while left != 0 {
            // Lanes wait at one barrier, as a rule.
            let lane = left.trailing_zeros() as usize;
            let mut differ = 0;
            for other in 0..LANES {
                differ |= (at[other] ^ at[lane]) | (token[other] ^ token[lane]);
            }
            let mut alike = if differ == 0 { left } else { 1 << lane };
            if differ != 0 && left != alike {
                let is_alike = |&other: &usize| at[other] == at[lane] && token[other] == token[lane];
                alike = lanes_of(left).filter(is_alike).fold(0, |alike, other| alike | 1 << other);
            }
            left &= !alike;
            let Some(barrier) = warp.barrier(lane, at[lane]) else { return Flow::Fault };
            let (host, bytes) = (barrier.host as usize, size_of::<u64>());
            if warp.cta.memory.is_watched()
                && warp.touch_watched(alike, host, bytes, Kind::StrongRead).is_none()
            {
                return Flow::Fault;
            }
            let state = warp.cta.cluster.engine.borrow().state(barrier);
            let holds = state.and_then(|state| match op.imm {
                0 => state.is_over(State::decode(token[lane])),
                _ => Ok(u64::from(state.phase & 1) != token[lane] & 1),
            });
            match holds {
                Ok(true) => {
                    over |= alike;
                    warp.cta.cluster.underway.arrive(host);
                    warp.observe(barrier.host, alike);
                }
                Ok(false) => warp.missed = Some(Missed { barrier, pc: warp.pc }),
                Err(message) => return warp.fail_lane(lane, FaultKind::Sync, message),
            }
        }
        // SAFETY: the decoder gave the result a predicate.
        unsafe { warp.set_pred(op.d, over) };
        if over == warp.mask { Flow::Next } else { Flow::Miss }
    }
}

/// `mbarrier.pending_count`: of token `a`.
pub struct PendingCount;
impl Body for PendingCount {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let tokens: [u64; LANES] = warp.lanes(op.a);
            warp.set_lanes(op.d, tokens.map(|token| State::decode(token).pending));
        }
        Flow::Next
    }
}

impl Warp<'_> {
    /// The barrier at a generic address; `None` after a fault.
    pub fn barrier(&mut self, lane: usize, address: u64) -> Option<Barrier> {
        if address >> 60 != SHARED_WINDOW >> 60 {
            let message = format!("an mbarrier at {address:#x}, which is not in shared memory");
            self.fail_lane(lane, FaultKind::IllegalAddress, message);
            return None;
        }
        let host = self.pointer::<GENERIC>(lane, address, 8, 8)?;
        Some(Barrier { host, address: address & !SHARED_WINDOW })
    }
}
