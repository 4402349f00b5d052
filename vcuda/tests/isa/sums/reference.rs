//! The studies' algorithm on a fixed-point number of 640 bits, which holds every product and sum exactly, from the operands'
//! own bits.

use crate::device::TensorCore;
use crate::mma::{F16, Kind, TF32};

/// Bits below the point, and words of a number.
const POINT: i32 = 320;
const WORDS: usize = 10;

/// Two's complement, lowest word first.
#[derive(Clone, Copy, PartialEq)]
struct Fixed([u64; WORDS]);

impl Fixed {
    fn zero() -> Fixed {
        Fixed([0; WORDS])
    }

    /// `magnitude · 2^exponent`, of which bits below `2^lowest` are dropped.
    fn cut(magnitude: u64, exponent: i32, lowest: i32) -> Fixed {
        let mut out = Fixed::zero();
        for bit in 0..64 {
            let place = exponent + bit;
            if magnitude >> bit & 1 != 0 && place >= lowest {
                let at = (place + POINT) as usize;
                out.0[at / 64] |= 1 << (at % 64);
            }
        }
        out
    }

    fn plus(self, other: Fixed) -> Fixed {
        let mut carry = 0;
        Fixed(std::array::from_fn(|i| {
            let sum = u128::from(self.0[i]) + u128::from(other.0[i]) + carry;
            carry = sum >> 64;
            sum as u64
        }))
    }

    fn negated(self) -> Fixed {
        Fixed(self.0.map(|word| !word)).plus(Fixed::cut(1, -POINT, -POINT))
    }

    fn is_negative(self) -> bool {
        self.0[WORDS - 1] >> 63 != 0
    }

    fn bit(self, place: i32) -> bool {
        let at = place + POINT;
        at >= 0 && self.0[at as usize / 64] >> (at % 64) & 1 != 0
    }

    /// The place of the highest bit of a positive number.
    fn top(self) -> i32 {
        (0..64 * WORDS as i32).map(|at| at - POINT).rfind(|&place| self.bit(place)).expect("not zero")
    }

    fn any_below(self, place: i32) -> bool {
        (-POINT..place).any(|at| self.bit(at))
    }
}

/// A floating-point value as its format has it: sign, significand with its hidden bit, the exponent of its last bit and the
/// one in its exponent field.
#[derive(Clone, Copy)]
struct Parts {
    negative: bool,
    significand: u64,
    last: i32,
    exponent: i32,
    infinite: bool,
    nan: bool,
}

fn parts(kind: Kind, bits: u64) -> Parts {
    let Kind::Float { bits: width, exponent: e, mantissa: m } = kind else { unreachable!() };
    let (field, fraction) =
        (bits >> (width - 1 - e) & ((1 << e) - 1), bits >> (width - 1 - e - m) & ((1 << m) - 1));
    let (bias, full) = ((1 << (e - 1)) - 1, (1 << e) - 1);
    let exponent = (field as i32).max(1) - bias;
    Parts {
        negative: bits >> (width - 1) & 1 != 0,
        significand: if field == 0 { fraction } else { fraction | 1 << m },
        last: exponent - m as i32,
        exponent,
        infinite: field == full && fraction == 0,
        nan: field == full && fraction != 0,
    }
}

/// What the studies say of an instruction: elements of a step, fractional bits that terms keep, the exponent of zeros.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub step: usize,
    pub fraction: i32,
    pub zero: i32,
}

/// Of `mma.sync` and `wmma`.
pub fn unit(core: TensorCore, factor: Kind, sum: Kind) -> Unit {
    let is_tf32 = factor == TF32;
    match core {
        TensorCore::A100 => Unit {
            step: if is_tf32 { 4 } else { 8 },
            fraction: 24,
            zero: if sum == F16 { -21 } else { -132 },
        },
        TensorCore::H100 => Unit {
            step: if is_tf32 { 8 } else { 16 },
            fraction: 25,
            zero: if sum == F16 { -22 } else { -133 },
        },
    }
}

/// `c` and the products, as a unit adds them.
pub fn reference(unit: Unit, (factor, sum): (Kind, Kind), a: &[u64], b: &[u64], c: u64) -> u64 {
    (a.chunks(unit.step).zip(b.chunks(unit.step))).fold(c, |c, (a, b)| step(unit, (factor, sum), a, b, c))
}

fn step(unit: Unit, (factor, sum): (Kind, Kind), a: &[u64], b: &[u64], c: u64) -> u64 {
    let Kind::Float { bits: width, exponent: field, mantissa } = sum else { unreachable!() };
    let infinity = |negative: bool| (negative as u64) << (width - 1) | ((1 << field) - 1) << mantissa;
    let nan = (1 << (width - 1)) - 1;
    let mut terms = vec![parts(sum, c)];
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (parts(factor, a), parts(factor, b));
        let infinite = a.infinite || b.infinite;
        let zero = a.significand == 0 || b.significand == 0;
        terms.push(Parts {
            negative: a.negative != b.negative,
            significand: a.significand * b.significand,
            last: a.last + b.last,
            exponent: a.exponent + b.exponent,
            infinite: infinite && !a.nan && !b.nan && !zero,
            nan: a.nan || b.nan || infinite && zero,
        });
    }
    let signs: Vec<bool> = terms.iter().filter(|term| term.infinite).map(|term| term.negative).collect();
    match &signs[..] {
        _ if terms.iter().any(|term| term.nan) => return nan,
        [] => {}
        [first, rest @ ..] => {
            return if rest.iter().all(|sign| sign == first) { infinity(*first) } else { nan };
        }
    }
    let exponents = terms.iter().map(|term| if term.significand == 0 { unit.zero } else { term.exponent });
    let lowest = exponents.max().unwrap() - unit.fraction;
    let mut total = Fixed::zero();
    for term in &terms {
        let cut = Fixed::cut(term.significand, term.last, lowest);
        total = total.plus(if term.negative { cut.negated() } else { cut });
    }
    if total == Fixed::zero() {
        return (terms.iter().all(|term| term.negative) as u64) << (width - 1);
    }
    let negative = total.is_negative();
    let magnitude = if negative { total.negated() } else { total };
    let bias = (1 << (field - 1)) - 1;
    let exponent = magnitude.top().max(1 - bias);
    let last = exponent - mantissa as i32;
    let mut code = (0..=mantissa as i32).fold(0, |code, i| code | (magnitude.bit(last + i) as u64) << i);
    if sum == F16 {
        let (half, below) = (magnitude.bit(last - 1), magnitude.any_below(last - 1));
        code += (half && (below || code & 1 != 0)) as u64;
    }
    // The hidden bit, or a carry past it, counts up the exponent.
    code += ((exponent + bias - 1) as u64) << mantissa;
    (negative as u64) << (width - 1) | code.min(infinity(false))
}
