//! An estimate of the registers that `ptxas` gives a thread, from the PTX alone. `ptxas` orders instructions anew, and
//! its rules are its own; this counts 32-bit registers
//!
//! * that are live at once in PTX's own order ([`Live`]), but for values that cost none, or are made where they are
//!   used ([`Values`]): what all threads of a CTA have in common before the kernel starts is in the constant bank or
//!   in uniform registers, and an address is made of its index;
//! * that loads in flight at once fill ([`in_flight`]), up to as many as leave a multiprocessor full of threads: those
//!   that wait for none of the others, in four rounds of a loop of a known step. They wait for stores, but where they are
//!   of what nobody writes, and for branches whose conditions were loaded;
//! * of the slow paths of divisions and roots.
//!
//! The factors are fitted to what `ptxas` 13.5 gave the kernels of `tests/registers`, at the root of the project.

use std::collections::HashSet;
use std::ops::Range;

use crate::exec::allocate::{Block, Mentions};
use crate::exec::inline::Flat;
use crate::ptx::ast::{Directives, Instruction, Operand, RegId, Type};

const MOST: u32 = 255;
const LEAST: u32 = 8;
/// What `ptxas` raises a smaller `.maxnreg` to.
const LEAST_BOUND: u32 = 24;
const REGISTERS_OF_SM: u32 = 65_536;
const THREADS_OF_SM: u32 = 2048;
const MAX_THREADS: u32 = 1024;
const ROUNDS_AT_ONCE: u32 = 4;
/// Pairs of a block and a register that lives on after it, at most; beyond them the bound is the estimate.
const MAX_PAIRS: usize = 1 << 22;

/// Registers a thread, within the bounds that the kernel sets.
pub fn estimate(flat: &Flat, blocks: &[Block], mentions: &Mentions, directives: &Directives) -> u32 {
    let bounds = Bounds::new(directives);
    // Warpgroups that exchange registers begin with all that there are, if that is said.
    if bounds.are_said && flat.instructions.iter().any(|instruction| instruction.opcode[0] == "setmaxnreg") {
        return bounds.most;
    }
    let values = Values::new(flat, mentions);
    let Some(live) = Live::new(flat, blocks, mentions, &values) else { return bounds.most };
    let in_flight = in_flight(flat, blocks, mentions, &values, &live);
    let mut estimate = 1.1 * f64::from(live.most) + 6.0;
    if in_flight > 0 {
        estimate = estimate.max((0.8 * f64::from(in_flight) + 9.0).min(bounds.in_flight.into()));
    }
    let divides = |ty: &str| {
        let is_slow = |opcode: &[String]| matches!(opcode[0].as_str(), "div" | "sqrt" | "rcp");
        let is_exact = |opcode: &[String]| opcode.last().is_some_and(|last| last == ty) && opcode[1] == "rn";
        flat.instructions.iter().any(|at| is_slow(&at.opcode) && is_exact(&at.opcode))
    };
    if divides("f64") {
        estimate += 4.0;
    }
    if divides("f32") {
        estimate += 3.0;
    }
    (estimate.round() as u32).max(LEAST).min(bounds.most)
}

/// What a kernel's directives leave for a thread.
struct Bounds {
    most: u32,
    /// As many as leave a multiprocessor full of threads.
    in_flight: u32,
    /// Whether the kernel itself says how many registers there are, or how many CTAs share them.
    are_said: bool,
}

impl Bounds {
    fn new(directives: &Directives) -> Bounds {
        let Directives { max_ntid, req_ntid, min_ctas_per_sm, max_registers, .. } = directives;
        let named = max_registers.filter(|&n| n <= MOST).map(|n| n.max(LEAST_BOUND));
        let product = |sizes: [u32; 3]| sizes.iter().fold(1u32, |product, &n| product.saturating_mul(n));
        let threads = req_ntid.or(*max_ntid).map(product).filter(|&threads| threads <= MAX_THREADS);
        // Registers come in eights.
        let shared_by = |ctas: u32, threads: u32| (REGISTERS_OF_SM / (ctas * threads) / 8 * 8).min(MOST);
        let Some(threads) = threads.map(|threads| threads.next_multiple_of(32)) else {
            let (most, in_flight) = (named.unwrap_or(MOST), shared_by(2, MAX_THREADS));
            return Bounds { most, in_flight, are_said: named.is_some() };
        };
        let ctas = min_ctas_per_sm.filter(|&n| n > 0 && n.saturating_mul(threads) <= THREADS_OF_SM);
        let most = named.unwrap_or(MOST).min(shared_by(ctas.unwrap_or(1), threads));
        let in_flight = shared_by(THREADS_OF_SM / threads, threads);
        Bounds { most, in_flight, are_said: named.or(ctas).is_some() }
    }
}

