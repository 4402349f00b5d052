//! Register allocation: linear scan over live ranges (Poletto and Sarkar, 1999), so that a warp's
//! register file stays small and in the host's first cache. 32- and 64-bit registers have slots of
//! their own; predicates are not allocated, there are few.
//!
//! Lanes of a warp may be in different places, but an operation writes its own lanes only, so what
//! holds for one thread holds for all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
    /// Registers that a thread may read before it writes them.
    unwritten: Vec<RegId>,
}

impl Allocation {
    /// The slots of registers that a thread may read before it writes them.
    pub fn unwritten(&self) -> Vec<u16> {
        let slots = self.unwritten.iter().filter_map(|&register| self.slot(register));
        slots.flat_map(|(slot, wide)| slot..=slot + wide as u16).collect()
    }

    /// Slots in all: wide registers take two each, and come first.
    pub fn slots(&self) -> usize {
        2 * self.wide + self.narrow
    }

    /// A register's slot, and whether it is wide; `None` for a predicate.
    pub fn slot(&self, register: RegId) -> Option<(u16, bool)> {
        match self.places[register as usize] {
            Place::Narrow(slot) => Some((2 * self.wide as u16 + slot, false)),
            Place::Wide(slot) => Some((2 * slot, true)),
            Place::Pred(_) => None,
        }
    }
}

/// Opcodes whose first operand is not a destination.
const NO_DESTINATION: [&str; 22] = [
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
    "malloc",
    "free",
];

/// Blocks that liveness may visit, counted once for each register that lives in them.
const MAX_VISITS: usize = 1 << 26;

/// Slots for every register, or `None` when there are too many for their numbers, or too many live across
/// too many branches.
pub fn allocate(flat: &Flat, blocks: &[Block], mentions: &Mentions) -> Option<Allocation> {
    let (mut ranges, unwritten) = live_ranges(flat, blocks, mentions)?;
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
    Some(Allocation { places, narrow, wide, preds: preds.max(1) as usize, unwritten })
}

#[derive(Default)]
struct Pool {
    size: u16,
    free: Vec<u16>,
    /// End and slot of the live ranges, the earliest end first.
    active: BinaryHeap<Reverse<(usize, u16)>>,
}

impl Pool {
    fn take(&mut self, range: &Range) -> Option<u16> {
        while let Some(&Reverse((end, slot))) = self.active.peek()
            && end < range.start
        {
            self.active.pop();
            self.free.push(slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.size = self.size.checked_add(1).filter(|&n| n < 15_000)?;
                self.size - 1
            }
        };
        self.active.push(Reverse((range.end, slot)));
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
pub fn visit(instruction: &Instruction, read: &mut impl FnMut(RegId), write: &mut impl FnMut(RegId)) {
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
            // Lanes that the guard leaves out keep what was there, and wgmma adds to it.
            if instruction.guard.is_some() || opcode[0] == "wgmma" {
                each(operand, read);
            }
        } else {
            each(operand, read);
        }
    }
}

fn each(operand: &Operand, found: &mut impl FnMut(RegId)) {
    operand.visit(&mut |part| {
        if let Operand::Reg(reg) | Operand::NotReg(reg) | Operand::Part(reg, _) = part {
            found(*reg);
        }
    });
}

/// The registers that each instruction reads and writes.
pub struct Mentions {
    /// Where those that an instruction reads begin in the list, and those that it writes.
    starts: Vec<[usize; 2]>,
    list: Vec<RegId>,
}

impl Mentions {
    pub fn new(flat: &Flat) -> Mentions {
        let count = flat.instructions.len();
        let mut mentions =
            Mentions { starts: Vec::with_capacity(count + 1), list: Vec::with_capacity(4 * count) };
        let (sums, mut writes) = (sums(flat), Vec::new());
        let has_waits = flat.instructions.iter().any(waits_for_sums);
        for instruction in &flat.instructions {
            let first = mentions.list.len();
            visit(instruction, &mut |register| mentions.list.push(register), &mut |register| {
                writes.push(register)
            });
            if waits_for_sums(instruction) || !has_waits && ends_thread(instruction) {
                mentions.list.extend_from_slice(&sums);
            }
            mentions.starts.push([first, mentions.list.len()]);
            mentions.list.append(&mut writes);
        }
        mentions.starts.push([mentions.list.len(); 2]);
        mentions
    }

    pub fn reads(&self, instruction: usize) -> &[RegId] {
        let [start, end] = self.starts[instruction];
        &self.list[start..end]
    }

    pub fn writes(&self, instruction: usize) -> &[RegId] {
        &self.list[self.starts[instruction][1]..self.starts[instruction + 1][0]]
    }
}

/// A basic block: its instructions, and the blocks it may come from.
pub struct Block {
    pub start: usize,
    pub end: usize,
    pub previous: Vec<usize>,
}

