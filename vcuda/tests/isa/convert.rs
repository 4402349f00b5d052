//! `cvt` among integers and floats in every rounding and saturation, and packing moves, PTX ISA 9.7.9.

use crate::lanes::{Lane, Table};
use crate::rounding::{BF16, F16, F32, Format, MODES, Mode, flush, odd, to_integer};

/// Integers as 128-bit values, to convert among.
trait Integer: Lane {
    const LOW: i128;
    const HIGH: i128;
    fn wide(self) -> i128;
    /// The low bits of `value`.
    fn wrap(value: i128) -> Self;
}

macro_rules! integers {
    ($($ty:ty)*) => {$(
        impl Integer for $ty {
            const LOW: i128 = <$ty>::MIN as i128;
            const HIGH: i128 = <$ty>::MAX as i128;
            fn wide(self) -> i128 {
                self as i128
            }
            fn wrap(value: i128) -> Self {
                value as $ty
            }
        }
    )*};
}

integers!(u8 i8 u16 i16 u32 i32 u64 i64);

/// `to` from each integer type, wrapping and saturating.
macro_rules! integer_conversions {
    ($table:ident: $($to:ty)*) => {$(
        integer_conversions!($table, $to: u8 i8 u16 i16 u32 i32 u64 i64);
    )*};
    ($table:ident, $to:ty: $($from:ty)*) => {$(
        let (to, from) = (<$to>::TYPE, <$from>::TYPE);
        $table.unary(&format!("cvt.{to}.{from} d, a;"), |a: $from| <$to>::wrap(a.wide()));
        // Saturation is for conversions that can lose something, and refused elsewhere.
        if <$from>::LOW < <$to>::LOW || <$from>::HIGH > <$to>::HIGH {
            let saturated = |a: $from| <$to>::wrap(a.wide().clamp(<$to>::LOW, <$to>::HIGH));
            $table.unary(&format!("cvt.sat.{to}.{from} d, a;"), saturated);
        }
    )*};
}

#[test]
fn integers_to_integers() {
    let mut t = Table::default();
    integer_conversions!(t: u8 i8 u16 i16 u32 i32 u64 i64);
}

/// A float in the given rounding, from an integer of up to 64 bits.
fn float_from(value: i128, mode: Mode, format: Option<&Format>) -> f64 {
    // Split so that both halves are exact, then their sum with its error.
    let (high, low) = ((value >> 32 << 32) as f64, (value & 0xffff_ffff) as f64);
    let (sum, error) = crate::rounding::two_sum(high, low);
    match format {
        Some(format) => format.round(odd(sum, error), mode),
        None => match mode {
            Mode::Down if error < 0.0 => sum.next_down(),
            Mode::Up if error > 0.0 => sum.next_up(),
            Mode::Zero if error < 0.0 && sum > 0.0 => sum.next_down(),
            Mode::Zero if error > 0.0 && sum < 0.0 => sum.next_up(),
            _ => sum,
        },
    }
}

macro_rules! from_integers {
    ($table:ident: $($from:ty)*) => {$(
        for (mode, name, _) in MODES {
            let from = <$from>::TYPE;
            $table.unary(&format!("cvt.{name}.f32.{from} d, a;"), |a: $from| {
                float_from(a.wide(), mode, Some(&F32)) as f32
            });
            $table.unary(&format!("cvt.{name}.f64.{from} d, a;"), |a: $from| float_from(a.wide(), mode, None));
        }
        $table.unary(&format!("cvt.rn.f16.{} d, a;", <$from>::TYPE), |a: $from| {
            F16.encode(float_from(a.wide(), Mode::Nearest, Some(&F16)), 16) as u16
        });
    )*};
}

#[test]
fn integers_to_floats() {
    let mut t = Table::default();
    from_integers!(t: u8 i8 u16 i16 u32 i32 u64 i64);
}

/// Values clamp to the type; a NaN gives 0 between 32-bit types and the top bit where 64-bit ones take part.
fn integer_from<T: Integer>(value: f64, mode: Mode, source_is_wide: bool) -> T {
    if value.is_nan() {
        let top = 1i128 << (8 * T::BYTES - 1);
        return T::wrap(if source_is_wide || T::BYTES == 8 { top } else { 0 });
    }
    // Rust's conversion saturates; all 64-bit values fit 128 bits.
    T::wrap((to_integer(value, mode) as i128).clamp(T::LOW, T::HIGH))
}

macro_rules! to_integers {
    ($table:ident: $($to:ty)*) => {$(
        for (mode, _, name) in MODES {
            let to = <$to>::TYPE;
            $table.unary(&format!("cvt.{name}.{to}.f32 d, a;"), |a: f32| {
                integer_from::<$to>(a as f64, mode, false)
            });
            $table.unary(&format!("cvt.{name}.ftz.{to}.f32 d, a;"), |a: f32| {
                integer_from::<$to>(flush(a) as f64, mode, false)
            });
            $table.unary(&format!("cvt.{name}.{to}.f64 d, a;"), |a: f64| integer_from::<$to>(a, mode, true));
        }
    )*};
}

#[test]
fn floats_to_integers() {
    let mut t = Table::default();
    to_integers!(t: u32 i32 u64 i64);
    // Narrower ones, which the ISA also clamps; their NaN is zero.
    for (mode, _, name) in MODES {
        t.unary(&format!("cvt.{name}.u16.f32 d, a;"), |a: f32| integer_from::<u16>(a as f64, mode, false));
        t.unary(&format!("cvt.{name}.s16.f32 d, a;"), |a: f32| integer_from::<i16>(a as f64, mode, false));
        t.unary(&format!("cvt.{name}.u8.f32 d, a;"), |a: f32| integer_from::<u8>(a as f64, mode, false));
        t.unary(&format!("cvt.{name}.s8.f32 d, a;"), |a: f32| integer_from::<i8>(a as f64, mode, false));
    }
}

