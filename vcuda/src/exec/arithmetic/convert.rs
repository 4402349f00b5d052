//! `cvt`, PTX ISA 9.7.9.22: the common forms lane by lane, all others through one exact definition.

use super::float::{NAN32, NAN64};
use super::half::{Bf16, F16, Format};
use super::lane::lane;
use crate::exec::registers::{Compute, LANES, Operands, Registers};

lane!(WidenU32, (a: u32) -> u64 { a as u64 });
lane!(WidenS32, (a: u32) -> u64 { a as i32 as i64 as u64 });
lane!(Narrow, (a: u64) -> u32 { a as u32 });
lane!(U8, (a: u32) -> u32 { a & 0xff });
lane!(U16, (a: u32) -> u32 { a & 0xffff });
lane!(S8, (a: u32) -> u32 { a as i8 as i32 as u32 });
lane!(S16, (a: u32) -> u32 { a as i16 as i32 as u32 });
lane!(S32ToF32, (a: u32) -> u32 { (a as i32 as f32).to_bits() });
lane!(U32ToF32, (a: u32) -> u32 { (a as f32).to_bits() });
lane!(S32ToF64, (a: u32) -> u64 { f64::from(a as i32).to_bits() });
lane!(U32ToF64, (a: u32) -> u64 { f64::from(a).to_bits() });
lane!(F32ToF64, (a: u32) -> u64 {
    let x = f32::from_bits(a);
    if x.is_nan() { NAN64 } else { f64::from(x).to_bits() }
});
lane!(F64ToF32, (a: u64) -> u32 {
    let x = f64::from_bits(a);
    if x.is_nan() { NAN32 } else { (x as f32).to_bits() }
});
lane!(F32ToS32Rz, (a: u32) -> u32 { f32::from_bits(a) as i32 as u32 });
lane!(F32ToU32Rz, (a: u32) -> u32 { f32::from_bits(a) as u32 });
lane!(F64ToS32Rz, (a: u64) -> u32 {
    let x = f64::from_bits(a);
    if x.is_nan() { 1 << 31 } else { x as i32 as u32 }
});

lane!(RoundEven32, (a: u32) -> u32 { nan32(f32::from_bits(a).round_ties_even()) });
lane!(Floor32, (a: u32) -> u32 { nan32(f32::from_bits(a).floor()) });
lane!(Truncate32, (a: u32) -> u32 { nan32(f32::from_bits(a).trunc()) });
lane!(Ceiling32, (a: u32) -> u32 { nan32(f32::from_bits(a).ceil()) });
lane!(RoundEven64, (a: u64) -> u64 { nan64(f64::from_bits(a).round_ties_even()) });
lane!(Floor64, (a: u64) -> u64 { nan64(f64::from_bits(a).floor()) });
lane!(Truncate64, (a: u64) -> u64 { nan64(f64::from_bits(a).trunc()) });
lane!(Ceiling64, (a: u64) -> u64 { nan64(f64::from_bits(a).ceil()) });

#[inline(always)]
fn nan32(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[inline(always)]
fn nan64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

// The first source is the upper half.
lane!(PairF16, (a: u32, b: u32) -> u32 {
    F16::narrow(f32::from_bits(a)) << 16 | F16::narrow(f32::from_bits(b))
});
lane!(PairBf16, (a: u32, b: u32) -> u32 {
    Bf16::narrow(f32::from_bits(a)) << 16 | Bf16::narrow(f32::from_bits(b))
});
// A tf32 is a float32 whose last 13 bits are zero; ties go away from zero.
lane!(Tf32Away, (a: u32) -> u32 {
    if a & 0x7fff_ffff > 0x7f80_0000 { NAN32 } else { (a + 0x1000) & 0xffff_e000 }
});
lane!(PackBytes, (a: u32, b: u32) -> u32 { (b & 0xff) << 8 | a & 0xff });
lane!(SecondByte, (a: u32) -> u32 { a >> 8 & 0xff });
lane!(UpperHalf, (a: u32) -> u32 { a >> 16 });

/// `cvt.pack.sat`: `a` and `b` saturated to `imm & 255` bits, signed if `imm >> 8`; `b` in the lowest bits,
/// `a` above it, and the low bits of `c` above both.
pub struct PackSaturated;
impl Compute for PackSaturated {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let (bits, signed) = (op.imm as u32 & 255, op.imm >> 8 != 0);
        let (low, high) =
            if signed { (-(1i32 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
        // SAFETY: the decoder gave every operand a narrow slot.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let mut out = [0; LANES];
            for lane in 0..LANES {
                let field = |value: u32| (value as i32).clamp(low, high) as u32 & ((1 << bits) - 1);
                let above = c[lane].checked_shl(2 * bits).unwrap_or(0);
                out[lane] = above | field(a[lane]) << bits | field(b[lane]);
            }
            registers.set_lanes(op.d, out);
        }
    }
}

/// Roundings, as [`Convert`] has them in its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero (`.rna`).
    Away,
}

const ROUNDINGS: [Rounding; 5] =
    [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up, Rounding::Away];

/// A floating-point format of up to 64 bits: sign, exponent, fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Float {
    bits: u32,
    /// Significant bits, the hidden one included.
    precision: i32,
    /// Exponent of the smallest normal value.
    low: i32,
    largest: f64,
}

