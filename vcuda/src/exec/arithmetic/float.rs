//! Floating point arithmetic, PTX ISA 9.7.3. A NaN result is the canonical one, as on hardware, so
//! bits never depend on the order in which a host takes its operands.

use super::lane::{compare, lane};
use crate::exec::registers::{ALL, Compute, LANES, Operands, Registers};

/// `0x7fffffff`, the hardware's NaN.
pub const NAN32: u32 = 0x7fff_ffff;
/// The hardware's double NaN.
pub const NAN64: u64 = 0xfff8_0000_0000_0000;

#[inline(always)]
pub(super) fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

#[inline(always)]
pub(super) fn g(bits: u64) -> f64 {
    f64::from_bits(bits)
}

#[inline(always)]
pub(super) fn bits32(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[inline(always)]
pub(super) fn bits64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

lane!(Add32, (a: u32, b: u32) -> u32 { bits32(f(a) + f(b)) });
lane!(Sub32, (a: u32, b: u32) -> u32 { bits32(f(a) - f(b)) });
lane!(Mul32, (a: u32, b: u32) -> u32 { bits32(f(a) * f(b)) });
lane!(Fma32, (a: u32, b: u32, c: u32) -> u32 { bits32(f(a).mul_add(f(b), f(c))) });
lane!(Div32, (a: u32, b: u32) -> u32 { bits32(f(a) / f(b)) });
lane!(Rcp32, (a: u32) -> u32 { bits32(1.0 / f(a)) });
lane!(Sqrt32, (a: u32) -> u32 { bits32(f(a).sqrt()) });
lane!(Abs32, (a: u32) -> u32 { a & 0x7fff_ffff });
lane!(Neg32, (a: u32) -> u32 { a ^ 0x8000_0000 });
lane!(Copysign32, (a: u32, b: u32) -> u32 { a & 0x8000_0000 | b & 0x7fff_ffff });
lane!(Flush32, (a: u32) -> u32 { flush32(a) });
// NaN saturates to zero.
lane!(Saturate32, (a: u32) -> u32 { if f(a) >= 1.0 { 0x3f80_0000 } else if f(a) > 0.0 { a } else { 0 } });
// One NaN operand gives the other; minus zero is less than zero.
lane!(Min32, (a: u32, b: u32) -> u32 { if less32(a, b) { a } else if f(b).is_nan() { quiet32(a) } else { b } });
lane!(Max32, (a: u32, b: u32) -> u32 { if less32(b, a) { a } else if f(b).is_nan() { quiet32(a) } else { b } });
lane!(MinNan32, (a: u32, b: u32) -> u32 {
    if f(a).is_nan() || f(b).is_nan() { NAN32 } else if less32(a, b) { a } else { b }
});
lane!(MaxNan32, (a: u32, b: u32) -> u32 {
    if f(a).is_nan() || f(b).is_nan() { NAN32 } else if less32(b, a) { a } else { b }
});

// `a`, the minimum or maximum of magnitudes, with the sign of `b · c`.
lane!(XorSign32, (a: u32, b: u32, c: u32) -> u32 { if f(a).is_nan() { NAN32 } else { a | (b ^ c) & 0x8000_0000 } });

/// A subnormal as the zero of its sign.
#[inline(always)]
pub(super) fn flush32(a: u32) -> u32 {
    if a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a }
}

#[inline(always)]
fn quiet32(a: u32) -> u32 {
    if f(a).is_nan() { NAN32 } else { a }
}

#[inline(always)]
fn less32(a: u32, b: u32) -> bool {
    f(a) < f(b) || f(a) == f(b) && a > b // of equal values only -0 and +0 differ in bits
}

