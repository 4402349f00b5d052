//! Predicates: logic on them, and what registers get of them.

use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// Logic on predicates, in `imm`: 0 and, 1 or, 2 xor, 3 not, 4 mov.
pub struct PredLogic;
impl Compute for PredLogic {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        // SAFETY: the decoder gave every operand a predicate.
        unsafe {
            let (a, b) = (registers.pred(op.a), registers.pred(op.b));
            let value = match op.imm {
                0 => a & b,
                1 => a | b,
                2 => a ^ b,
                3 => !a,
                _ => a,
            };
            registers.set_pred(op.d, value);
        }
    }
}

macro_rules! select {
    ($name:ident, $lane:ty) => {
        /// `selp`: `a` where predicate `c` holds, else `b`.
        pub struct $name;
        impl Compute for $name {
            #[inline(always)]
            unsafe fn compute(registers: &mut Registers, op: &Operands) {
                // SAFETY: the decoder gave every operand a slot of its width, and a predicate.
                unsafe {
                    let (a, b): ([$lane; LANES], [$lane; LANES]) =
                        (registers.lanes(op.a), registers.lanes(op.b));
                    let chosen = registers.pred(op.c);
                    let mut out = [0; LANES];
                    for lane in 0..LANES {
                        out[lane] = if chosen >> lane & 1 != 0 { a[lane] } else { b[lane] };
                    }
                    registers.set_lanes(op.d, out);
                }
            }
        }
    };
}
select!(Select32, u32);
select!(Select64, u64);

/// `activemask`.
pub struct ActiveMask;
impl Compute for ActiveMask {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        // SAFETY: the decoder gave the destination a slot.
        unsafe { registers.set_lanes(op.d, [registers.mask; LANES]) };
    }
}
