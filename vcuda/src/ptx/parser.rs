//! The module level: headers, linkage, function signatures and their directives.

use super::ast::{Function, Module, Space};
use super::cursor::{Global, Parser};
use super::forms::target::{Target, Version};
use super::lexer::{Token, unescape};
use super::{ParseError, Result};

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

/// The version and the target that a text names first; what is behind them is not looked at.
///
/// # Errors
/// A text that begins otherwise.
pub fn header(text: &str) -> Result<(Version, &str)> {
    let mut parser = Parser::new(text)?;
    let Token::Dot("version") = parser.next()? else {
        return parser.error_taken("a module begins with .version");
    };
    let version = parser.version()?;
    let Token::Dot("target") = parser.next()? else {
        return parser.error_taken(".target is expected after .version");
    };
    Ok((version, parser.word("a target such as sm_90a")?))
}

impl<'a> Parser<'a> {
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
}
