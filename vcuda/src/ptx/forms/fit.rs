//! Which lines of the grammar an opcode fits.
//!
//! As in NVIDIA's assembler, qualifiers may stand in any order: practice relies on it (`ld.global.acquire.gpu`).
//! What says something by its place may not: types, state spaces and layouts, each among their like, and the words
//! that make up an instruction's name, as in `cp.async.bulk.tensor`.

use super::grammar::{Element, Syntax};
use crate::ptx::types::Type;

/// The parts of an opcode, in the grammar's order, if they are what a line has: each of them once.
pub fn fit<'a>(name: &str, line: &Syntax, parts: &[&'a str]) -> Option<Vec<&'a str>> {
    // Most lines have another part, or not one of these.
    let is_possible = |part: &&str| line.possible.as_ref().is_none_or(|all| all.binary_search(part).is_ok());
    if !line.required.iter().all(|part| parts.contains(part)) || !parts.iter().all(is_possible) {
        return None;
    }
    let classes: Vec<Class> = parts.iter().map(|part| Class::of(name, part)).collect();
    let mut state = State { parts, classes: &classes, order: Vec::with_capacity(parts.len()) };
    let elements: Vec<&Element> = line.opcode.iter().rev().collect();
    state.fits(&elements).then(|| state.order.iter().map(|&i| parts[i]).collect())
}

/// Parts that keep their order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Type,
    Space,
    Layout,
    Name,
    Free,
}

/// The words of names.
fn names(name: &str) -> &'static [&'static str] {
    match name {
        "bar" | "barrier" => &["sync", "arrive", "red", "cluster", "wait", "warp"],
        "cp" => &[
            "async",
            "bulk",
            "tensor",
            "reduce",
            "prefetch",
            "commit_group",
            "wait_group",
            "wait_all",
            "mbarrier",
            "arrive",
        ],
        "cvt" => &["pack"],
        "cvta" => &["to"],
        "createpolicy" => &["fractional", "range", "cvt"],
        "st" | "red" => &["async"],
        "fence" | "membar" => &["proxy"],
        "mbarrier" => &[
            "init",
            "inval",
            "arrive",
            "arrive_drop",
            "test_wait",
            "try_wait",
            "expect_tx",
            "complete_tx",
            "pending_count",
            "parity",
        ],
        "setmaxnreg" => &["inc", "dec"],
        "shf" => &["l", "r"],
        "mul" | "mad" | "madc" | "mul24" | "mad24" => &["hi", "lo", "wide"],
        "tensormap" => &["replace", "cp_fenceproxy"],
        "wgmma" => &["fence", "commit_group", "wait_group", "mma_async"],
        "wmma" => &["load", "store", "mma", "a", "b", "c", "d"],
        _ => &[],
    }
}

impl Class {
    fn of(name: &str, part: &str) -> Class {
        match part {
            _ if names(name).contains(&part) => Class::Name,
            "row" | "col" => Class::Layout,
            "global" | "local" | "const" => Class::Space,
            _ if part.starts_with("shared") || part.starts_with("param") => Class::Space,
            _ if is_type(part) => Class::Type,
            _ => Class::Free,
        }
    }
}

/// Whether a part of an opcode is a type, also one that only some instructions have.
pub fn is_type(part: &str) -> bool {
    const OTHERS: [&str; 24] = [
        "tf32", "e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "s4", "u4", "s2", "u2", "b1", "u16x2", "s16x2",
        "f32x2", "e4m3x2", "e5m2x2", "e3m2x2", "e2m3x2", "e2m1x2", "ue8m0x2", "e4m3x4", "e5m2x4", "s2f6x2",
        "b1024",
    ];
    Type::from_name(part).is_some() || OTHERS.contains(&part)
}

struct State<'a> {
    parts: &'a [&'a str],
    classes: &'a [Class],
    /// Indices of the parts that are taken.
    order: Vec<usize>,
}

impl State<'_> {
    /// Whether the parts that are left are what the elements have, the last one first.
    fn fits(&mut self, elements: &[&Element]) -> bool {
        let Some((element, rest)) = elements.split_last() else {
            return self.order.len() == self.parts.len();
        };
        let alternatives: Vec<&[Element]> = match element {
            Element::Part(part) => {
                let Some(i) = self.find(part) else { return false };
                self.order.push(i);
                let fits = self.fits(rest);
                if !fits {
                    self.order.pop();
                }
                return fits;
            }
            Element::Rest => {
                let left = (0..self.parts.len()).filter(|i| !self.order.contains(i));
                self.order.extend(left.collect::<Vec<usize>>());
                return true;
            }
            Element::Choice(choice) => choice.iter().map(Vec::as_slice).collect(),
            Element::Maybe(group) => vec![group, &[]],
        };
        alternatives.into_iter().any(|alternative| {
            let mut next = rest.to_vec();
            next.extend(alternative.iter().rev());
            self.fits(&next)
        })
    }

    /// The first part that is `part` and not taken, if none of its class comes before it.
    fn find(&self, part: &str) -> Option<usize> {
        let is_left = |i: &usize| !self.order.contains(i);
        let found = (0..self.parts.len()).filter(is_left).find(|&i| self.parts[i] == part)?;
        let class = self.classes[found];
        let is_first = match class {
            Class::Free => true,
            Class::Name => found == self.order.len(),
            _ => !(0..found).filter(is_left).any(|i| self.classes[i] == class),
        };
        is_first.then_some(found)
    }
}
