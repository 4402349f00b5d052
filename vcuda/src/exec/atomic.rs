//! Atomics, PTX ISA 9.7.13.15 and 9.7.13.16: on 32 and 64 bits; on 16-bit values, pairs of halves and vectors, of which
//! each element is updated atomically for itself; on 128 bits.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::access::pointers;
use super::arithmetic::half::{Bf16, F16, Format, add, largest, least};
use super::op::{Body, Flow, Op};
use super::registers::{LANES, lanes_of};
use super::warp::Warp;

/// What an atomic does to its word, `Op::e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Atomic {
    Add,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
    MinU,
    MaxU,
    MinS,
    MaxS,
    AddF,
    Inc,
    Dec,
}

const ATOMICS: [Atomic; 13] = [
    Atomic::Add,
    Atomic::And,
    Atomic::Or,
    Atomic::Xor,
    Atomic::Exchange,
    Atomic::CompareExchange,
    Atomic::MinU,
    Atomic::MaxU,
    Atomic::MinS,
    Atomic::MaxS,
    Atomic::AddF,
    Atomic::Inc,
    Atomic::Dec,
];

macro_rules! atomic {
    ($name:ident, $word:ty, $signed:ty, $atomic:ty, $add:expr) => {
        /// `atom`: `d` gets the old value, `b` and `c` are the operands.
        pub struct $name;
        impl Body for $name {
            const PER_HOST: bool = false;

            #[inline(always)]
            unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
                // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked and
                // aligned, and all concurrent access to them in this launch is atomic or a race of the kernel's.
                unsafe {
                    let Some(at) = pointers(warp, op, size_of::<$word>() as u64) else {
                        return Flow::Fault;
                    };
                    let (b, c): ([$word; LANES], [$word; LANES]) = (warp.lanes(op.b), warp.lanes(op.c));
                    let operation = ATOMICS[op.e as usize];
                    let add: fn($word, $word, bool) -> $word = $add;
                    let mut old = [0; LANES];
                    for lane in lanes_of(warp.mask) {
                        let (b, c) = (b[lane], c[lane]);
                        let is_shared = warp.is_shared(at[lane]);
                        let update = |x: $word| match operation {
                            Atomic::Add => x.wrapping_add(b),
                            Atomic::And => x & b,
                            Atomic::Or => x | b,
                            Atomic::Xor => x ^ b,
                            Atomic::Exchange => b,
                            Atomic::CompareExchange => {
                                if x == b {
                                    c
                                } else {
                                    x
                                }
                            }
                            Atomic::MinU => x.min(b),
                            Atomic::MaxU => x.max(b),
                            Atomic::MinS => (x as $signed).min(b as $signed) as $word,
                            Atomic::MaxS => (x as $signed).max(b as $signed) as $word,
                            Atomic::AddF => add(x, b, is_shared),
                            Atomic::Inc => {
                                if x >= b {
                                    0
                                } else {
                                    x + 1
                                }
                            }
                            Atomic::Dec => {
                                if x == 0 || x > b {
                                    b
                                } else {
                                    x - 1
                                }
                            }
                        };
                        let cell = <$atomic>::from_ptr(at[lane] as *mut $word);
                        old[lane] = match cell.fetch_update(Relaxed, Relaxed, |x| Some(update(x))) {
                            Ok(old) | Err(old) => old,
                        };
                    }
                    warp.set_lanes_of_mask(op.d, old);
                }
                Flow::Next
            }
        }
    };
}
atomic!(Atomic32, u32, i32, AtomicU32, add32);
atomic!(Atomic64, u64, i64, AtomicU64, |a, b, _| (f64::from_bits(a) + f64::from_bits(b)).to_bits());

/// `atom.add.f32`, which keeps subnormals in shared memory and takes and gives zeros of their sign for them in
/// global memory (PTX ISA 9.7.13.15).
pub fn add32(a: u32, b: u32, is_shared: bool) -> u32 {
    let flush = |bits: u32| if bits & 0x7f80_0000 == 0 && !is_shared { bits & 0x8000_0000 } else { bits };
    flush((f32::from_bits(flush(a)) + f32::from_bits(flush(b))).to_bits())
}

/// What happens to an element, and what an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Update {
    Add,
    Min,
    Max,
    CompareExchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Element {
    B16,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
}

const UPDATES: [Update; 4] = [Update::Add, Update::Min, Update::Max, Update::CompareExchange];
const ELEMENTS: [Element; 6] =
    [Element::B16, Element::F16, Element::F16x2, Element::Bf16, Element::Bf16x2, Element::F32];

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Element::B16 | Element::F16 | Element::Bf16 => 2,
            Element::F16x2 | Element::Bf16x2 | Element::F32 => 4,
        }
    }

    /// The element's new bits, from its old ones and the operands.
    fn update(self, update: Update, old: u32, b: u32, c: u32, is_shared: bool) -> u32 {
        match (self, update) {
            (_, Update::CompareExchange) if old == b => c,
            (_, Update::CompareExchange) => old,
            (Element::F16 | Element::F16x2, _) => halves::<F16>(update, old, b),
            (Element::Bf16 | Element::Bf16x2, _) => halves::<Bf16>(update, old, b),
            _ => add32(old, b, is_shared),
        }
    }
}

