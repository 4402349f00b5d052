//! Every form that the PTX ISA gives an instruction, and whether an instruction has one of them.
//!
//! The forms are lines of syntax like the ISA's own ([`grammar`] says how they read). An opcode is looked up once a
//! module: [`Forms::opcode`] finds the lines that it fits ([`fit`]), holds their needs against the module's version
//! and target ([`target`]), and brings its parts into the grammar's order. Each instruction's operands are then held
//! against those lines ([`operands`]).

pub mod fit;
pub mod grammar;
pub mod operands;
pub mod target;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use self::fit::fit;
use self::grammar::{GRAMMAR, Syntax};
use self::target::{Target, Version};
use super::ast::{Operand, RegId, Type};

/// An opcode, split at its dots: `ld.global.nc.v4.f32` is `["ld", "global", "nc", "v4", "f32"]` (`::` stays inside a
/// part: `shared::cta`). Its parts stand in the grammar's order.
#[derive(Debug)]
pub struct Opcode {
    written: String,
    parts: Vec<String>,
    /// The types among its parts, as registers hold them.
    types: Vec<Type>,
    /// Elements of its vectors: 1 without any.
    length: usize,
    has_policy: bool,
    /// The lines that it fits.
    lines: Vec<&'static Syntax>,
}

impl Opcode {
    fn new(written: &str, parts: Vec<String>, lines: Vec<&'static Syntax>) -> Opcode {
        let length = ["v2", "v4", "v8"].iter().position(|length| parts.iter().any(|part| part == length));
        Opcode {
            written: written.to_string(),
            types: parts.iter().filter_map(|part| register_type(part)).collect(),
            length: length.map_or(1, |i| 2 << i),
            has_policy: parts.iter().any(|part| part == "L2::cache_hint"),
            parts,
            lines,
        }
    }

    /// The opcode of an instruction that no text has.
    pub fn bare(name: &str) -> Arc<Opcode> {
        Arc::new(Opcode::new(name, vec![name.to_string()], Vec::new()))
    }

    /// Its type number `n`.
    fn ty(&self, n: usize) -> Type {
        self.types.get(n).copied().unwrap_or(Type::B32)
    }

    /// As the text has it.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// What it is called, if it is PTX that is not supported here.
    pub fn refused(&self) -> Option<&'static str> {
        self.lines.first()?.refused
    }

    /// Holds operands against the lines that the opcode fits.
    ///
    /// # Errors
    /// What is the matter with them.
    pub fn check(&self, operands: &mut [Operand], ty: &dyn Fn(RegId) -> Type) -> Result<(), String> {
        let mut error = String::new();
        for line in &self.lines {
            match operands::check(line, self, operands, ty) {
                Ok(()) => return Ok(()),
                // Of several, the one that has as many operands.
                Err(why) if error.is_empty() || why.of_one => error = why.message,
                Err(_) => {}
            }
        }
        Err(error)
    }
}

impl Deref for Opcode {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.parts
    }
}

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

/// The type of registers that hold what a part names.
fn register_type(part: &str) -> Option<Type> {
    Type::from_name(part).or(match part {
        "e4m3x2" | "e5m2x2" => Some(Type::B16),
        "tf32" | "u2" | "s2" | "u4" | "s4" => Some(Type::B32),
        "u16x2" | "s16x2" => Some(Type::U32),
        _ => None,
    })
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
