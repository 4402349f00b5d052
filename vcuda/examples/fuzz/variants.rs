//! Each instruction form alone, and each with one thing wrong.

use crate::mutate::{PROLOGUE, Rng, TYPES, fill, forms};

/// Operands of other kinds.
const KINDS: [&str; 16] = [
    "$r",
    "$d",
    "$h",
    "$f",
    "$g",
    "$p",
    "!$p",
    "_",
    "$n",
    "0d3FF0000000000000",
    "%tid.x",
    "tile",
    "$G",
    "{$r, $d}",
    "{$r, $r, $r, $r, $r}",
    "$p|$r",
];

/// Every instruction form alone in a kernel: as it is, with each part of its opcode made each type or lost, and
/// with each operand made another kind, lost or doubled.
pub fn variants() -> Vec<String> {
    let mut rng = Rng(0);
    let mut all = Vec::new();
    for form in forms() {
        let (opcode, rest) = form.split_once(' ').unwrap_or((form.trim_end_matches(';'), ";"));
        let parts: Vec<&str> = opcode.split('.').collect();
        let operands = operands(rest);
        let mut add = |parts: &[&str], operands: &[&str]| {
            let mut text = PROLOGUE.to_string();
            text.push_str("targets: .branchtargets L0, L0;\n");
            fill(&mut rng, &format!("{} {};", parts.join("."), operands.join(", ")), 1, &mut text);
            text.push_str("\nL0: ret;\n}\n");
            all.push(text);
        };
        add(&parts, &operands);
        for i in 0..parts.len() {
            add(&parts[..=i], &operands);
            add(&[&parts[..i], &parts[i + 1..]].concat(), &operands);
            for ty in TYPES.iter().filter(|_| i > 0) {
                add(&[&parts[..i], &[*ty], &parts[i + 1..]].concat(), &operands);
            }
        }
        for i in 0..operands.len() {
            add(&parts, &[&operands[..i], &operands[i + 1..]].concat());
            add(&parts, &[&operands[..=i], &operands[i..]].concat());
            for kind in KINDS {
                add(&parts, &[&operands[..i], &[kind], &operands[i + 1..]].concat());
            }
        }
    }
    all
}

/// The operands of ` a, {b, c}, [d];`.
fn operands(rest: &str) -> Vec<&str> {
    let (mut operands, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in rest.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' | ';' if depth == 0 => {
                operands.push(rest[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    operands.retain(|operand| !operand.is_empty());
    operands
}