/// Both halves; the upper ones of single values are zero, and stay so.
fn halves<F: Format>(update: Update, old: u32, b: u32) -> u32 {
    let one = match update {
        Update::Min => least::<F>,
        Update::Max => largest::<F>,
        _ => add::<F>,
    };
    one(old >> 16, b >> 16) << 16 | one(old & 0xffff, b & 0xffff)
}

/// `atom` and `red`: `imm` is the first slot, in the kernel's lists, of the address, then of each element's
/// destination, then of each element's operand; `a` elements of type `b & 15`, updated as `b >> 4` says. `c` is
/// the third operand, `e` the space.
pub struct AtomicVector;
impl Body for AtomicVector {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let count = op.a as usize;
        let (element, update) = (ELEMENTS[op.b as usize & 15], UPDATES[op.b as usize >> 4]);
        let list = &warp.cta.kernel.lists[op.imm as usize..][..1 + 2 * count];
        let (address, bytes, space) = (list[0], element.bytes(), op.e as u8);
        // SAFETY: the decoder made the list of slots of these widths; the pointers are checked and aligned,
        // and all concurrent access to them in this launch is atomic or a race of the kernel's.
        unsafe {
            let at: [u64; LANES] = warp.lanes(address);
            let c: [u32; LANES] = warp.lanes(op.c);
            let operands: [[u32; LANES]; 8] = std::array::from_fn(|i| match i < count {
                true => warp.lanes(list[1 + count + i]),
                false => [0; LANES],
            });
            let mut old = [[0; LANES]; 8];
            for lane in lanes_of(warp.mask) {
                let align = bytes * count as u64;
                let Some(first) = warp.pointer_in(space, lane, at[lane], align, align) else {
                    return Flow::Fault;
                };
                let is_shared = warp.is_shared(first);
                for i in 0..count {
                    let b = operands[i][lane];
                    let new = |old: u32| element.update(update, old, b, c[lane], is_shared);
                    old[i][lane] = match bytes {
                        2 => {
                            let cell = AtomicU16::from_ptr(first.cast::<u16>().add(i));
                            let before = cell.fetch_update(Relaxed, Relaxed, |x| Some(new(x.into()) as u16));
                            before.unwrap_or_else(|same| same).into()
                        }
                        _ => {
                            let cell = AtomicU32::from_ptr(first.cast::<u32>().add(i));
                            let before = cell.fetch_update(Relaxed, Relaxed, |x| Some(new(x)));
                            before.unwrap_or_else(|same| same)
                        }
                    };
                }
            }
            for i in 0..count {
                warp.set_lanes_of_mask(list[1 + i], old[i]);
            }
        }
        Flow::Next
    }
}

/// `atom.exch` (`a` 0) and `atom.cas` (1) of 128 bits: the list at `imm` has the slots of the address, and of both halves
/// of the destination and of each operand; `e` is the space.
pub struct Atomic128;
impl Body for Atomic128 {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let (count, space) = (5 + 2 * op.a as usize, op.e as u8);
        let list = &warp.cta.kernel.lists[op.imm as usize..][..count];
        // SAFETY: the decoder made the list of slots of these widths, on a host that has the instruction; the pointers
        // are checked and aligned.
        unsafe {
            let at: [u64; LANES] = warp.lanes(list[0]);
            let pair = |warp: &Warp, i: usize| -> [u128; LANES] {
                let (low, high): ([u64; LANES], [u64; LANES]) =
                    (warp.lanes(list[i]), warp.lanes(list[i + 1]));
                std::array::from_fn(|lane| u128::from(high[lane]) << 64 | u128::from(low[lane]))
            };
            let (b, c) = (pair(warp, 3), pair(warp, count - 2));
            let (mut low, mut high) = ([0; LANES], [0; LANES]);
            for lane in lanes_of(warp.mask) {
                let Some(cell) = warp.pointer_in(space, lane, at[lane], 16, 16) else { return Flow::Fault };
                let cell = cell.cast::<u128>();
                let mut old = if op.a == 1 { b[lane] } else { 0 };
                loop {
                    let found = compare_exchange(cell, old, c[lane]);
                    if op.a == 1 || found == old {
                        old = found;
                        break;
                    }
                    old = found;
                }
                (low[lane], high[lane]) = (old as u64, (old >> 64) as u64);
            }
            warp.set_lanes_of_mask(list[1], low);
            warp.set_lanes_of_mask(list[2], high);
        }
        Flow::Next
    }
}

/// What was in the cell, into which `new` has gone if that was `old`. By hand: the standard library has no such atomic,
/// and its intrinsic becomes a call of a library that is not there.
///
/// # Safety
/// The host has the instruction; the cell is valid, aligned, and accessed atomically by others.
#[inline]
unsafe fn compare_exchange(cell: *mut u128, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: the caller's; rbx, which is not ours to name, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            in("rdi") cell,
            inout("rsi") new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}
