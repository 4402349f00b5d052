//! Registers that hold one value from first to last: written in one place, by a move of a constant, a special register
//! or a kernel parameter. Who reads them reads that, and the move is nothing.

use crate::exec::allocate::visit;
use crate::exec::inline::Flat;

/// What is known of a register.
#[derive(Clone, Copy)]
pub(super) enum State {
    Varies,
    /// The instruction that writes it, alone and in all lanes.
    WrittenBy(usize),
    Slot(u16),
}

/// The same of each.
pub(super) struct Steady(pub Vec<State>);

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