/// What the values of registers cost.
struct Values {
    /// 32-bit registers of each: none for predicates, for constants, and for what is made of these and of parameters
    /// and special registers that all threads of a CTA have in common.
    widths: Vec<u32>,
    /// The register that is kept in place of one that is cheaply made from it, or itself.
    roots: Vec<RegId>,
}

impl Values {
    fn new(flat: &Flat, mentions: &Mentions) -> Values {
        let (count, all) = (flat.registers.len(), 0..flat.instructions.len());
        let mut writes = vec![0u32; count];
        all.clone().flat_map(|i| mentions.writes(i)).for_each(|&register| writes[register as usize] += 1);
        let width = |ty: &Type| if *ty == Type::Pred { 0 } else { ty.size_bytes().div_ceil(4) as u32 };
        let widths = flat.registers.iter().map(width).collect();
        let mut values = Values { widths, roots: (0..count as RegId).collect() };
        let mut is_free = vec![false; count];
        for i in all {
            let instruction = &flat.instructions[i];
            let &[result] = mentions.writes(i) else { continue };
            if writes[result as usize] > 1 || instruction.guard.is_some() {
                continue;
            }
            let free = |&register: &RegId| is_free[register as usize];
            if is_constant(instruction) || mentions.reads(i).iter().all(free) && is_uniform(instruction) {
                is_free[result as usize] = true;
                values.widths[result as usize] = 0;
                continue;
            }
            let mut costly = mentions.reads(i).iter().filter(|&&register| values.width(register) > 0);
            let Some(&source) = costly.next() else { continue };
            let root = values.roots[source as usize];
            let is_kept = writes[root as usize] == 1 && values.width(root) <= values.width(result);
            if is_kept && costly.all(|&other| other == source) && is_cheap(instruction) {
                values.roots[result as usize] = root;
            }
        }
        values
    }

    fn width(&self, register: RegId) -> u32 {
        self.widths[register as usize]
    }

    /// Whether an instruction with these results is done again wherever they are used.
    fn is_repeated(&self, writes: &[RegId]) -> bool {
        matches!(writes, &[register] if self.roots[register as usize] != register)
    }
}

/// Whether its result is there before the kernel starts.
fn is_constant(instruction: &Instruction) -> bool {
    let Instruction { opcode, operands, .. } = instruction;
    match opcode[0].as_str() {
        "ld" => opcode.get(1).is_some_and(|space| space.starts_with("param") || space == "const"),
        "mov" => match &operands[..] {
            [_, Operand::Special(name)] => name.starts_with("ntid"),
            [_, source] => !matches!(source, Operand::Reg(_) | Operand::Vector(_)),
            _ => false,
        },
        _ => false,
    }
}

/// Whether its result is in a uniform register where its sources are.
fn is_uniform(instruction: &Instruction) -> bool {
    const OPCODES: [&str; 22] = [
        "mov", "add", "sub", "mul", "mad", "shl", "shr", "and", "or", "xor", "not", "cvta", "cvt", "min",
        "max", "setp", "selp", "bfe", "lop3", "shf", "neg", "prmt",
    ];
    const COMMON: [&str; 7] = ["ctaid", "nctaid", "ntid", "cluster", "ncluster", "dynamic", "total"];
    let Instruction { opcode, operands, .. } = instruction;
    let is_float = opcode.last().is_some_and(|ty| ty.starts_with('f') || ty.starts_with("bf1"));
    let is_common = |operand: &Operand| match operand {
        Operand::Special(name) => COMMON.iter().any(|prefix| name.starts_with(prefix)),
        operand => !matches!(operand, Operand::Vector(_)),
    };
    !is_float && OPCODES.contains(&opcode[0].as_str()) && operands.iter().skip(1).all(is_common)
}

/// Whether it is one instruction, or a part of the one that uses its result.
fn is_cheap(instruction: &Instruction) -> bool {
    let Instruction { opcode, operands, .. } = instruction;
    let is_integer =
        |at: Option<&String>| at.is_some_and(|ty| ty.starts_with(['u', 's', 'b']) && !ty.starts_with("bf"));
    match opcode[0].as_str() {
        "mov" | "cvta" => !operands.iter().any(|operand| matches!(operand, Operand::Vector(_))),
        "cvt" => is_integer(opcode.last()) && is_integer(opcode.iter().nth_back(1)),
        "add" | "sub" => is_integer(opcode.last()),
        "mul" | "mad" => opcode.get(1).is_some_and(|part| part == "wide"),
        "shl" | "shr" | "and" | "or" | "xor" => true,
        _ => false,
    }
}

