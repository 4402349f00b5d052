//! `cvt` among integers and floats in every rounding and saturation, and packing moves, PTX ISA 9.7.9.

use crate::half::decode;
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

/// The bits of a value rounded to a 16-bit format.
fn narrow(value: f64, format: &Format, mode: Mode) -> u16 {
    format.encode(format.round(value, mode), 16) as u16
}

/// `.satfinite`: what is too large, infinities included, becomes the largest value.
fn finite(value: f64, format: &Format) -> f64 {
    let largest = (2.0 - (1.0 - format.precision as f64).exp2()) * (format.high as f64).exp2();
    if value.is_nan() { value } else { value.clamp(-largest, largest) }
}

fn relu(value: f64) -> f64 {
    if value <= 0.0 { 0.0 } else { value }
}

/// A float32 whose value is usual for a half, from random bits, in place of `a` and `b`.
const MODEST: &str = "and.b32 a, a, 0x8fffffff; or.b32 a, a, 0x30000000;
    and.b32 b, b, 0x8fffffff; or.b32 b, b, 0x30000000; ";

fn modest(bits: u32) -> f64 {
    f32::from_bits(bits & 0x8fff_ffff | 0x3000_0000) as f64
}

/// Conversions between a 16-bit format, `f32`, `f64` and integers.
fn halves(t: &mut Table, name: &str, format: &'static Format) {
    let value = |a: u16| decode(a, format);
    t.unary(&format!("cvt.f32.{name} d, a;"), |a: u16| value(a) as f32);
    t.unary(&format!("cvt.f64.{name} d, a;"), value);
    for (mode, rounding, integer) in MODES {
        t.unary(&format!("cvt.{rounding}.{name}.f32 d, a;"), |a: f32| narrow(a as f64, format, mode));
        let one = MODEST.lines().next().unwrap_or_default();
        t.unary(&format!("{one} cvt.{rounding}.{name}.f32 d, a;"), |a: u32| narrow(modest(a), format, mode));
        t.unary(&format!("cvt.{rounding}.{name}.f64 d, a;"), |a: f64| narrow(a, format, mode));
        t.unary(&format!("cvt.{rounding}.{name}.s32 d, a;"), |a: i32| narrow(a as f64, format, mode));
        t.unary(&format!("cvt.{rounding}.{name}.u64 d, a;"), |a: u64| {
            narrow(float_from(a as i128, mode, Some(format)), format, mode)
        });
        t.unary(&format!("cvt.{rounding}.{name}.s16 d, a;"), |a: i16| narrow(a as f64, format, mode));
        t.unary(&format!("cvt.{integer}.{name}.{name} d, a;"), |a: u16| {
            narrow(to_integer(value(a), mode), format, Mode::Nearest)
        });
        t.unary(&format!("cvt.{integer}.s32.{name} d, a;"), |a: u16| {
            integer_from::<i32>(value(a), mode, false)
        });
        t.unary(&format!("cvt.{integer}.u32.{name} d, a;"), |a: u16| {
            integer_from::<u32>(value(a), mode, false)
        });
        t.unary(&format!("cvt.{integer}.s64.{name} d, a;"), |a: u16| {
            integer_from::<i64>(value(a), mode, false)
        });
        t.unary(&format!("cvt.{integer}.u16.{name} d, a;"), |a: u16| {
            integer_from::<u16>(value(a), mode, false)
        });
        t.unary(&format!("cvt.{integer}.s16.{name} d, a;"), |a: u16| {
            integer_from::<i16>(value(a), mode, false)
        });
    }
    for (mode, rounding, _) in &MODES[..2] {
        let (mode, plain) = (*mode, |v: f64| v);
        let forms: [(&str, &dyn Fn(f64) -> f64); 4] = [
            ("", &plain),
            (".relu", &relu),
            (".satfinite", &|v| finite(v, format)),
            (".relu.satfinite", &|v| relu(finite(v, format))),
        ];
        for (form, apply) in forms {
            let convert = |v: f64| narrow(apply(v), format, mode);
            t.unary(&format!("cvt.{rounding}{form}.{name}.f32 d, a;"), |a: f32| convert(a as f64));
            // The first source is the upper half.
            let pair = format!("cvt.{rounding}{form}.{name}x2.f32 d, a, b;");
            t.binary(&pair, |a: f32, b: f32| (convert(a as f64) as u32) << 16 | convert(b as f64) as u32);
            t.binary(&format!("{MODEST} {pair}"), |a: u32, b: u32| {
                (convert(modest(a)) as u32) << 16 | convert(modest(b)) as u32
            });
        }
    }
}

