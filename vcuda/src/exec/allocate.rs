//! Register allocation: linear scan over live ranges (Poletto and Sarkar, 1999), so that a warp's
//! register file stays small and in the host's first cache. 32- and 64-bit registers have slots of
//! their own; predicates are not allocated, there are few.
//!
//! Lanes of a warp may be in different places, but an operation writes its own lanes only, so what
//! holds for one thread holds for all.

use super::inline::Flat;
use crate::ptx::ast::{Instruction, Operand, RegId, Type};

/// Where a register lives: a slot among those of its width, or a predicate's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Narrow(u16),
    Wide(u16),
    Pred(u16),
}

pub struct Allocation {
    pub places: Vec<Place>,
    pub narrow: usize,
    pub wide: usize,
    pub preds: usize,
}

/// Opcodes whose first operand is not a destination.
const NO_DESTINATION: [&str; 20] = [
    "st",
    "red",
    "bra",
    "brx",
    "bar",
    "barrier",
    "ret",
    "exit",
    "trap",
    "membar",
    "fence",
    "prefetch",
    "prefetchu",
    "discard",
    "nanosleep",
    "griddepcontrol",
    "applypriority",
    "pmevent",
    "__assertfail",
    "vprintf",
];

/// Slots for every register, or `None` when there are too many for their numbers.
pub fn allocate(flat: &Flat) -> Option<Allocation> {
    let mut ranges = live_ranges(flat);
    let mut places = vec![Place::Pred(0); flat.registers.len()];
    let mut preds = 0;
    for (register, ty) in flat.registers.iter().enumerate() {
        if *ty == Type::Pred {
            places[register] = Place::Pred(preds);
            preds = preds.checked_add(1).filter(|&n| n < 0x3fff)?;
        }
    }
    ranges.retain(|range| flat.registers[range.register as usize] != Type::Pred);
    ranges.sort_by_key(|range| (range.start, range.register));
    let mut pools = [Pool::default(), Pool::default()];
    for range in &ranges {
        let wide = flat.registers[range.register as usize].size_bytes() == 8;
        let slot = pools[wide as usize].take(range)?;
        places[range.register as usize] = if wide { Place::Wide(slot) } else { Place::Narrow(slot) };
    }
    // A register that is never named again needs no slot of its own.
    for (register, ty) in flat.registers.iter().enumerate() {
        if *ty != Type::Pred && places[register] == Place::Pred(0) {
            places[register] = if ty.size_bytes() == 8 { Place::Wide(0) } else { Place::Narrow(0) };
        }
    }
    let [narrow, wide] = pools.map(|pool| pool.size.max(1) as usize);
    Some(Allocation { places, narrow, wide, preds: preds.max(1) as usize })
}

#[derive(Default)]
struct Pool {
    size: u16,
    free: Vec<u16>,
    /// End and slot of the live ranges, the earliest end last.
    active: Vec<(usize, u16)>,
}

impl Pool {
    fn take(&mut self, range: &Range) -> Option<u16> {
        while self.active.last().is_some_and(|&(end, _)| end < range.start) {
            self.free.extend(self.active.pop().map(|(_, slot)| slot));
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.size = self.size.checked_add(1).filter(|&n| n < 15_000)?;
                self.size - 1
            }
        };
        let at = self.active.partition_point(|&(end, _)| end > range.end);
        self.active.insert(at, (range.end, slot));
        Some(slot)
    }
}

/// From a register's first definition to its last use. Instruction `i` reads at `2i` and writes at
/// `2i + 1`, so that a result may take the place of an operand.
struct Range {
    register: RegId,
    start: usize,
    end: usize,
}

/// Calls `read` and `write` for the registers of an instruction.
fn visit(instruction: &Instruction, read: &mut impl FnMut(RegId), write: &mut impl FnMut(RegId)) {
    let opcode = &instruction.opcode;
    let reduces = opcode[0].starts_with("bar") && opcode.iter().any(|part| part == "red");
    let has_destination = reduces || !NO_DESTINATION.contains(&opcode[0].as_str());
    if let Some(guard) = instruction.guard {
        read(guard.reg);
    }
    for (i, operand) in instruction.operands.iter().enumerate() {
        let is_address = matches!(operand, Operand::Address(..) | Operand::TensorAddress(..));
        if i == 0 && has_destination && !is_address {
            each(operand, write);
            // Lanes that the guard leaves out keep what was there.
            if instruction.guard.is_some() {
                each(operand, read);
            }
        } else {
            each(operand, read);
        }
    }
}

fn each(operand: &Operand, found: &mut impl FnMut(RegId)) {
    match operand {
        Operand::Reg(reg) | Operand::NotReg(reg) => found(*reg),
        Operand::Pair(a, b) => {
            each(a, found);
            each(b, found);
        }
        Operand::Address(base, _) => each(base, found),
        Operand::Vector(all) | Operand::List(all) => all.iter().for_each(|operand| each(operand, found)),
        Operand::TensorAddress(base, all) => {
            each(base, found);
            all.iter().for_each(|operand| each(operand, found));
        }
        _ => {}
    }
}