/// 32-bit registers that hold values at once.
struct Live {
    /// Where each block begins.
    at_start: Vec<u32>,
    most: u32,
}

impl Live {
    /// `None` where there are too many to follow.
    fn new(flat: &Flat, blocks: &[Block], mentions: &Mentions, values: &Values) -> Option<Live> {
        let after = live_after(flat, blocks, mentions, values)?;
        let mut live = Live { at_start: vec![0; blocks.len()], most: 0 };
        // The block that a register lives in, while it does.
        let mut lives = vec![usize::MAX; flat.registers.len()];
        for (number, block) in blocks.iter().enumerate() {
            after[number].iter().for_each(|&register| lives[register as usize] = number);
            let mut sum = after[number].iter().map(|&register| values.width(register)).sum();
            for i in (block.start..block.end).rev() {
                let (reads, writes) = (mentions.reads(i), mentions.writes(i));
                if values.is_repeated(writes) {
                    continue;
                }
                let unused = writes.iter().filter(|&&register| lives[register as usize] != number);
                live.most = live.most.max(sum + unused.map(|&register| values.width(register)).sum::<u32>());
                for &register in writes {
                    if std::mem::replace(&mut lives[register as usize], usize::MAX) == number {
                        sum -= values.width(register);
                    }
                }
                let mut made = 0; // of what is kept in their place
                for &register in reads {
                    let root = values.roots[register as usize];
                    if root != register {
                        made += values.width(register);
                    }
                    if std::mem::replace(&mut lives[root as usize], number) != number {
                        sum += values.width(root);
                    }
                }
                live.most = live.most.max(sum + made);
            }
            live.at_start[number] = sum;
        }
        Some(live)
    }
}

/// The registers that live on after each block.
fn live_after(
    flat: &Flat,
    blocks: &[Block],
    mentions: &Mentions,
    values: &Values,
) -> Option<Vec<Vec<RegId>>> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); flat.registers.len()];
    let mut writers = readers.clone();
    for (number, block) in blocks.iter().enumerate() {
        for i in block.start..block.end {
            let (reads, writes) = (mentions.reads(i), mentions.writes(i));
            if values.is_repeated(writes) {
                continue;
            }
            for root in reads.iter().map(|&register| values.roots[register as usize]) {
                let known =
                    [&writers, &readers].iter().any(|list| list[root as usize].last() == Some(&number));
                if values.width(root) > 0 && !known {
                    readers[root as usize].push(number);
                }
            }
            for &register in writes {
                if values.width(register) > 0 && writers[register as usize].last() != Some(&number) {
                    writers[register as usize].push(number);
                }
            }
        }
    }
    let mut after: Vec<Vec<RegId>> = vec![Vec::new(); blocks.len()];
    let (mut writes, mut lives) = (vec![RegId::MAX; blocks.len()], vec![RegId::MAX; blocks.len()]);
    let mut pairs = 0;
    for (register, (mut stack, writers)) in readers.into_iter().zip(writers).enumerate() {
        let register = register as RegId;
        writers.iter().for_each(|&block| writes[block] = register);
        stack.iter().for_each(|&block| lives[block] = register);
        while let Some(block) = stack.pop() {
            pairs += 1 + blocks[block].previous.len();
            if pairs > MAX_PAIRS {
                return None;
            }
            for &previous in &blocks[block].previous {
                if after[previous].last() != Some(&register) {
                    after[previous].push(register);
                }
                if writes[previous] != register && lives[previous] != register {
                    lives[previous] = register;
                    stack.push(previous);
                }
            }
        }
    }
    Some(after)
}

/// 32-bit registers that loads on their way at once fill, and those that live beside them; 0 without a load.
fn in_flight(flat: &Flat, blocks: &[Block], mentions: &Mentions, values: &Values, live: &Live) -> u32 {
    let waits = vec![(0, 0); flat.registers.len()];
    let (sums, floors) = (Vec::new(), [0; 4]);
    let mut stretch = Stretch { waits, number: 0, sums, floors, decided: 0, stores: false, reads: false };
    let mut most = 0;
    for range in stretches(blocks) {
        let (first, last) = (range.start, range.end - 1);
        let inside = blocks[first].start..blocks[last].end;
        let sum = stretch.most_at_once(flat, inside.clone(), mentions, values);
        let is_loop = blocks[first].previous.contains(&last);
        if sum > 0 {
            let repeats = is_loop
                && first == last
                && !(stretch.stores && stretch.reads)
                && has_known_step(flat, inside, mentions);
            most = most.max(live.at_start[first] + if repeats { ROUNDS_AT_ONCE } else { 1 } * sum);
        }
    }
    most
}

