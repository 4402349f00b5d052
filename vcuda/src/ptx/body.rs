//! Function bodies: scopes, registers, labels and instructions, PTX ISA 4.3.
//!
//! Scopes nest on an explicit stack. A label can be used before it is written, so label operands wait in
//! their scope until it closes; those it does not know go to the scope around it.

use super::ast::{Body, Function, Guard, Instruction, Operand, RegId, Space, Type, Variable};
use super::cursor::{Global, Name, Parser, Pending, Scope};
use super::forms::operands;
use super::lexer::Token;
use super::{ParseError, Result};
use std::collections::hash_map::Entry;

const MAX_SCOPE_DEPTH: usize = 64;
const MAX_REGISTERS: usize = 1 << 19;
const MAX_BRANCH_TARGETS: usize = 1 << 20;

impl<'a> Parser<'a> {
    /// A function's body, from `{` to its `}`.
    pub fn body(&mut self, function: &Function) -> Result<Body> {
        self.expect('{')?;
        self.body = Body::default();
        self.scopes = vec![Scope::default()];
        self.taken_names.clear();
        for variable in function.returns.iter().chain(&function.params) {
            self.declare(variable.name.clone(), Name::Variable(variable.name.clone()))?;
            self.taken_names.insert(variable.name.clone());
        }
        let mut source = None;
        loop {
            match self.next()? {
                Token::Punct('{') if self.scopes.len() == MAX_SCOPE_DEPTH => {
                    return self.error_taken(format!("scopes nest more than {MAX_SCOPE_DEPTH} deep"));
                }
                Token::Punct('{') => self.scopes.push(Scope::default()),
                Token::Punct('}') => {
                    self.close_scope()?;
                    if self.scopes.is_empty() {
                        return Ok(std::mem::take(&mut self.body));
                    }
                }
                Token::Punct(';') => {}
                Token::Punct('@') => {
                    let negated = self.accept('!')?;
                    let guard = Guard { reg: self.predicate()?, negated };
                    let opcode = self.word("an opcode")?;
                    self.instruction(Some(guard), opcode, source)?;
                }
                Token::Word(word) if self.token == Token::Punct(':') => self.label(word)?,
                Token::Word(word) => self.instruction(None, word, source)?,
                Token::Dot("loc") => source = self.loc()?,
                Token::Dot("pragma") => self.skip_pragma()?,
                Token::Dot("reg") => self.registers()?,
                Token::Dot("local") => self.local_variables(Space::Local)?,
                Token::Dot("shared" | "shared::cta") => self.local_variables(Space::Shared)?,
                Token::Dot("param") => self.local_variables(Space::Param)?,
                Token::Dot("global") => self.local_variables(Space::Global)?,
                Token::Dot("const") => self.local_variables(Space::Const)?,
                Token::End => return self.error_taken(format!("`{}` has no closing brace", function.name)),
                other => return self.error_taken(format!("expected a statement, found {other}")),
            }
        }
    }

