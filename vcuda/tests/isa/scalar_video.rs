//! Scalar video instructions with every selector, in 64-bit arithmetic, PTX ISA 9.7.20.1.

use crate::lanes::Table;

const SELECTORS: [(&str, u32, u32); 7] = [
    ("", 0, 32),
    (".b0", 0, 8),
    (".b1", 8, 8),
    (".b2", 16, 8),
    (".b3", 24, 8),
    (".h0", 0, 16),
    (".h1", 16, 16),
];

/// A part of a word, as its type has it.
fn number(word: u32, (_, first, bits): (&str, u32, u32), signed: bool) -> i64 {
    let field = (word as u64 >> first & ((1u64 << bits) - 1)) as i64;
    if signed && field >> (bits - 1) == 1 { field - (1 << bits) } else { field }
}

fn clamped(value: i64, bits: u32, signed: bool) -> i64 {
    let (low, high) =
        if signed { (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    value.clamp(low, high)
}

/// The low bits of `value` in a part of `c`.
fn merged(value: i64, c: u32, (_, first, bits): (&str, u32, u32)) -> u32 {
    let mask = (((1u64 << bits) - 1) << first) as u32;
    ((value as u64) << first) as u32 & mask | c & !mask
}

fn name(signed: bool) -> &'static str {
    if signed { "s32" } else { "u32" }
}

/// All three types' signs, and selectors that differ from case to case.
fn cases() -> impl Iterator<Item = ([bool; 3], [(&'static str, u32, u32); 3])> {
    (0..8usize).map(|i| {
        (
            [i & 1 != 0, i & 2 != 0, i & 4 != 0],
            [SELECTORS[1 + i % 6], SELECTORS[i % 7], SELECTORS[(3 * i + 2) % 7]],
        )
    })
}

#[test]
fn sums_differences_and_extrema() {
    let mut t = Table::default();
    type Operation = (&'static str, fn(i64, i64) -> i64);
    let operations: [Operation; 5] = [
        ("vadd", |a, b| a + b),
        ("vsub", |a, b| a - b),
        ("vabsdiff", |a, b| (a - b).abs()),
        ("vmin", i64::min),
        ("vmax", i64::max),
    ];
    for (vop, f) in operations {
        for ([signed, a_signed, b_signed], [dsel, asel, bsel]) in cases() {
            let types = format!("{vop}.{}.{}.{}", name(signed), name(a_signed), name(b_signed));
            let (x, y) = (asel.0, bsel.0);
            let value = move |a: u32, b: u32| f(number(a, asel, a_signed), number(b, bsel, b_signed));
            t.binary(&format!("{types} d, a{x}, b{y};"), |a: u32, b: u32| value(a, b) as u32);
            t.binary(&format!("{types}.sat d, a{x}, b{y};"), |a: u32, b: u32| {
                clamped(value(a, b), 32, signed) as u32
            });
            let third = move |c: u32| number(c, SELECTORS[0], signed);
            t.ternary(&format!("{types}.add d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                (value(a, b) + third(c)) as u32
            });
            t.ternary(&format!("{types}.sat.min d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                clamped(value(a, b), 32, signed).min(third(c)) as u32
            });
            t.ternary(&format!("{types}.sat.max d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                clamped(value(a, b), 32, signed).max(third(c)) as u32
            });
            let place = dsel.0;
            t.ternary(&format!("{types} d{place}, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                merged(value(a, b), c, dsel)
            });
            t.ternary(&format!("{types}.sat d{place}, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                merged(clamped(value(a, b), dsel.2, signed), c, dsel)
            });
        }
    }
}

#[test]
fn shifts() {
    let mut t = Table::default();
    for ([signed, a_signed, _], [dsel, asel, bsel]) in cases() {
        for left in [true, false] {
            for (mode, wrap) in [("clamp", false), ("wrap", true)] {
                let vop = if left { "vshl" } else { "vshr" };
                let types = format!("{vop}.{}.{}.u32", name(signed), name(a_signed));
                let (x, y, place) = (asel.0, bsel.0, dsel.0);
                // By at most 32, 64 bits hold it.
                let value = move |a: u32, b: u32| {
                    let (number, by) = (number(a, asel, a_signed) as i128, number(b, bsel, false));
                    let by = if wrap { by % 32 } else { by.min(32) };
                    if left { number << by } else { number >> by }
                };
                t.binary(&format!("{types}.{mode} d, a{x}, b{y};"), |a: u32, b: u32| value(a, b) as u32);
                t.ternary(&format!("{types}.{mode} d{place}, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                    merged(value(a, b) as i64, c, dsel)
                });
                t.ternary(&format!("{types}.{mode}.add d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                    (value(a, b) as u32).wrapping_add(c)
                });
            }
        }
    }
}

#[test]
fn comparisons() {
    let mut t = Table::default();
    type Comparison = (&'static str, fn(&i64, &i64) -> bool);
    let comparisons: [Comparison; 6] = [
        ("eq", i64::eq),
        ("ne", i64::ne),
        ("lt", i64::lt),
        ("le", i64::le),
        ("gt", i64::gt),
        ("ge", i64::ge),
    ];
    for (compare, holds) in comparisons {
        for ([_, a_signed, b_signed], [dsel, asel, bsel]) in cases() {
            let types = format!("vset.{}.{}.{compare}", name(a_signed), name(b_signed));
            let (x, y, place) = (asel.0, bsel.0, dsel.0);
            let value =
                move |a: u32, b: u32| holds(&number(a, asel, a_signed), &number(b, bsel, b_signed)) as u32;
            t.binary(&format!("{types} d, a{x}, b{y};"), value);
            t.ternary(&format!("{types}.add d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                c.wrapping_add(value(a, b))
            });
            t.ternary(&format!("{types}.min d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| c.min(value(a, b)));
            t.ternary(&format!("{types}.max d, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| c.max(value(a, b)));
            t.ternary(&format!("{types} d{place}, a{x}, b{y}, c;"), |a: u32, b: u32, c: u32| {
                merged(value(a, b).into(), c, dsel)
            });
        }
    }
}

#[test]
fn products() {
    let mut t = Table::default();
    let signs = [("", "", ""), ("-", "", ""), ("", "-", ""), ("", "", "-")];
    for ([_, a_signed, b_signed], [_, asel, bsel]) in cases() {
        for ((na, nb, nc), po) in signs.into_iter().map(|signs| (signs, false)).chain([(signs[0], true)]) {
            let negates = !na.is_empty() || !nb.is_empty();
            let signed = a_signed || b_signed || negates || !nc.is_empty();
            for (scale, shift) in [("", 0), (".shr7", 7), (".shr15", 15)] {
                // Only this order of the types' signs and the operands' is a form.
                let types = format!("vmad.{}.{}.{}", name(signed), name(a_signed), name(b_signed));
                let operands = format!("d, {na}a{}, {nb}b{}, {nc}c", asel.0, bsel.0);
                let value = move |a: u32, b: u32, c: u32| {
                    let product = number(a, asel, a_signed) as i128 * number(b, bsel, b_signed) as i128;
                    let c = number(c, SELECTORS[0], signed) as i128;
                    let (product, c) =
                        (if negates { -product } else { product }, if nc.is_empty() { c } else { -c });
                    (product + c + po as i128) >> shift
                };
                let po = if po { ".po" } else { "" };
                t.ternary(&format!("{types}{po}{scale} {operands};"), |a: u32, b: u32, c: u32| {
                    value(a, b, c) as u32
                });
                t.ternary(&format!("{types}{po}.sat{scale} {operands};"), |a: u32, b: u32, c: u32| {
                    let (low, high) =
                        if signed { (i32::MIN as i128, i32::MAX as i128) } else { (0, u32::MAX as i128) };
                    value(a, b, c).clamp(low, high) as u32
                });
            }
        }
    }
}
