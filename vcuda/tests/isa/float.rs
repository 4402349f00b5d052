//! float32 and float64 arithmetic that the ISA rounds exactly, PTX ISA 9.7.3.

use crate::lanes::Table;
use crate::rounding::{F32, MODES, Mode, flush, odd, two_sum};

/// The float32 that `value`, rounded to odd, stands for.
fn narrow(value: f64, mode: Mode) -> f32 {
    F32.round(value, mode) as f32
}

fn add(a: f32, b: f32, mode: Mode) -> f32 {
    let (sum, error) = two_sum(a as f64, b as f64);
    signed_zero(narrow(odd(sum, error), mode), a, b, mode)
}

/// An exact zero sum of values that are not both negative zero is -0 only when rounding down.
fn signed_zero(sum: f32, a: f32, b: f32, mode: Mode) -> f32 {
    if sum != 0.0 || a as f64 + b as f64 != 0.0 || (a == 0.0 && b == 0.0 && a.to_bits() == b.to_bits()) {
        return sum;
    }
    if mode == Mode::Down { -0.0 } else { 0.0 }
}

fn mul(a: f32, b: f32, mode: Mode) -> f32 {
    narrow(a as f64 * b as f64, mode)
}

fn fma(a: f32, b: f32, c: f32, mode: Mode) -> f32 {
    let product = a as f64 * b as f64;
    let (sum, error) = two_sum(product, c as f64);
    let exact_zero = sum == 0.0 && !(product == 0.0 && product.to_bits() == (c as f64).to_bits());
    if exact_zero {
        return if mode == Mode::Down { -0.0 } else { 0.0 };
    }
    narrow(odd(sum, error), mode)
}

fn div(a: f32, b: f32, mode: Mode) -> f32 {
    let (a, b) = (a as f64, b as f64);
    let quotient = a / b;
    // The remainder is exact; its sign against the divisor's says on which side the quotient lies.
    let remainder = (-quotient).mul_add(b, a);
    let error = if remainder.is_finite() { remainder * b.signum() } else { 0.0 };
    narrow(odd(quotient, error), mode)
}

fn sqrt(a: f32, mode: Mode) -> f32 {
    let root = (a as f64).sqrt();
    let error = (-root).mul_add(root, a as f64);
    narrow(odd(root, if error.is_finite() { error } else { 0.0 }), mode)
}

/// `.sat`: to [0, 1], NaN to +0.
fn saturate(value: f32) -> f32 {
    if value > 1.0 {
        1.0
    } else if value > 0.0 {
        value
    } else {
        0.0
    }
}

#[test]
fn single_precision_in_every_rounding() {
    let mut t = Table::default();
    for (mode, name, _) in MODES {
        t.binary(&format!("add.{name}.f32 d, a, b;"), |a, b| add(a, b, mode));
        t.binary(&format!("sub.{name}.f32 d, a, b;"), |a: f32, b: f32| add(a, -b, mode));
        t.binary(&format!("mul.{name}.f32 d, a, b;"), |a, b| mul(a, b, mode));
        t.ternary(&format!("fma.{name}.f32 d, a, b, c;"), |a, b, c| fma(a, b, c, mode));
        t.ternary(&format!("mad.{name}.f32 d, a, b, c;"), |a, b, c| fma(a, b, c, mode));
        t.binary(&format!("div.{name}.f32 d, a, b;"), |a, b| div(a, b, mode));
        t.unary(&format!("rcp.{name}.f32 d, a;"), |a| div(1.0, a, mode));
        t.unary(&format!("sqrt.{name}.f32 d, a;"), |a| sqrt(a, mode));
    }
    // Without a modifier, to nearest.
    t.binary("add.f32 d, a, b;", |a: f32, b: f32| a + b);
    t.binary("sub.f32 d, a, b;", |a: f32, b: f32| a - b);
    t.binary("mul.f32 d, a, b;", |a: f32, b: f32| a * b);
}

#[test]
fn flushing_subnormals() {
    let mut t = Table::default();
    for (mode, name, _) in MODES {
        t.binary(&format!("add.{name}.ftz.f32 d, a, b;"), |a, b| flush(add(flush(a), flush(b), mode)));
        t.binary(&format!("mul.{name}.ftz.f32 d, a, b;"), |a, b| flush(mul(flush(a), flush(b), mode)));
        t.ternary(&format!("fma.{name}.ftz.f32 d, a, b, c;"), |a, b, c| {
            flush(fma(flush(a), flush(b), flush(c), mode))
        });
    }
    t.binary("div.rn.ftz.f32 d, a, b;", |a, b| flush(div(flush(a), flush(b), Mode::Nearest)));
    t.unary("sqrt.rn.ftz.f32 d, a;", |a| sqrt(flush(a), Mode::Nearest));
    t.unary("neg.ftz.f32 d, a;", |a: f32| -flush(a));
    t.unary("abs.ftz.f32 d, a;", |a: f32| flush(a).abs());
}

