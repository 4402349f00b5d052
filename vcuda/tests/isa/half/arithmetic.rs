//! Sums, products, and the lesser and the greater of two.

use super::{Brain, Float16, Half, One, Two, binary, ternary, unary};
use crate::lanes::Table;
use crate::rounding::{odd, two_sum};
use std::marker::PhantomData;

// Sums: float64 holds them for float16, and rounds them to odd for bfloat16. Products are exact in it.
fn add<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    let (sum, error) = two_sum(a.value(), b.value());
    One::of(odd(sum, error))
}

fn sub<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    add(a, One(b.0 ^ 0x8000, PhantomData))
}

fn mul<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    One::of(a.value() * b.value())
}

fn fma<H: Half>(a: One<H>, b: One<H>, c: One<H>) -> One<H> {
    let (sum, error) = two_sum(a.value() * b.value(), c.value());
    One::of(odd(sum, error))
}

fn saturate<H: Half>(a: One<H>) -> One<H> {
    let value = a.value();
    One::of(if value > 0.0 { value.min(1.0) } else { 0.0 })
}

fn relu<H: Half>(a: One<H>) -> One<H> {
    if a.is_nan() || a.value() > 0.0 { a } else { One::of(0.0) }
}

fn arithmetic<H: Half>(t: &mut Table) {
    for rounding in ["", ".rn"] {
        binary::<H>(t, &format!("add{rounding}.{{h}} d, a, b;"), add);
        binary::<H>(t, &format!("sub{rounding}.{{h}} d, a, b;"), sub);
        binary::<H>(t, &format!("mul{rounding}.{{h}} d, a, b;"), mul);
    }
    ternary::<H>(t, "fma.rn.{h} d, a, b, c;", fma);
    ternary::<H>(t, "fma.rn.relu.{h} d, a, b, c;", |a, b, c| relu(fma(a, b, c)));
    // A factor that is what a tensor copy fills in outside the tensor makes the result zero.
    let outside = |value: One<H>| value.0 & 0x7fff == 0x7ff7;
    ternary::<H>(t, "fma.rn.oob.{h} d, a, b, c;", |a, b, c| {
        if outside(a) || outside(b) { One::of(0.0) } else { fma(a, b, c) }
    });
    ternary::<H>(t, "fma.rn.oob.relu.{h} d, a, b, c;", |a, b, c| {
        if outside(a) || outside(b) { One::of(0.0) } else { relu(fma(a, b, c)) }
    });
    unary::<H>(t, "neg.{h} d, a;", |a| One(a.0 ^ 0x8000, PhantomData));
    unary::<H>(t, "abs.{h} d, a;", One::magnitude);
}

#[test]
fn sums_and_products() {
    let mut t = Table::default();
    arithmetic::<Float16>(&mut t);
    arithmetic::<Brain>(&mut t);
}

/// Products that lie halfway between two values, such as (1 + ulp) · 1.5, and an addend that only tips them.
fn tipped<H: Half>(t: &mut Table) {
    for tip in [1u16, 0x8001, 0x0100, 0x8100] {
        let pair = (tip as u32) << 16 | tip as u32;
        let code = format!("mov.b32 t, {pair}; mov.b32 {{h, _}}, t; ");
        let tip = One::<H>(tip, PhantomData);
        t.binary(&format!("{code} fma.rn.{} d, a, b, h;", H::NAME), |a, b| fma(a, b, tip));
        t.binary(&format!("{code} fma.rn.{}x2 d, a, b, t;", H::NAME), |a: Two<H>, b: Two<H>| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            Two::of([fma(a0, b0, tip), fma(a1, b1, tip)])
        });
    }
}

#[test]
fn fused_sums_round_once() {
    let mut t = Table::default();
    tipped::<Float16>(&mut t);
    tipped::<Brain>(&mut t);
}

#[test]
fn the_reference_is_exact_for_float16() {
    // Products and sums of float16 are integers in units of 2^-48, and fit 80 bits.
    let fixed = |value: f64, places: i32| (value * f64::from(places).exp2()) as i128;
    let mut random = crate::lanes::Random::new(11);
    for _ in 0..200_000 {
        let bits = random.next();
        let [a, b, c] = [0, 16, 32].map(|shift| One::<Float16>((bits >> shift) as u16, PhantomData));
        if [a, b, c].iter().any(|x| !x.value().is_finite()) {
            continue;
        }
        let exact = fixed(a.value(), 24) * fixed(b.value(), 24) + fixed(c.value(), 48);
        let found = fma(a, b, c);
        if !found.value().is_finite() {
            assert!(exact.unsigned_abs() >= fixed(65_520.0, 48) as u128);
            continue;
        }
        let error = (exact - fixed(found.value(), 48)).unsigned_abs();
        for neighbour in [found.0.wrapping_sub(1), found.0 + 1].map(|bits| One::<Float16>(bits, PhantomData))
        {
            if neighbour.value().is_finite() && found.magnitude().0 > 0 {
                let other = (exact - fixed(neighbour.value(), 48)).unsigned_abs();
                assert!(error < other || error == other && found.0 & 1 == 0, "{a:?} {b:?} {c:?}: {found:?}");
            }
        }
    }
}

