//! float64 arithmetic in the directed roundings, PTX ISA 9.7.3, exactly: on integers of 128 bits whose last
//! bit says that something beyond it is not zero.

use super::convert::{Rounding, round_float64};
use super::float::NAN64;
use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// A finite value that is not zero: `magnitude · 2^exponent`.
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    magnitude: u128,
    exponent: i32,
}

impl Number {
    fn new(x: f64) -> Number {
        let (bits, biased) = (x.to_bits(), (x.to_bits() >> 52 & 0x7ff) as i32);
        let hidden = if biased == 0 { 0 } else { 1 << 52 };
        let magnitude = (bits & ((1 << 52) - 1) | hidden) as u128;
        Number { negative: x < 0.0, magnitude, exponent: biased.max(1) - 1075 }
    }

    /// One more than the exponent of the highest bit.
    fn top(&self) -> i32 {
        128 - self.magnitude.leading_zeros() as i32 + self.exponent
    }

    /// The same value with its highest bit at `bit`, if that is further up.
    fn shifted_to(self, bit: u32) -> Number {
        let up = (self.magnitude.leading_zeros() + bit).saturating_sub(127);
        Number { magnitude: self.magnitude << up, exponent: self.exponent - up as i32, ..self }
    }

    /// Bits below `exponent` go into the last one that is left.
    fn cut_at(self, exponent: i32) -> Number {
        let down = (exponent - self.exponent).clamp(0, 127) as u32;
        let lost = self.magnitude & ((1 << down) - 1) != 0;
        let magnitude = self.magnitude >> down | lost as u128;
        Number { magnitude, exponent: self.exponent + down as i32, ..self }
    }

    fn round(self, rounding: Rounding) -> f64 {
        // 62 bits are more than enough for a result of 53 and the last one.
        let Number { negative, magnitude, exponent } = self.cut_at(self.top() - 62);
        round_float64(negative, magnitude, exponent, rounding)
    }
}

fn sum(a: Number, b: Number, rounding: Rounding) -> f64 {
    let (big, small) = if a.top() >= b.top() { (a, b) } else { (b, a) };
    // As much room below as there is, and both to one exponent.
    let big = big.shifted_to(125);
    let small = small.cut_at(big.exponent);
    let small = small.magnitude << (small.exponent - big.exponent).max(0);
    // Of two with the same highest bit either may be larger; then nothing was cut off.
    let (magnitude, turned) = match a.negative == b.negative {
        true => (big.magnitude + small, false),
        false => (big.magnitude.abs_diff(small), big.magnitude < small),
    };
    match magnitude {
        // An exact zero of unlike terms is -0 only when rounding down.
        0 if rounding == Rounding::Down => -0.0,
        0 => 0.0,
        _ => Number { negative: big.negative != turned, magnitude, ..big }.round(rounding),
    }
}

fn product(a: f64, b: f64) -> Number {
    let (a, b) = (Number::new(a), Number::new(b));
    Number {
        negative: a.negative != b.negative,
        magnitude: a.magnitude * b.magnitude,
        exponent: a.exponent + b.exponent,
    }
}

fn multiply(a: f64, b: f64, rounding: Rounding) -> f64 {
    let near = a * b;
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        near
    } else {
        product(a, b).round(rounding)
    }
}

fn fused(a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
    if !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return a.mul_add(b, c);
    }
    match (a == 0.0 || b == 0.0, c == 0.0) {
        (false, false) => sum(product(a, b), Number::new(c), rounding),
        (false, true) => product(a, b).round(rounding),
        (true, false) => c,
        // Zeros of unlike signs.
        (true, true) if rounding == Rounding::Down && (a * b).is_sign_negative() != c.is_sign_negative() => {
            -0.0
        }
        (true, true) => a * b + c,
    }
}

fn divide(a: f64, b: f64, rounding: Rounding) -> f64 {
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return a / b;
    }
    let (a, b) = (Number::new(a).shifted_to(127), Number::new(b).shifted_to(63));
    let (quotient, rest) = (a.magnitude / b.magnitude, a.magnitude % b.magnitude);
    let (negative, magnitude) = (a.negative != b.negative, quotient << 1 | (rest != 0) as u128);
    Number { negative, magnitude, exponent: a.exponent - b.exponent - 1 }.round(rounding)
}

fn square_root(a: f64, rounding: Rounding) -> f64 {
    if !(a > 0.0 && a.is_finite()) {
        return a.sqrt();
    }
    // An even exponent, which halves.
    let a = Number::new(a).shifted_to(126);
    let (magnitude, exponent) = (a.magnitude << (a.exponent & 1), a.exponent - (a.exponent & 1));
    let root = magnitude.isqrt();
    let last = (root * root != magnitude) as u128;
    Number { negative: false, magnitude: root << 1 | last, exponent: exponent / 2 - 1 }.round(rounding)
}

/// `d = a op b (op c)` rounded as `imm & 3` says: 1 toward zero, 2 down, 3 up; `imm >> 2`: 0 add, 1 sub, 2 mul,
/// 3 fma, 4 div, 5 sqrt, 6 rcp.
pub struct Directed64;
impl Compute for Directed64 {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let rounding = match op.imm & 3 {
            1 => Rounding::Zero,
            2 => Rounding::Down,
            _ => Rounding::Up,
        };
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let (a, b, c): ([u64; LANES], [u64; LANES], [u64; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let mut out = [0; LANES];
            for lane in 0..LANES {
                let [a, b, c] = [a[lane], b[lane], c[lane]].map(f64::from_bits);
                let value = match op.imm >> 2 {
                    0 => fused(a, 1.0, b, rounding),
                    1 => fused(a, 1.0, -b, rounding),
                    2 => multiply(a, b, rounding),
                    3 => fused(a, b, c, rounding),
                    4 => divide(a, b, rounding),
                    5 => square_root(a, rounding),
                    _ => divide(1.0, a, rounding),
                };
                out[lane] = if value.is_nan() { NAN64 } else { value.to_bits() };
            }
            registers.set_lanes(op.d, out);
        }
    }
}