/// What `cvt` converts from and to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Integer { bits: u32, signed: bool },
    Float(Float),
}

const fn integer(bits: u32, signed: bool) -> Kind {
    Kind::Integer { bits, signed }
}

const fn float(bits: u32, precision: i32, low: i32, largest: f64) -> Kind {
    Kind::Float(Float { bits, precision, low, largest })
}

/// By their names in PTX. A tf32 is stored as a float32.
const KINDS: [(&str, Kind); 19] = [
    ("u8", integer(8, false)),
    ("u16", integer(16, false)),
    ("u32", integer(32, false)),
    ("u64", integer(64, false)),
    ("s8", integer(8, true)),
    ("s16", integer(16, true)),
    ("s32", integer(32, true)),
    ("s64", integer(64, true)),
    ("b8", integer(8, false)),
    ("b16", integer(16, false)),
    ("b32", integer(32, false)),
    ("b64", integer(64, false)),
    ("f16", float(16, 11, -14, 65_504.0)),
    ("bf16", float(16, 8, -126, 3.389_531_389_251_535_5e38)),
    ("tf32", float(32, 11, -126, 3.401_162_134_214_653e38)),
    ("f32", float(32, 24, -126, f32::MAX as f64)),
    ("f64", float(64, 53, -1022, f64::MAX)),
    // Its largest exponent has normal values too, and one NaN but no infinity.
    ("e4m3", float(8, 4, -6, 448.0)),
    ("e5m2", float(8, 3, -14, 57_344.0)),
];

/// A conversion other than those above.
#[derive(Clone, Copy, Debug)]
pub struct Conversion<'a> {
    pub to: &'a str,
    pub from: &'a str,
    pub rounding: Rounding,
    /// To an integral value, also where the result is a float.
    pub integral: bool,
    /// To what the type holds; a float to [0, 1].
    pub saturate: bool,
    /// Subnormal float32 values are zero.
    pub flush: bool,
    /// Negative values become zero.
    pub relu: bool,
    /// Values too large for the format become its largest.
    pub finite: bool,
}

impl Conversion<'_> {
    /// The operand `imm` of [`Convert`]; `None` for a type that is not known.
    pub fn code(&self) -> Option<i64> {
        let kind = |name| KINDS.iter().position(|(known, _)| *known == name).map(|i| i as i64);
        let flags = [self.integral, self.saturate, self.flush, self.relu, self.finite];
        let flags = flags.iter().rev().fold(0, |bits, &flag| bits << 1 | flag as i64);
        Some(kind(self.to)? | kind(self.from)? << 8 | (self.rounding as i64) << 16 | flags << 24)
    }
}