/// A register in a block, where it is read before it is written, or written.
type InBlock = (RegId, usize);

/// Live ranges, and the registers that live from the start: of the kernel, or of a function that it calls.
fn live_ranges(flat: &Flat, blocks: &[Block], mentions: &Mentions) -> Option<(Vec<Range>, Vec<RegId>)> {
    let mut ranges: Vec<Option<Range>> = flat.registers.iter().map(|_| None).collect();
    let mut extend = |register: RegId, at: usize| {
        let range = ranges[register as usize].get_or_insert(Range { register, start: at, end: at });
        (range.start, range.end) = (range.start.min(at), range.end.max(at));
    };
    let (mut exposed, mut defined): (Vec<InBlock>, Vec<InBlock>) = (Vec::new(), Vec::new());
    // The block that last wrote, and the one that last exposed, a register.
    let (mut writer, mut reader) =
        (vec![usize::MAX; flat.registers.len()], vec![usize::MAX; flat.registers.len()]);
    for (number, block) in blocks.iter().enumerate() {
        for i in block.start..block.end {
            for &register in mentions.reads(i) {
                extend(register, 2 * i);
                if writer[register as usize] != number && reader[register as usize] != number {
                    reader[register as usize] = number;
                    exposed.push((register, number));
                }
            }
            for &register in mentions.writes(i) {
                extend(register, 2 * i + 1);
                if writer[register as usize] != number {
                    writer[register as usize] = number;
                    defined.push((register, number));
                }
            }
        }
    }

    // From each block that reads what it has not written, backward to the blocks that write it.
    exposed.sort_unstable();
    defined.sort_unstable();
    let of = |all: &[InBlock], register: RegId| {
        let first = all.partition_point(|&(other, _)| other < register);
        first..first + all[first..].partition_point(|&(other, _)| other == register)
    };
    let (mut writes, mut lives) = (vec![RegId::MAX; blocks.len()], vec![RegId::MAX; blocks.len()]);
    let is_first = |block: &usize| *block == 0 || blocks[*block].previous.is_empty();
    let firsts: Vec<usize> = (0..blocks.len()).filter(is_first).collect();
    let (mut next, mut visits, mut unwritten) = (0, 0, Vec::new());
    while let Some(&(register, _)) = exposed.get(next) {
        defined[of(&defined, register)].iter().for_each(|&(_, block)| writes[block] = register);
        let readers = of(&exposed, register);
        next = readers.end;
        let mut stack: Vec<usize> = exposed[readers].iter().map(|&(_, block)| block).collect();
        stack.iter().for_each(|&block| lives[block] = register);
        while let Some(block) = stack.pop() {
            extend(register, 2 * blocks[block].start);
            for &previous in &blocks[block].previous {
                extend(register, 2 * blocks[previous].end - 1);
                if writes[previous] != register && lives[previous] != register {
                    lives[previous] = register;
                    stack.push(previous);
                }
            }
            visits += 1 + blocks[block].previous.len();
            if visits > MAX_VISITS {
                return None;
            }
        }
        if firsts.iter().any(|&block| lives[block] == register) {
            unwritten.push(register);
        }
    }
    Some((ranges.into_iter().flatten().collect(), unwritten))
}

/// Registers that `wgmma` sums into: whether anyone reads them or not, they are written at a wait, and until then, or the
/// end, nobody else's.
fn sums(flat: &Flat) -> Vec<RegId> {
    let mut sums = Vec::new();
    let products = flat.instructions.iter().filter(|instruction| instruction.opcode[0] == "wgmma");
    products
        .filter_map(|product| product.operands.first())
        .for_each(|of| each(of, &mut |reg| sums.push(reg)));
    sums.sort_unstable();
    sums.dedup();
    sums
}

fn waits_for_sums(instruction: &Instruction) -> bool {
    instruction.opcode[0] == "wgmma" && instruction.opcode.iter().any(|part| part == "wait_group")
}

/// Its basic blocks, in order.
pub fn blocks(flat: &Flat) -> Vec<Block> {
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
    let block = |(block, &start): (usize, &usize)| Block { start, end: end_of(block), previous: Vec::new() };
    let mut blocks: Vec<Block> = starts.iter().enumerate().map(block).collect();
    for block in 0..blocks.len() {
        let end = blocks[block].end;
        let last = &flat.instructions[end - 1];
        let mut next: Vec<usize> = targets(last).into_iter().map(|target| number[target]).collect();
        let leaves = ends_thread(last) || matches!(last.opcode[0].as_str(), "bra" | "brx");
        if !(leaves && last.guard.is_none()) {
            next.push(number[end]);
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|&next| next < starts.len());
        next.into_iter().for_each(|next| blocks[next].previous.push(block));
    }
    blocks
}

fn ends_thread(instruction: &Instruction) -> bool {
    matches!(instruction.opcode[0].as_str(), "ret" | "return" | "exit" | "trap" | "__assertfail")
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
