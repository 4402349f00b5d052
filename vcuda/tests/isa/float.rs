//! float32 and float64 arithmetic that the ISA rounds exactly, PTX ISA 9.7.3.

use crate::lanes::Table;
use crate::rounding::{F32, MODES, Mode, flush, odd, two_sum};
use std::cmp::Ordering;

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
    for (class, holds) in [
        ("finite", f64::is_finite as fn(f64) -> bool),
        ("infinite", f64::is_infinite),
        ("number", |a| !a.is_nan()),
        ("notanumber", f64::is_nan),
        ("normal", |a| a.is_normal() || a == 0.0),
        ("subnormal", f64::is_subnormal),
    ] {
        t.unary(&format!("testp.{class}.f64 p, a; selp.u32 d, 1, 0, p;"), |a: f64| holds(a) as u32);
    }
}

/// The sign of an exact sum, by an expansion of terms that do not overlap (Shewchuk, 1997).
fn sign_of_sum(terms: &[f64]) -> Ordering {
    let mut expansion: Vec<f64> = Vec::new();
    for &term in terms {
        let mut carry = term;
        for part in &mut expansion {
            (carry, *part) = two_sum(carry, *part);
        }
        expansion.push(carry);
    }
    let largest = expansion.into_iter().rfind(|part| *part != 0.0);
    largest.map_or(Ordering::Equal, |part| part.total_cmp(&0.0))
}

/// A float64 rounded to nearest moved in a direction, given how the exact value compares to it.
fn directed(nearest: f64, exact: Ordering, mode: Mode) -> f64 {
    let toward = match mode {
        Mode::Down => Ordering::Less,
        Mode::Up => Ordering::Greater,
        Mode::Zero if nearest.is_sign_negative() => Ordering::Greater,
        Mode::Zero => Ordering::Less,
        Mode::Nearest => return nearest,
    };
    match exact {
        exact if exact != toward => nearest,
        Ordering::Less => nearest.next_down(),
        _ => nearest.next_up(),
    }
}

/// The product of two values as two terms, exact where neither it nor its last place is out of range.
fn two_product(a: f64, b: f64) -> [f64; 2] {
    [a * b, a.mul_add(b, -(a * b))]
}

/// Values whose products and quotients are far from float64's limits; random bits seldom are.
const TAME: &str = "and.b64 a, a, 0x83ffffffffffffff; or.b64 a, a, 0x3c00000000000000;
    and.b64 b, b, 0x83ffffffffffffff; or.b64 b, b, 0x3c00000000000000;";

fn tame(bits: u64) -> f64 {
    f64::from_bits(bits & 0x83ff_ffff_ffff_ffff | 0x3c00_0000_0000_0000)
}

#[test]
fn double_precision_in_directed_roundings() {
    let mut t = Table::default();
    for (mode, name, _) in &MODES[1..] {
        let mode = *mode;
        let add = move |a: f64, b: f64| {
            let sum = a + b;
            if sum.is_nan() || a.is_infinite() || b.is_infinite() {
                return sum;
            }
            if sum.is_infinite() {
                return directed(sum, if sum > 0.0 { Ordering::Less } else { Ordering::Greater }, mode);
            }
            if sum == 0.0 && !(a == 0.0 && b == 0.0 && a.to_bits() == b.to_bits()) {
                return if mode == Mode::Down { -0.0 } else { 0.0 };
            }
            directed(sum, two_sum(a, b).1.partial_cmp(&0.0).unwrap_or(Ordering::Equal), mode)
        };
        t.binary(&format!("add.{name}.f64 d, a, b;"), add);
        t.binary(&format!("sub.{name}.f64 d, a, b;"), |a: f64, b: f64| add(a, -b));
        let mul = |a: f64, b: f64| {
            let [high, low] = two_product(a, b);
            directed(high, sign_of_sum(&[low]), mode)
        };
        t.binary(&format!("{TAME} mul.{name}.f64 d, a, b;"), |a: u64, b: u64| mul(tame(a), tame(b)));
        let div = |a: f64, b: f64| {
            let quotient = a / b;
            let [high, low] = two_product(quotient, b);
            let rest = sign_of_sum(&[a, -high, -low]);
            directed(quotient, if b < 0.0 { rest.reverse() } else { rest }, mode)
        };
        t.binary(&format!("{TAME} div.{name}.f64 d, a, b;"), |a: u64, b: u64| div(tame(a), tame(b)));
        t.binary(&format!("{TAME} rcp.{name}.f64 d, a;"), |a: u64, _: u64| div(1.0, tame(a)));
        t.binary(&format!("{TAME} abs.f64 a, a; sqrt.{name}.f64 d, a;"), |a: u64, _: u64| {
            let a = tame(a).abs();
            let [high, low] = two_product(a.sqrt(), a.sqrt());
            directed(a.sqrt(), sign_of_sum(&[a, -high, -low]), mode)
        });
        // A third operand of the product's size, and of any size.
        let fma = |a: f64, b: f64, c: f64| {
            let nearest = a.mul_add(b, c);
            let [high, low] = two_product(a, b);
            let exact = sign_of_sum(&[low, high, c, -nearest]);
            if nearest == 0.0 && exact == Ordering::Equal {
                return if mode == Mode::Down { -0.0 } else { 0.0 };
            }
            directed(nearest, exact, mode)
        };
        t.binary(&format!("{TAME} mul.rn.f64 x, a, b; fma.{name}.f64 d, a, b, x;"), |a: u64, b: u64| {
            fma(tame(a), tame(b), tame(a) * tame(b))
        });
        t.binary(
            &format!("{TAME} mul.rn.f64 x, a, b; neg.f64 x, x; fma.{name}.f64 d, a, b, x;"),
            |a: u64, b: u64| fma(tame(a), tame(b), -(tame(a) * tame(b))),
        );
        t.binary(&format!("{TAME} fma.{name}.f64 d, a, a, b;"), |a: u64, b: u64| {
            fma(tame(a), tame(a), tame(b))
        });
        // Limits: an overflow, an underflow, zeros.
        let (largest, smallest) = (f64::MAX, f64::from_bits(1));
        let up = |positive: f64, otherwise: f64| if mode == Mode::Up { positive } else { otherwise };
        for (operation, a, b, expected) in [
            ("mul", largest, 2.0, up(f64::INFINITY, largest)),
            ("mul", smallest, 0.5, up(smallest, 0.0)),
            ("mul", smallest, -0.5, if mode == Mode::Down { -smallest } else { -0.0 }),
            ("div", smallest, 3.0, up(smallest, 0.0)),
            ("div", 1.0, 0.0, f64::INFINITY),
            ("div", largest, 0.1, up(f64::INFINITY, largest)),
            ("mul", -0.0, 3.0, -0.0),
            ("add", 1.0, smallest, up(1.0f64.next_up(), 1.0)),
            ("mul", f64::INFINITY, 0.0, f64::NAN),
        ] {
            let (a, b) = (a.to_bits(), b.to_bits());
            let code = format!("mov.b64 x, {a:#x}; mov.b64 y, {b:#x}; {operation}.{name}.f64 d, x, y;");
            t.unary(&code, |_: u32| expected);
        }
    }
}
