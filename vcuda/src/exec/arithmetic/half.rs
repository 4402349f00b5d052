//! Arithmetic of float16 and bfloat16, alone and in pairs, PTX ISA 9.7.4. Every result is rounded once, to
//! nearest even; a NaN is the canonical one, `0x7fff`.

use std::marker::PhantomData;

use super::lane::lane;
use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// The hardware's NaN of both formats.
const NAN16: u32 = 0x7fff;
/// What a tensor copy that fills with NaN puts in each 16 bits outside the tensor, and what makes an `fma.oob`
/// zero as either factor, with any sign. The ISA names an "OOB NaN" and does not give its bits; these are
/// those of a public simulator that says it was checked on hardware.
pub const OOB_NAN: u32 = 0x7ff7;

/// A 16-bit floating-point format; values are in the low half of a word, whose upper half is zero.
pub trait Format: 'static {
    const ONE: u32;
    const INFINITY: u32;
    /// Exactly.
    fn widen(bits: u32) -> f32;
    /// To nearest even.
    fn narrow(x: f32) -> u32;

    #[inline(always)]
    fn is_nan(bits: u32) -> bool {
        bits & 0x7fff > Self::INFINITY
    }
}

pub struct F16;
impl Format for F16 {
    const ONE: u32 = 0x3c00;
    const INFINITY: u32 = 0x7c00;

    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        const SCALE: f32 = f32::from_bits((127 + 112) << 23); // exponents are biased by 15 and by 127
        let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * SCALE).to_bits();
        let special = if bits & 0x7fff >= Self::INFINITY { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude | special | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> u32 {
        let (sign, magnitude) = (x.to_bits() >> 16 & 0x8000, x.to_bits() & 0x7fff_ffff);
        let even = magnitude >> 13 & 1;
        let normal = magnitude.wrapping_add(0xfff + even).wrapping_sub(112 << 23) >> 13;
        // The last place of 0.5 is that of float16's subnormals.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
        let rounded = if magnitude < (127 - 14) << 23 { subnormal } else { normal };
        let finite = if magnitude < 0x477f_f000 { rounded } else { Self::INFINITY }; // 65520
        if magnitude > 0x7f80_0000 { NAN16 } else { sign | finite }
    }
}

pub struct Bf16;
impl Format for Bf16 {
    const ONE: u32 = 0x3f80;
    const INFINITY: u32 = 0x7f80;

    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        f32::from_bits(bits << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> u32 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if bits & 0x7fff_ffff > 0x7f80_0000 { NAN16 } else { rounded }
    }
}