/// Blocks between the beginnings and ends of loops.
fn stretches(blocks: &[Block]) -> Vec<Range<usize>> {
    let mut begins = vec![false; blocks.len() + 1];
    for (number, block) in blocks.iter().enumerate() {
        for &latch in block.previous.iter().filter(|&&from| from >= number) {
            (begins[number], begins[latch + 1]) = (true, true);
        }
    }
    let starts: Vec<usize> = (0..blocks.len()).filter(|&number| number == 0 || begins[number]).collect();
    let ends = starts.iter().skip(1).copied().chain([blocks.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// Memories that a store changes for later loads; what may be in any of them comes last.
const SPACES: [&str; 3] = ["global", "shared", "local"];
const ANY: usize = SPACES.len();

/// The loads of a stretch of instructions without a loop's beginning or end in it, in rounds: those of one wait for
/// others of the one before.
struct Stretch {
    /// The first round that does not wait for a register, in the stretch of this number.
    waits: Vec<(usize, usize)>,
    number: usize,
    /// Registers that the loads of each round fill.
    sums: Vec<u32>,
    /// The first round after the last store, by space.
    floors: [usize; 4],
    /// The first round after the loads that branches have asked for.
    decided: usize,
    stores: bool,
    /// Whether it loads what stores may change.
    reads: bool,
}

impl Stretch {
    /// Registers that the loads of one round fill at most.
    fn most_at_once(
        &mut self,
        flat: &Flat,
        inside: Range<usize>,
        mentions: &Mentions,
        values: &Values,
    ) -> u32 {
        self.number += 1;
        self.sums.clear();
        (self.floors, self.decided, self.stores, self.reads) = ([0; 4], 0, false, false);
        for i in inside {
            let (reads, writes, instruction) = (mentions.reads(i), mentions.writes(i), &flat.instructions[i]);
            let of = |&register: &RegId| match self.waits[register as usize] {
                (number, round) if number == self.number => round,
                _ => 0,
            };
            let mut round = reads.iter().map(of).max().unwrap_or(0);
            let rounds = self.sums.len();
            match instruction.opcode[0].as_str() {
                "ld" if !is_constant(instruction) => {
                    let is_fixed = instruction.opcode.iter().any(|part| part == "nc");
                    self.reads |= !is_fixed;
                    let floor = if is_fixed { 0 } else { self.floors[space(&instruction.opcode)] };
                    round = round.max(floor).max(self.decided);
                    self.sums.resize(rounds.max(round + 1), 0);
                    self.sums[round] += writes.iter().map(|&register| values.width(register)).sum::<u32>();
                    round += 1;
                }
                "st" | "red" => {
                    self.stores = true;
                    match space(&instruction.opcode) {
                        ANY => self.floors = [rounds; 4],
                        space => (self.floors[space], self.floors[ANY]) = (rounds, rounds),
                    }
                }
                // What follows is not loaded before it is known whether it is wanted.
                "bra" => {
                    let decided = instruction.guard.map_or(0, |guard| of(&guard.reg));
                    self.decided = self.decided.max(decided);
                }
                "atom" | "bar" | "barrier" | "membar" | "fence" => {
                    (self.stores, self.floors) = (true, [rounds; 4]);
                }
                _ => {}
            }
            writes.iter().for_each(|&register| self.waits[register as usize] = (self.number, round));
        }
        self.sums.iter().copied().max().unwrap_or(0)
    }
}

/// The number of the memory that an access is in.
fn space(opcode: &[String]) -> usize {
    let named = |space: &str| opcode.iter().skip(1).any(|part| part.starts_with(space));
    SPACES.iter().position(|space| named(space)).unwrap_or(ANY)
}

/// Whether a loop's end compares what an immediate number is added to in each round.
fn has_known_step(flat: &Flat, inside: Range<usize>, mentions: &Mentions) -> bool {
    let Some(guard) = flat.instructions[inside.end - 1].guard else { return false };
    let (mut stepped, mut has_step): (HashSet<RegId>, bool) = (HashSet::new(), false);
    for i in inside {
        let Instruction { opcode, operands, .. } = &flat.instructions[i];
        let by_number = || operands.iter().any(|operand| matches!(operand, Operand::Int(_)));
        match opcode[0].as_str() {
            "add" if by_number() => stepped.extend(mentions.writes(i)),
            "setp" if mentions.writes(i).contains(&guard.reg) => {
                has_step |= mentions.reads(i).iter().any(|read| stepped.contains(read));
            }
            _ => {}
        }
    }
    has_step
}
