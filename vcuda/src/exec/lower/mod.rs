//! A flat kernel to decoded operations. What an opcode means is in [`table`](super::table), which finds here where its
//! operands are ([`layout`] for variables, [`operand`] and [`constant`] for slots) and appends operations ([`emit`]), after
//! [`gather`] has brought products together.

mod addends;
mod call;
mod constant;
mod emit;
mod gather;
mod layout;
mod operand;
mod pointed;
mod products;
mod steady;

use std::collections::{HashMap, HashSet};

use super::allocate::{Allocation, Mentions, allocate, blocks};
use super::calls::{Callable, Calls};
use super::control::Exit;
use super::host::Host;
use super::inline::Flat;
use super::kernel::{Kernel, Special};
use super::matrix::run::Run;
use super::options::Checks;
use super::profile::marks::Marks;
use super::profile::registers;
use super::registers::NO_PRED;
use crate::ptx::ast::{Function, Instruction, Operand, Variable};
use layout::Layout;
pub use layout::Location;
use pointed::Pointed;
use steady::Steady;

/// A kernel under construction.
pub struct Lower<'a> {
    pub host: Host,
    pub checks: Checks,
    /// Operations that count come before the instructions.
    pub counts: bool,
    flat: &'a Flat,
    allocation: Allocation,
    steady: Steady,
    layout: Layout<'a>,
    pub(super) kernel: Kernel,

    /// Slots past those of the registers.
    next_slot: usize,
    constants: HashMap<(u64, bool), u16>,
    specials: HashMap<Special, u16>,
    params: HashMap<(usize, usize, bool, bool), u16>,
    temps: [u16; 4],

    /// Of the instruction being decoded.
    place: usize,
    pub(super) guard: u16,
    pub(super) line: u32,
    /// Whose instruction it is: the kernel's own (0), or that of a function it calls.
    owner: usize,
    /// The next operation is a branch target: nothing is joined to what precedes it.
    pub(super) leader: bool,
    /// Operations that branch to `imm`.
    branches: Vec<usize>,
    /// The operation that holds the last run of multiply-adds.
    last_run: Option<usize>,
    /// The operation that holds the last run of `mma`, with the type and the registers of its factors.
    last_mma: Option<(usize, u8, usize)>,
    pointed: Pointed,
    /// Slots of the sums of asynchronous matrix products, if they are watched.
    sums: HashSet<u16>,
}

/// Appends the operations that do an instruction; or what is wrong with it.
pub type Decode = fn(&mut Lower, &Instruction) -> Result<(), String>;

/// Lowers one kernel, whose products it brings together.
///
/// # Errors
/// The PTX line and what cannot be done there.
pub fn lower(
    function: &Function,
    flat: &mut Flat,
    globals: &HashMap<String, Location>,
    shared: &[Variable],
    host: Host,
    (checks, counts): (Checks, bool),
    decode: Decode,
) -> Result<Kernel, (u32, String)> {
    let invalid = |why| (function.line, why);
    let (blocks, mut mentions) = (blocks(flat), Mentions::new(flat));
    let registers_estimate = registers::estimate(flat, &blocks, &mentions, &function.directives);
    // Checks ask which lanes do something in one instruction, and counters count all of them.
    let is_free = checks == Checks::default();
    let has_moved = is_free && gather::gather(flat, &blocks);
    let unneeded = if is_free && !counts { addends::fold(flat, &blocks) } else { Vec::new() };
    if has_moved || !unneeded.is_empty() {
        mentions = Mentions::new(flat);
    }
    let flat = &*flat;
    let allocation = allocate(flat, &blocks, &mentions)
        .ok_or_else(|| invalid("too many registers live at once".to_string()))?;
    let layout = Layout::new(function, flat, globals, shared).map_err(invalid)?;
    let mut lower = Lower::new(function, flat, allocation, layout, host, (checks, counts));
    if is_free {
        lower.pointed = Pointed::new(flat, &blocks, &mentions);
    }
    lower.kernel.registers_estimate = registers_estimate;
    let mut targets = vec![false; flat.instructions.len() + 1];
    for operand in flat.instructions.iter().flat_map(|instruction| &instruction.operands) {
        operand.visit(&mut |part| {
            if let Operand::Label(target) = part {
                targets[*target] = true;
            }
        });
    }
    let entries = [flat.entry].into_iter().chain(flat.functions.iter().map(|called| called.entry));
    let owners: HashMap<usize, usize> = entries.enumerate().map(|(owner, entry)| (entry, owner)).collect();
    let mut starts = Vec::with_capacity(flat.instructions.len() + 1);
    for (i, instruction) in flat.instructions.iter().enumerate() {
        lower.leader |= targets[i];
        lower.owner = owners.get(&i).copied().unwrap_or(lower.owner);
        starts.push(lower.kernel.ops.len());
        lower.place = i;
        if unneeded.get(i) != Some(&true) {
            lower.instruction(instruction, decode)?;
        }
    }
    lower.leader = true;
    starts.push(lower.kernel.ops.len());
    lower.guard = 0;
    lower.emit::<Exit>([0; 5], 0); // a body may end without one
    lower.finish(&starts)
}

