//! `call` and the places of what it passes.

use super::{Location, Lower};
use crate::exec::call::Call;
use crate::exec::calls::{Passed, Site};
use crate::exec::kernel::Special;
use crate::ptx::ast::Operand;

/// What a call takes of the stack at least, so that recursion without variables ends too.
const FRAME_BYTES: usize = 16;

impl Lower<'_> {
    /// The slot with the place where the function's variables begin.
    pub fn frame(&mut self) -> u16 {
        self.special_slot(Special::Frame)
    }

    pub fn emit_call(&mut self, operands: &[Operand]) -> Result<(), String> {
        let [Operand::List(returns), callee, Operand::List(arguments), ..] = operands else {
            return Err("a call of another form".to_string());
        };
        let mut callee_bytes = 0;
        let results = self.passed(returns, &mut callee_bytes)?;
        let arguments = self.passed(arguments, &mut callee_bytes)?;
        let (function, a) = match callee {
            Operand::Function(name) => (Some(self.function(name).ok_or("an unknown function")?), 0),
            callee => (None, self.source(callee, true)?),
        };
        let frame = self.frame();
        let end = self.has_alloca().then(|| self.special_slot(Special::StackEnd));
        let site = Site {
            function,
            caller_bytes: self.frame_bytes().max(FRAME_BYTES),
            callee_bytes,
            arguments,
            results,
        };
        let calls = self.calls();
        (calls.frame, calls.end) = (frame, end);
        calls.sites.push(site);
        let site = calls.sites.len() - 1;
        self.emit::<Call>([0, a, 0, 0, 0], site as i64);
        Ok(())
    }

    /// Variables of the caller, and their places among the callee's, in whose frame they follow each other.
    fn passed(&self, variables: &[Operand], callee_bytes: &mut usize) -> Result<Vec<Passed>, String> {
        let place = |operand: &Operand| {
            let Operand::Symbol(name, 0) = operand else {
                return Err("an argument that is not a .param variable".to_string());
            };
            let (Location::Local(caller) | Location::Frame(caller)) = self.locate(name)? else {
                return Err(format!("{name} is not a .param variable"));
            };
            let variable = self.variable(name).ok_or_else(|| format!("{name} is not a .param variable"))?;
            let callee = callee_bytes.next_multiple_of(variable.align.max(1));
            *callee_bytes = callee + variable.size_bytes;
            Ok(Passed { caller: caller as usize, callee, bytes: variable.size_bytes })
        };
        variables.iter().map(place).collect()
    }
}
