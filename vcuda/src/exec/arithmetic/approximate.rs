//! The approximate functions, PTX ISA 9.7.3: computed in float64 and rounded once, so nearer than the ISA asks for.
//! [`super::astray`] gives what else it would allow.

use super::float::{bits32, bits64, f, flush32, g};
use super::lane::lane;
use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// What an instruction approximates, for [`super::astray::Astray`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
    Rcp,
    Sqrt,
    Rsqrt,
    Div,
    /// `div.full`.
    DivFull,
}

impl Function {
    pub const ALL: [Function; 10] = [
        Function::Ex2,
        Function::Lg2,
        Function::Sin,
        Function::Cos,
        Function::Tanh,
        Function::Rcp,
        Function::Sqrt,
        Function::Rsqrt,
        Function::Div,
        Function::DivFull,
    ];

    /// Of float32 operands, before the result is rounded; only quotients have a `b`.
    pub fn value(self, a: f32, b: f32) -> f64 {
        let (x, y) = (f64::from(a), f64::from(b));
        match self {
            Function::Ex2 => ex2([a])[0],
            Function::Lg2 => lg2(a),
            Function::Sin => sine(a, 0),
            Function::Cos => sine(a, 1),
            Function::Tanh => tanh(a),
            Function::Rcp => 1.0 / x,
            Function::Sqrt => x.sqrt(),
            Function::Rsqrt => 1.0 / x.sqrt(),
            Function::Div => x / f64::from(divisor(b)),
            Function::DivFull => x / y,
        }
    }
}

lane!(RcpFtz, (a: u32) -> u32 { flush32(bits32(1.0 / f(flush32(a)))) });
lane!(Lg2, (a: u32) -> u32 { bits32(lg2(f(a)) as f32) });
lane!(Sin, (a: u32) -> u32 { bits32(sine(f(a), 0) as f32) });
lane!(Cos, (a: u32) -> u32 { bits32(sine(f(a), 1) as f32) });
lane!(Tanh, (a: u32) -> u32 { bits32(tanh(f(a)) as f32) });
lane!(Rsqrt, (a: u32) -> u32 { bits32((1.0 / f64::from(f(a)).sqrt()) as f32) });
lane!(DivApprox32, (a: u32, b: u32) -> u32 { bits32(f(a) / divisor(f(b))) });

// With .ftz only the upper word of the operand is looked at, and the lower one of the result is zero (ISA 9.7.3.14,
// 9.7.3.17).
lane!(RcpApprox64, (a: u64) -> u64 { coarse(g(flush64(bits64(1.0 / g(flush64(a & UPPER)))))) });
lane!(RsqrtApprox64, (a: u64) -> u64 { coarse(1.0 / g(flush64(a & UPPER)).sqrt()) });

const UPPER: u64 = 0xffff_ffff_0000_0000;

/// The upper word of a result; that of NaN is `0x7fffffff`.
#[inline(always)]
fn coarse(x: f64) -> u64 {
    if x.is_nan() { 0x7fff_ffff_0000_0000 } else { x.to_bits() & UPPER }
}

/// A subnormal as the zero of its sign.
#[inline(always)]
fn flush64(a: u64) -> u64 {
    if g(a).is_subnormal() { a & 1 << 63 } else { a }
}

/// What `div.approx` divides by: more than 2^126 is infinite to it, so that the quotient is zero, or NaN where the
/// dividend is infinite (ISA 9.7.3.8).
#[inline(always)]
fn divisor(b: f32) -> f32 {
    const LARGEST: f32 = f32::from_bits((127 + 126) << 23);
    if b.abs() > LARGEST { f32::INFINITY.copysign(b) } else { b }
}

/// `2^x` for `|x| ≤ 1000`, relative error below 1e-13: Taylor on `|r| ≤ 1/2`. Of several numbers, so that a host has more
/// to do while it waits for a step's sum.
#[inline(always)]
fn exp2<const N: usize>(x: [f64; N]) -> [f64; N] {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52: adding it rounds to an integer
    let (mut r, mut scale) = ([0.0_f64; N], [0; N]);
    for i in 0..N {
        let shifted = x[i] + ROUND;
        r[i] = (x[i] - (shifted - ROUND)) * std::f64::consts::LN_2;
        // It ends with the integer's bits; to convert the integer itself few hosts have vectors.
        scale[i] = shifted.to_bits().wrapping_add(1023) << 52;
    }
    let mut p = [1.0_f64 / 479_001_600.0; N];
    for c in [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        for i in 0..N {
            p[i] = p[i].mul_add(r[i], c);
        }
    }
    for i in 0..N {
        p[i] *= f64::from_bits(scale[i]);
    }
    p
}