#[test]
fn half_precision() {
    let mut t = Table::default();
    halves(&mut t, "f16", &F16);
    t.unary("cvt.rp.f16.s8 d, a;", |a: i8| narrow(a as f64, &F16, Mode::Up));
    t.unary("cvt.rmi.s8.f16 d, a;", |a: u16| integer_from::<i8>(decode(a, &F16), Mode::Down, false));
    t.unary("cvt.ftz.f32.f16 d, a;", |a: u16| decode(a, &F16) as f32);
    t.unary("cvt.rp.ftz.f16.f32 d, a;", |a: f32| narrow(flush(a) as f64, &F16, Mode::Up));
    let clamp = |v: f64| if v > 0.0 { v.min(1.0) } else { 0.0 };
    t.unary("cvt.sat.f32.f16 d, a;", |a: u16| clamp(decode(a, &F16)) as f32);
    t.unary("cvt.rn.sat.f16.f32 d, a;", |a: f32| narrow(clamp(a as f64), &F16, Mode::Nearest));
    t.unary("cvt.sat.f16.f16 d, a;", |a: u16| narrow(clamp(decode(a, &F16)), &F16, Mode::Nearest));
}

#[test]
fn brain_floats() {
    let mut t = Table::default();
    halves(&mut t, "bf16", &BF16);
    for (mode, rounding, _) in MODES {
        t.unary(&format!("cvt.{rounding}.bf16.f16 d, a;"), |a: u16| narrow(decode(a, &F16), &BF16, mode));
        t.unary(&format!("cvt.{rounding}.f16.bf16 d, a;"), |a: u16| narrow(decode(a, &BF16), &F16, mode));
    }
}

#[test]
fn tf32() {
    let mut t = Table::default();
    const TF32: Format = Format { precision: 11, low: -126, high: 127 };
    let rounded = |a: f32, mode| TF32.round(a as f64, mode) as f32;
    // To nearest, ties away from zero, from the two neighbours.
    let away = |a: f32| {
        let (down, up) = (rounded(a, Mode::Zero), rounded(a, if a > 0.0 { Mode::Up } else { Mode::Down }));
        let (down_error, up_error) = (a as f64 - down as f64, up as f64 - a as f64);
        // The neighbour above the largest value is as far from it as the one below.
        let up_error = if up.is_infinite() { 2f64.powi(117) - down_error.abs() } else { up_error };
        if a.is_infinite() || up_error.abs() <= down_error.abs() { up } else { down }
    };
    let largest = (2.0 - 2f64.powi(-10)) * 2f64.powi(127);
    let finite = |a: f32| if a.is_nan() { a } else { (a as f64).clamp(-largest, largest) as f32 };
    let relu = |a: f32| if a <= 0.0 { 0.0 } else { a };
    let ties = "and.b32 a, a, 0xfffff000; ";
    let tie = |a: u32| f32::from_bits(a & 0xffff_f000);
    t.unary("cvt.rna.tf32.f32 d, a;", away);
    t.unary(&format!("{ties} cvt.rna.tf32.f32 d, a;"), |a: u32| away(tie(a)));
    t.unary("cvt.rna.satfinite.tf32.f32 d, a;", |a: f32| away(finite(a)));
    for (mode, name) in [(Mode::Nearest, "rn"), (Mode::Zero, "rz")] {
        t.unary(&format!("cvt.{name}.tf32.f32 d, a;"), |a: f32| rounded(a, mode));
        t.unary(&format!("{ties} cvt.{name}.tf32.f32 d, a;"), |a: u32| rounded(tie(a), mode));
        t.unary(&format!("cvt.{name}.relu.tf32.f32 d, a;"), |a: f32| relu(rounded(a, mode)));
    }
}

/// The values of an 8-bit format, by the ISA's table of its fields; `None` for NaN.
fn byte_value(bits: u8, is_e4m3: bool) -> Option<f64> {
    let (fraction_bits, bias) = if is_e4m3 { (3, 7) } else { (2, 15) };
    let (exponent, fraction) = ((bits & 0x7f) >> fraction_bits, bits & ((1 << fraction_bits) - 1));
    let (of_one, scale) = ((fraction_bits as f64).exp2(), |e: i32| ((e - bias) as f64).exp2());
    let magnitude = match (exponent, fraction) {
        (15, 7) if is_e4m3 => return None,
        (31, 0) if !is_e4m3 => f64::INFINITY,
        (31, _) if !is_e4m3 => return None,
        (0, fraction) => fraction as f64 / of_one * scale(1),
        (exponent, fraction) => (1.0 + fraction as f64 / of_one) * scale(exponent as i32),
    };
    Some(if bits >> 7 == 1 { -magnitude } else { magnitude })
}

