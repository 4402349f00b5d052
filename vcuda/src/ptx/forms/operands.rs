//! Whether an instruction's operands are such as its opcode has.

use super::grammar::Syntax;
use super::opcode::Opcode;
use super::pattern::{Kind, Pattern, Want};
use crate::ptx::ast::{Operand, Part, RegId, Type};

/// Why operands are not those of a form; whether they are as many.
struct Misfit {
    message: String,
    of_one: bool,
}

/// Holds operands against the lines that the opcode fits; constants become those of the type that is expected.
///
/// # Errors
/// What is the matter with them.
pub fn check(opcode: &Opcode, operands: &mut [Operand], ty: &dyn Fn(RegId) -> Type) -> Result<(), String> {
    let mut error = String::new();
    for line in &opcode.lines {
        match check_line(line, opcode, operands, ty) {
            Ok(()) => return Ok(()),
            // Of several, the one that has as many operands.
            Err(why) if error.is_empty() || why.of_one => error = why.message,
            Err(_) => {}
        }
    }
    Err(error)
}

fn check_line(
    line: &Syntax,
    opcode: &Opcode,
    operands: &mut [Operand],
    ty: &dyn Fn(RegId) -> Type,
) -> Result<(), Misfit> {
    let Some(patterns) = &line.operands else { return Ok(()) };
    let patterns = || patterns.iter().filter(|pattern| pattern.kind != Kind::Policy || opcode.has_policy);
    let (found, most) = (operands.len(), patterns().count());
    let optional = patterns().filter(|pattern| pattern.is_optional()).count();
    if !(most - optional..=most).contains(&found) {
        let least = if optional == 0 { String::new() } else { format!("{} to ", most - optional) };
        return Err(Misfit {
            message: format!("{found} operands; {least}{most} are expected"),
            of_one: false,
        });
    }
    // What is left out is the last that may be.
    let mut optional = optional - (most - found);
    let present = patterns().filter(|pattern| {
        let is_present = !pattern.is_optional() || optional > 0;
        optional -= (is_present && pattern.is_optional()) as usize;
        is_present
    });
    for (i, (operand, pattern)) in operands.iter_mut().zip(present).enumerate() {
        let checked = Checker { opcode, ty, pattern }.check(operand);
        checked.map_err(|why| Misfit { message: format!("operand {}: {why}", i + 1), of_one: true })?;
    }
    Ok(())
}

struct Checker<'a> {
    opcode: &'a Opcode,
    ty: &'a dyn Fn(RegId) -> Type,
    pattern: &'a Pattern,
}

