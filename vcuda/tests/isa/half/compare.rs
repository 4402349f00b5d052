//! `setp` and `set`.

use super::{Brain, Float16, Half, One, Two};
use crate::compare::ORDERED;
use crate::lanes::Table;
use std::cmp::Ordering::{self, Equal, Greater, Less};

/// Every operator, with what it says of an order and of no order.
fn operators() -> impl Iterator<Item = (String, &'static [Ordering], bool)> {
    let ordered = ORDERED
        .into_iter()
        .flat_map(|(name, orders)| [(name.to_string(), orders, false), (format!("{name}u"), orders, true)]);
    ordered.chain([("num".to_string(), &[Less, Equal, Greater][..], false), ("nan".to_string(), &[], true)])
}

fn holds<H: Half>(a: One<H>, b: One<H>, orders: &[Ordering], unordered: bool) -> bool {
    a.value().partial_cmp(&b.value()).map_or(unordered, |order| orders.contains(&order))
}

/// `set`'s type with `setp`'s: predicates, masks and ones.
fn comparisons<H: Half>(t: &mut Table, ftz: &str) {
    let name = H::NAME;
    let prepare = |a: One<H>| if ftz.is_empty() { a } else { a.flush() };
    let one = One::<H>::of(1.0).0;
    for (operator, orders, unordered) in operators() {
        let holds = |a: One<H>, b: One<H>| holds(prepare(a), prepare(b), orders, unordered);
        let on_pairs = |a: Two<H>, b: Two<H>| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            [holds(a0, b0), holds(a1, b1)]
        };
        let fill = |[low, high]: [bool; 2], value: u32| (low as u32 + ((high as u32) << 16)) * value;
        let show = "selp.u32 t, 1, 0, p; selp.u32 u, 2, 0, q; or.b32 d, t, u;";
        t.binary(&format!("setp.{operator}{ftz}.{name} p, a, b; selp.u32 d, 1, 0, p;"), |a, b| {
            holds(a, b) as u32
        });
        t.binary(&format!("setp.{operator}{ftz}.{name}x2 p|q, a, b; {show}"), |a, b| {
            let [low, high] = on_pairs(a, b);
            low as u32 + 2 * high as u32
        });
        t.binary(
            &format!("set.{operator}{ftz}.u32.{name} d, a, b;"),
            |a, b| {
                if holds(a, b) { u32::MAX } else { 0 }
            },
        );
        t.binary(
            &format!("set.{operator}{ftz}.{name}.{name} d, a, b;"),
            |a, b| {
                if holds(a, b) { one } else { 0 }
            },
        );
        t.binary(&format!("set.{operator}{ftz}.{name}x2.{name}x2 d, a, b;"), |a, b| {
            fill(on_pairs(a, b), one.into())
        });
        t.binary(&format!("set.{operator}{ftz}.u32.{name}x2 d, a, b;"), |a, b| fill(on_pairs(a, b), 0xffff));
    }
}

#[test]
fn every_comparison() {
    let mut t = Table::default();
    comparisons::<Float16>(&mut t, "");
    comparisons::<Float16>(&mut t, ".ftz");
    comparisons::<Brain>(&mut t, "");
}

fn combined_comparisons<H: Half>(t: &mut Table) {
    let name = H::NAME;
    for (op, combine) in
        [("and", (|x, c| x && c) as fn(bool, bool) -> bool), ("or", |x, c| x || c), ("xor", |x, c| x != c)]
    {
        // The predicate is also the destination of the lower halves.
        let code = format!(
            "setp.ne.u32 p, c, 2; setp.lt.{op}.{name}x2 p|q, a, b, p;
             selp.u32 t, 1, 0, p; selp.u32 u, 2, 0, q; or.b32 d, t, u;"
        );
        t.ternary(&code, |a: Two<H>, b: Two<H>, c: u32| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            let less = |a, b| combine(holds::<H>(a, b, &[Less], false), c != 2);
            less(a0, b0) as u32 + 2 * less(a1, b1) as u32
        });
        let code = format!("setp.ne.u32 p, c, 2; set.geu.{op}.u32.{name}x2 d, a, b, !p;");
        t.ternary(&code, |a: Two<H>, b: Two<H>, c: u32| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            let at_least = |a, b| combine(holds::<H>(a, b, &[Greater, Equal], true), c == 2);
            at_least(a0, b0) as u32 * 0xffff + at_least(a1, b1) as u32 * 0xffff_0000
        });
        let code = format!("setp.ne.u32 p, c, 2; setp.gt.{op}.{name} p, a, b, p; selp.u32 d, 1, 0, p;");
        t.ternary(&code, |a: One<H>, b: One<H>, c: u32| {
            combine(holds(a, b, &[Greater], false), c != 2) as u32
        });
    }
}

#[test]
fn comparisons_with_a_predicate() {
    let mut t = Table::default();
    combined_comparisons::<Float16>(&mut t);
    combined_comparisons::<Brain>(&mut t);
    t.binary("set.lt.f16.f32 d, a, b;", |a: f32, b: f32| if a < b { 0x3c00u16 } else { 0 });
    t.binary("set.ge.bf16.s32 d, a, b;", |a: i32, b: i32| if a >= b { 0x3f80u16 } else { 0 });
    t.binary("set.eq.f16.u64 d, a, b;", |a: u64, b: u64| if a == b { 0x3c00u16 } else { 0 });
    t.binary(
        "set.ne.s32.bf16 d, a, b;",
        |a: One<Brain>, b: One<Brain>| {
            if holds(a, b, &[Less, Greater], false) { -1i32 } else { 0 }
        },
    );
    t.binary(
        "set.leu.u16.f16 d, a, b;",
        |a: One<Float16>, b: One<Float16>| {
            if holds(a, b, &[Less, Equal], true) { 0xffffu16 } else { 0 }
        },
    );
}
