//! Constants added to addresses. Of `ldmatrix` and `cp.async`, as a rule written in assembly that compilers do not look into,
//! they are instructions of their own, `add.s32 %r2, %r1, 2304;` and then `[%r2]`. Here they come into the address, as a GPU's
//! assembler has it; nobody may read the sum then.

use crate::exec::allocate::{Block, visit};
use crate::exec::inline::Flat;
use crate::ptx::ast::{Instruction, Operand, RegId};

/// Moves constants into addresses; whether nobody needs an instruction any more, of each, if any has been moved.
pub(super) fn fold(flat: &mut Flat, blocks: &[Block]) -> Vec<bool> {
    // The instruction of this block that has written a register last: counted from 1, the block's first.
    let mut writers = vec![0; flat.registers.len()];
    let mut sums = Vec::new();
    for block in blocks {
        let writer = |writers: &[usize], register: RegId| {
            Some(writers[register as usize]).filter(|&writer| writer > block.start).map(|writer| writer - 1)
        };
        for i in block.start..block.end {
            for operand in 0..flat.instructions[i].operands.len() {
                while let Some((register, offset)) = address(&flat.instructions[i], operand)
                    && let Some(sum) = writer(&writers, register)
                    && let Some((base, addend)) = addition(&flat.instructions[sum])
                    && writer(&writers, base).is_none_or(|writer| writer < sum)
                    && let Some(Ok(offset)) = offset.checked_add(addend).map(i32::try_from)
                {
                    let folded = Operand::Address(Box::new(Operand::Reg(base)), offset.into());
                    flat.instructions[i].operands[operand] = folded;
                    sums.push(sum);
                }
            }
            let mut write = |register: RegId| writers[register as usize] = i + 1;
            visit(&flat.instructions[i], &mut |_| {}, &mut write);
        }
    }
    unneeded(flat, sums)
}

/// Those of some sums that nobody reads but others that nobody needs.
fn unneeded(flat: &Flat, mut sums: Vec<usize>) -> Vec<bool> {
    if sums.is_empty() {
        return Vec::new();
    }
    let mut unneeded = vec![false; flat.instructions.len()];
    let mut readers = vec![0; flat.registers.len()];
    for instruction in &flat.instructions {
        visit(instruction, &mut |register| readers[register as usize] += 1, &mut |_| {});
    }
    // The last ones first: they may be the only readers of others.
    sums.sort_unstable_by(|a, b| b.cmp(a));
    sums.dedup();
    for sum in sums {
        let mut is_read = false;
        let instruction = &flat.instructions[sum];
        visit(instruction, &mut |_| {}, &mut |register| is_read |= readers[register as usize] > 0);
        if !is_read {
            unneeded[sum] = true;
            visit(instruction, &mut |register| readers[register as usize] -= 1, &mut |_| {});
        }
    }
    unneeded
}

/// Register and offset of an operand that is such an address.
fn address(Instruction { opcode, operands, .. }: &Instruction, operand: usize) -> Option<(RegId, i64)> {
    let has = |part: &str| opcode.iter().any(|other| other == part);
    let is_copy = opcode[0] == "cp" && has("async") && !has("bulk") && !has("mbarrier");
    match &operands[operand] {
        Operand::Address(base, offset) if is_copy || opcode[0] == "ldmatrix" => match **base {
            Operand::Reg(register) => Some((register, *offset)),
            _ => None,
        },
        _ => None,
    }
}

/// The register to which a constant is added, and that.
fn addition(Instruction { opcode, operands, guard, .. }: &Instruction) -> Option<(RegId, i64)> {
    let is_plain =
        matches!(opcode.written(), "add.s32" | "add.u32" | "add.s64" | "add.u64") && guard.is_none();
    match operands[..] {
        [Operand::Reg(sum), Operand::Reg(base), Operand::Int(addend)] if is_plain && sum != base => {
            Some((base, addend))
        }
        _ => None,
    }
}