impl<'a> Lower<'a> {
    fn new(
        function: &Function,
        flat: &'a Flat,
        allocation: Allocation,
        mut layout: Layout<'a>,
        host: Host,
        (checks, counts): (Checks, bool),
    ) -> Lower<'a> {
        let directives = &function.directives;
        let block = directives.req_ntid.or(directives.max_ntid);
        let kernel = Kernel {
            name: function.name.clone(),
            params: std::mem::take(&mut layout.params),
            param_bytes: layout.param_bytes,
            reserved_shared_bytes: layout.reserved_shared_bytes,
            static_shared_bytes: layout.static_shared_bytes,
            local_bytes_per_thread: layout.local_bytes,
            registers_estimate: 0,
            max_threads_per_block: block.map_or(1024, |[x, y, z]| x.saturating_mul(y).saturating_mul(z)),
            block: directives.req_ntid,
            cluster: directives.cluster,
            max_cluster_ctas: directives.max_cluster_ctas.unwrap_or(u32::MAX),
            needs_cluster: directives.needs_cluster,
            counts_clusters: directives.counts_clusters,
            is_asynchronous: checks.asynchrony && flat.instructions.iter().any(products::is_asynchronous),
            has_products: flat.instructions.iter().any(|instruction| instruction.opcode[0] == "wgmma"),
            polls: false,
            granule_bytes: 4,
            marks: Marks::default(),
            ops: Vec::new(),
            runs: Vec::new(),
            mma_runs: Vec::new(),
            host,
            lists: Vec::new(),
            const_ranges: Vec::new(),
            targets: Vec::new(),
            calls: Calls::new([allocation.wide, allocation.narrow]),
            slots: 0,
            unwritten: allocation.unwritten(),
            preds: allocation.preds + 2,
            constants: Vec::new(),
            param_slots: Vec::new(),
            specials: Vec::new(),
            dynamic_shared_offset: layout.dynamic_shared_offset,
            source_lines: HashMap::new(),
        };
        let first_temp = allocation.slots();
        Lower {
            host,
            checks,
            counts,
            flat,
            steady: Steady::new(flat),
            layout,
            kernel,
            next_slot: first_temp + 8,
            constants: HashMap::new(),
            specials: HashMap::new(),
            params: HashMap::new(),
            temps: std::array::from_fn(|i| (first_temp + 2 * i) as u16),
            place: 0,
            guard: 0,
            line: function.line,
            owner: 0,
            leader: true,
            branches: Vec::new(),
            last_run: None,
            last_mma: None,
            pointed: Pointed::default(),
            sums: if checks.asynchrony { products::sums(flat, &allocation) } else { HashSet::new() },
            allocation,
        }
    }

    fn instruction(&mut self, instruction: &Instruction, decode: Decode) -> Result<(), (u32, String)> {
        self.line = instruction.line;
        let guard = match instruction.guard {
            None => Ok(0),
            Some(guard) => {
                self.pred(&Operand::Reg(guard.reg)).map(|pred| 1 + 2 * pred + guard.negated as u16)
            }
        };
        let decoded = guard.and_then(|guard| {
            self.guard = guard;
            self.guard_sums(instruction);
            decode(self, instruction)
        });
        decoded.map_err(|why| {
            let opcode = instruction.opcode.written();
            (
                instruction.line,
                if why.is_empty() {
                    format!("unknown instruction {opcode}")
                } else {
                    format!("{opcode}: {why}")
                },
            )
        })
    }

    /// Resolves branch targets, from instructions to operations.
    fn finish(mut self, starts: &[usize]) -> Result<Kernel, (u32, String)> {
        for &branch in &self.branches {
            let target = &mut self.kernel.ops[branch].operands.imm;
            *target = starts[*target as usize] as i64;
        }
        self.kernel.mma_runs.iter_mut().for_each(Run::end);
        self.pointed.end(&self.allocation, &mut self.kernel.ops, &mut self.kernel.mma_runs);
        for target in &mut self.kernel.targets {
            *target = starts[*target];
        }
        for (called, &frame_bytes) in self.flat.functions.iter().zip(&self.layout.frames[1..]) {
            let address = self.layout.address_of(&called.name).map_err(|why| (0, why))?;
            self.kernel.calls.functions.push(Callable { address, pc: starts[called.entry], frame_bytes });
        }
        if self.next_slot > NO_PRED as usize {
            return Err((0, format!("{} registers and constants: too many", self.next_slot)));
        }
        self.kernel.slots = self.next_slot;
        Ok(self.kernel)
    }

    /// The number of a function that is called.
    pub fn function(&self, name: &str) -> Option<usize> {
        self.flat.numbers.get(name).copied()
    }

    /// A variable of the bodies.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.layout.variable(name)
    }

    /// Where a variable is.
    pub fn locate(&self, name: &str) -> Result<Location, String> {
        self.layout.locate(name)
    }

    /// Bytes of the variables of the function whose instruction it is.
    pub fn frame_bytes(&self) -> usize {
        self.layout.frames[self.owner]
    }

    /// Whether anything takes from the stack but calls.
    pub fn has_alloca(&self) -> bool {
        self.layout.has_alloca
    }

    pub fn calls(&mut self) -> &mut Calls {
        &mut self.kernel.calls
    }
}
