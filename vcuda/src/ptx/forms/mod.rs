//! Every form that the PTX ISA gives an instruction, and whether an instruction has one of them.
//!
//! The forms are lines of syntax like the ISA's own ([`grammar`] says how they read). An opcode is looked up once a
//! module: [`Forms::opcode`] finds the lines that it fits ([`fit`]), holds their needs against the module's version
//! and target ([`target`]), and brings its parts into the grammar's order. Each instruction's operands are then held
//! against those lines ([`operands`]).

pub mod fit;
pub mod grammar;
pub mod opcode;
pub mod operands;
pub mod pattern;
pub mod target;

use std::collections::HashMap;
use std::sync::Arc;

use self::fit::fit;
use self::grammar::{GRAMMAR, Syntax};
pub use self::opcode::Opcode;
use self::target::{Target, Version};

/// The opcodes of a module.
#[derive(Default)]
pub struct Forms {
    known: HashMap<String, Arc<Opcode>>,
}

impl Forms {
    /// The opcode that is written so.
    ///
    /// # Errors
    /// The part that no form has, or what the module has to say to have this one.
    pub fn opcode(&mut self, text: &str, version: Version, target: Target) -> Result<Arc<Opcode>, String> {
        if let Some(opcode) = self.known.get(text) {
            return Ok(opcode.clone());
        }
        let opcode = Arc::new(find(text, version, target)?);
        self.known.insert(text.to_string(), opcode.clone());
        Ok(opcode)
    }
}

fn find(text: &str, version: Version, target: Target) -> Result<Opcode, String> {
    let parts: Vec<&str> = text.split('.').collect();
    let lines = GRAMMAR.get(parts[0]).ok_or_else(|| format!("unknown instruction {text}"))?;
    let fitting: Vec<(&Syntax, Vec<&str>)> =
        lines.iter().filter_map(|line| Some((line, fit(parts[0], line, &parts[1..])?))).collect();
    let Some((_, order)) = fitting.first() else { return Err(format!("{text}: {}", misfit(lines, &parts))) };
    let order: Vec<String> = [parts[0]].iter().chain(order).map(|part| part.to_string()).collect();
    let mut missing = None;
    let mut lines = Vec::new();
    for (line, _) in fitting {
        match line.needs.check(version, target) {
            Ok(()) => lines.push(line),
            Err(why) => drop(missing.get_or_insert(why)),
        }
    }
    if let (true, Some(why)) = (lines.is_empty(), missing) {
        return Err(format!("{text} {why}"));
    }
    // What is supported is preferred.
    lines.sort_by_key(|line| line.refused.is_some());
    Ok(Opcode::new(text, order, lines))
}

/// What is the matter with an opcode that fits no line.
fn misfit(lines: &[Syntax], parts: &[&str]) -> String {
    let without = |i: usize| [&parts[1..i], &parts[i + 1..]].concat();
    let fits = |rest: &[&str]| lines.iter().any(|line| fit(parts[0], line, rest).is_some());
    if let Some(i) = (1..parts.len()).find(|&i| fits(&without(i))) {
        return match parts[1..].iter().filter(|part| **part == parts[i]).count() {
            1 => format!("unknown or misplaced part .{}", parts[i]),
            count => format!("part .{} {count} times", parts[i]),
        };
    }
    let mut known = lines.iter().map(|line| line.text).collect::<Vec<&str>>();
    known.truncate(3);
    format!("no such form; there are {}", known.join(", "))
}
