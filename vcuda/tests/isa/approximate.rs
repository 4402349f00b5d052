//! The `.approx` instructions within the errors that PTX ISA 9.7.3 states, and their special values.

use crate::lanes::{Table, require_same};
use crate::rounding::flush;

/// Exact where the expected value is zero, infinite or NaN, else within `bound`, which is given the expected
/// value.
fn within(found: f32, expected: f64, bound: impl Fn(f64) -> f64) -> Result<(), String> {
    let nearest = expected as f32;
    if expected == 0.0 || nearest.is_infinite() && found.is_infinite() || !expected.is_finite() {
        return require_same(found, nearest);
    }
    let error = (found as f64 - expected).abs();
    // A result so small that its neighbours are further apart than the bound has their distance as its error.
    let allowed = bound(expected).max(f32::from_bits(1) as f64);
    if error <= allowed {
        return Ok(());
    }
    Err(format!("got {found:e}, expected {expected:e}: error {error:e} of {allowed:e} allowed"))
}

/// A relative error.
fn relative(bound: f64) -> impl Fn(f64) -> f64 {
    move |expected| bound * expected.abs()
}

/// An error in units of the last place of the expected float32.
fn ulps(count: f64) -> impl Fn(f64) -> f64 {
    move |expected| {
        let exponent = expected.abs().log2().floor().clamp(-126.0, 127.0);
        count * (exponent - 23.0).exp2()
    }
}

#[test]
fn quotients() {
    let mut t = Table::default();
    let in_range = |b: f32| b.is_nan() || b == 0.0 || (2f32.powi(-126)..=2f32.powi(126)).contains(&b.abs());
    let verdict = |a: f32, b: f32, d: f32| {
        // Larger divisors give zero, or NaN under an infinite dividend.
        if in_range(b) { within(d, a as f64 / b as f64, ulps(2.0)) } else { Ok(()) }
    };
    t.binary_by("div.approx.f32 d, a, b;", verdict);
    t.binary_by("div.full.f32 d, a, b;", |a: f32, b: f32, d: f32| within(d, a as f64 / b as f64, ulps(2.0)));
    t.binary_by("div.approx.ftz.f32 d, a, b;", |a: f32, b: f32, d: f32| {
        let (a, b) = (flush(a), flush(b));
        let exact = a as f64 / b as f64;
        if exact.abs() < f32::MIN_POSITIVE as f64 && exact != 0.0 {
            // A result on the edge of the normal range may round up to it.
            return require_same(d, 0f32.copysign(exact as f32)).or(verdict(a, b, d));
        }
        verdict(a, b, d)
    });
}

#[test]
fn reciprocals_and_roots() {
    let mut t = Table::default();
    t.unary_by("rcp.approx.f32 d, a;", |a: f32, d| within(d, 1.0 / a as f64, ulps(1.0)));
    t.unary_by("rcp.approx.ftz.f32 d, a;", |a: f32, d: f32| {
        let exact = 1.0 / flush(a) as f64;
        let tiny = exact.abs() < f32::MIN_POSITIVE as f64;
        if tiny { require_same(d, 0f32.copysign(a)) } else { within(d, exact, ulps(1.0)) }
    });
    let root = relative(2f64.powi(-23));
    t.unary_by("sqrt.approx.f32 d, a;", |a: f32, d| within(d, (a as f64).sqrt(), &root));
    t.unary_by("sqrt.approx.ftz.f32 d, a;", |a: f32, d| within(d, (flush(a) as f64).sqrt(), &root));
    let inverse_root = relative(2f64.powf(-22.9));
    t.unary_by("rsqrt.approx.f32 d, a;", |a: f32, d| within(d, 1.0 / (a as f64).sqrt(), &inverse_root));
    t.unary_by("rsqrt.approx.ftz.f32 d, a;", |a: f32, d| {
        within(d, 1.0 / (flush(a) as f64).sqrt(), &inverse_root)
    });
}