impl Checker<'_> {
    fn check(&self, operand: &mut Operand) -> Result<(), String> {
        match (self.pattern.kind, operand) {
            (Kind::Destination, Operand::Vector(all)) => self.vector(all),
            (Kind::Source, Operand::Vector(all)) => self.vector(all),
            (Kind::Vector, Operand::Vector(all)) => match self.pattern.ty {
                Want::Parts => self.parts(all),
                _ => all.iter_mut().try_for_each(|element| self.register(element)),
            },
            (Kind::Destination | Kind::Source, operand) => {
                let is_sink = *operand == Operand::Sink && self.pattern.has('_');
                if self.pattern.has('*') && self.opcode.length > 1 && !is_sink {
                    return Err(format!("{} elements are expected", self.opcode.length));
                }
                if self.pattern.kind == Kind::Destination {
                    self.destination(operand)
                } else {
                    self.source(operand)
                }
            }
            (Kind::Both, Operand::Pair(d, p)) => self.destination(d).and_then(|()| self.result(p)),
            (Kind::Both, operand) if self.pattern.has('?') => self.destination(operand),
            (Kind::Sink, Operand::Sink) => Ok(()),
            (Kind::Sink, _) => Err("`_` is expected".to_string()),
            (Kind::Both, _) => Err("no predicate beside the register".to_string()),
            (Kind::Result, operand) => self.result(operand),
            (Kind::Results, Operand::Pair(p, q)) => self.result(p).and_then(|()| self.result(q)),
            (Kind::Results, operand) if self.pattern.has('?') => self.result(operand),
            (Kind::Results, _) => Err("a pair of predicates is expected".to_string()),
            (Kind::Predicate, operand) => self.predicate(operand),
            (Kind::Address, Operand::Address(base, _)) => match &**base {
                Operand::Reg(reg) if !matches!(class((self.ty)(*reg)), Class::Bits | Class::Int) => {
                    Err("an address in such a register".to_string())
                }
                Operand::Reg(reg) if (self.ty)(*reg).size_bytes() < 4 => {
                    Err("an address in a register of 16 bits".to_string())
                }
                _ => Ok(()),
            },
            (Kind::TensorAddress, Operand::TensorAddress(_, at)) => at.iter().try_for_each(|at| match at {
                Operand::Reg(reg) if (self.ty)(*reg).size_bytes() == 4 => Ok(()),
                Operand::Int(_) => Ok(()),
                _ => Err("coordinates are 32-bit integers".to_string()),
            }),
            (Kind::Address | Kind::TensorAddress, _) => Err("an address is expected".to_string()),
            (Kind::Constant, Operand::Int(value)) => match self.pattern.signs.parse() {
                Ok(only) if *value != only => Err(format!("only {only} is allowed")),
                _ => Ok(()),
            },
            (Kind::Constant, _) => Err("an integer constant is expected".to_string()),
            (Kind::Policy, operand) => self.of_type(operand, self.want()),
            (Kind::Vector, _) => Err("registers in braces are expected".to_string()),
        }
    }

    /// Elements that the opcode says the number of. 128 bits are two registers wherever they stand.
    fn vector(&self, all: &mut [Operand]) -> Result<(), String> {
        if self.want() == Type::B128 {
            return match all.len() {
                2 => all.iter_mut().try_for_each(|half| self.of_type(half, Type::B64)),
                _ => Err("a register of 128 bits is expected".to_string()),
            };
        }
        match self.opcode.length {
            length if length == all.len() && self.pattern.has('*') => {}
            1 => return Err("one register is expected".to_string()),
            length => return Err(format!("{} elements; {length} are expected", all.len())),
        }
        all.iter_mut().try_for_each(|element| match self.pattern.kind {
            Kind::Destination if *element == Operand::Sink => Ok(()),
            Kind::Destination => self.destination(element),
            _ => self.source(element),
        })
    }

    /// Registers of one size that make up a whole.
    fn parts(&self, all: &[Operand]) -> Result<(), String> {
        let whole = self.opcode.ty(0).size_bytes();
        let fits = |element: &Operand| match element {
            Operand::Reg(reg) => {
                (self.ty)(*reg).size_bytes() * all.len() == whole && (self.ty)(*reg) != Type::Pred
            }
            Operand::Sink => true,
            Operand::Int(_) => true,
            _ => false,
        };
        match all.iter().all(fits) && matches!(all.len(), 1 | 2 | 4) {
            true => Ok(()),
            false => Err(format!("{} parts that do not make up {} bits", all.len(), 8 * whole)),
        }
    }

    fn want(&self) -> Type {
        match self.pattern.ty {
            Want::Nth(n) => self.opcode.ty(n),
            Want::Wide => match self.opcode.ty(0) {
                Type::U16 => Type::U32,
                Type::S16 => Type::S32,
                Type::U32 => Type::U64,
                _ => Type::S64,
            },
            Want::Parts => self.opcode.ty(0),
            Want::Fixed(ty) => ty,
        }
    }

    fn register(&self, operand: &mut Operand) -> Result<(), String> {
        match operand {
            Operand::Reg(_) => self.of_type(operand, self.want()),
            _ => Err("registers are expected in the braces".to_string()),
        }
    }

    fn destination(&self, operand: &mut Operand) -> Result<(), String> {
        match operand {
            Operand::Sink if self.pattern.has('_') => Ok(()),
            Operand::Part(reg, part) if !part.negated && (self.pattern.has('~') || self.pattern.has('.')) => {
                self.of_type(&mut Operand::Reg(*reg), self.want())
            }
            Operand::Reg(_) if self.pattern.has('.') => Err("a part of a register is expected".to_string()),
            Operand::Reg(_) => self.of_type(operand, self.want()),
            _ => Err("a destination that is not a register".to_string()),
        }
    }

    fn source(&self, operand: &mut Operand) -> Result<(), String> {
        match operand {
            Operand::Part(reg, part) => {
                let is_whole = Part { negated: false, ..*part } == Part::WHOLE;
                if part.negated && !self.pattern.has('-') || !is_whole && !self.pattern.has('~') {
                    return Err("a register without selector or sign is expected".to_string());
                }
                self.of_type(&mut Operand::Reg(*reg), self.want())
            }
            Operand::Symbol(..) | Operand::Function(_) if self.pattern.has('&') => Ok(()),
            Operand::Special(name) if self.pattern.has('%') => self.special(name),
            _ => self.of_type(operand, self.want()),
        }
    }

    fn special(&self, name: &str) -> Result<(), String> {
        let want = self.want();
        let is_long = match name {
            "gridid" => want.size_bytes() == 8, // 32 bits once
            _ => name.ends_with("64") || matches!(name, "globaltimer" | "current_graph_exec"),
        };
        match matches!(class(want), Class::Bits | Class::Int) && (want.size_bytes() == 8) == is_long {
            true => Ok(()),
            false => Err(format!("%{name} has {} bits", if is_long { 64 } else { 32 })),
        }
    }

    fn result(&self, operand: &Operand) -> Result<(), String> {
        match operand {
            Operand::Sink if self.pattern.has('_') || self.pattern.has('|') => Ok(()),
            Operand::Reg(reg) if (self.ty)(*reg) == Type::Pred => Ok(()),
            _ => Err("a predicate is expected".to_string()),
        }
    }

    fn predicate(&self, operand: &Operand) -> Result<(), String> {
        match operand {
            Operand::NotReg(_) => Ok(()),
            Operand::Reg(reg) if (self.ty)(*reg) == Type::Pred => Ok(()),
            Operand::Special(name) if name == "is_explicit_cluster" && self.pattern.has('%') => Ok(()),
            Operand::Int(_) if !self.pattern.has('^') => Ok(()), // true unless it is 0
            _ => Err("a predicate is expected".to_string()),
        }
    }

    /// A register or a constant where a value of type `want` is expected.
    fn of_type(&self, operand: &mut Operand, want: Type) -> Result<(), String> {
        let size = want.size_bytes();
        let is_free = matches!(self.pattern.ty, Want::Nth(_));
        match operand {
            Operand::Reg(reg) => {
                let found = (self.ty)(*reg);
                let fits = match (class(found), class(want)) {
                    (Class::Pred, _) | (_, Class::Pred) => false,
                    (Class::Bits, _) | (Class::Int, Class::Bits | Class::Int) if self.pattern.has('+') => {
                        found.size_bytes() >= size
                    }
                    (Class::Bits, _) | (_, Class::Bits) => found.size_bytes() == size,
                    (a, b) => a == b && found.size_bytes() == size,
                };
                match fits {
                    true => Ok(()),
                    false => {
                        Err(format!("a register of type .{} where .{} is expected", name(found), name(want)))
                    }
                }
            }
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) if self.pattern.has('^') => {
                Err("a register is expected".to_string())
            }
            Operand::Int(_) if matches!(class(want), Class::Bits | Class::Int) => Ok(()),
            Operand::F32(bits) if want == Type::F64 => {
                *operand = Operand::F64(f64::from(f32::from_bits(*bits)).to_bits());
                Ok(())
            }
            Operand::F64(bits) if want == Type::F32 => {
                *operand = Operand::F32((f64::from_bits(*bits) as f32).to_bits());
                Ok(())
            }
            Operand::F32(_) | Operand::F64(_) if class(want) == Class::Float => Ok(()),
            Operand::F32(_) if is_free && class(want) == Class::Bits && size == 4 => Ok(()),
            Operand::F64(_) if is_free && class(want) == Class::Bits && size == 8 => Ok(()),
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {
                Err(format!("a constant where .{} is expected", name(want)))
            }
            _ => Err("an operand of a kind that is not expected here".to_string()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Pred,
    Bits,
    Int,
    Float,
    Half,
    Bfloat,
}

fn class(ty: Type) -> Class {
    match ty {
        Type::Pred => Class::Pred,
        Type::B8 | Type::B16 | Type::B32 | Type::B64 | Type::B128 => Class::Bits,
        Type::F32 | Type::F64 => Class::Float,
        Type::F16 | Type::F16x2 => Class::Half,
        Type::Bf16 | Type::Bf16x2 => Class::Bfloat,
        _ => Class::Int,
    }
}

fn name(ty: Type) -> String {
    format!("{ty:?}").to_lowercase()
}
