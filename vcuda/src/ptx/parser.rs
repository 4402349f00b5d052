//! The token cursor and the module level: headers, linkage, function signatures and their directives.

use super::ast::{Body, Function, Module, Space, Variable};
use super::body::Scope;
use super::forms::Forms;
use super::forms::target::{Target, Version};
use super::lexer::{Lexer, Token, unescape};
use super::{ParseError, Result};
use std::collections::{HashMap, HashSet};

/// Parses a whole PTX module (PTX ISA 9.0 chapters 4, 5, 10 and 11).
///
/// # Errors
/// The first place where `text` is not PTX, names something undefined or twice, or uses a part of PTX that
/// kernels compiled from CUDA C++ never do (textures, register parameters, aliases).
pub fn parse(text: &str) -> Result<Module> {
    let mut parser = Parser::new(text)?;
    parser.module()?;
    Ok(parser.module)
}

/// The target that a text names first; what is behind it is not looked at.
///
/// # Errors
/// A text that begins otherwise.
pub fn target(text: &str) -> Result<&str> {
    let mut parser = Parser::new(text)?;
    let Token::Dot("version") = parser.next()? else {
        return parser.error_taken("a module begins with .version");
    };
    parser.version()?;
    let Token::Dot("target") = parser.next()? else {
        return parser.error_taken(".target is expected after .version");
    };
    parser.word("a target such as sm_90a")
}

/// What a module-scope name stands for: an index into [`Module::variables`] or [`Module::functions`].
#[derive(Clone, Copy)]
pub(super) enum Global {
    Variable(usize),
    Function(usize),
}

