//! `cvt`, PTX ISA 9.7.9.22: the common forms lane by lane, all others through one exact definition.

use half::{bf16, f16};

use super::float::{NAN32, NAN64};
use super::op::{Body, Flow, LANES, Op, Warp};
use crate::lane;
use crate::ptx::ast::Type;

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
lane!(RoundEven64, (a: u64) -> u64 { nan64(f64::from_bits(a).round_ties_even()) });
lane!(Floor64, (a: u64) -> u64 { nan64(f64::from_bits(a).floor()) });

#[inline(always)]
fn nan32(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[inline(always)]
fn nan64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
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

/// Any conversion; `imm` packs its types and modifiers, see [`encode`].
pub struct Convert;

/// `Convert`'s code: destination type, source type, rounding, to an integral value, saturate, flush,
/// negative to zero.
pub fn encode(
    to: Type,
    from: Type,
    rounding: Rounding,
    integral: bool,
    saturate: bool,
    flush: bool,
    relu: bool,
) -> i64 {
    let flags = integral as i64 | (saturate as i64) << 1 | (flush as i64) << 2 | (relu as i64) << 3;
    to as i64 | (from as i64) << 8 | (rounding as i64) << 16 | flags << 24
}

impl Body for Convert {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let code = Code {
            to: TYPES[(op.imm & 0xff) as usize],
            from: TYPES[(op.imm >> 8 & 0xff) as usize],
            rounding: ROUNDINGS[(op.imm >> 16 & 0xff) as usize],
            integral: op.imm >> 24 & 1 != 0,
            saturate: op.imm >> 25 & 1 != 0,
            flush: op.imm >> 26 & 1 != 0,
            relu: op.imm >> 27 & 1 != 0,
        };
        // SAFETY: the decoder gave the operands slots as wide as `e` says: bit 0 a wide source, bit 1 a
        // wide destination.
        unsafe {
            let wide: [u64; LANES] = match op.e & 1 {
                0 => warp.lanes::<u32>(op.a).map(u64::from),
                _ => warp.lanes(op.a),
            };
            let out = wide.map(|bits| code.convert(bits));
            match op.e & 2 {
                0 => warp.set_lanes(op.d, out.map(|bits| bits as u32)),
                _ => warp.set_lanes(op.d, out),
            }
        }
        Flow::Next
    }
}

#[derive(Clone, Copy)]
struct Code {
    to: Type,
    from: Type,
    rounding: Rounding,
    integral: bool,
    saturate: bool,
    flush: bool,
    relu: bool,
}

/// `Type`s and `Rounding`s in the order of their discriminants.
const TYPES: [Type; 20] = [
    Type::Pred,
    Type::B8,
    Type::B16,
    Type::B32,
    Type::B64,
    Type::B128,
    Type::U8,
    Type::U16,
    Type::U32,
    Type::U64,
    Type::S8,
    Type::S16,
    Type::S32,
    Type::S64,
    Type::F16,
    Type::F16x2,
    Type::Bf16,
    Type::Bf16x2,
    Type::F32,
    Type::F64,
];
const ROUNDINGS: [Rounding; 5] =
    [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up, Rounding::Away];

/// A value on its way: integers exactly, floats exactly in float64.
#[derive(Clone, Copy)]
enum Value {
    Integer(i128),
    Float(f64),
}

/// Whether a type is a float.
pub fn is_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

fn is_signed(ty: Type) -> bool {
    matches!(ty, Type::S8 | Type::S16 | Type::S32 | Type::S64)
}

impl Code {
    fn convert(self, bits: u64) -> u64 {
        match (self.read(bits), is_float(self.to)) {
            (Value::Integer(value), false) => self.to_integer(value),
            (Value::Integer(value), true) => self.to_float(Value::Integer(value)),
            (Value::Float(value), false) => self.float_to_integer(value),
            (Value::Float(value), true) => self.to_float(Value::Float(value)),
        }
    }

    fn read(self, bits: u64) -> Value {
        match self.from {
            Type::U8 | Type::B8 => Value::Integer(bits as u8 as i128),
            Type::U16 | Type::B16 => Value::Integer(bits as u16 as i128),
            Type::U32 | Type::B32 => Value::Integer(bits as u32 as i128),
            Type::S8 => Value::Integer(bits as i8 as i128),
            Type::S16 => Value::Integer(bits as i16 as i128),
            Type::S32 => Value::Integer(bits as i32 as i128),
            Type::S64 => Value::Integer(bits as i64 as i128),
            Type::F16 => Value::Float(f16::from_bits(bits as u16).to_f64()),
            Type::Bf16 => Value::Float(bf16::from_bits(bits as u16).to_f64()),
            Type::F32 => {
                let x = f32::from_bits(bits as u32);
                Value::Float(if self.flush && x.is_subnormal() {
                    f64::from(0f32.copysign(x))
                } else {
                    f64::from(x)
                })
            }
            Type::F64 => Value::Float(f64::from_bits(bits)),
            _ => Value::Integer(bits as i128),
        }
    }

