//! Operations that are the same in each lane, written by what one lane does.

use crate::exec::registers::{NO_PRED, Operands, Registers};

/// `d = f(a, b, c)`, lane by lane: `lane!(AddU32, (a: u32, b: u32) -> u32 { a.wrapping_add(b) });`; `scalar` before
/// the name where no host has it for vectors, or where compilers write it so seldom that once will do for all hosts.
macro_rules! lane {
    (scalar $name:ident, $($lane:tt)*) => { lane!(@ false, $name, $($lane)*); };
    ($name:ident, $($lane:tt)*) => { lane!(@ true, $name, $($lane)*); };
    (@ $per_host:literal, $name:ident, ($($arg:ident : $ty:ty),*) -> $out:ty $body:block) => {
        pub struct $name;
        impl $crate::exec::registers::Compute for $name {
            const PER_HOST: bool = $per_host;

            #[inline(always)]
            unsafe fn compute(registers: &mut $crate::exec::registers::Registers, op: &$crate::exec::registers::Operands) {
                // SAFETY: the decoder gave every operand a slot of its width.
                unsafe {
                    let mut _slots = [op.a, op.b, op.c].into_iter();
                    $(let $arg: [$ty; $crate::exec::registers::LANES] = registers.lanes(_slots.next().unwrap_unchecked());)*
                    let mut out: [$out; $crate::exec::registers::LANES] = [0; $crate::exec::registers::LANES];
                    for lane in 0..$crate::exec::registers::LANES {
                        $(let $arg = $arg[lane];)*
                        out[lane] = $body;
                    }
                    registers.set_lanes(op.d, out);
                }
            }
        }
    };
}

/// `p = f(a, b)`, lane by lane, or what does not hold where `imm` has [`NEGATED`], then combined with predicate `c`:
/// the rest of `imm` 0 none, 1 and, 2 or, 3 xor; predicate `e` gets the combined negation unless it is [`NO_PRED`].
/// `scalar` as for `lane!`.
macro_rules! compare {
    (scalar $name:ident, $($lane:tt)*) => { compare!(@ false, $name, $($lane)*); };
    ($name:ident, $($lane:tt)*) => { compare!(@ true, $name, $($lane)*); };
    (@ $per_host:literal, $name:ident, ($a:ident : $ty:ty, $b:ident) $body:block) => {
        pub struct $name;
        impl $crate::exec::registers::Compute for $name {
            const PER_HOST: bool = $per_host;

            #[inline(always)]
            unsafe fn compute(
                registers: &mut $crate::exec::registers::Registers,
                op: &$crate::exec::registers::Operands,
            ) {
                // SAFETY: as for `lane!`.
                unsafe {
                    let ($a, $b): ([$ty; 32], [$ty; 32]) = (registers.lanes(op.a), registers.lanes(op.b));
                    let mut bits = 0u32;
                    for lane in 0..$crate::exec::registers::LANES {
                        let ($a, $b) = ($a[lane], $b[lane]);
                        let holds: bool = $body;
                        bits |= (holds as u32) << lane;
                    }
                    $crate::exec::arithmetic::lane::finish_compare(registers, op, bits);
                }
            }
        }
    };
}

pub(in crate::exec) use {compare, lane};

/// Asks a comparison for its negation.
pub const NEGATED: i64 = 4;

/// # Safety
/// The predicates are in the file.
#[inline(always)]
pub unsafe fn finish_compare(registers: &mut Registers, op: &Operands, bits: u32) {
    let (how, bits) = (op.imm & !NEGATED, if op.imm & NEGATED == 0 { bits } else { !bits });
    let combine = |bits: u32, with: u32| match how {
        1 => bits & with,
        2 => bits | with,
        3 => bits ^ with,
        _ => bits,
    };
    // SAFETY: the caller's.
    unsafe {
        let with = if how == 0 { 0 } else { registers.pred(op.c) };
        if op.d != NO_PRED {
            registers.set_pred(op.d, combine(bits, with));
        }
        if op.e != NO_PRED {
            registers.set_pred(op.e, combine(!bits, with));
        }
    }
}
