//! Brings `mma.sync` together: compilers write those of one step of a loop with loads of the next factors between, which
//! touch no register of theirs. Put off until after those, they are one run, whose sums are read and written once
//! ([`matrix::grid`](crate::exec::matrix::grid)).
//!
//! Nothing else changes by it: a product touches no memory. It waits for all lanes, though, so what might show whether they
//! came together stays where it is: clocks, loads and stores, all but `ldmatrix`, which waits for them itself, and
//! `cp.async`, of which nobody sees anything until it is waited for.

use crate::exec::allocate::{Block, visit};
use crate::exec::inline::Flat;
use crate::ptx::ast::{Instruction, Operand};

/// What products may be put off past, without special registers.
pub(super) const PASSED: [&str; 22] = [
    "add", "and", "cp", "cvt", "cvta", "fma", "ldmatrix", "lop3", "mad", "max", "min", "mov", "mul", "or",
    "prmt", "selp", "setp", "shf", "shl", "shr", "sub", "xor",
];
/// Registers that products read which are put off, at most: they stay in use until then.
const MOST: usize = 512;

/// Moves products within their blocks; whether any has moved.
pub(super) fn gather(flat: &mut Flat, blocks: &[Block]) -> bool {
    let is_product =
        |instruction: &Instruction| instruction.opcode[0] == "mma" && instruction.guard.is_none();
    if flat.instructions.iter().filter(|instruction| is_product(instruction)).nth(1).is_none() {
        return false;
    }
    // When a register was last read and written by a product that is put off: counted in times that none was.
    let [mut reads, mut writes] = [(); 2].map(|()| vec![0u32; flat.registers.len()]);
    let (mut order, mut put_off) = (Vec::with_capacity(flat.instructions.len()), Vec::new());
    let (mut since, mut count) = (1, 0);
    for block in blocks {
        for i in block.start..block.end {
            let instruction = &flat.instructions[i];
            if is_product(instruction) {
                if count >= MOST {
                    order.append(&mut put_off);
                    (since, count) = (since + 1, 0);
                }
                visit(
                    instruction,
                    &mut |register| {
                        let is_new = std::mem::replace(&mut reads[register as usize], since) != since;
                        count += usize::from(is_new);
                    },
                    &mut |register| writes[register as usize] = since,
                );
                put_off.push(i);
                continue;
            }
            if !put_off.is_empty() && !passes(instruction, &reads, &writes, since) {
                order.append(&mut put_off);
                (since, count) = (since + 1, 0);
            }
            order.push(i);
        }
        order.append(&mut put_off);
        (since, count) = (since + 1, 0);
    }
    let has_moved = order.iter().enumerate().any(|(place, &i)| place != i);
    if has_moved {
        let mut old: Vec<Option<Instruction>> = flat.instructions.drain(..).map(Some).collect();
        flat.instructions.extend(order.into_iter().filter_map(|i| old[i].take()));
    }
    has_moved
}

/// Whether an instruction may come before the products that are put off: it neither touches what they write, nor writes
/// what they read.
fn passes(instruction: &Instruction, reads: &[u32], writes: &[u32], since: u32) -> bool {
    let (mut touches, mut spoils) = (false, false);
    visit(instruction, &mut |register| touches |= writes[register as usize] == since, &mut |register| {
        spoils |= [reads, writes].iter().any(|uses| uses[register as usize] == since)
    });
    let is_special = |operand: &Operand| matches!(operand, Operand::Special(_));
    let is_plain = !instruction.operands.iter().any(is_special);
    !touches && !spoils && is_plain && PASSED.contains(&instruction.opcode[0].as_str())
}