    fn bounds(self) -> (i128, i128) {
        let bits = 8 * self.to.size_bytes() as u32;
        if is_signed(self.to) {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else {
            (0, (1i128 << bits) - 1)
        }
    }

    fn to_integer(self, value: i128) -> u64 {
        let (low, high) = self.bounds();
        let value = if self.saturate { value.clamp(low, high) } else { value };
        // A narrow result fills its register by its own sign.
        match self.to {
            Type::U8 | Type::B8 => value as u8 as u64,
            Type::U16 | Type::B16 => value as u16 as u64,
            Type::U32 | Type::B32 => value as u32 as u64,
            Type::S8 => value as i8 as i64 as u64,
            Type::S16 => value as i16 as i64 as u64,
            Type::S32 => value as i32 as i64 as u64,
            _ => value as u64,
        }
    }

    fn float_to_integer(self, value: f64) -> u64 {
        if value.is_nan() {
            // The top bit where 64 bits take part, else zero.
            let bits = 8 * self.to.size_bytes();
            return if self.from == Type::F64 || bits == 64 { self.to_integer(1 << (bits - 1)) } else { 0 };
        }
        let (low, high) = self.bounds();
        let whole = integral(value, self.rounding);
        self.to_integer((whole as i128).clamp(low, high))
    }

    fn to_float(self, value: Value) -> u64 {
        let value = match value {
            Value::Float(value) if self.integral => Value::Float(integral(value, self.rounding)),
            value => value,
        };
        let value = match value {
            Value::Float(x) if self.saturate => Value::Float(if x > 0.0 { x.min(1.0) } else { 0.0 }),
            Value::Float(x) if self.relu && x <= 0.0 => Value::Float(0.0),
            value => value,
        };
        match self.to {
            Type::F64 => match round(value, 53, 1023, self.rounding) {
                x if x.is_nan() => NAN64,
                x => x.to_bits(),
            },
            Type::F32 => {
                let x = round(value, 24, 127, self.rounding) as f32;
                let x = if self.flush && x.is_subnormal() { 0f32.copysign(x) } else { x };
                if x.is_nan() { NAN32.into() } else { x.to_bits().into() }
            }
            Type::F16 => match round(value, 11, 15, self.rounding) {
                x if x.is_nan() => 0x7fff,
                x => f16::from_f64(x).to_bits().into(),
            },
            _ => match round(value, 8, 127, self.rounding) {
                x if x.is_nan() => 0x7fff,
                x => bf16::from_f64(x).to_bits().into(),
            },
        }
    }
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

/// The value with `precision` significant bits and exponents up to `max_exponent`, in float64, which
/// holds all the narrower formats exactly.
fn round(value: Value, precision: i32, max_exponent: i32, rounding: Rounding) -> f64 {
    let (negative, mut magnitude, mut exponent) = match value {
        Value::Integer(0) => return 0.0,
        Value::Integer(x) => (x < 0, x.unsigned_abs(), 0),
        Value::Float(x) if x == 0.0 || !x.is_finite() => return x,
        Value::Float(x) => {
            let bits = x.to_bits();
            let (biased, fraction) = ((bits >> 52 & 0x7ff) as i32, (bits & ((1 << 52) - 1)) as u128);
            let implicit = if biased == 0 { 0 } else { 1 << 52 };
            (x < 0.0, fraction | implicit, biased.max(1) - 1075)
        }
    };
    // Drop bits below the format's last place: of the number, or of the smallest subnormal.
    let top = 127 - magnitude.leading_zeros() as i32 + exponent;
    let last = (top - precision + 1).max(2 - max_exponent - precision);
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
    let top = 127 - magnitude.leading_zeros() as i32 + exponent;
    if top > max_exponent {
        let largest = (2.0 - 2f64.powi(1 - precision)) * 2f64.powi(max_exponent);
        let to_infinity = match rounding {
            Rounding::Nearest | Rounding::Away => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        return sign * if to_infinity { f64::INFINITY } else { largest };
    }
    // Two exact steps, so that a subnormal double is reached without rounding.
    let half_exponent = exponent / 2;
    sign * (magnitude as f64 * 2f64.powi(half_exponent)) * 2f64.powi(exponent - half_exponent)
}
