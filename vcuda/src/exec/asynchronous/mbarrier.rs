//! Barriers in shared memory, PTX ISA 9.7.13.15: their state and the instructions on them.

use crate::exec::check::Kind;
use crate::exec::fault::FaultKind;
use crate::exec::op::{Barrier, Body, Flow, Missed, Op, Warp};
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::{GENERIC, SHARED_WINDOW};

/// Arrivals, and transactions, that a barrier can count.
const MAX_COUNT: u32 = (1 << 20) - 1;

/// What the 64-bit word holds: phase 3 bits, expected arrivals 20, pending arrivals 20, pending
/// transactions in bytes 21. A PTX program may not look inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Number of the current phase, modulo 8.
    pub phase: u32,
    /// Arrivals that a phase begins with.
    pub expected: u32,
    pub pending: u32,
    /// Bytes announced less bytes come.
    pub tx: i32,
}

impl State {
    pub fn new(count: u32) -> Result<State, String> {
        if count == 0 || count > MAX_COUNT {
            return Err(format!("an mbarrier for {count} arrivals: 1 to {MAX_COUNT} are possible"));
        }
        Ok(State { phase: 0, expected: count, pending: count, tx: 0 })
    }

    pub fn decode(word: u64) -> State {
        let field = |shift: u32, bits: u32| (word >> shift) as u32 & ((1 << bits) - 1);
        let tx = (word as i64) >> 43;
        State { phase: field(0, 3), expected: field(3, 20), pending: field(23, 20), tx: tx as i32 }
    }

    pub fn encode(self) -> u64 {
        u64::from(self.phase)
            | u64::from(self.expected) << 3
            | u64::from(self.pending) << 23
            | (self.tx as u64) << 43
    }

    /// `count` arrivals.
    pub fn arrive(&mut self, count: u32) -> Result<(), String> {
        if count > self.pending {
            return Err(format!("{count} arrivals at an mbarrier of which {} are pending", self.pending));
        }
        self.pending -= count;
        self.settle()
    }

    /// As [`State::arrive`], but the phase may not end by it.
    pub fn arrive_no_complete(&mut self, count: u32) -> Result<(), String> {
        if count >= self.pending && self.tx == 0 {
            return Err(format!("{count} arrivals of {}: noComplete would end the phase", self.pending));
        }
        self.arrive(count)
    }

    /// One more arrival in this phase.
    pub fn owe(&mut self) -> Result<(), String> {
        if self.pending == MAX_COUNT {
            return Err(format!("more than {MAX_COUNT} pending arrivals at an mbarrier"));
        }
        self.pending += 1;
        Ok(())
    }

    /// `count` arrivals less in the phases to come.
    pub fn drop_out(&mut self, count: u32) -> Result<(), String> {
        if count > self.expected {
            return Err(format!("{count} dropped arrivals at an mbarrier that expects {}", self.expected));
        }
        self.expected -= count;
        Ok(())
    }

    /// `bytes` announced (positive) or come (negative).
    pub fn transact(&mut self, bytes: i64) -> Result<(), String> {
        let tx = i64::from(self.tx) + bytes;
        if tx.unsigned_abs() > MAX_COUNT.into() {
            return Err(format!("a tx-count of {tx} at an mbarrier: its limit is {MAX_COUNT}"));
        }
        self.tx = tx as i32;
        self.settle()
    }

    /// Ends the phase if nothing is pending.
    fn settle(&mut self) -> Result<(), String> {
        if self.pending > 0 {
            return Ok(());
        }
        if self.tx < 0 {
            let bytes = -self.tx;
            return Err(format!(
                "every arrival is in, and {bytes} bytes more have come than the phase expects"
            ));
        }
        if self.tx == 0 {
            (self.phase, self.pending) = ((self.phase + 1) & 7, self.expected);
        }
        Ok(())
    }

    /// Whether the phase that a token names is over.
    fn is_over(self, token: State) -> Result<bool, String> {
        match self.phase.wrapping_sub(token.phase) & 7 {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a wait for a phase before the last one".to_string()),
        }
    }
}

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
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (at, token): ([u64; LANES], [u64; LANES]) = unsafe {
            match op.imm {
                0 => (warp.lanes(op.a), warp.lanes(op.b)),
                _ => (warp.lanes(op.a), warp.lanes::<u32>(op.b).map(u64::from)),
            }
        };
        let mut over = 0;
        for lane in lanes_of(warp.mask) {
            let Some(barrier) = warp.barrier(lane, at[lane]) else { return Flow::Fault };
            if warp.touch(lane, barrier.host, size_of::<u64>(), Kind::StrongRead).is_none() {
                return Flow::Fault;
            }
            let state = warp.cta.cluster.engine.borrow().state(barrier);
            let holds = state.and_then(|state| match op.imm {
                0 => state.is_over(State::decode(token[lane])),
                _ => Ok(u64::from(state.phase & 1) != token[lane] & 1),
            });
            match holds {
                Ok(true) => {
                    over |= 1 << lane;
                    warp.observe(barrier.host, 1 << lane);
                }
                Ok(false) => {
                    warp.missed = Some(Missed { barrier, pc: warp.pc });
                }
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