#[test]
fn flushing_and_saturating() {
    let mut t = Table::default();
    type H = Float16;
    binary::<H>(&mut t, "add.ftz.{h} d, a, b;", |a, b| add(a.flush(), b.flush()).flush());
    binary::<H>(&mut t, "sub.rn.ftz.{h} d, a, b;", |a, b| sub(a.flush(), b.flush()).flush());
    binary::<H>(&mut t, "mul.ftz.{h} d, a, b;", |a, b| mul(a.flush(), b.flush()).flush());
    ternary::<H>(&mut t, "fma.rn.ftz.{h} d, a, b, c;", |a, b, c| {
        fma(a.flush(), b.flush(), c.flush()).flush()
    });
    ternary::<H>(&mut t, "fma.rn.ftz.relu.{h} d, a, b, c;", |a, b, c| {
        relu(fma(a.flush(), b.flush(), c.flush()).flush())
    });
    binary::<H>(&mut t, "add.sat.{h} d, a, b;", |a, b| saturate(add(a, b)));
    binary::<H>(&mut t, "sub.rn.sat.{h} d, a, b;", |a, b| saturate(sub(a, b)));
    binary::<H>(&mut t, "mul.rn.ftz.sat.{h} d, a, b;", |a, b| saturate(mul(a.flush(), b.flush()).flush()));
    ternary::<H>(&mut t, "fma.rn.sat.{h} d, a, b, c;", |a, b, c| saturate(fma(a, b, c)));
    ternary::<H>(&mut t, "fma.rn.ftz.sat.{h} d, a, b, c;", |a, b, c| {
        saturate(fma(a.flush(), b.flush(), c.flush()).flush())
    });
    unary::<H>(&mut t, "neg.ftz.{h} d, a;", |a| One(a.flush().0 ^ 0x8000, PhantomData));
    unary::<H>(&mut t, "abs.ftz.{h} d, a;", |a| a.flush().magnitude());
}

/// The lesser of two, as the ISA's pseudocode has it; -0 is less than +0.
fn least<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    match (a.value(), b.value()) {
        (_, y) if y.is_nan() => a,
        (x, _) if x.is_nan() => b,
        (x, y) if x == y => One(a.0 | b.0, PhantomData),
        (x, y) => {
            if x < y {
                a
            } else {
                b
            }
        }
    }
}

fn negate<H: Half>(a: One<H>) -> One<H> {
    One(a.0 ^ 0x8000, PhantomData)
}

fn greatest<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    negate(least(negate(a), negate(b)))
}

fn extremes<H: Half>(t: &mut Table) {
    type Pick<H> = fn(One<H>, One<H>) -> One<H>;
    let nan = || One::<H>(0x7fff, PhantomData);
    for (name, pick) in [("min", least as Pick<H>), ("max", greatest)] {
        let strict = move |a: One<H>, b: One<H>| if a.is_nan() || b.is_nan() { nan() } else { pick(a, b) };
        let signed = |a: One<H>, b: One<H>, value: One<H>| {
            if value.is_nan() { value } else { One(value.0 & 0x7fff | (a.0 ^ b.0) & 0x8000, PhantomData) }
        };
        binary::<H>(t, &format!("{name}.{{h}} d, a, b;"), pick);
        binary::<H>(t, &format!("{name}.NaN.{{h}} d, a, b;"), strict);
        binary::<H>(t, &format!("{name}.xorsign.abs.{{h}} d, a, b;"), |a, b| {
            signed(a, b, pick(a.magnitude(), b.magnitude()))
        });
        binary::<H>(t, &format!("{name}.NaN.xorsign.abs.{{h}} d, a, b;"), |a, b| {
            signed(a, b, strict(a.magnitude(), b.magnitude()))
        });
    }
}

#[test]
fn minimum_and_maximum() {
    let mut t = Table::default();
    extremes::<Float16>(&mut t);
    extremes::<Brain>(&mut t);
    binary::<Float16>(&mut t, "min.ftz.{h} d, a, b;", |a, b| least(a.flush(), b.flush()));
    binary::<Float16>(&mut t, "max.ftz.{h} d, a, b;", |a, b| greatest(a.flush(), b.flush()));
    // The canonical NaN, seen as an integer.
    t.unary("mov.b16 h, 0x7e01; max.NaN.f16 d, a, h;", |_: u16| 0x7fffu16);
    t.unary("mov.b32 t, 0xff81ff81; min.bf16x2 d, t, t;", |_: u32| 0x7fff_7fffu32);
}

#[test]
fn pairs_of_integers() {
    let mut t = Table::default();
    fn each(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
        (f((a >> 16) as u16, (b >> 16) as u16) as u32) << 16 | f(a as u16, b as u16) as u32
    }
    let signed = |f: fn(i16, i16) -> i16| move |x: u16, y: u16| f(x as i16, y as i16) as u16;
    t.binary("add.u16x2 d, a, b;", |a: u32, b: u32| each(a, b, u16::wrapping_add));
    t.binary("add.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, u16::wrapping_add));
    t.binary("min.u16x2 d, a, b;", |a: u32, b: u32| each(a, b, std::cmp::min));
    t.binary("max.u16x2 d, a, b;", |a: u32, b: u32| each(a, b, std::cmp::max));
    t.binary("min.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, signed(std::cmp::min)));
    t.binary("max.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, signed(std::cmp::max)));
    t.binary("min.relu.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, signed(|x, y| x.min(y).max(0))));
    t.binary("max.s16x2.relu d, a, b;", |a: u32, b: u32| each(a, b, signed(|x, y| x.max(y).max(0))));
}