/// `a · b + c`, rounded once. The product is exact in float64, and of the sum the part that float64 drops
/// is known (Knuth's two-sum); whether anything was dropped on the way goes into the last bit of a
/// float32 ("round to odd"), which has enough more bits than the result for that rounding to be the only one.
#[inline(always)]
fn fused<F: Format>(a: u32, b: u32, c: u32) -> u32 {
    let (product, c) = (f64::from(F::widen(a)) * f64::from(F::widen(b)), f64::from(F::widen(c)));
    let sum = product + c;
    let part = sum - product;
    let dropped = (product - (sum - part)) + (c - part);
    let near = sum as f32;
    let rest = sum - f64::from(near);
    let rest = if rest == 0.0 { dropped } else { rest };
    let bits = near.to_bits();
    let inexact = rest.abs() > 0.0 && bits & 1 == 0;
    let outward = (rest < 0.0) == (bits >> 31 != 0);
    let odd = if outward { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    F::narrow(f32::from_bits(if inexact { odd } else { bits }))
}

/// `d = f(a, b, c)` in the low half, or in both where `PAIR`.
macro_rules! half {
    ($(#[$doc:meta])* $name:ident, $format:ident, ($($arg:ident),*) $body:block) => {
        $(#[$doc])*
        pub struct $name<$format, const PAIR: bool>(PhantomData<$format>);
        impl<$format: Format, const PAIR: bool> Compute for $name<$format, PAIR> {
            #[inline(always)]
            unsafe fn compute(registers: &mut Registers, op: &Operands) {
                // SAFETY: the decoder gave every operand a narrow slot.
                unsafe {
                    let mut _slots = [op.a, op.b, op.c, op.e].into_iter();
                    $(let $arg: [u32; LANES] = registers.lanes(_slots.next().unwrap_unchecked());)*
                    let mut out = [0; LANES];
                    for lane in 0..LANES {
                        $(let $arg = $arg[lane];)*
                        let low = { $(let $arg = $arg & 0xffff;)* $body };
                        let high = if PAIR { $(let $arg = $arg >> 16;)* $body } else { 0 };
                        out[lane] = high << 16 | low;
                    }
                    registers.set_lanes(op.d, out);
                }
            }
        }
    };
}

// Float32 has more than twice the bits of either format and two more, so that rounding a sum or a product
// of two of them to float32 first changes nothing (Figueroa, 1995). Nor does it among subnormals: sums
// there are exact, and so is a product of bfloat16s that is at least half the smallest of them.
half!(Add, F, (a, b) { add::<F>(a, b) });
half!(Sub, F, (a, b) { F::narrow(F::widen(a) - F::widen(b)) });
half!(Mul, F, (a, b) { F::narrow(F::widen(a) * F::widen(b)) });
half!(Fma, F, (a, b, c) { fused::<F>(a, b, c) });
half!(
    /// A subnormal becomes a zero of its sign.
    Flush, F, (a) { if a & F::INFINITY == 0 { a & 0x8000 } else { a } }
);
half!(
    /// To [0, 1]; NaN to zero.
    Saturate, F, (a) { if a >= 0x8000 || F::is_nan(a) { 0 } else { a.min(F::ONE) } }
);
half!(
    /// Negative values to zero.
    Relu, F, (a) { if F::is_nan(a) { NAN16 } else if a >= 0x8000 { 0 } else { a } }
);
half!(
    /// `value`, or zero where one of the others is [`OOB_NAN`].
    OrZero, F, (value, a, b) { if a & 0x7fff == OOB_NAN || b & 0x7fff == OOB_NAN { 0 } else { value } }
);
half!(Min, F, (a, b) { least::<F>(a, b) });
half!(Max, F, (a, b) { largest::<F>(a, b) });
half!(MinNan, F, (a, b) { if F::is_nan(a) || F::is_nan(b) { NAN16 } else { least::<F>(a, b) } });
half!(MaxNan, F, (a, b) { if F::is_nan(a) || F::is_nan(b) { NAN16 } else { largest::<F>(a, b) } });
half!(
    /// `a`, which is no NaN, with the sign of `b · c`.
    XorSign, F, (a, b, c) { if F::is_nan(a) { NAN16 } else { a & 0x7fff | (b ^ c) & 0x8000 } }
);

/// The sum of two values, in the low half of a word each.
#[inline(always)]
pub fn add<F: Format>(a: u32, b: u32) -> u32 {
    F::narrow(F::widen(a) + F::widen(b))
}

/// The lesser; -0 is less than +0, and one NaN gives the other operand.
#[inline(always)]
pub fn least<F: Format>(a: u32, b: u32) -> u32 {
    pick::<F>(a, b, order(a) < order(b))
}

/// The greater, as [`least`].
#[inline(always)]
pub fn largest<F: Format>(a: u32, b: u32) -> u32 {
    pick::<F>(a, b, order(a) > order(b))
}

/// Sign and magnitude to two's complement, which orders all numbers.
#[inline(always)]
fn order(bits: u32) -> i32 {
    if bits & 0x8000 != 0 { -((bits & 0x7fff) as i32) - 1 } else { bits as i32 }
}

#[inline(always)]
fn pick<F: Format>(a: u32, b: u32, first: bool) -> u32 {
    match (F::is_nan(a), F::is_nan(b)) {
        (false, false) => {
            if first {
                a
            } else {
                b
            }
        }
        (true, true) => NAN16,
        (true, false) => b,
        (false, true) => a,
    }
}

// Between the formats and float32, in the half of the word that the name says.
lane!(WidenF16, (a: u32) -> u32 { F16::widen(a & 0xffff).to_bits() });
lane!(WidenUpperF16, (a: u32) -> u32 { F16::widen(a >> 16).to_bits() });
lane!(WidenBf16, (a: u32) -> u32 { Bf16::widen(a & 0xffff).to_bits() });
lane!(WidenUpperBf16, (a: u32) -> u32 { Bf16::widen(a >> 16).to_bits() });
lane!(NarrowF16, (a: u32) -> u32 { F16::narrow(f32::from_bits(a)) });
lane!(NarrowBf16, (a: u32) -> u32 { Bf16::narrow(f32::from_bits(a)) });

/// Pairs of 16-bit integers, `f(a, b)` on each half.
macro_rules! integer_pair {
    ($name:ident, ($a:ident : $ty:ty, $b:ident) $body:block) => {
        lane!($name, (a: u32, b: u32) -> u32 {
            let on = |$a: $ty, $b: $ty| -> $ty { $body };
            let low = on(a as $ty, b as $ty) as u16;
            let high = on((a >> 16) as $ty, (b >> 16) as $ty) as u16;
            (high as u32) << 16 | low as u32
        });
    };
}
integer_pair!(AddPair, (a: u16, b) { a.wrapping_add(b) });
integer_pair!(MinPairU, (a: u16, b) { a.min(b) });
integer_pair!(MaxPairU, (a: u16, b) { a.max(b) });
integer_pair!(MinPairS, (a: i16, b) { a.min(b) });
integer_pair!(MaxPairS, (a: i16, b) { a.max(b) });