lane!(Add64, (a: u64, b: u64) -> u64 { bits64(g(a) + g(b)) });
lane!(Sub64, (a: u64, b: u64) -> u64 { bits64(g(a) - g(b)) });
lane!(Mul64, (a: u64, b: u64) -> u64 { bits64(g(a) * g(b)) });
lane!(Fma64, (a: u64, b: u64, c: u64) -> u64 { bits64(g(a).mul_add(g(b), g(c))) });
lane!(Div64, (a: u64, b: u64) -> u64 { bits64(g(a) / g(b)) });
lane!(Rcp64, (a: u64) -> u64 { bits64(1.0 / g(a)) });
lane!(Rsqrt64, (a: u64) -> u64 { bits64(1.0 / g(a).sqrt()) });
lane!(Sqrt64, (a: u64) -> u64 { bits64(g(a).sqrt()) });
lane!(Abs64, (a: u64) -> u64 { a & !(1 << 63) });
lane!(Neg64, (a: u64) -> u64 { a ^ 1 << 63 });
lane!(Copysign64, (a: u64, b: u64) -> u64 { a & 1 << 63 | b & !(1 << 63) });
lane!(Min64, (a: u64, b: u64) -> u64 { if less64(a, b) { a } else if g(b).is_nan() { quiet64(a) } else { b } });
lane!(Max64, (a: u64, b: u64) -> u64 { if less64(b, a) { a } else if g(b).is_nan() { quiet64(a) } else { b } });

#[inline(always)]
fn quiet64(a: u64) -> u64 {
    if g(a).is_nan() { NAN64 } else { a }
}

#[inline(always)]
fn less64(a: u64, b: u64) -> bool {
    g(a) < g(b) || g(a) == g(b) && a > b
}

/// Comparisons of one type: all others are these of exchanged operands, or their negations.
macro_rules! comparisons {
    ($module:ident, $lane:ty, $float:ident) => {
        pub mod $module {
            use super::*;
            compare!(Eq, (a: $lane, b) { $float(a) == $float(b) });
            compare!(Ne, (a: $lane, b) { $float(a) < $float(b) || $float(a) > $float(b) });
            compare!(Lt, (a: $lane, b) { $float(a) < $float(b) });
            compare!(Le, (a: $lane, b) { $float(a) <= $float(b) });
            compare!(Nan, (a: $lane, b) { $float(a).is_nan() || $float(b).is_nan() });
        }
    };
}
comparisons!(compare32, u32, f);
comparisons!(compare64, u64, g);

/// A directed rounding of `nearest + error`, where `nearest` is the sum rounded to nearest and only the
/// error's sign matters. `mode`: 1 toward zero, 2 down, 3 up.
fn direct(nearest: f32, error: f64, mode: i64) -> f32 {
    if nearest.is_nan() || error == 0.0 || error.is_nan() {
        return nearest;
    }
    let down = mode == 2 || mode == 1 && (nearest > 0.0 || nearest == 0.0 && error > 0.0);
    let up = mode == 3 || mode == 1 && !down;
    if nearest.is_infinite() {
        // The finite result overflowed to nearest; toward the other side it is the largest.
        return if nearest > 0.0 && down {
            f32::MAX
        } else if nearest < 0.0 && up {
            f32::MIN
        } else {
            nearest
        };
    }
    match () {
        () if down && error < 0.0 => nearest.next_down(),
        () if up && error > 0.0 => nearest.next_up(),
        () => nearest,
    }
}

/// `a · b + c` rounded to float32 in a directed mode, exactly: the product is exact in float64, and the
/// sum's rounding error is known (Knuth's two-sum).
fn fma_directed(a: u32, b: u32, c: u32, mode: i64) -> u32 {
    let (product, c) = (f64::from(f(a)) * f64::from(f(b)), f64::from(f(c)));
    let sum = product + c;
    if !sum.is_finite() {
        return bits32(sum as f32);
    }
    let back = sum - product;
    let lost = (product - (sum - back)) + (c - back);
    let nearest = sum as f32;
    let error = if nearest.is_infinite() {
        sum - f64::from(f32::MAX.copysign(nearest))
    } else {
        sum - f64::from(nearest)
    };
    if sum == 0.0 && lost == 0.0 {
        // An exact zero of unlike terms is -0 only when rounding down.
        let negative = if product == 0.0 && c == 0.0 && product.is_sign_negative() == c.is_sign_negative() {
            product.is_sign_negative()
        } else {
            mode == 2
        };
        return if negative { 0x8000_0000 } else { 0 };
    }
    let toward = if nearest.is_infinite() {
        -error.signum()
    } else if error != 0.0 {
        error
    } else {
        lost
    };
    bits32(direct(nearest, toward, mode))
}

