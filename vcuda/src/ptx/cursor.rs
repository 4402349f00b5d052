//! The parser: what it has read so far, and the tokens to come.

use std::collections::{HashMap, HashSet};

use super::ast::{Body, Module, RegId};
use super::forms::Forms;
use super::forms::target::Target;
use super::lexer::{Lexer, Token, integer};
use super::{ParseError, Result};

/// What a name inside a function stands for.
pub enum Name {
    Reg(RegId),
    /// A vector register: the first of this many scalar ones.
    Vector(RegId, u32),
    /// A variable or parameter, by its unique name.
    Variable(String),
    Prototype,
}

#[derive(Default)]
pub struct Scope<'a> {
    pub names: HashMap<String, Name>,
    pub labels: HashMap<&'a str, usize>,
    /// `.branchtargets` lists: labels and the lines they are written on.
    pub tables: HashMap<&'a str, Vec<(&'a str, u32)>>,
    pub pending: Vec<Pending<'a>>,
}

/// A label operand to fill in: operand 0 of a `bra`, or an element of operand 1 of a `brx`.
pub struct Pending<'a> {
    pub label: &'a str,
    pub line: u32,
    pub instruction: usize,
    pub element: Option<usize>,
}

/// What a module-scope name stands for: an index into [`Module::variables`] or [`Module::functions`].
#[derive(Clone, Copy)]
pub enum Global {
    Variable(usize),
    Function(usize),
}

pub struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token to come, and its line.
    pub token: Token<'a>,
    pub line: u32,
    /// Line of the token last taken.
    pub taken_line: u32,
    pub module: Module,
    pub target: Option<Target>,
    pub forms: Forms,
    /// The opcode in hand.
    pub opcode: String,
    pub globals: HashMap<String, Global>,
    /// The function body in hand: its contents, its open scopes and the names its variables took.
    pub body: Body,
    pub scopes: Vec<Scope<'a>>,
    pub taken_names: HashSet<String>,
    pub rename_count: usize,
    /// What a short text could blow up, over the whole module: registers declared, branch-table entries
    /// copied into instructions, bytes of initial values.
    pub register_count: usize,
    pub branch_target_count: usize,
    pub init_bytes: usize,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let (token, line) = lexer.next()?;
        Ok(Parser {
            lexer,
            token,
            line,
            taken_line: line,
            module: Module::default(),
            target: None,
            forms: Forms::default(),
            opcode: String::new(),
            globals: HashMap::new(),
            body: Body::default(),
            scopes: Vec::new(),
            taken_names: HashSet::new(),
            rename_count: 0,
            register_count: 0,
            branch_target_count: 0,
            init_bytes: 0,
        })
    }

    /// Takes the current token.
    pub fn next(&mut self) -> Result<Token<'a>> {
        let token = self.token;
        self.taken_line = self.line;
        (self.token, self.line) = self.lexer.next()?;
        Ok(token)
    }

    /// The token after the next one, if there is any.
    pub fn peek(&self) -> Option<Token<'a>> {
        self.lexer.clone().next().ok().map(|(token, _)| token)
    }

    /// An error about the token last taken.
    pub fn error_taken<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ParseError { line: self.taken_line, message: message.into() })
    }

    /// An error about the token to come.
    pub fn expected<T>(&self, what: &str) -> Result<T> {
        Err(ParseError { line: self.line, message: format!("expected {what}, found {}", self.token) })
    }

    /// Takes `c` if it comes next.
    pub fn accept(&mut self, c: char) -> Result<bool> {
        let found = self.token == Token::Punct(c);
        if found {
            self.next()?;
        }
        Ok(found)
    }

    pub fn expect(&mut self, c: char) -> Result<()> {
        if self.accept(c)? { Ok(()) } else { self.expected(&format!("`{c}`")) }
    }

    /// Takes an identifier.
    pub fn word(&mut self, what: &str) -> Result<&'a str> {
        let Token::Word(word) = self.token else { return self.expected(what) };
        self.next()?;
        Ok(word)
    }

    /// Takes an unsigned integer literal of at most 32 bits.
    pub fn small_int(&mut self, what: &str) -> Result<u32> {
        let Token::Number(text) = self.token else { return self.expected(what) };
        self.next()?;
        match integer(text).and_then(|value| u32::try_from(value).ok()) {
            Some(value) => Ok(value),
            None => self.error_taken(format!("expected {what}, found `{text}`")),
        }
    }
}
