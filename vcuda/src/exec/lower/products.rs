//! What of a body is asynchronous.

use std::collections::HashSet;

use crate::exec::allocate::Allocation;
use crate::exec::inline::Flat;
use crate::ptx::ast::{Instruction, Operand};

/// Whether an instruction uses shared memory later, or by the async proxy, or says when others may.
pub(super) fn is_asynchronous(instruction: &Instruction) -> bool {
    let opcode = &instruction.opcode;
    matches!(opcode[0].as_str(), "cp" | "wgmma" | "mbarrier") || opcode.iter().any(|part| part == "async")
}

/// Slots of the sums of asynchronous matrix products.
pub(super) fn sums(flat: &Flat, allocation: &Allocation) -> HashSet<u16> {
    let products = flat.instructions.iter().filter(|instruction| instruction.opcode[0] == "wgmma");
    products
        .filter_map(|product| product.operands.first())
        .flat_map(|sums| narrow_slots([sums], allocation))
        .collect()
}

/// Slots of the 32-bit registers that operands name.
pub(super) fn narrow_slots<'a>(
    operands: impl IntoIterator<Item = &'a Operand>,
    allocation: &Allocation,
) -> Vec<u16> {
    let mut slots = Vec::new();
    for operand in operands {
        operand.visit(&mut |part| {
            if let Operand::Reg(reg) = part
                && let Some((slot, false)) = allocation.slot(*reg)
            {
                slots.push(slot);
            }
        });
    }
    slots
}