/// `d = a op b (op c)` rounded as `imm & 3` says; `imm >> 2`: 0 add, 1 sub, 2 mul, 3 fma, 4 div, 5 sqrt,
/// 6 rcp.
pub struct Directed32;
impl Compute for Directed32 {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        const ONE: u32 = 0x3f80_0000;
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let (mode, operation) = (op.imm & 3, op.imm >> 2);
            let mut out = [0; LANES];
            for lane in 0..LANES {
                let (a, b, c) = (a[lane], b[lane], c[lane]);
                out[lane] = match operation {
                    0 => fma_directed(a, ONE, b, mode),
                    1 => fma_directed(a, ONE, b ^ 0x8000_0000, mode),
                    // Minus zero leaves any product as it is, its sign included.
                    2 => match (f(a) * f(b)) == 0.0 && (f(a) == 0.0 || f(b) == 0.0) {
                        true => bits32(f(a) * f(b)),
                        false => fma_directed(a, b, 0x8000_0000, mode),
                    },
                    3 => fma_directed(a, b, c, mode),
                    4 => quotient(f(a), f(b), mode),
                    5 => {
                        let root = f(a).sqrt();
                        let error = f64::from(f(a)) - f64::from(root) * f64::from(root);
                        bits32(direct(root, error, mode))
                    }
                    _ => quotient(1.0, f(a), mode),
                };
            }
            registers.set_lanes(op.d, out);
        }
    }
}

fn quotient(a: f32, b: f32, mode: i64) -> u32 {
    let nearest = a / b;
    if b == 0.0 || a.is_infinite() || b.is_infinite() {
        return bits32(nearest);
    }
    if nearest.is_infinite() {
        return bits32(direct(nearest, -f64::from(nearest.signum()), mode));
    }
    // The remainder a - q·b is exact in float64; its sign over b's is the error's.
    let remainder = f64::from(a) - f64::from(nearest) * f64::from(b);
    bits32(direct(nearest, remainder * f64::from(b.signum()), mode))
}

/// Bytes of a slot.
pub const SLOT_BYTES: u32 = (size_of::<u32>() * LANES) as u32;

/// A run of `fma.rn.f32` in one operation: `imm` is the first of `a` in the kernel's table, of slots d, a, b, c as
/// offsets in bytes.
pub struct FmaRun;
impl Compute for FmaRun {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        // SAFETY: the decoder made the run from as many entries of the table, all of valid slots.
        unsafe {
            let runs = registers.runs.as_ptr().add(op.imm as usize);
            let regs = registers.regs.cast::<u8>();
            let register = |offset: u32| regs.add(offset as usize).cast::<[u32; LANES]>();
            for i in 0..op.a as usize {
                if registers.writable != ALL {
                    let mut slots = [0; 4];
                    for operand in 0..4 {
                        slots[operand] = ((*runs.add(i))[operand] / SLOT_BYTES) as u16;
                    }
                    let [d, a, b, c] = slots;
                    Fma32::compute(registers, &Operands { d, a, b, c, ..*op });
                    continue;
                }
                let entry = runs.add(i).cast::<u32>();
                let (a, b) = (&*register(*entry.add(1)), &*register(*entry.add(2)));
                let c = &*register(*entry.add(3));
                let mut sum = [0; LANES];
                for lane in 0..LANES {
                    sum[lane] = bits32(f(a[lane]).mul_add(f(b[lane]), f(c[lane])));
                }
                *register(*entry) = sum;
            }
        }
    }
}
