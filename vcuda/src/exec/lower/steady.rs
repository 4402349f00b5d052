//! Registers that hold one value from first to last: written in one place, by a move of a constant, a special register
//! or a kernel parameter. Who reads them reads that, and the move is nothing.

use super::{Location, Lower};
use crate::exec::allocate::visit;
use crate::exec::inline::Flat;
use crate::ptx::ast::{Instruction, Operand, RegId, Type};

#[derive(Clone, Copy)]
enum State {
    Varies,
    /// The instruction that writes it, alone and in all lanes.
    WrittenBy(usize),
    Slot(u16),
}

/// What is known of each register.
pub(super) struct Steady(Vec<State>);

impl Steady {
    pub fn new(flat: &Flat) -> Steady {
        let mut writers = vec![Vec::new(); flat.registers.len()];
        for (i, instruction) in flat.instructions.iter().enumerate() {
            visit(instruction, &mut |_| {}, &mut |register| writers[register as usize].push(i));
        }
        let state = |writers: Vec<usize>| match writers[..] {
            [one] if flat.instructions[one].guard.is_none() => State::WrittenBy(one),
            _ => State::Varies,
        };
        Steady(writers.into_iter().map(state).collect())
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