/// Of float64: whole without .ftz, the upper 32 bits with it. 1 - d²a, with the squares' errors, is twice the error.
#[test]
fn inverse_roots_of_float64() {
    fn verdict(a: f64, d: f64, bound: f64) -> Result<(), String> {
        let exact_cases = [(a == 0.0, f64::INFINITY.copysign(a)), (a == f64::INFINITY, 0.0)];
        if let Some((_, expected)) = exact_cases.into_iter().find(|&(applies, _)| applies) {
            return if d == expected { Ok(()) } else { Err(format!("{d}, not {expected}")) };
        }
        if a < 0.0 || a.is_nan() {
            return if d.is_nan() { Ok(()) } else { Err(format!("{d}, not NaN")) };
        }
        // Powers of 4 make the products exact.
        let (scale, root) =
            if a < 1.0 { (2f64.powi(600), 2f64.powi(-300)) } else { (2f64.powi(-600), 2f64.powi(300)) };
        let (a, d) = (a * scale, d * root);
        let square = d * d;
        let rest = d.mul_add(d, -square);
        let error = (square.mul_add(a, -1.0) + rest * a) / 2.0;
        if error.abs() <= bound { Ok(()) } else { Err(format!("relative error {error:e}")) }
    }
    let mut t = Table::default();
    t.unary_by("rsqrt.approx.f64 d, a;", |a: f64, d| verdict(a, d, 2f64.powi(-52)));
    let flush = |a: f64| if a.is_subnormal() { 0f64.copysign(a) } else { a };
    t.unary_by("rsqrt.approx.ftz.f64 d, a;", |a: f64, d: f64| match d.to_bits() as u32 {
        0 => verdict(flush(a), d, 2f64.powi(-20)),
        low => Err(format!("{low:#x} in the lower half")),
    });
}

#[test]
fn exponentials_and_logarithms() {
    let mut t = Table::default();
    t.unary_by("ex2.approx.f32 d, a;", |a: f32, d| within(d, (a as f64).exp2(), relative(2f64.powi(-22))));
    t.unary_by("ex2.approx.ftz.f32 d, a;", |a: f32, d: f32| {
        let exact = (flush(a) as f64).exp2();
        let tiny = exact < f32::MIN_POSITIVE as f64;
        if tiny { require_same(d, 0.0) } else { within(d, exact, relative(2f64.powi(-22))) }
    });
    let logarithm = |a: f32, d: f32| {
        let exact = (a as f64).log2();
        let absolute = (0.5..2.0).contains(&a);
        within(d, exact, |expected| 2f64.powi(-22) * if absolute { 1.0 } else { expected.abs() })
    };
    t.unary_by("lg2.approx.f32 d, a;", logarithm);
    t.unary_by("lg2.approx.ftz.f32 d, a;", |a, d| logarithm(flush(a), d));
    // Every binade, which random bits alone do not visit: a = 2^-20 … 2^20 times 1.x.
    t.unary_by("and.b32 a, a, 0x0fffffff; or.b32 a, a, 0x30000000; lg2.approx.f32 d, a;", |a: u32, d| {
        logarithm(f32::from_bits(a & 0x0fff_ffff | 0x3000_0000), d)
    });
}

#[test]
fn sines_and_tangents() {
    let mut t = Table::default();
    // a / 2^30 · π of signed 32-bit integers: [-2π, 2π].
    let scale = "cvt.rn.f32.s32 t, a; mul.rn.f32 t, t, 0f31490FDB;";
    let angle = |a: i32| a as f32 * f32::from_bits(0x3149_0fdb);
    let absolute = |found: f32, expected: f64| within(found, expected, |_| 2f64.powf(-20.5));
    t.unary_by(&format!("{scale} sin.approx.f32 d, t;"), |a: i32, d| absolute(d, (angle(a) as f64).sin()));
    t.unary_by(&format!("{scale} cos.approx.f32 d, t;"), |a: i32, d| absolute(d, (angle(a) as f64).cos()));
    t.unary_by(&format!("{scale} sin.approx.ftz.f32 d, t;"), |a: i32, d| {
        absolute(d, (angle(a) as f64).sin())
    });
    t.unary_by(&format!("{scale} cos.approx.ftz.f32 d, t;"), |a: i32, d| {
        absolute(d, (angle(a) as f64).cos())
    });
    for (code, expected) in [
        ("mov.b32 d, a; sin.approx.f32 d, 0fFF800000;", f32::NAN),
        ("mov.b32 d, a; cos.approx.f32 d, 0f7F800000;", f32::NAN),
        ("mov.b32 d, a; sin.approx.f32 d, 0f80000000;", -0.0),
        ("mov.b32 d, a; cos.approx.f32 d, 0f80000000;", 1.0),
    ] {
        t.unary(code, |_: u32| expected);
    }
    t.unary_by("tanh.approx.f32 d, a;", |a: f32, d| within(d, (a as f64).tanh(), relative(2f64.powi(-11))));
}