#[inline(always)]
fn ex2<const N: usize>(x: [f32; N]) -> [f64; N] {
    let mut y = [0.0; N];
    for i in 0..N {
        // Beyond these the float32 result is infinite or zero.
        y[i] = f64::from(x[i]).clamp(-200.0, 200.0);
    }
    y = exp2(y);
    for i in 0..N {
        y[i] = if x[i].is_nan() { f64::NAN } else { y[i] };
    }
    y
}

/// `ex2.approx`; with `FTZ` a subnormal operand is as good as zero, and a result is one.
pub struct Ex2<const FTZ: bool>;
impl<const FTZ: bool> Compute for Ex2<FTZ> {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        /// As many as a host has registers for.
        const AT_ONCE: usize = 16;
        // SAFETY: the decoder gave both operands a narrow slot.
        unsafe {
            let a: [u32; LANES] = registers.lanes(op.a);
            let mut out = [0; LANES];
            for first in (0..LANES).step_by(AT_ONCE) {
                let mut x = [0.0; AT_ONCE];
                for i in 0..AT_ONCE {
                    x[i] = f(a[first + i]);
                }
                let y = ex2(x);
                for i in 0..AT_ONCE {
                    let bits = bits32(y[i] as f32);
                    out[first + i] = if FTZ { flush32(bits) } else { bits };
                }
            }
            registers.set_lanes(op.d, out);
        }
    }
}

/// `log2 x` by `2 atanh((m − 1)/(m + 1))`, `m` in `[√½, √2)`.
#[inline(always)]
fn lg2(x: f32) -> f64 {
    let bits = f64::from(x).to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i64 - 1023;
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    let high = mantissa > std::f64::consts::SQRT_2;
    let m = if high { mantissa * 0.5 } else { mantissa };
    let e = (exponent + high as i64) as f64;
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut p = 1.0 / 17.0;
    for c in [1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        p = p * s2 + c;
    }
    match () {
        () if x.is_nan() || x < 0.0 => f64::NAN,
        () if x == 0.0 => f64::NEG_INFINITY,
        () if x.is_infinite() => f64::INFINITY,
        () => e + 2.0 * std::f64::consts::LOG2_E * s * p,
    }
}

#[inline(always)]
fn tanh(x: f32) -> f64 {
    let wide = f64::from(x).abs();
    let [e] = exp2([wide.min(40.0) * -2.0 * std::f64::consts::LOG2_E]);
    // Near zero the difference loses its digits, and the series' first two terms have them.
    let magnitude = if wide < 0.01 { wide * (1.0 - wide * wide / 3.0) } else { (1.0 - e) / (1.0 + e) };
    if x.is_nan() { f64::NAN } else { magnitude.copysign(f64::from(x)) }
}

/// `sin(x + quadrant · π/2)` for float32 arguments, reduced in float64.
#[inline(always)]
fn sine(x: f32, quadrant: i64) -> f64 {
    if !x.is_finite() {
        return f64::NAN;
    }
    let x = f64::from(x);
    if x == 0.0 && quadrant == 0 {
        return x; // the sign of zero
    }
    let k = (x * std::f64::consts::FRAC_2_PI).round();
    let r = k.mul_add(-6.123_233_995_736_766e-17, k.mul_add(-std::f64::consts::FRAC_PI_2, x));
    let r2 = r * r;
    let sine = r
        * (1.0
            + r2 * (-1.0 / 6.0
                + r2 * (1.0 / 120.0 + r2 * (-1.0 / 5040.0 + r2 * (1.0 / 362_880.0 - r2 / 39_916_800.0)))));
    let cosine = 1.0
        + r2 * (-0.5
            + r2 * (1.0 / 24.0
                + r2 * (-1.0 / 720.0
                    + r2 * (1.0 / 40_320.0 + r2 * (-1.0 / 3_628_800.0 + r2 / 479_001_600.0)))));
    let quadrant = k as i64 + quadrant;
    let y = if quadrant & 1 == 0 { sine } else { cosine };
    if quadrant & 2 == 0 { y } else { -y }
}
