//! Opcodes as the grammar has them.

use std::ops::Deref;
use std::sync::Arc;

use super::grammar::Syntax;
use crate::ptx::types::Type;

/// An opcode, split at its dots: `ld.global.nc.v4.f32` is `["ld", "global", "nc", "v4", "f32"]` (`::` stays inside a
/// part: `shared::cta`). Its parts stand in the grammar's order.
#[derive(Debug)]
pub struct Opcode {
    written: String,
    parts: Vec<String>,
    /// The types among its parts, as registers hold them.
    types: Vec<Type>,
    /// Elements of its vectors: 1 without any.
    pub length: usize,
    pub has_policy: bool,
    /// The lines that it fits.
    pub lines: Vec<&'static Syntax>,
}

impl Opcode {
    /// From its text, its parts in the grammar's order, and the lines that it fits.
    pub fn new(written: &str, parts: Vec<String>, lines: Vec<&'static Syntax>) -> Opcode {
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
    pub fn ty(&self, n: usize) -> Type {
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
}

impl Deref for Opcode {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.parts
    }
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