pub(super) struct Parser<'a> {
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
    fn new(text: &'a str) -> Result<Self> {
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
        match super::constant::integer(text).and_then(|value| u32::try_from(value).ok()) {
            Some(value) => Ok(value),
            None => self.error_taken(format!("expected {what}, found `{text}`")),
        }
    }

    fn module(&mut self) -> Result<()> {
        let (mut has_version, mut has_target) = (false, false);
        loop {
            match self.next()? {
                Token::End => break,
                Token::Punct(';') => {}
                Token::Dot("version") => {
                    self.module.version = self.version()?;
                    has_version = true;
                }
                Token::Dot("target") => {
                    self.target = Some(self.target()?);
                    has_target = true;
                }
                Token::Dot("address_size") => {
                    if self.small_int("32 or 64")? != 64 {
                        return self
                            .error_taken("only 64-bit addresses are supported: compile for a 64-bit target");
                    }
                }
                Token::Dot("file") => self.file()?,
                Token::Dot("loc") => drop(self.loc()?),
                Token::Dot("section") => self.skip_section()?,
                Token::Dot("pragma") => self.skip_pragma()?,
                Token::Dot(first) => self.linked(first)?,
                other => return self.error_taken(format!("expected a directive, found {other}")),
            }
        }
        if !has_version || !has_target {
            return self.error_taken("a module needs .version and .target");
        }
        Ok(())
    }

    fn version(&mut self) -> Result<Version> {
        let Token::Number(text) = self.token else { return self.expected("a version such as 8.0") };
        self.next()?;
        let version = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match version {
            Some(version) => Ok(version),
            None => self.error_taken(format!("`{text}` is not a version such as 8.0")),
        }
    }

    /// `.target name, option, …`
    fn target(&mut self) -> Result<Target> {
        let name = self.word("a target such as sm_90a")?;
        let Some((target, (major, minor))) = Target::from_name(name) else {
            return self.error_taken(format!("there is no target {name}"));
        };
        if self.module.version < (major, minor) {
            return self.error_taken(format!("target {name} needs .version {major}.{minor} or later"));
        }
        self.module.target = name.to_string();
        while self.accept(',')? {
            let option = self.word("a target option")?;
            let options =
                ["debug", "texmode_unified", "texmode_independent", "texmode_raw", "map_f64_to_f32"];
            if !options.contains(&option) {
                return self.error_taken(format!("unknown target option {option}"));
            }
        }
        Ok(target)
    }

    /// A function or variables, after their first dotted word: linkage, or already the kind.
    fn linked(&mut self, first: &'a str) -> Result<()> {
        let mut kind = first;
        let is_extern = first == "extern";
        if matches!(first, "extern" | "visible" | "weak" | "common") {
            let Token::Dot(next) = self.token else { return self.expected("a function or a state space") };
            self.next()?;
            kind = next;
        }
        let space = match kind {
            "entry" | "func" => return self.function(kind == "entry"),
            "global" => Space::Global,
            "const" => Space::Const,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            _ => return self.error_taken(format!("directive .{kind} is not supported here")),
        };
        for variable in self.variables(space, is_extern)? {
            self.declare_global(variable)?;
        }
        Ok(())
    }

    /// Adds a module-scope variable; an `.extern` one may be declared again.
    pub fn declare_global(&mut self, variable: Variable) -> Result<()> {
        match self.globals.get(&variable.name) {
            None => {
                let index = self.module.variables.len();
                self.globals.insert(variable.name.clone(), Global::Variable(index));
                self.module.variables.push(variable);
            }
            Some(&Global::Variable(index)) if self.module.variables[index].is_extern => {
                self.module.variables[index] = variable;
            }
            Some(&Global::Variable(_)) if variable.is_extern => {}
            Some(_) => return self.error_taken(format!("`{}` is declared twice", variable.name)),
        }
        Ok(())
    }

    /// `.entry` and `.func`, after that word. A declaration and its definition become one function.
    fn function(&mut self, is_kernel: bool) -> Result<()> {
        let line = self.taken_line;
        let mut function = Function { is_kernel, line, ..Function::default() };
        while let Token::Dot("attribute" | "noreturn") = self.token {
            if self.next()? == Token::Dot("attribute") {
                self.skip_attribute()?;
            }
        }
        if self.token == Token::Punct('(') {
            function.returns = self.parameters()?;
        }
        function.name = self.word("a function name")?.to_string();
        if self.token == Token::Punct('(') {
            function.params = self.parameters()?;
        }
        function.directives = self.directives(is_kernel)?;

        let index = match self.globals.get(&function.name) {
            None => self.module.functions.len(),
            Some(&Global::Function(index)) => index,
            Some(_) => {
                let message = format!("`{}` is declared twice", function.name);
                return Err(ParseError { line, message });
            }
        };
        // Known before its body, which may call it.
        self.globals.insert(function.name.clone(), Global::Function(index));
        let is_new = index == self.module.functions.len();
        if is_new {
            self.module.functions.push(function.clone());
        }
        if self.accept(';')? {
            return Ok(());
        }
        if !is_new && self.module.functions[index].body.is_some() {
            return Err(ParseError { line, message: format!("`{}` is defined twice", function.name) });
        }
        function.body = Some(self.body(&function)?);
        self.module.functions[index] = function;
        Ok(())
    }

    /// `( .param … name, … )`
    pub fn parameters(&mut self) -> Result<Vec<Variable>> {
        self.expect('(')?;
        let mut params = Vec::new();
        if self.accept(')')? {
            return Ok(params);
        }
        loop {
            params.push(self.parameter()?);
            if !self.accept(',')? {
                self.expect(')')?;
                return Ok(params);
            }
        }
    }

    /// `.file index "path" [, timestamp, size]`
    fn file(&mut self) -> Result<()> {
        let index = self.small_int("a file index")?;
        let Token::Text(path) = self.token else { return self.expected("a path in quotes") };
        self.next()?;
        self.module.files.push((index, unescape(path)));
        while self.accept(',')? {
            let Token::Number(_) = self.next()? else { return self.error_taken("expected a number") };
        }
        Ok(())
    }

    /// `.loc file line column [, function_name label[+n]] [, inlined_at file line column]`: file and line;
    /// `None` for line 0, which stands for no line.
    pub fn loc(&mut self) -> Result<Option<(u32, u32)>> {
        let place = self.place()?;
        while self.accept(',')? {
            match self.word("function_name or inlined_at")? {
                "function_name" => {
                    self.word("a label")?;
                    if self.accept('+')? {
                        self.small_int("an offset")?;
                    }
                }
                "inlined_at" => drop(self.place()?),
                other => {
                    return self
                        .error_taken(format!("expected function_name or inlined_at, found `{other}`"));
                }
            }
        }
        Ok(Some(place).filter(|&(_, line)| line != 0))
    }

    fn place(&mut self) -> Result<(u32, u32)> {
        let place = (self.small_int("a file index")?, self.small_int("a line")?);
        self.small_int("a column")?;
        Ok(place)
    }

    /// `.section .debug_info { … }`: debug information, which nothing here reads.
    fn skip_section(&mut self) -> Result<()> {
        self.next()?;
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                Token::Punct('{') => depth += 1,
                Token::Punct('}') => depth -= 1,
                Token::End => return self.error_taken("a section has no closing brace"),
                _ => {}
            }
        }
        Ok(())
    }

    /// `.pragma "…", "…";`
    pub fn skip_pragma(&mut self) -> Result<()> {
        while !self.accept(';')? {
            match self.next()? {
                Token::Text(_) | Token::Punct(',') => {}
                other => return self.error_taken(format!("expected a pragma in quotes, found {other}")),
            }
        }
        Ok(())
    }

    /// `(.managed)`, `(.unified(n, n))`
    pub fn skip_attribute(&mut self) -> Result<()> {
        self.expect('(')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                Token::Punct('(') => depth += 1,
                Token::Punct(')') => depth -= 1,
                Token::Dot(_) | Token::Number(_) | Token::Punct(',') => {}
                other => return self.error_taken(format!("unexpected {other} in an attribute")),
            }
        }
        Ok(())
    }
}
