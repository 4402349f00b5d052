//! Instruction operands, PTX ISA chapter 6, with names resolved.

use super::Result;
use super::ast::{Operand, Part, RegId, Type};
use super::constant::Constant;
use super::cursor::{Global, Name, Parser};
use super::lexer::Token;

impl<'a> Parser<'a> {
    /// One operand in any form but a label or a call's argument list.
    pub fn operand(&mut self) -> Result<Operand> {
        match self.token {
            Token::Punct('[') => {
                self.next()?;
                self.address()
            }
            Token::Punct('{') => {
                self.next()?;
                Ok(Operand::Vector(self.elements('}')?))
            }
            Token::Punct('!') if matches!(self.peek(), Some(Token::Word(_))) => {
                self.next()?;
                Ok(Operand::NotReg(self.predicate()?))
            }
            _ => self.scalar_operand(),
        }
    }

    /// A register, pair, sink, number, special register or symbol.
    fn scalar_operand(&mut self) -> Result<Operand> {
        if self.token == Token::Punct('-') && matches!(self.peek(), Some(Token::Word(_))) {
            self.next()?;
            let word = self.word("a register")?;
            return match self.named(word)? {
                Operand::Reg(reg) => Ok(Operand::Part(reg, Part { negated: true, ..Part::WHOLE })),
                Operand::Part(reg, part) => Ok(Operand::Part(reg, Part { negated: true, ..part })),
                _ => self.error_taken(format!("`{word}` is not a register")),
            };
        }
        if self.at_constant() {
            return Ok(match self.constant()? {
                Constant::Int(value) => Operand::Int(value),
                Constant::F32(bits) => Operand::F32(bits),
                Constant::F64(bits) => Operand::F64(bits),
            });
        }
        let word = self.word("an operand")?;
        match self.named(word)? {
            first @ (Operand::Reg(_) | Operand::Sink) if self.accept('|')? => {
                let word = self.word("a register")?;
                let second = self.named(word)?;
                if !matches!(second, Operand::Reg(_) | Operand::Sink) {
                    return self.error_taken(format!("`{word}` is not a register"));
                }
                Ok(Operand::Pair(Box::new(first), Box::new(second)))
            }
            Operand::Symbol(name, 0) => Ok(Operand::Symbol(name, self.offset()?)),
            other => Ok(other),
        }
    }

    /// After `[`: base, offset, and the coordinates of a tensor.
    fn address(&mut self) -> Result<Operand> {
        let base = match self.token {
            Token::Word(word) => {
                self.next()?;
                self.named(word)?
            }
            _ => Operand::Int(self.int()?),
        };
        if !matches!(base, Operand::Reg(_) | Operand::Symbol(..) | Operand::Int(_)) {
            return self.error_taken("an address starts with a register, a variable or a number");
        }
        let offset = self.offset()?;
        let address = match base {
            Operand::Symbol(name, _) => Operand::Address(Box::new(Operand::Symbol(name, offset)), 0),
            _ => Operand::Address(Box::new(base), offset),
        };
        if self.accept(',')? {
            self.expect('{')?;
            let coordinates = self.elements('}')?;
            self.expect(']')?;
            let Operand::Address(base, 0) = address else {
                return self.error_taken("a tensor map's address has no offset");
            };
            return Ok(Operand::TensorAddress(base, coordinates));
        }
        self.expect(']')?;
        Ok(address)
    }

    /// `+n`, `+-n`, `-n` or nothing, which is 0.
    pub fn offset(&mut self) -> Result<i64> {
        match self.token {
            Token::Punct('+') => {
                self.next()?;
                self.int()
            }
            Token::Punct('-') => self.int(),
            _ => Ok(0),
        }
    }

    /// Scalars up to the closing bracket.
    pub fn elements(&mut self, close: char) -> Result<Vec<Operand>> {
        let mut elements = vec![self.scalar_operand()?];
        while self.accept(',')? {
            elements.push(self.scalar_operand()?);
        }
        self.expect(close)?;
        Ok(elements)
    }