    /// The innermost scope; the stack is empty only between bodies.
    fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("a scope is open inside a body")
    }

    fn declare(&mut self, name: String, meaning: Name) -> Result<()> {
        match self.scope().names.entry(name) {
            Entry::Vacant(place) => drop(place.insert(meaning)),
            Entry::Occupied(place) => {
                let message = format!("`{}` is declared twice", place.key());
                return self.error_taken(message);
            }
        }
        Ok(())
    }

    /// Pops a scope and fills in the labels that it knows.
    fn close_scope(&mut self) -> Result<()> {
        let Some(scope) = self.scopes.pop() else { return Ok(()) };
        for pending in scope.pending {
            if let Some(&target) = scope.labels.get(pending.label) {
                let operands = &mut self.body.instructions[pending.instruction].operands;
                match (pending.element, &mut operands[..]) {
                    (Some(element), [_, Operand::List(targets)]) => targets[element] = Operand::Label(target),
                    (_, operands) => operands[0] = Operand::Label(target),
                }
            } else if let Some(parent) = self.scopes.last_mut() {
                parent.pending.push(pending);
            } else {
                let message = format!("undefined label `{}`", pending.label);
                return Err(ParseError { line: pending.line, message });
            }
        }
        Ok(())
    }

    /// `name:`, also before `.branchtargets`, `.callprototype` and `.calltargets`.
    fn label(&mut self, name: &'a str) -> Result<()> {
        let target = self.body.instructions.len();
        let is_new = !self.scope().labels.contains_key(name) && !self.scope().tables.contains_key(name);
        if !is_new {
            return self.error_taken(format!("label `{name}` is defined twice"));
        }
        self.expect(':')?;
        match self.token {
            Token::Dot("branchtargets") => {
                self.next()?;
                let targets = self.words("a label")?;
                self.scope().tables.insert(name, targets);
            }
            Token::Dot("calltargets") => {
                self.next()?;
                self.words("a function name")?;
                self.declare(name.to_string(), Name::Prototype)?;
            }
            Token::Dot("callprototype") => {
                self.next()?;
                self.prototype()?;
                self.declare(name.to_string(), Name::Prototype)?;
            }
            _ => drop(self.scope().labels.insert(name, target)),
        }
        Ok(())
    }

    /// `a, b, c;` with the line of each.
    fn words(&mut self, what: &str) -> Result<Vec<(&'a str, u32)>> {
        let mut words = Vec::new();
        loop {
            words.push((self.word(what)?, self.taken_line));
            if !self.accept(',')? {
                self.expect(';')?;
                return Ok(words);
            }
        }
    }

    /// `(.param .b32 _) _ (.param .b32 _, …);`: checked for form alone, as the callee's own signature rules.
    fn prototype(&mut self) -> Result<()> {
        if self.token == Token::Punct('(') {
            self.parameters()?;
        }
        self.word("`_`")?;
        if self.token == Token::Punct('(') {
            self.parameters()?;
        }
        while let Token::Dot(_) | Token::Number(_) = self.token {
            self.next()?;
        }
        self.expect(';')
    }

    /// `.reg .b32 %r<5>, x;`, `.reg .v4 .f32 v;` (which are `v.x` to `v.w`).
    fn registers(&mut self) -> Result<()> {
        let mut width = 1;
        let ty = loop {
            let Token::Dot(part) = self.token else { return self.expected("a register type") };
            self.next()?;
            match (part, Type::from_name(part)) {
                ("v2", _) => width = 2,
                ("v4", _) => width = 4,
                (_, Some(ty)) => break ty,
                _ => return self.error_taken(format!("unknown type .{part}")),
            }
        };
        // 128 bits are a pair of registers wherever they stand, low half first.
        let (ty, width) = match (ty, width) {
            (Type::B128, 1) => (Type::B64, 2),
            (Type::B128, _) => return self.error_taken("vectors of 128-bit registers are not supported"),
            as_written => as_written,
        };
        loop {
            let name = self.word("a register name")?;
            if self.accept('<')? {
                let count = self.small_int("a count")?;
                self.expect('>')?;
                let room = (count as usize).min(MAX_REGISTERS.saturating_sub(self.register_count));
                self.body.registers.reserve(room);
                self.scope().names.reserve(room);
                for i in 0..count {
                    self.register(format!("{name}{i}"), ty, width)?;
                }
            } else {
                self.register(name.to_string(), ty, width)?;
            }
            if !self.accept(',')? {
                return self.expect(';');
            }
        }
    }

    fn register(&mut self, name: String, ty: Type, width: u32) -> Result<()> {
        self.register_count += width as usize;
        if self.register_count > MAX_REGISTERS {
            return self.error_taken(format!("more than {MAX_REGISTERS} registers in a module"));
        }
        let reg = self.body.registers.len() as RegId;
        if width == 1 {
            self.body.registers.push(ty);
            return self.declare(name, Name::Reg(reg));
        }
        for (reg, component) in (reg..reg + width).zip(["x", "y", "z", "w"]) {
            self.body.registers.push(ty);
            self.declare(format!("{name}.{component}"), Name::Reg(reg))?;
        }
        self.declare(name, Name::Vector(reg, width))
    }

    /// Variables of a body: those of `.global` and `.const` belong to the module all the same.
    fn local_variables(&mut self, space: Space) -> Result<()> {
        for mut variable in self.variables(space, false)? {
            let name = variable.name.clone();
            variable.name = self.unique_name(&variable);
            self.declare(name, Name::Variable(variable.name.clone()))?;
            if matches!(space, Space::Global | Space::Const) {
                self.declare_global(variable)?;
            } else {
                self.taken_names.insert(variable.name.clone());
                self.body.variables.push(variable);
            }
        }
        Ok(())
    }

    /// The variable's own name if it is free, else with a `#` and a number, which no PTX name contains.
    fn unique_name(&mut self, variable: &Variable) -> String {
        let name = &variable.name;
        if !self.taken_names.contains(name) && !self.globals.contains_key(name) {
            return name.clone();
        }
        self.rename_count += 1;
        format!("{name}#{}", self.rename_count)
    }

    /// An instruction after the first part of its opcode.
    fn instruction(&mut self, guard: Option<Guard>, first: &str, source: Option<(u32, u32)>) -> Result<()> {
        let line = self.taken_line;
        self.opcode.clear();
        self.opcode.push_str(first);
        while let Token::Dot(part) = self.token {
            self.next()?;
            self.opcode.push('.');
            self.opcode.push_str(part);
        }
        let Some(target) = self.target else { return self.error_taken("an instruction before .target") };
        let opcode = self.forms.opcode(&self.opcode, self.module.version, target);
        let opcode = opcode.map_err(|message| ParseError { line, message })?;
        let mut operands = match first {
            "bra" => self.branch()?,
            "brx" => self.indexed_branch()?,
            "call" => self.call()?,
            _ => self.operands()?,
        };
        self.expect(';')?;
        let registers = &self.body.registers;
        let checked = operands::check(&opcode, &mut operands, &|reg| registers[reg as usize]);
        let wrong = |why| ParseError { line, message: format!("{}: {why}", opcode.written()) };
        checked.map_err(wrong)?;
        self.body.instructions.push(Instruction { guard, opcode, operands, line, source });
        Ok(())
    }

    fn operands(&mut self) -> Result<Vec<Operand>> {
        if self.token == Token::Punct(';') {
            return Ok(Vec::new());
        }
        let mut operands = Vec::with_capacity(4);
        operands.push(self.operand()?);
        while self.accept(',')? {
            operands.push(self.operand()?);
        }
        Ok(operands)
    }

    fn branch(&mut self) -> Result<Vec<Operand>> {
        let label = self.word("a label")?;
        let (line, instruction) = (self.taken_line, self.body.instructions.len());
        self.scope().pending.push(Pending { label, line, instruction, element: None });
        Ok(vec![Operand::Label(0)])
    }

    /// `brx.idx %r1, table`: the table's labels take its place.
    fn indexed_branch(&mut self) -> Result<Vec<Operand>> {
        let index = self.operand()?;
        self.expect(',')?;
        let name = self.word("a .branchtargets label")?;
        let instruction = self.body.instructions.len();
        let Some(depth) = self.scopes.iter().rposition(|scope| scope.tables.contains_key(name)) else {
            return self.error_taken(format!("undefined .branchtargets `{name}`"));
        };
        let scope = &mut self.scopes[depth];
        let targets = &scope.tables[name];
        self.branch_target_count += targets.len();
        if self.branch_target_count > MAX_BRANCH_TARGETS {
            return self.error_taken(format!("more than {MAX_BRANCH_TARGETS} branch targets in a module"));
        }
        let list = Operand::List(vec![Operand::Label(0); targets.len()]);
        for (element, &(label, line)) in targets.iter().enumerate() {
            scope.pending.push(Pending { label, line, instruction, element: Some(element) });
        }
        Ok(vec![index, list])
    }

    /// `call (ret), callee, (arguments), prototype`, where all but the callee can be left out.
    fn call(&mut self) -> Result<Vec<Operand>> {
        let mut returns = Operand::List(Vec::new());
        if self.token == Token::Punct('(') {
            returns = self.list()?;
            self.expect(',')?;
        }
        let word = self.word("a function")?;
        let callee = self.named(word)?;
        let is_function = matches!(self.globals.get(word), Some(Global::Function(_)));
        if !is_function && !matches!(callee, Operand::Reg(_)) {
            return self.error_taken(format!("`{word}` is not a function"));
        }
        let mut arguments = Operand::List(Vec::new());
        let mut prototype = None;
        while self.accept(',')? {
            if self.token == Token::Punct('(') {
                arguments = self.list()?;
            } else {
                let word = self.word("a prototype")?;
                match self.named(word)? {
                    Operand::Function(name) => prototype = Some(Operand::Function(name)),
                    _ => return self.error_taken(format!("`{word}` is not a prototype")),
                }
            }
        }
        Ok([returns, callee, arguments].into_iter().chain(prototype).collect())
    }
}
