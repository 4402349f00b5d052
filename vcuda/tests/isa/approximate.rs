//! The `.approx` instructions within the errors that PTX ISA 9.7.3 states, and their special values.

use crate::lanes::{Table, approximate_tables, require_same};
use crate::rounding::flush;

/// Exact where the expected value is infinite or NaN, or zero and has no bound, else within `bound`, which is given the
/// expected value.
fn within(found: f32, expected: f64, bound: impl Fn(f64) -> f64) -> Result<(), String> {
    let nearest = expected as f32;
    let is_exact = expected == 0.0 && bound(expected) == 0.0;
    if is_exact || nearest.is_infinite() && found.is_infinite() || !expected.is_finite() {
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

/// As many steps from one float32 to the next from the correctly rounded value.
fn steps(found: f32, expected: f64, count: u32) -> Result<(), String> {
    let nearest = expected as f32;
    let distance = found.to_bits().abs_diff(nearest.to_bits());
    if nearest == 0.0 || !nearest.is_finite() || distance > count {
        return require_same(found, nearest);
    }
    Ok(())
}

/// The quotient, of divisors that the ISA has no bound for as well.
fn quotient(a: f32, b: f32, d: f32) -> Result<(), String> {
    within(d, a as f64 / b as f64, ulps(2.0))
}

/// That of `div.approx`: larger divisors give zeros, or NaN under an infinite dividend.
fn approximate_quotient(a: f32, b: f32, d: f32) -> Result<(), String> {
    let is_large = b.is_finite() && b.abs() > 2f32.powi(126);
    match is_large {
        true if a.is_nan() || a.is_infinite() => require_same(d, f32::NAN),
        true => require_same(d, if a.is_sign_negative() == b.is_sign_negative() { 0.0 } else { -0.0 }),
        false => quotient(a, b, d),
    }
}

#[test]
fn quotients() {
    let flushed = |of: fn(f32, f32, f32) -> Result<(), String>| {
        move |a: f32, b: f32, d: f32| {
            let (a, b) = (flush(a), flush(b));
            let exact = a as f64 / b as f64;
            if exact.abs() < f32::MIN_POSITIVE as f64 && exact != 0.0 {
                // A result on the edge of the normal range may round up to it.
                let zero = require_same(d, 0f32.copysign(exact as f32));
                let is_edge = exact.abs() > f32::MIN_POSITIVE as f64 * (1.0 - 2f64.powi(-22));
                return if is_edge { zero.or(of(a, b, d)) } else { zero };
            }
            of(a, b, d)
        }
    };
    for mut t in approximate_tables() {
        t.binary_by("div.approx.f32 d, a, b;", approximate_quotient);
        t.binary_by("div.approx.ftz.f32 d, a, b;", flushed(approximate_quotient));
        t.binary_by("div.full.f32 d, a, b;", quotient);
        t.binary_by("div.full.ftz.f32 d, a, b;", flushed(quotient));
        // Divisors of 2^125 to 2^128, and normal quotients by most of them.
        let large = "and.b32 b, b, 0x81ffffff; or.b32 b, b, 0x7e000000;";
        let divisor = |b: u32| f32::from_bits(b & 0x81ff_ffff | 0x7e00_0000);
        t.binary_by(&format!("{large} div.approx.f32 d, a, b;"), |a, b: u32, d| {
            approximate_quotient(a, divisor(b), d)
        });
        t.binary_by(&format!("{large} div.approx.ftz.f32 d, a, b;"), |a, b: u32, d| {
            flushed(approximate_quotient)(a, divisor(b), d)
        });
        t.binary_by(&format!("{large} div.full.f32 d, a, b;"), |a, b: u32, d| quotient(a, divisor(b), d));
    }
}

#[test]
fn reciprocals_and_roots() {
    for mut t in approximate_tables() {
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
}

/// Of float64: whole without .ftz; with it the upper 32 bits, of those of the operand. 1 - d²a, with the squares'
/// errors, is twice the error. The ISA has no bounds here.
#[test]
fn inverse_roots_and_reciprocals_of_float64() {
    fn verdict(a: f64, d: f64, bound: f64) -> Result<(), String> {
        let exact_cases = [(a == 0.0, f64::INFINITY.copysign(a)), (a == f64::INFINITY, 0.0)];
        if let Some((_, expected)) = exact_cases.into_iter().find(|&(applies, _)| applies) {
            return require_same(d, expected);
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
    let flush = |a: f64| if a.is_subnormal() { 0f64.copysign(a) } else { a };
    let upper = |a: f64| flush(f64::from_bits(a.to_bits() & 0xffff_ffff_0000_0000));
    let lower_is_zero = |d: f64| match d.to_bits() {
        bits if d.is_nan() && bits != 0x7fff_ffff_0000_0000 => Err(format!("{bits:#x} for NaN")),
        bits if bits as u32 != 0 => Err(format!("{bits:#x}: not zero in the lower half")),
        _ => Ok(()),
    };
    for mut t in approximate_tables() {
        t.unary_by("rsqrt.approx.f64 d, a;", |a: f64, d| verdict(a, d, 2f64.powi(-52)));
        t.unary_by("rsqrt.approx.ftz.f64 d, a;", |a: f64, d: f64| {
            lower_is_zero(d).and(verdict(upper(a), d, 2f64.powi(-20)))
        });
        t.unary_by("rcp.approx.ftz.f64 d, a;", |a: f64, d: f64| {
            let exact = flush(1.0 / upper(a));
            if exact == 0.0 || !exact.is_finite() {
                return lower_is_zero(d).and(require_same(d, exact));
            }
            let error = (d / exact - 1.0).abs();
            lower_is_zero(d)?;
            if error <= 2f64.powi(-20) { Ok(()) } else { Err(format!("relative error {error:e}")) }
        });
    }
}

#[test]
fn exponentials_and_logarithms() {
    for mut t in approximate_tables() {
        let exponential = |a: f32, d| match a {
            0.0 => require_same(d, 1.0),
            _ => steps(d, (a as f64).exp2(), 2),
        };
        t.unary_by("ex2.approx.f32 d, a;", exponential);
        t.unary_by("ex2.approx.ftz.f32 d, a;", |a: f32, d: f32| {
            let tiny = (flush(a) as f64).exp2() < f32::MIN_POSITIVE as f64;
            if tiny { require_same(d, 0.0) } else { exponential(flush(a), d) }
        });
        // Of either sign and 2^-3 to 2^13, at the ends of which results vanish and overflow.
        t.unary_by("and.b32 a, a, 0x87ffffff; or.b32 a, a, 0x3e000000; ex2.approx.f32 d, a;", |a: u32, d| {
            exponential(f32::from_bits(a & 0x87ff_ffff | 0x3e00_0000), d)
        });
        let logarithm = |a: f32, d: f32| {
            let exact = (a as f64).log2();
            let absolute = 0.5 < a && a < 2.0;
            within(d, exact, |expected| 2f64.powi(-22) * if absolute { 1.0 } else { expected.abs() })
        };
        t.unary_by("lg2.approx.f32 d, a;", logarithm);
        t.unary_by("lg2.approx.ftz.f32 d, a;", |a, d| logarithm(flush(a), d));
        // Every binade, which random bits alone do not visit: a = 2^-31 … 2^0 times 1.x, and those about one.
        t.unary_by("and.b32 a, a, 0x0fffffff; or.b32 a, a, 0x30000000; lg2.approx.f32 d, a;", |a: u32, d| {
            logarithm(f32::from_bits(a & 0x0fff_ffff | 0x3000_0000), d)
        });
        t.unary_by("and.b32 a, a, 0x00ffffff; or.b32 a, a, 0x3f000000; lg2.approx.f32 d, a;", |a: u32, d| {
            logarithm(f32::from_bits(a & 0x00ff_ffff | 0x3f00_0000), d)
        });
    }
}

#[test]
fn sines_and_tangents() {
    for mut t in approximate_tables() {
        // Of signed 32-bit integers [-2π, 2π], and [-100π, 100π].
        for (factor, bound) in [("0f31490FDB", 2f64.powf(-20.5)), ("0f341D1463", 2f64.powf(-14.7))] {
            let scale = format!("cvt.rn.f32.s32 t, a; mul.rn.f32 t, t, {factor};");
            let unit = f32::from_bits(u32::from_str_radix(&factor[2..], 16).unwrap());
            let angle = |a: i32| a as f32 * unit;
            for ftz in ["", ".ftz"] {
                t.unary_by(&format!("{scale} sin.approx{ftz}.f32 d, t;"), |a: i32, d| match angle(a) {
                    0.0 => require_same(d, angle(a)),
                    angle => within(d, (angle as f64).sin(), |_| bound),
                });
                t.unary_by(&format!("{scale} cos.approx{ftz}.f32 d, t;"), |a: i32, d| match angle(a) {
                    0.0 => require_same(d, 1.0),
                    angle => within(d, (angle as f64).cos(), |_| bound),
                });
            }
        }
        for (code, expected) in [
            ("mov.b32 d, a; sin.approx.f32 d, 0fFF800000;", f32::NAN),
            ("mov.b32 d, a; cos.approx.f32 d, 0f7F800000;", f32::NAN),
            ("mov.b32 d, a; sin.approx.f32 d, 0f80000000;", -0.0),
            ("mov.b32 d, a; cos.approx.f32 d, 0f80000000;", 1.0),
        ] {
            t.unary(code, |_: u32| expected);
        }
        t.unary_by("tanh.approx.f32 d, a;", |a: f32, d| match a {
            _ if a.is_infinite() => require_same(d, 1f32.copysign(a)),
            _ if a.is_subnormal() => require_same(d, a),
            _ => within(d, (a as f64).tanh(), relative(2f64.powi(-11))),
        });
    }
}

/// `VCUDA_CHECK=approx` is of use: results go both ways, by the seed, and by nothing else.
#[test]
fn results_go_astray() {
    if std::env::var("VCUDA_ISA_DRIVER").is_ok() {
        return; // a GPU's results are its own
    }
    let tables = || approximate_tables().skip(1);
    // 0.5 to 2, of either sign or positive; halves of up to 2.
    let [signed, positive] =
        ["0x80ffffff", "0x00ffffff"].map(|mask| format!("and.b32 a, a, {mask}; or.b32 a, a, 0x3f000000;"));
    let half = "and.b32 a, a, 0xbfff; cvt.u16.u32 h, a;";
    let quotient = "add.u32 t, a, 0x1357;";
    for code in [
        format!("{signed} ex2.approx.f32 d, a;"),
        format!("{signed} ex2.approx.ftz.f32 d, a;"),
        format!("{positive} lg2.approx.f32 d, a;"),
        format!("{signed} sin.approx.f32 d, a;"),
        format!("{signed} cos.approx.f32 d, a;"),
        format!("{signed} tanh.approx.f32 d, a;"),
        format!("{signed} rcp.approx.f32 d, a;"),
        format!("{signed} rcp.approx.ftz.f32 d, a;"),
        format!("{positive} sqrt.approx.f32 d, a;"),
        format!("{positive} rsqrt.approx.f32 d, a;"),
        format!("{signed} {quotient} div.approx.f32 d, t, a;"),
        format!("{signed} {quotient} div.full.f32 d, t, a;"),
        format!("{half} ex2.approx.f16 h, h; cvt.u32.u16 d, h;"),
        format!("{half} tanh.approx.f16 h, h; cvt.u32.u16 d, h;"),
        format!("{half} ex2.approx.ftz.bf16 h, h; cvt.u32.u16 d, h;"),
        format!("{half} tanh.approx.bf16 h, h; cvt.u32.u16 d, h;"),
        "and.b32 a, a, 0xbfffbfff; ex2.approx.f16x2 d, a;".to_string(),
        "and.b32 a, a, 0xbfffbfff; tanh.approx.bf16x2 d, a;".to_string(),
    ] {
        let plain = Table::default().results(&code);
        let astray: Vec<Vec<u32>> = tables().map(|t| t.results(&code)).collect();
        for (seed, moved) in astray.iter().enumerate() {
            let up = plain.iter().zip(moved).filter(|(plain, moved)| moved > plain).count();
            let down = plain.iter().zip(moved).filter(|(plain, moved)| moved < plain).count();
            let least = plain.len() / 20;
            assert!(
                up > least && down > least,
                "{code} seed {seed}: {up} up, {down} down of {}",
                plain.len()
            );
            assert!(
                astray.iter().filter(|other| *other == moved).count() == 1,
                "{code}: two seeds give the same"
            );
        }
    }
    // The neighbour's work gives the same as one's own.
    let swap = |from: &str, to: &str| format!("shfl.sync.idx.b32 {to}, {from}, u, 31, -1;");
    let swapped = format!(
        "mov.u32 u, %laneid; xor.b32 u, u, 1; {} {signed} tanh.approx.f32 t, a; {}",
        swap("a", "a"),
        swap("t", "d")
    );
    for (one, other) in tables().zip(tables()) {
        assert_eq!(one.results(&format!("{signed} tanh.approx.f32 d, a;")), other.results(&swapped));
    }
}
