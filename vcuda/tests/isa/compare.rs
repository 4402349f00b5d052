//! Comparison and selection, PTX ISA 9.7.6.

use crate::lanes::{Lane, Table};
use std::cmp::Ordering::{self, Equal, Greater, Less};

/// The comparisons of what has an order, and which orders they hold for.
pub const ORDERED: [(&str, &[Ordering]); 6] = [
    ("eq", &[Equal]),
    ("ne", &[Less, Greater]),
    ("lt", &[Less]),
    ("le", &[Less, Equal]),
    ("gt", &[Greater]),
    ("ge", &[Greater, Equal]),
];

/// Every comparison of two values of a type, as 0 or 1.
fn integer_comparisons<T: Lane + Ord>(table: &mut Table, names: &[&str]) {
    for (name, orders) in ORDERED.iter().filter(|(name, _)| names.contains(name)) {
        let code = format!("setp.{name}.{} p, a, b; selp.u32 d, 1, 0, p;", T::TYPE);
        table.binary(&code, |a: T, b: T| orders.contains(&a.cmp(&b)) as u32);
    }
}

#[test]
fn integers() {
    let mut t = Table::default();
    let all = ["eq", "ne", "lt", "le", "gt", "ge"];
    integer_comparisons::<u16>(&mut t, &all);
    integer_comparisons::<i16>(&mut t, &all);
    integer_comparisons::<u32>(&mut t, &all);
    integer_comparisons::<i32>(&mut t, &all);
    integer_comparisons::<u64>(&mut t, &all);
    integer_comparisons::<i64>(&mut t, &all);
    for (name, orders) in
        [("lo", &[Less][..]), ("ls", &[Less, Equal]), ("hi", &[Greater]), ("hs", &[Greater, Equal])]
    {
        let code = format!("setp.{name}.u32 p, a, b; selp.u32 d, 1, 0, p;");
        t.binary(&code, |a: u32, b: u32| orders.contains(&a.cmp(&b)) as u32);
    }
    t.binary("setp.eq.b32 p, a, b; selp.u32 d, 1, 0, p;", |a: u32, b: u32| (a == b) as u32);
    t.binary("setp.ne.b64 p, a, b; selp.u32 d, 1, 0, p;", |a: u64, b: u64| (a != b) as u32);
}

fn float_comparisons<T: Lane + PartialOrd>(table: &mut Table, ty: &str, prepare: fn(T) -> T) {
    for (name, orders) in ORDERED {
        let ordered = format!("setp.{name}.{ty} p, a, b; selp.u32 d, 1, 0, p;");
        let holds =
            move |a: T, b: T| prepare(a).partial_cmp(&prepare(b)).map(|order| orders.contains(&order));
        table.binary(&ordered, |a: T, b: T| holds(a, b).unwrap_or(false) as u32);
        let unordered = format!("setp.{name}u.{ty} p, a, b; selp.u32 d, 1, 0, p;");
        table.binary(&unordered, |a: T, b: T| holds(a, b).unwrap_or(true) as u32);
    }
    let number = format!("setp.num.{ty} p, a, b; selp.u32 d, 1, 0, p;");
    table.binary(&number, |a: T, b: T| a.partial_cmp(&b).is_some() as u32);
    let nan = format!("setp.nan.{ty} p, a, b; selp.u32 d, 1, 0, p;");
    table.binary(&nan, |a: T, b: T| a.partial_cmp(&b).is_none() as u32);
}

#[test]
fn floats() {
    let mut t = Table::default();
    float_comparisons::<f32>(&mut t, "f32", |v| v);
    float_comparisons::<f32>(&mut t, "ftz.f32", crate::rounding::flush);
    float_comparisons::<f64>(&mut t, "f64", |v| v);
}