/// Any conversion; `imm` is its [`Conversion::code`].
pub struct Convert;
impl Compute for Convert {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let flag = |i: u32| op.imm >> (24 + i) & 1 != 0;
        let code = Code {
            to: KINDS[(op.imm & 0xff) as usize].1,
            from: KINDS[(op.imm >> 8 & 0xff) as usize].1,
            rounding: ROUNDINGS[(op.imm >> 16 & 0xff) as usize],
            integral: flag(0),
            saturate: flag(1),
            flush: flag(2),
            relu: flag(3),
            finite: flag(4),
        };
        // SAFETY: the decoder gave the operands slots as wide as `e` says: bit 0 a wide source, bit 1 a
        // wide destination.
        unsafe {
            let wide: [u64; LANES] = match op.e & 1 {
                0 => registers.wide_lanes(op.a),
                _ => registers.lanes(op.a),
            };
            let out = wide.map(|bits| code.convert(bits));
            match op.e & 2 {
                0 => registers.set_lanes(op.d, out.map(|bits| bits as u32)),
                _ => registers.set_lanes(op.d, out),
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Code {
    to: Kind,
    from: Kind,
    rounding: Rounding,
    integral: bool,
    saturate: bool,
    flush: bool,
    relu: bool,
    finite: bool,
}

/// A value on its way: integers exactly, floats exactly in float64.
#[derive(Clone, Copy)]
enum Value {
    Integer(i128),
    Float(f64),
}

impl Code {
    fn convert(self, bits: u64) -> u64 {
        let value = match self.from {
            Kind::Integer { bits: size, signed } => {
                let (up, bits) = (64 - size, bits << (64 - size));
                Value::Integer(if signed { i128::from(bits as i64 >> up) } else { i128::from(bits >> up) })
            }
            Kind::Float(format) => {
                let x = format.decode(bits);
                let subnormal = format.bits == 32 && x.abs() < f64::from(f32::MIN_POSITIVE);
                Value::Float(if self.flush && subnormal { 0f64.copysign(x) } else { x })
            }
        };
        match (self.to, value) {
            (Kind::Integer { bits, signed }, Value::Integer(value)) => self.to_integer(value, bits, signed),
            (Kind::Integer { bits, signed }, Value::Float(x)) => self.round_to_integer(x, bits, signed),
            (Kind::Float(format), value) => self.to_float(value, &format),
        }
    }

    fn to_integer(self, value: i128, bits: u32, signed: bool) -> u64 {
        let (low, high) = bounds(bits, signed);
        let value = if self.saturate { value.clamp(low, high) } else { value };
        // A narrow result fills its register by its own sign.
        let up = 64 - bits;
        let top = (value as u64) << up;
        if signed { (top as i64 >> up) as u64 } else { top >> up }
    }

    fn round_to_integer(self, x: f64, bits: u32, signed: bool) -> u64 {
        if x.is_nan() {
            // The top bit where 64 bits take part, else zero.
            let wide = bits == 64 || matches!(self.from, Kind::Float(Float { bits: 64, .. }));
            return if wide { self.to_integer(1 << (bits - 1), bits, signed) } else { 0 };
        }
        let (low, high) = bounds(bits, signed);
        self.to_integer((integral(x, self.rounding) as i128).clamp(low, high), bits, signed)
    }

    fn to_float(self, value: Value, format: &Float) -> u64 {
        let value = match value {
            Value::Float(x) if self.integral => Value::Float(integral(x, self.rounding)),
            value => value,
        };
        let value = match value {
            Value::Float(x) if self.saturate => Value::Float(if x > 0.0 { x.min(1.0) } else { 0.0 }),
            Value::Float(x) if self.relu && x <= 0.0 => Value::Float(0.0),
            value => value,
        };
        let x = round(value, format, self.rounding);
        let x = if self.finite && x.is_infinite() { format.largest.copysign(x) } else { x };
        let subnormal = format.bits == 32 && x.abs() < f64::from(f32::MIN_POSITIVE);
        format.encode(if self.flush && subnormal { 0f64.copysign(x) } else { x })
    }
}

/// The smallest and the largest integer.
fn bounds(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

impl Float {
    /// The value of bits.
    fn decode(&self, bits: u64) -> f64 {
        match self.bits {
            64 => return f64::from_bits(bits),
            32 => return f64::from(f32::from_bits(bits as u32)),
            _ => {}
        }
        let fraction_bits = self.precision - 1;
        let magnitude = bits & ((1 << (self.bits - 1)) - 1);
        let (exponent, fraction) = (magnitude >> fraction_bits, magnitude & ((1 << fraction_bits) - 1));
        let unit = exp2(self.low - fraction_bits);
        let value = match exponent {
            0 => fraction as f64 * unit,
            _ => (fraction | 1 << fraction_bits) as f64 * unit * exp2(exponent as i32 - 1),
        };
        // Infinity comes next after the largest value, where there is one.
        let value = match () {
            () if value <= self.largest => value,
            () if fraction == 0 => f64::INFINITY,
            () => f64::NAN,
        };
        if bits >> (self.bits - 1) & 1 != 0 { -value } else { value }
    }

    /// The bits of a value that the format has, or of an infinity or NaN.
    fn encode(&self, x: f64) -> u64 {
        match self.bits {
            64 => return if x.is_nan() { NAN64 } else { x.to_bits() },
            32 => return if x.is_nan() { NAN32.into() } else { (x as f32).to_bits().into() },
            _ => {}
        }
        let sign = u64::from(x.is_sign_negative()) << (self.bits - 1);
        let fraction_bits = self.precision - 1;
        match () {
            () if x.is_nan() => (1 << (self.bits - 1)) - 1,
            () if x.is_infinite() => sign | (self.encode(self.largest) + 1),
            () => {
                let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(self.low);
                let units = (x.abs() * exp2(fraction_bits - exponent)) as u64;
                // The hidden bit makes the 1 that exponents of normal values start at.
                sign | ((((exponent - self.low) as u64) << fraction_bits) + units)
            }
        }
    }
}

/// `2^exponent`, in float64's range of normal values.
fn exp2(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

fn integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
        Rounding::Away => x.round(),
    }
}

/// The value in a format, as a float64, which holds all the narrower formats exactly.
fn round(value: Value, format: &Float, rounding: Rounding) -> f64 {
    match value {
        Value::Integer(0) => 0.0,
        Value::Integer(x) => format.round(x < 0, x.unsigned_abs(), 0, rounding),
        Value::Float(x) if x == 0.0 || !x.is_finite() => x,
        Value::Float(x) => {
            let bits = x.to_bits();
            let (biased, fraction) = ((bits >> 52 & 0x7ff) as i32, (bits & ((1 << 52) - 1)) as u128);
            let implicit = if biased == 0 { 0 } else { 1 << 52 };
            format.round(x < 0.0, fraction | implicit, biased.max(1) - 1075, rounding)
        }
    }
}

/// `magnitude · 2^exponent`, of at most 64 bits, rounded to a float64.
pub fn round_float64(negative: bool, magnitude: u128, exponent: i32, rounding: Rounding) -> f64 {
    const FLOAT64: Float = Float { bits: 64, precision: 53, low: -1022, largest: f64::MAX };
    FLOAT64.round(negative, magnitude, exponent, rounding)
}

impl Float {
    /// `magnitude · 2^exponent`, of at most 64 bits, in this format.
    fn round(&self, negative: bool, mut magnitude: u128, mut exponent: i32, rounding: Rounding) -> f64 {
        // Drop bits below the format's last place: of the number, or of the smallest subnormal.
        let top = 127 - magnitude.leading_zeros() as i32 + exponent;
        let last = top.max(self.low) - self.precision + 1;
        if last > exponent {
            let drop = (last - exponent).min(120) as u32;
            let (kept, rest, half) = (magnitude >> drop, magnitude & ((1 << drop) - 1), 1u128 << (drop - 1));
            let up = match rounding {
                Rounding::Nearest => rest > half || rest == half && kept & 1 == 1,
                Rounding::Away => rest >= half,
                Rounding::Zero => false,
                Rounding::Down => negative && rest > 0,
                Rounding::Up => !negative && rest > 0,
            };
            magnitude = kept + up as u128;
            exponent = last;
        }
        let sign = if negative { -1.0 } else { 1.0 };
        if magnitude == 0 {
            return 0.0f64.copysign(sign);
        }
        // Two exact steps, so that a subnormal double is reached without rounding.
        let half_exponent = exponent / 2;
        let x = (magnitude as f64 * 2f64.powi(half_exponent)) * 2f64.powi(exponent - half_exponent);
        let to_infinity = match rounding {
            Rounding::Nearest | Rounding::Away => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        match () {
            () if x <= self.largest => sign * x,
            () if to_infinity => sign * f64::INFINITY,
            () => sign * self.largest,
        }
    }
}