#[test]
fn saturating_to_one() {
    let mut t = Table::default();
    t.binary("add.sat.f32 d, a, b;", |a, b| saturate(add(a, b, Mode::Nearest)));
    t.binary("sub.rn.sat.f32 d, a, b;", |a: f32, b: f32| saturate(add(a, -b, Mode::Nearest)));
    t.binary("mul.ftz.sat.f32 d, a, b;", |a, b| saturate(flush(mul(flush(a), flush(b), Mode::Nearest))));
    t.ternary("fma.rn.sat.f32 d, a, b, c;", |a, b, c| saturate(fma(a, b, c, Mode::Nearest)));
    t.ternary("fma.rz.ftz.sat.f32 d, a, b, c;", |a, b, c| {
        saturate(flush(fma(flush(a), flush(b), flush(c), Mode::Zero)))
    });
}

#[test]
fn double_precision() {
    let mut t = Table::default();
    t.binary("add.f64 d, a, b;", |a: f64, b: f64| a + b);
    t.binary("sub.rn.f64 d, a, b;", |a: f64, b: f64| a - b);
    t.binary("mul.rn.f64 d, a, b;", |a: f64, b: f64| a * b);
    t.binary("div.rn.f64 d, a, b;", |a: f64, b: f64| a / b);
    t.ternary("fma.rn.f64 d, a, b, c;", f64::mul_add);
    t.unary("rcp.rn.f64 d, a;", |a: f64| 1.0 / a);
    t.unary("sqrt.rn.f64 d, a;", f64::sqrt);
    t.unary("neg.f64 d, a;", |a: f64| -a);
    t.unary("abs.f64 d, a;", f64::abs);
}

#[test]
fn minimum_and_maximum() {
    let mut t = Table::default();
    // One NaN loses to a number; -0 is below +0; two NaNs give the canonical one.
    fn least(a: f32, b: f32) -> f32 {
        match (a.is_nan(), b.is_nan()) {
            (true, true) => f32::from_bits(0x7fff_ffff),
            (true, false) => b,
            (false, true) => a,
            _ if a == b => {
                if a.is_sign_negative() {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a < b {
                    a
                } else {
                    b
                }
            }
        }
    }
    let greatest = |a: f32, b: f32| if a.is_nan() && b.is_nan() { least(a, b) } else { -least(-a, -b) };
    let canonical =
        |a: f32, b: f32, value: f32| if a.is_nan() || b.is_nan() { 0x7fff_ffff } else { value.to_bits() };
    t.binary("min.f32 d, a, b;", least);
    t.binary("max.f32 d, a, b;", greatest);
    t.binary("min.ftz.f32 d, a, b;", |a, b| least(flush(a), flush(b)));
    t.binary("max.ftz.f32 d, a, b;", move |a, b| greatest(flush(a), flush(b)));
    // As integers, which tell NaNs apart.
    t.binary("min.NaN.f32 d, a, b;", move |a: f32, b: f32| canonical(a, b, least(a, b)));
    t.binary("max.NaN.f32 d, a, b;", move |a: f32, b: f32| canonical(a, b, greatest(a, b)));
    t.unary("max.f32 d, a, 0f7FC00001;", |a: f32| if a.is_nan() { 0x7fff_ffff } else { a.to_bits() });
    // The magnitudes' one, with the sign of the product.
    let signed = |a: f32, b: f32, value: f32| {
        if value.is_nan() {
            value
        } else {
            value.abs().copysign(if a.is_sign_negative() == b.is_sign_negative() { 1.0 } else { -1.0 })
        }
    };
    t.binary("min.xorsign.abs.f32 d, a, b;", move |a: f32, b: f32| signed(a, b, least(a.abs(), b.abs())));
    t.binary("max.xorsign.abs.f32 d, a, b;", move |a: f32, b: f32| signed(a, b, greatest(a.abs(), b.abs())));
    t.binary("max.ftz.NaN.xorsign.abs.f32 d, a, b;", move |a: f32, b: f32| {
        let (a, b) = (flush(a), flush(b));
        if a.is_nan() || b.is_nan() { f32::NAN } else { signed(a, b, greatest(a.abs(), b.abs())) }
    });
    fn least_wide(a: f64, b: f64) -> f64 {
        if a.is_nan() || (b < a) || (a == b && b.is_sign_negative()) { b } else { a }
    }
    t.binary("min.f64 d, a, b;", least_wide);
    t.binary("max.f64 d, a, b;", |a: f64, b: f64| {
        if a.is_nan() || b.is_nan() { least_wide(a, b) } else { -least_wide(-a, -b) }
    });
}

#[test]
fn signs_and_classes() {
    let mut t = Table::default();
    t.unary("neg.f32 d, a;", |a: f32| -a);
    t.unary("abs.f32 d, a;", f32::abs);
    // The sign of a, the magnitude of b.
    t.binary("copysign.f32 d, a, b;", |a: f32, b: f32| b.copysign(a));
    t.binary("copysign.f64 d, a, b;", |a: f64, b: f64| b.copysign(a));
    for (class, holds) in [
        ("finite", f32::is_finite as fn(f32) -> bool),
        ("infinite", f32::is_infinite),
        ("number", |a| !a.is_nan()),
        ("notanumber", f32::is_nan),
        ("normal", f32::is_normal),
        ("subnormal", f32::is_subnormal),
    ] {
        let code = format!("testp.{class}.f32 p, a; selp.u32 d, 1, 0, p;");
        // The ISA counts a zero as normal.
        t.unary(&code, |a: f32| (holds(a) || class == "normal" && a == 0.0) as u32);
    }
}