#[test]
fn two_destinations_and_combined_predicates() {
    let mut t = Table::default();
    let c = "setp.ne.u32 p, b, 2;";
    let pair = "selp.u32 t, 1, 0, p; selp.u32 u, 2, 0, q; add.u32 d, t, u;";
    t.binary(&format!("setp.lt.s32 p|q, a, b; {pair}"), |a: i32, b: i32| if a < b { 1 } else { 2u32 });
    // With a predicate: p = (a < b) op c, q = !(a < b) op c.
    for (name, combine) in
        [("and", (|x, c| x && c) as fn(bool, bool) -> bool), ("or", |x, c| x || c), ("xor", |x, c| x != c)]
    {
        let code = format!("{c} setp.lt.{name}.u32 p|q, a, b, p; {pair}");
        t.binary(&code, |a: u32, b: u32| combine(a < b, b != 2) as u32 + 2 * combine(a >= b, b != 2) as u32);
        let code = format!("{c} setp.lt.{name}.f32 p, a, 0f40000000, !p; selp.u32 d, 1, 0, p;");
        t.binary(&code, |a: f32, b: u32| combine(a < 2.0, b == 2) as u32);
    }
    t.binary("setp.equ.f32 _|q, a, b; selp.u32 d, 1, 0, q;", |a: f32, b: f32| {
        !(a == b || a.is_nan() || b.is_nan()) as u32
    });
}

#[test]
fn set_writes_masks_or_ones() {
    let mut t = Table::default();
    t.binary("set.lt.u32.s32 d, a, b;", |a: i32, b: i32| if a < b { u32::MAX } else { 0 });
    t.binary("set.geu.u32.f32 d, a, b;", |a: f32, b: f32| if a < b { 0 } else { u32::MAX });
    t.binary("set.eq.f32.u32 d, a, b;", |a: u32, b: u32| if a == b { 1f32 } else { 0.0 });
    t.binary("set.gt.f32.f32 d, a, b;", |a: f32, b: f32| if a > b { 1f32 } else { 0.0 });
    t.binary(
        "setp.eq.u32 p, a, 1; set.le.and.s32.u32 d, a, b, p;",
        |a: u32, b: u32| {
            if a <= b && a == 1 { -1i32 } else { 0 }
        },
    );
}

#[test]
fn selections() {
    let mut t = Table::default();
    t.ternary(
        "setp.ne.u32 p, c, 0; selp.b16 d, a, b, p;",
        |a: u16, b: u16, c: u32| if c != 0 { a } else { b },
    );
    t.ternary(
        "setp.ne.u32 p, c, 0; selp.b32 d, a, b, p;",
        |a: u32, b: u32, c: u32| if c != 0 { a } else { b },
    );
    t.ternary(
        "setp.ne.u32 p, c, 0; selp.b64 d, a, b, p;",
        |a: u64, b: u64, c: u32| if c != 0 { a } else { b },
    );
    t.ternary(
        "setp.ne.u32 p, c, 0; selp.f32 d, a, b, p;",
        |a: f32, b: f32, c: u32| if c != 0 { a } else { b },
    );
    t.ternary(
        "setp.ne.u32 p, c, 0; selp.f64 d, a, b, p;",
        |a: f64, b: f64, c: u32| if c != 0 { a } else { b },
    );
    t.ternary("slct.u32.s32 d, a, b, c;", |a: u32, b: u32, c: i32| if c >= 0 { a } else { b });
    t.ternary("slct.f32.s32 d, a, b, c;", |a: f32, b: f32, c: i32| if c >= 0 { a } else { b });
    // A negative zero counts as not negative, a NaN picks b.
    t.ternary("slct.u32.f32 d, a, b, c;", |a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b });
    t.ternary(
        "slct.ftz.u64.f32 d, a, b, c;",
        |a: u64, b: u64, c: f32| {
            if crate::rounding::flush(c) >= 0.0 { a } else { b }
        },
    );
}

#[test]
fn guards_leave_the_destination_alone() {
    let mut t = Table::default();
    t.binary("setp.lt.u32 p, a, b; mov.u32 d, 7; @p mov.u32 d, a; @!p add.u32 d, d, 1;", |a: u32, b: u32| {
        if a < b { a } else { 8 }
    });
}