/// A basic block: its instructions, the blocks it may go to, and the registers live at its ends.
struct Block {
    start: usize,
    end: usize,
    next: Vec<usize>,
    live_in: Vec<u64>,
    live_out: Vec<u64>,
    used: Vec<u64>,
    defined: Vec<u64>,
}

fn live_ranges(flat: &Flat) -> Vec<Range> {
    let words = flat.registers.len().div_ceil(64);
    let mut blocks = blocks(flat, words);
    for block in &mut blocks {
        for instruction in &flat.instructions[block.start..block.end] {
            let (used, defined) = (&mut block.used, &mut block.defined);
            let mut writes = Vec::new();
            let mut read = |reg: RegId| {
                if defined[reg as usize / 64] >> (reg % 64) & 1 == 0 {
                    used[reg as usize / 64] |= 1 << (reg % 64);
                }
            };
            visit(instruction, &mut read, &mut |reg| writes.push(reg));
            writes.iter().for_each(|&reg| defined[reg as usize / 64] |= 1 << (reg % 64));
        }
        block.live_in.copy_from_slice(&block.used);
    }
    // Backward over the blocks until nothing changes.
    let mut changed = true;
    while changed {
        changed = false;
        for i in (0..blocks.len()).rev() {
            let mut out = vec![0; words];
            for &next in &blocks[i].next {
                out.iter_mut().zip(&blocks[next].live_in).for_each(|(a, b)| *a |= b);
            }
            let block = &mut blocks[i];
            for w in 0..words {
                let live = block.used[w] | out[w] & !block.defined[w];
                changed |= live != block.live_in[w];
                block.live_in[w] = live;
            }
            block.live_out = out;
        }
    }

    let mut ends: Vec<Option<(usize, usize)>> = vec![None; flat.registers.len()];
    let extend = |ends: &mut Vec<Option<(usize, usize)>>, reg: usize, at: usize| {
        let (start, end) = ends[reg].unwrap_or((at, at));
        ends[reg] = Some((start.min(at), end.max(at)));
    };
    for block in &blocks {
        for (live, at) in [(&block.live_in, 2 * block.start), (&block.live_out, 2 * block.end - 1)] {
            for (w, &bits) in live.iter().enumerate() {
                let mut bits = bits;
                while bits != 0 {
                    extend(&mut ends, w * 64 + bits.trailing_zeros() as usize, at);
                    bits &= bits - 1;
                }
            }
        }
        for (i, instruction) in flat.instructions[block.start..block.end].iter().enumerate() {
            let at = 2 * (block.start + i);
            let mut touched = Vec::new();
            visit(instruction, &mut |reg| touched.push((reg, at)), &mut |_| {});
            visit(instruction, &mut |_| {}, &mut |reg| touched.push((reg, at + 1)));
            touched.iter().for_each(|&(reg, at)| extend(&mut ends, reg as usize, at));
        }
    }
    let range = |(register, ends): (usize, Option<(usize, usize)>)| {
        ends.map(|(start, end)| Range { register: register as RegId, start, end })
    };
    ends.into_iter().enumerate().filter_map(range).collect()
}

fn blocks(flat: &Flat, words: usize) -> Vec<Block> {
    let count = flat.instructions.len();
    let mut leader = vec![false; count + 1];
    leader[0] = true;
    for (i, instruction) in flat.instructions.iter().enumerate() {
        let targets = targets(instruction);
        if !targets.is_empty() || ends_thread(instruction) {
            leader[i + 1] = true;
        }
        targets.into_iter().for_each(|target| leader[target] = true);
    }
    let starts: Vec<usize> = (0..count).filter(|&i| leader[i]).collect();
    let mut number = vec![starts.len(); count + 1];
    starts.iter().enumerate().for_each(|(block, &start)| number[start] = block);
    let end_of = |block: usize| starts.get(block + 1).copied().unwrap_or(count);
    (0..starts.len())
        .map(|block| {
            let (start, end) = (starts[block], end_of(block));
            let last = &flat.instructions[end - 1];
            let mut next: Vec<usize> = targets(last).into_iter().map(|target| number[target]).collect();
            let leaves = ends_thread(last) || matches!(last.opcode[0].as_str(), "bra" | "brx");
            if !(leaves && last.guard.is_none()) {
                next.push(number[end]);
            }
            next.retain(|&next| next < starts.len());
            let empty = vec![0u64; words];
            let [live_in, live_out, used, defined] = std::array::from_fn(|_| empty.clone());
            Block { start, end, next, live_in, live_out, used, defined }
        })
        .collect()
}

fn ends_thread(instruction: &Instruction) -> bool {
    matches!(instruction.opcode[0].as_str(), "ret" | "exit" | "trap" | "__assertfail")
}

fn targets(instruction: &Instruction) -> Vec<usize> {
    let labels = |operand: &Operand| match operand {
        Operand::Label(target) => vec![*target],
        Operand::List(all) => {
            let label = |operand: &Operand| match operand {
                Operand::Label(target) => Some(*target),
                _ => None,
            };
            all.iter().filter_map(label).collect()
        }
        _ => Vec::new(),
    };
    match instruction.opcode[0].as_str() {
        "bra" | "brx" => instruction.operands.iter().flat_map(labels).collect(),
        _ => Vec::new(),
    }
}