/// The finite value of an 8-bit format nearest to `value`, of two the even one, by looking at all of them;
/// the canonical NaN for NaN.
fn nearest_byte(value: f64, is_e4m3: bool) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let sign = (value.is_sign_negative() as u8) << 7;
    let finite = |bits: &u8| byte_value(*bits, is_e4m3).is_some_and(f64::is_finite);
    let distance = |bits: &u8| (byte_value(*bits, is_e4m3).unwrap_or(0.0) - value.abs().min(1e6)).abs();
    let order = |a: &u8, b: &u8| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)));
    sign | (0..0x80).filter(finite).min_by(order).unwrap_or(0)
}

#[test]
fn bytes() {
    let mut t = Table::default();
    for (name, is_e4m3) in [("e4m3x2", true), ("e5m2x2", false)] {
        let pair = |upper: f64, lower: f64| {
            (nearest_byte(upper, is_e4m3) as u16) << 8 | nearest_byte(lower, is_e4m3) as u16
        };
        let code = format!("cvt.rn.satfinite.{name}.f32 d, a, b;");
        t.binary(&code, |a: f32, b: f32| pair(a as f64, b as f64));
        // Sizes that the formats have, ties among them.
        let near = "and.b32 a, a, 0x87f80000; add.u32 a, a, 0x3c000000; ";
        let value = |a: u32| f32::from_bits((a & 0x87f8_0000).wrapping_add(0x3c00_0000)) as f64;
        t.binary(&format!("{near} {code}"), |a: u32, b: f32| pair(value(a), b as f64));
        t.binary(&format!("cvt.rn.satfinite.relu.{name}.f32 d, a, b;"), |a: f32, b: f32| {
            pair(relu(a as f64), relu(b as f64))
        });
        let halves = |a: u32| (decode((a >> 16) as u16, &F16), decode(a as u16, &F16));
        t.unary(&format!("cvt.rn.satfinite.{name}.f16x2 d, a;"), |a: u32| pair(halves(a).0, halves(a).1));
        t.unary(&format!("cvt.rn.satfinite.relu.{name}.f16x2 d, a;"), |a: u32| {
            pair(relu(halves(a).0), relu(halves(a).1))
        });
        let half = |bits: u8| {
            let value = byte_value(bits, is_e4m3).unwrap_or(f64::NAN);
            narrow(value, &F16, Mode::Nearest) as u32
        };
        t.unary(&format!("cvt.rn.f16x2.{name} d, a;"), |a: u16| half((a >> 8) as u8) << 16 | half(a as u8));
        t.unary(&format!("cvt.rn.relu.f16x2.{name} d, a;"), |a: u16| {
            let positive = |bits: u32| if bits > 0x8000 { 0 } else { bits & 0x7fff };
            positive(half((a >> 8) as u8)) << 16 | positive(half(a as u8))
        });
    }
}

#[test]
fn integers_are_packed() {
    let mut t = Table::default();
    let two = |low: i32, high: i32, bits: u32| {
        let mask = (1u32 << bits) - 1;
        move |a: i32, b: i32| (a.clamp(low, high) as u32 & mask) << bits | b.clamp(low, high) as u32 & mask
    };
    let (u16s, s16s) = (two(0, 0xffff, 16), two(-0x8000, 0x7fff, 16));
    t.binary("cvt.pack.sat.u16.s32 d, a, b;", u16s);
    t.binary("cvt.pack.sat.s16.s32 d, a, b;", s16s);
    for bits in [2, 4, 8] {
        let (unsigned, signed) =
            (two(0, (1 << bits) - 1, bits), two(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, bits));
        t.ternary(&format!("cvt.pack.sat.u{bits}.s32.b32 d, a, b, c;"), move |a: i32, b: i32, c: u32| {
            c << (2 * bits) | unsigned(a, b)
        });
        t.ternary(&format!("cvt.pack.sat.s{bits}.s32.b32 d, a, b, c;"), move |a: i32, b: i32, c: u32| {
            c << (2 * bits) | signed(a, b)
        });
    }
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
