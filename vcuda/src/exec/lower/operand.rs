//! Operands to slots: those of registers come from the allocation, what is constant has its own from [`super::constant`].

use super::steady::State;
use super::{Location, Lower};
use crate::exec::allocate::Place;
use crate::exec::arithmetic::convert::WidenU32;
use crate::exec::arithmetic::integer::w32;
use crate::exec::kernel::Special;
use crate::ptx::ast::{Instruction, Operand, RegId, Type};

impl Lower<'_> {
    /// A slot for values on their way between the operations of one instruction.
    pub fn temp(&self, number: usize) -> u16 {
        self.temps[number]
    }

    /// A predicate for the same.
    pub fn temp_pred(&self) -> u16 {
        self.allocation.preds as u16
    }

    /// Whether a register has 64 bits.
    pub fn is_wide(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Reg(reg) => matches!(self.allocation.slot(*reg), Some((_, true))),
            _ => false,
        }
    }

    /// The slot that a result goes to.
    pub fn destination(&self, operand: &Operand, wide: bool) -> Result<u16, String> {
        match operand {
            Operand::Sink => Ok(self.temps[3]),
            Operand::Reg(_) => {
                let (slot, is_wide) = self.register(operand)?;
                if is_wide == wide { Ok(slot) } else { Err("a destination of another width".to_string()) }
            }
            _ => Err("a destination that is not a register".to_string()),
        }
    }

    /// The slot that holds a source of 32 or 64 bits.
    pub fn source(&mut self, operand: &Operand, wide: bool) -> Result<u16, String> {
        match operand {
            Operand::Reg(reg) => {
                let (slot, is_wide) = self.register(operand)?;
                let slot = self.steady(*reg).unwrap_or(slot);
                if is_wide == wide { Ok(slot) } else { Err("a source of another width".to_string()) }
            }
            Operand::Int(value) => Ok(self.constant(*value as u64, wide)),
            Operand::F32(bits) => Ok(self.constant(u64::from(*bits), wide)),
            Operand::F64(bits) => Ok(self.constant(*bits, wide)),
            Operand::Special(name) => self.special(name, wide),
            Operand::Symbol(name, offset) => {
                if let Location::Frame(at) = self.locate(name)? {
                    return Ok(self.frame_address(at.wrapping_add(*offset as u64), 1, wide));
                }
                let address = self.layout.address_of(name)?.wrapping_add(*offset as u64);
                Ok(self.constant(address, wide))
            }
            Operand::Function(name) => {
                let address = self.layout.address_of(name)?;
                Ok(self.constant(address, wide))
            }
            _ => Err("an operand of a kind that is not expected here".to_string()),
        }
    }

    /// The slot of a register, and whether it is wide.
    fn register(&self, operand: &Operand) -> Result<(u16, bool), String> {
        let Operand::Reg(reg) = operand else { return Err("not a register".to_string()) };
        self.allocation.slot(*reg).ok_or_else(|| "a predicate where a value is expected".to_string())
    }

    /// The number of a predicate that a result goes to.
    pub fn pred_destination(&self, operand: &Operand) -> Result<u16, String> {
        match operand {
            Operand::Sink => Ok(self.temp_pred()),
            Operand::Reg(_) => self.pred(operand),
            _ => Err("a destination that is not a predicate".to_string()),
        }
    }

    /// A source predicate's number, bit 15 set for `!p`. An integer is true unless it is 0.
    pub fn pred(&self, operand: &Operand) -> Result<u16, String> {
        // After the temporary one comes one that nothing writes: it stays false.
        let never = self.temp_pred() + 1;
        let (reg, negated) = match operand {
            Operand::Int(0) => return Ok(never),
            Operand::Int(_) => return Ok(never | 0x8000),
            Operand::Reg(reg) => (reg, 0),
            Operand::NotReg(reg) => (reg, 0x8000),
            _ => return Err("a value where a predicate is expected".to_string()),
        };
        match self.allocation.places[*reg as usize] {
            Place::Pred(number) if self.flat.registers[*reg as usize] == Type::Pred => Ok(number | negated),
            _ => Err("a value where a predicate is expected".to_string()),
        }
    }

    /// The place in local memory of byte `at` of the running function's variables, in a temporary.
    pub fn frame_address(&mut self, at: u64, temp: usize, wide: bool) -> u16 {
        let (frame, at, to) = (self.special_slot(Special::Frame), self.constant(at, false), self.temps[temp]);
        self.emit::<w32::Add>([to, frame, at, 0, 0], 0);
        if wide {
            self.emit::<WidenU32>([to, to, 0, 0, 0], 0);
        }
        to
    }
}

impl Lower<'_> {
    /// The slot of a register that always holds the same; `None` for others.
    pub(super) fn steady(&mut self, register: RegId) -> Option<u16> {
        match self.steady.0[register as usize] {
            State::Varies => None,
            State::Slot(slot) => Some(slot),
            State::WrittenBy(writer) => {
                // Until it is known: registers may be moved in a circle.
                self.steady.0[register as usize] = State::Varies;
                let flat = self.flat;
                let slot = self.steady_source(&flat.instructions[writer])?;
                self.steady.0[register as usize] = State::Slot(slot);
                Some(slot)
            }
        }
    }

    /// Whether a result need not be written, because it is what the register always holds.
    pub fn is_steady(&mut self, operand: &Operand) -> bool {
        matches!(operand, Operand::Reg(register) if self.steady(*register).is_some())
    }

    /// The slot of what an instruction moves, if that is always the same.
    fn steady_source(&mut self, instruction: &Instruction) -> Option<u16> {
        let Instruction { opcode, operands, .. } = instruction;
        let [d, a] = &operands[..] else { return None };
        let ty = Type::from_name(opcode.last()?)?;
        let has = |part: &str| opcode.iter().any(|other| other == part);
        let wide = ty.size_bytes() == 8;
        let is_move = match opcode[0].as_str() {
            "mov" => ty.size_bytes() <= 8 && ty != Type::Pred && wide == self.is_wide(d),
            "cvta" => wide && has("global"),
            "ld" => has("param"),
            _ => false,
        };
        if !is_move || !matches!(d, Operand::Reg(_)) {
            return None;
        }
        match a {
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => self.source(a, wide).ok(),
            Operand::Special(name) if !name.starts_with("clock") && !name.starts_with("globaltimer") => {
                self.source(a, wide).ok()
            }
            Operand::Symbol(name, _) if opcode[0] == "mov" => match self.locate(name).ok()? {
                Location::Shared(_) | Location::Global(_) => self.source(a, wide).ok(),
                _ => None,
            },
            Operand::Reg(from) if self.is_wide(a) == wide => self.steady(*from),
            Operand::Address(base, offset) if opcode[0] == "ld" => {
                let Operand::Symbol(name, addend) = &**base else { return None };
                let Location::Param(at) = self.locate(name).ok()? else { return None };
                let at = (at as i64).wrapping_add(*addend).wrapping_add(*offset);
                let signed = matches!(ty, Type::S8 | Type::S16 | Type::S32);
                self.param(usize::try_from(at).ok()?, ty.size_bytes(), signed, self.is_wide(d)).ok()
            }
            _ => None,
        }
    }
}
