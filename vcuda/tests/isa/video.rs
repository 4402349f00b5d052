//! Numbers side by side in a word: SIMD video instructions and `dp2a`, PTX ISA 9.7.20 and 9.7.1.24.

use crate::lanes::Table;

/// The `count` numbers of a word, lowest first.
fn numbers(word: u32, count: u32, signed: bool) -> Vec<i64> {
    let bits = 32 / count;
    let number = |i: u32| {
        let field = (word as u64 >> (bits * i)) as i64 & ((1 << bits) - 1);
        if signed && field >> (bits - 1) == 1 { field - (1 << bits) } else { field }
    };
    (0..count).map(number).collect()
}

/// The low bits of each number, side by side.
fn packed(values: &[i64]) -> u32 {
    let bits = 32 / values.len();
    values.iter().enumerate().fold(0, |word, (i, &v)| word | (v as u32 & ((1 << bits) - 1)) << (bits * i))
}

fn average(a: i64, b: i64) -> i64 {
    // A half goes up from zero on, and down below it.
    let sum = a + b;
    if sum >= 0 { (sum + 1) / 2 } else { sum.div_euclid(2) }
}

#[test]
fn bytes_and_halfwords() {
    let mut t = Table::default();
    type Operation = (&'static str, fn(i64, i64) -> i64);
    let operations: [Operation; 6] = [
        ("vadd", |a, b| a + b),
        ("vsub", |a, b| a - b),
        ("vavrg", average),
        ("vabsdiff", |a, b| (a - b).abs()),
        ("vmin", i64::min),
        ("vmax", i64::max),
    ];
    for (name, f) in operations {
        for (count, signed) in [(2u32, false), (2, true), (4, false), (4, true)] {
            let (ty, bits) = (if signed { "s32" } else { "u32" }, 32 / count);
            let (low, high) =
                if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
            let each = move |a: u32, b: u32| -> Vec<i64> {
                numbers(a, count, signed)
                    .into_iter()
                    .zip(numbers(b, count, signed))
                    .map(|(a, b)| f(a, b))
                    .collect()
            };
            let types = format!("{name}{count}.{ty}.{ty}.{ty}");
            t.binary(&format!("mov.u32 t, 0; {types} d, a, b, t;"), |a: u32, b: u32| packed(&each(a, b)));
            t.binary(&format!("mov.u32 t, 0; {types}.sat d, a, b, t;"), |a: u32, b: u32| {
                let clamped: Vec<i64> = each(a, b).into_iter().map(|v| v.clamp(low, high)).collect();
                packed(&clamped)
            });
            t.ternary(&format!("{types}.add d, a, b, c;"), |a: u32, b: u32, c: u32| {
                (c as i64 + each(a, b).iter().sum::<i64>()) as u32
            });
        }
    }
    t.binary("mov.u32 t, 0; vmax4.s32.u32.s32.sat d, a, b, t;", |a: u32, b: u32| {
        let pairs = numbers(a, 4, false).into_iter().zip(numbers(b, 4, true));
        packed(&pairs.map(|(a, b)| a.max(b).min(127)).collect::<Vec<i64>>())
    });
}

#[test]
fn dot_products_of_two() {
    let mut t = Table::default();
    for (half, first) in [("lo", 0), ("hi", 2)] {
        for (a_type, a_signed) in [("u32", false), ("s32", true)] {
            for (b_type, b_signed) in [("u32", false), ("s32", true)] {
                let code = format!("dp2a.{half}.{a_type}.{b_type} d, a, b, c;");
                t.ternary(&code, |a: u32, b: u32, c: u32| {
                    let (a, b) = (numbers(a, 2, a_signed), numbers(b, 4, b_signed));
                    (c as i64 + a[0] * b[first] + a[1] * b[first + 1]) as u32
                });
            }
        }
    }
}