#[test]
fn floats_to_floats() {
    let mut t = Table::default();
    t.unary("cvt.f64.f32 d, a;", |a: f32| a as f64);
    t.unary("cvt.ftz.f64.f32 d, a;", |a: f32| flush(a) as f64);
    t.unary("cvt.sat.f32.f32 d, a;", |a: f32| if a > 0.0 { a.min(1.0) } else { 0.0 });
    t.unary("cvt.ftz.f32.f32 d, a;", flush);
    for (mode, name, integer) in MODES {
        t.unary(&format!("cvt.{name}.f32.f64 d, a;"), |a: f64| F32.round(a, mode) as f32);
        t.unary(&format!("cvt.{name}.ftz.f32.f64 d, a;"), |a: f64| flush(F32.round(a, mode) as f32));
        t.unary(&format!("cvt.{integer}.f32.f32 d, a;"), |a: f32| to_integer(a as f64, mode) as f32);
        t.unary(&format!("cvt.{integer}.ftz.f32.f32 d, a;"), |a: f32| {
            to_integer(flush(a) as f64, mode) as f32
        });
        t.unary(&format!("cvt.{integer}.f64.f64 d, a;"), |a: f64| to_integer(a, mode));
    }
    t.unary("cvt.rn.sat.f32.f64 d, a;", |a: f64| if a > 0.0 { (a as f32).min(1.0) } else { 0.0 });
}

/// The value of float16 or bfloat16 bits.
fn decode(bits: u16, format: &Format) -> f64 {
    let fraction_bits = format.precision - 1;
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = ((bits & 0x7fff) >> fraction_bits, bits & ((1 << fraction_bits) - 1));
    let unit = (format.low as f64 - fraction_bits as f64).exp2();
    match exponent as i32 {
        0 => sign * fraction as f64 * unit,
        e if e == 2 * format.high + 1 => {
            if fraction == 0 {
                sign * f64::INFINITY
            } else {
                f64::NAN
            }
        }
        e => sign * (fraction + (1 << fraction_bits)) as f64 * unit * ((e - 1) as f64).exp2(),
    }
}

#[test]
fn half_precision() {
    let mut t = Table::default();
    let half = |a: f64, mode| F16.encode(F16.round(a, mode), 16) as u16;
    t.unary("cvt.rn.f16.f32 d, a;", |a: f32| half(a as f64, Mode::Nearest));
    t.unary("cvt.rz.f16.f32 d, a;", |a: f32| half(a as f64, Mode::Zero));
    t.unary("cvt.rn.f16.f64 d, a;", |a: f64| half(a, Mode::Nearest));
    t.unary("cvt.f32.f16 d, a;", |a: u16| decode(a, &F16) as f32);
    t.unary("cvt.f64.f16 d, a;", |a: u16| decode(a, &F16));
    t.unary("cvt.rzi.s32.f16 d, a;", |a: u16| integer_from::<i32>(decode(a, &F16), Mode::Zero, false));
    // The first source is the upper half.
    t.binary("cvt.rn.f16x2.f32 d, a, b;", |a: f32, b: f32| {
        (half(a as f64, Mode::Nearest) as u32) << 16 | half(b as f64, Mode::Nearest) as u32
    });
    let random_half = "and.b32 a, a, 0x8fffffff; or.b32 a, a, 0x30000000;";
    t.unary(&format!("{random_half} cvt.rn.f16.f32 d, a;"), |a: u32| {
        half(f32::from_bits(a & 0x8fff_ffff | 0x3000_0000) as f64, Mode::Nearest)
    });
}

#[test]
fn brain_floats() {
    let mut t = Table::default();
    let brain = |a: f64, mode| BF16.encode(BF16.round(a, mode), 16) as u16;
    t.unary("cvt.rn.bf16.f32 d, a;", |a: f32| brain(a as f64, Mode::Nearest));
    t.unary("cvt.rz.bf16.f32 d, a;", |a: f32| brain(a as f64, Mode::Zero));
    t.unary("cvt.f32.bf16 d, a;", |a: u16| decode(a, &BF16) as f32);
    t.binary("cvt.rn.bf16x2.f32 d, a, b;", |a: f32, b: f32| {
        (brain(a as f64, Mode::Nearest) as u32) << 16 | brain(b as f64, Mode::Nearest) as u32
    });
    t.unary("cvt.rn.relu.bf16.f32 d, a;", |a: f32| {
        if a.is_nan() || a > 0.0 { brain(a as f64, Mode::Nearest) } else { 0 }
    });
}

#[test]
fn moves_pack_and_unpack() {
    let mut t = Table::default();
    t.unary("mov.b32 d, a;", |a: f32| a.to_bits());
    t.unary("mov.b64 d, a;", |a: f64| a.to_bits());
    t.binary("mov.b64 d, {a, b};", |a: u32, b: u32| (b as u64) << 32 | a as u64);
    t.unary("mov.b64 {t, d}, a;", |a: u64| (a >> 32) as u32);
    t.unary("mov.b64 {d, _}, a;", |a: u64| a as u32);
    t.binary("mov.b32 d, {a, b};", |a: u16, b: u16| (b as u32) << 16 | a as u32);
    t.unary("mov.b32 {h, d}, a;", |a: u32| (a >> 16) as u16);
    t.unary("mov.b16 d, a;", |a: u16| a);
    t.unary("{ .reg .b16 h1, h2, h3; mov.b64 {h, h1, h2, h3}, a; mov.b64 d, {h3, h2, h1, h}; }", |a: u64| {
        (0..4).fold(0, |d: u64, i| d << 16 | (a >> (16 * i) & 0xffff))
    });
}