    /// `(a, b)` or `()` of a call.
    pub fn list(&mut self) -> Result<Operand> {
        self.expect('(')?;
        if self.accept(')')? {
            return Ok(Operand::List(Vec::new()));
        }
        Ok(Operand::List(self.elements(')')?))
    }

    /// A predicate register.
    pub fn predicate(&mut self) -> Result<RegId> {
        let word = self.word("a predicate")?;
        match self.named(word)? {
            Operand::Reg(reg) if self.body.registers[reg as usize] == Type::Pred => Ok(reg),
            _ => self.error_taken(format!("`{word}` is not a predicate")),
        }
    }

    /// What `word`, just taken, and a component after it (`%tid.x`) stand for.
    pub fn named(&mut self, word: &'a str) -> Result<Operand> {
        if word == "_" {
            return Ok(Operand::Sink);
        }
        if let Token::Dot(component) = self.token {
            self.next()?;
            if let Some(part) = Part::from_name(component)
                && let Ok(Operand::Reg(reg)) = self.resolve(word)
            {
                return Ok(Operand::Part(reg, part));
            }
            return self.resolve(&format!("{word}.{component}"));
        }
        self.resolve(word)
    }

    fn resolve(&self, name: &str) -> Result<Operand> {
        for scope in self.scopes.iter().rev() {
            match scope.names.get(name) {
                Some(Name::Reg(reg)) => return Ok(Operand::Reg(*reg)),
                Some(Name::Vector(first, width)) => {
                    return Ok(Operand::Vector((*first..first + width).map(Operand::Reg).collect()));
                }
                Some(Name::Variable(unique)) => return Ok(Operand::Symbol(unique.clone(), 0)),
                Some(Name::Prototype) => return Ok(Operand::Function(name.to_string())),
                None => {}
            }
        }
        match self.globals.get(name) {
            Some(Global::Variable(_)) => return Ok(Operand::Symbol(name.to_string(), 0)),
            Some(Global::Function(_)) => return Ok(Operand::Function(name.to_string())),
            None => {}
        }
        match name.strip_prefix('%') {
            Some(special) if is_special(special) => Ok(Operand::Special(special.to_string())),
            Some(_) => self.error_taken(format!("undefined register `{name}`")),
            None if name == "WARP_SZ" => Ok(Operand::Int(32)),
            None => self.error_taken(format!("undefined name `{name}`")),
        }
    }
}

/// Whether `name` is a predefined register, PTX ISA chapter 10 ("Special Registers").
fn is_special(name: &str) -> bool {
    if let Some((vector, component)) = name.split_once('.') {
        let vectors =
            ["tid", "ntid", "ctaid", "nctaid", "clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid"];
        return vectors.contains(&vector) && ["x", "y", "z", "w"].contains(&component);
    }
    let scalars = [
        "laneid",
        "warpid",
        "nwarpid",
        "smid",
        "nsmid",
        "gridid",
        "is_explicit_cluster",
        "cluster_ctarank",
        "cluster_nctarank",
        "lanemask_eq",
        "lanemask_le",
        "lanemask_lt",
        "lanemask_ge",
        "lanemask_gt",
        "clock",
        "clock_hi",
        "clock64",
        "globaltimer",
        "globaltimer_lo",
        "globaltimer_hi",
        "reserved_smem_offset_begin",
        "reserved_smem_offset_end",
        "reserved_smem_offset_cap",
        "total_smem_size",
        "aggr_smem_size",
        "dynamic_smem_size",
        "current_graph_exec",
    ];
    let numbered = |prefix: &str, count: u32| {
        let number = name.strip_prefix(prefix).and_then(|n| n.strip_suffix("_64").unwrap_or(n).parse().ok());
        number.is_some_and(|n: u32| n < count)
    };
    scalars.contains(&name)
        || numbered("envreg", 32)
        || numbered("pm", 8)
        || numbered("reserved_smem_offset_", 2)
}
