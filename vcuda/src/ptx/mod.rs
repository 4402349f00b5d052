//! PTX text to a syntax tree.
//!
//! [`parse`] resolves names: registers become indices, labels instruction indices, and variables of nested
//! scopes get names of their own. It accepts what NVRTC writes and hand-written PTX of the same kind; any
//! text at all gives a tree or a [`ParseError`], in time linear in its length.

pub mod ast;
mod body;
mod constant;
mod cursor;
mod directive;
pub mod forms;
mod lexer;
mod operand;
mod parser;
mod types;
mod variable;

pub use parser::{header, parse};

/// Why a text is not PTX, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    pub message: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

type Result<T> = std::result::Result<T, ParseError>;
