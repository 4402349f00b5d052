//! `VCUDA_CHECK=approx`: results of approximate instructions as far from the truth as the PTX ISA allows, in a direction
//! and by an amount drawn from the seed, the instruction and its operands, so that the same operands give the same result
//! whatever the threads. What the ISA's tables fix stays: results for zeros, infinities and NaN; so does what it gives no
//! bound for (sines beyond 100π, float64, quotients by a subnormal).

use std::f32::consts::PI;
use std::marker::PhantomData;

use super::approximate::Function;
use super::float::{NAN32, f};
use super::half::{Bf16, F16, Format};
use crate::exec::random::Random;
use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// How far a result may be from the truth.
pub enum Bound {
    Absolute(f64),
    Relative(f64),
    /// Units of the last place, and so many values from the nearest at most.
    Ulps(u32),
    /// The ISA does not say.
    None,
}

/// A format of results; bits are in the low part of a word.
pub trait Target: 'static {
    /// Bits of the fraction, and the exponent of the smallest normal value.
    const FRACTION: i32;
    const LEAST: i32;

    /// To nearest even.
    fn narrow(value: f64) -> u32;
    fn widen(bits: u32) -> f64;
    fn bound(function: Function, a: f32, b: f32) -> Bound;
}

pub struct F32;
impl Target for F32 {
    const FRACTION: i32 = 23;
    const LEAST: i32 = -126;

    fn narrow(value: f64) -> u32 {
        if value.is_nan() { NAN32 } else { (value as f32).to_bits() }
    }

    fn widen(bits: u32) -> f64 {
        f64::from(f(bits))
    }

    /// ISA 9.7.3.8 and 9.7.3.13 to 9.7.3.22.
    fn bound(function: Function, a: f32, b: f32) -> Bound {
        match function {
            Function::Ex2 | Function::DivFull => Bound::Ulps(2),
            Function::Rcp => Bound::Ulps(1),
            Function::Div if (2f32.powi(-126)..=2f32.powi(126)).contains(&b.abs()) => Bound::Ulps(2),
            Function::Div => Bound::None,
            Function::Lg2 if 0.5 < a && a < 2.0 => Bound::Absolute(2f64.powi(-22)),
            Function::Lg2 => Bound::Relative(2f64.powi(-22)),
            // As float32 has them, 2π and 100π are a little more.
            Function::Sin | Function::Cos => match a.abs() {
                angle if angle <= 2.0 * PI => Bound::Absolute(2f64.powf(-20.5)),
                angle if angle <= 100.0 * PI => Bound::Absolute(2f64.powf(-14.7)),
                _ => Bound::None,
            },
            // Subnormal operands are passed through.
            Function::Tanh if a.is_subnormal() => Bound::None,
            Function::Tanh => Bound::Relative(2f64.powi(-11)),
            Function::Sqrt => Bound::Relative(2f64.powi(-23)),
            Function::Rsqrt => Bound::Relative(2f64.powf(-22.9)),
        }
    }
}

/// ISA 9.7.4: only `ex2` and `tanh` have a relative and an absolute bound.
macro_rules! half {
    ($format:ident, $fraction:expr, $least:expr, $ex2:expr, $tanh:expr) => {
        impl Target for $format {
            const FRACTION: i32 = $fraction;
            const LEAST: i32 = $least;

            fn narrow(value: f64) -> u32 {
                <$format as Format>::narrow(value as f32)
            }

            fn widen(bits: u32) -> f64 {
                f64::from(<$format as Format>::widen(bits))
            }

            fn bound(function: Function, _: f32, _: f32) -> Bound {
                if function == Function::Ex2 {
                    Bound::Relative(2f64.powf($ex2))
                } else {
                    Bound::Absolute(2f64.powf($tanh))
                }
            }
        }
    };
}
half!(F16, 10, -14, -9.9, -10.987);
half!(Bf16, 7, -126, -7.0, -8.0);

/// `d = f(a, b)`, where [`Function::ALL`] has `f` at `imm`, of float32 operands.
pub struct Astray<T>(PhantomData<T>);
impl<T: Target> Compute for Astray<T> {
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let function = Function::ALL[op.imm as usize];
        // SAFETY: the decoder gave every operand a narrow slot.
        unsafe {
            let (a, b): ([u32; LANES], [u32; LANES]) = (registers.lanes(op.a), registers.lanes(op.b));
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = astray::<T>(function, a[lane], b[lane], registers.seed);
            }
            registers.set_lanes(op.d, out);
        }
    }
}

fn astray<T: Target>(function: Function, a: u32, b: u32, seed: u64) -> u32 {
    let b = if matches!(function, Function::Div | Function::DivFull) { b } else { 0 };
    let truth = function.value(f(a), f(b));
    let nearest = T::narrow(truth);
    // Where a result is zero and the truth is not, it has underflowed.
    let is_fixed = f(a) == 0.0 || !f(a).is_finite() || !T::widen(nearest).is_finite();
    if is_fixed || T::widen(nearest) == 0.0 && truth != 0.0 {
        return nearest;
    }
    let bound = T::bound(function, f(a), f(b));
    let allowed = match bound {
        Bound::Absolute(bound) => bound,
        Bound::Relative(bound) => bound * truth.abs(),
        Bound::Ulps(count) => {
            let exponent = (truth.abs().to_bits() >> 52) as i32 - 1023;
            f64::from(count) * 2f64.powi(exponent.max(T::LEAST) - T::FRACTION)
        }
        Bound::None => return nearest,
    };
    let mut moved = within::<T>(truth, allowed, draw(function, a, b, seed));
    if let Bound::Ulps(count) = bound {
        // Below a power of two places are half as far apart.
        moved = moved.clamp(nearest.saturating_sub(count), nearest.saturating_add(count));
    }
    // What .ftz is about to flush is not decided here: a result stays normal, or subnormal.
    let is_normal = |bits| T::widen(bits).abs() >= 2f64.powi(T::LEAST);
    if T::widen(moved).is_finite() && is_normal(moved) == is_normal(nearest) { moved } else { nearest }
}

/// The value nearest to `truth + part · allowed` that is no further than `allowed` from the truth.
fn within<T: Target>(truth: f64, allowed: f64, part: f64) -> u32 {
    let moved = T::narrow(truth + part * allowed);
    let error = T::widen(moved) - truth;
    if error.abs() <= allowed {
        return moved;
    }
    // One place back, towards the truth.
    let is_outward = error * T::widen(moved) > 0.0;
    let back = if is_outward { moved.wrapping_sub(1) } else { moved.wrapping_add(1) };
    if (T::widen(back) - truth).abs() <= allowed { back } else { T::narrow(truth) }
}

/// From -1 to 1, a third of all at the ends.
fn draw(function: Function, a: u32, b: u32, seed: u64) -> f64 {
    let key = Random::new(seed ^ (function as u64) << 56).draw() ^ (u64::from(a) << 32 | u64::from(b));
    (Random::new(key).draw() as i64 as f64 / 2f64.powi(63) * 1.5).clamp(-1.0, 1.0)
}
