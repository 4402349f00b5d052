//! How the grammar writes operands.
//!
//! | written | stands for |
//! |---|---|
//! | `d` | a register that is written, of the opcode's first type |
//! | `a`, any other letter | a source: a register, or a constant of that type |
//! | `p`, `q` | a predicate that is written; `p\|q` two of them |
//! | `!a` | a predicate that is read, or its negation |
//! | `[a]`, `[tensor]` | an address; that of a tensor map with coordinates |
//! | `{a}` | registers in braces |
//! | `#`, `#128` | an integer constant, that one |
//! | `_` | nothing else |
//! | `policy` | a cache policy, if the opcode has `.L2::cache_hint` |
//!
//! After a colon comes the type, if it is not the opcode's first: the number of another, `w` for twice as wide, `pack`
//! for parts of it, or a name. The signs behind that: `?` may be left out, `_` may be `_`, `*` a vector if the opcode
//! is one (and else may be alone in braces), `+` may be wider, `&` may be a variable's address, `%` a special register,
//! `~` and `.` may or must have a selector, `-` may be negated, `^` is no constant.

use crate::ptx::types::Type;

/// One operand as the grammar has it.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub kind: Kind,
    pub ty: Want,
    pub signs: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Destination,
    Source,
    /// A predicate that is written; a pair of them.
    Result,
    Results,
    /// A register and a predicate that are written.
    Both,
    Predicate,
    Address,
    TensorAddress,
    Vector,
    Constant,
    Policy,
    /// `_` alone.
    Sink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Nth(usize),
    Wide,
    Parts,
    Fixed(Type),
}

impl Pattern {
    /// From the grammar's `d, a, b`.
    pub fn list(text: &'static str) -> Vec<Pattern> {
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(Pattern::from_text).collect()
    }

    fn from_text(text: &'static str) -> Pattern {
        let name = text.trim_start_matches(['!', '[', '{', '#']);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
        let (name, signs) = name.split_at(end);
        let (ty, signs) = match signs.strip_prefix(':') {
            None => ("1", signs),
            Some(ty) => ty.split_at(ty.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(ty.len())),
        };
        let kind = match (text.as_bytes()[0], name) {
            (b'[', "tensor") => Kind::TensorAddress,
            (b'[', _) => Kind::Address,
            (b'{', _) => Kind::Vector,
            (b'#', _) => Kind::Constant,
            (b'_', _) => Kind::Sink,
            (b'!', _) => Kind::Predicate,
            (_, "policy") => Kind::Policy,
            (_, "p") if signs.contains('|') => Kind::Results,
            (_, "p" | "q") => Kind::Result,
            (_, "d") if signs.contains('|') => Kind::Both,
            (_, "d") => Kind::Destination,
            _ => Kind::Source,
        };
        let ty = match (ty, ty.parse::<usize>()) {
            (_, Ok(number)) if kind != Kind::Policy => Want::Nth(number - 1),
            ("w", _) => Want::Wide,
            ("pack", _) => Want::Parts,
            _ if kind == Kind::Policy => Want::Fixed(Type::U64),
            (name, _) => Want::Fixed(Type::from_name(name).expect("a type")),
        };
        Pattern { kind, ty, signs }
    }

    pub fn has(&self, sign: char) -> bool {
        self.signs.contains(sign)
    }

    /// Whether it may be left out; of a pair only the second may.
    pub fn is_optional(&self) -> bool {
        self.has('?') && !self.has('|')
    }
}
