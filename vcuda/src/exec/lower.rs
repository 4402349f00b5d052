//! A flat kernel to decoded operations: operands become slots, names become addresses, runs of
//! multiply-adds become one operation. What an opcode means is in [`super::table`].

use std::collections::{HashMap, HashSet};

use super::access::{self, PARAM_WINDOW};
use super::allocate::{Allocation, Place, allocate};
use super::call::{Callable, Calls, STACK_BYTES};
use super::check::{Check, Kind};
use super::control::{Branch, Exit};
use super::convert::WidenU32;
use super::float::{Fma32, FmaRun};
use super::inline::Flat;
use super::integer::w32;
use super::kernel::{Constant, Kernel, Param, ParamSlot, Special};
use super::op::{Body, Host, NO_PRED, Op};
use super::profile::counters::Marks;
use super::run::Checks;
use super::table;
use super::wgmma::SumsAtRest;
use crate::ptx::ast::{Function, Instruction, Operand, RegId, Space, Type, Variable};

/// What hardware allows: `.param` of kernels from sm_70 on, static `.shared`, and `.local` (CUDA C++
/// Programming Guide, "Technical Specifications per Compute Capability").
const MAX_PARAM_BYTES: usize = 32_764;
const MAX_STATIC_SHARED_BYTES: usize = 48 << 10;
const MAX_LOCAL_BYTES: usize = 512 << 10;

/// Where a named variable is.
#[derive(Clone, Copy, Debug)]
pub enum Location {
    /// Offset in the parameter buffer.
    Param(usize),
    /// Offset in the CTA's shared memory.
    Shared(u64),
    /// Offset in the thread's local memory.
    Local(u64),
    /// The same, from where the running function's variables begin.
    Frame(u64),
    /// Device address.
    Global(u64),
}

/// A kernel under construction.
pub struct Lower<'a> {
    pub host: Host,
    pub checks: Checks,
    /// Operations that count come before the instructions.
    pub counts: bool,
    flat: &'a Flat,
    allocation: Allocation,
    locations: HashMap<String, Location>,
    globals: &'a HashMap<String, Location>,
    pub(super) kernel: Kernel,
    next_slot: usize,
    constants: HashMap<(u64, bool), u16>,
    specials: HashMap<Special, u16>,
    params: HashMap<(usize, usize, bool, bool), u16>,
    temps: [u16; 4],
    /// Of the instruction being decoded.
    pub(super) guard: u16,
    pub(super) line: u32,
    /// Operations that branch to `imm`.
    branches: Vec<usize>,
    /// The operation that holds the last run of multiply-adds.
    last_run: Option<usize>,
    /// Bytes of the variables of the kernel, and of each function that it calls; and whose instruction it is.
    frames: Vec<usize>,
    owner: usize,
    /// The bodies' variables, where the kernel calls functions.
    variables: HashMap<&'a str, &'a Variable>,
    /// The next operation is a branch target: nothing is joined to what precedes it.
    pub(super) leader: bool,
    /// Slots of the sums of asynchronous matrix products, if they are watched.
    sums: HashSet<u16>,
}

/// Lowers one kernel.
///
/// # Errors
/// The PTX line and what cannot be done there.
pub fn lower(
    function: &Function,
    flat: &Flat,
    globals: &HashMap<String, Location>,
    shared: &[Variable],
    host: Host,
    (checks, counts): (Checks, bool),
) -> Result<Kernel, (u32, String)> {
    let allocation = allocate(flat).ok_or((function.line, "too many registers live at once".to_string()))?;
    let mut lower = Lower::new(function, flat, allocation, globals, shared, host, checks);
    lower.counts = counts;
    let kernel = &lower.kernel;
    for (bytes, limit, what) in [
        (kernel.param_bytes, MAX_PARAM_BYTES, "parameters"),
        (kernel.static_shared_bytes, MAX_STATIC_SHARED_BYTES, "static shared memory"),
        (kernel.local_bytes_per_thread, MAX_LOCAL_BYTES, "local memory a thread"),
    ] {
        if bytes > limit {
            return Err((function.line, format!("{bytes} bytes of {what}; at most {limit} are possible")));
        }
    }
    let mut targets = vec![false; flat.instructions.len() + 1];
    for operand in flat.instructions.iter().flat_map(|instruction| &instruction.operands) {
        mark(operand, &mut targets);
    }
    let entries = [flat.entry].into_iter().chain(flat.functions.iter().map(|called| called.entry));
    let owners: HashMap<usize, usize> = entries.enumerate().map(|(owner, entry)| (entry, owner)).collect();
    let mut starts = Vec::with_capacity(flat.instructions.len() + 1);
    for (i, instruction) in flat.instructions.iter().enumerate() {
        lower.leader |= targets[i];
        lower.owner = owners.get(&i).copied().unwrap_or(lower.owner);
        starts.push(lower.kernel.ops.len());
        lower.instruction(instruction)?;
    }
    lower.leader = true;
    starts.push(lower.kernel.ops.len());
    lower.guard = 0;
    lower.emit::<Exit>([0; 5], 0); // a body may end without one
    lower.finish(&starts)
}

fn mark(operand: &Operand, targets: &mut [bool]) {
    match operand {
        Operand::Label(target) => targets[*target] = true,
        Operand::List(all) => all.iter().for_each(|operand| mark(operand, targets)),
        _ => {}
    }
}

/// Calls `each` for the registers among operands.
fn registers(operands: &[Operand], each: &mut impl FnMut(RegId)) {
    for operand in operands {
        match operand {
            Operand::Reg(reg) => each(*reg),
            Operand::Vector(all) | Operand::List(all) => registers(all, each),
            Operand::Address(base, _) => registers(std::slice::from_ref(base), each),
            Operand::Pair(a, b) => registers(&[(**a).clone(), (**b).clone()], each),
            _ => {}
        }
    }
}

impl<'a> Lower<'a> {
    fn new(
        function: &Function,
        flat: &'a Flat,
        allocation: Allocation,
        globals: &'a HashMap<String, Location>,
        shared: &[Variable],
        host: Host,
        checks: Checks,
    ) -> Lower<'a> {
        let mut sums = HashSet::new();
        let products = flat.instructions.iter().filter(|i| i.opcode[0] == "wgmma" && checks.asynchrony);
        registers(&products.filter_map(|i| i.operands.first().cloned()).collect::<Vec<_>>(), &mut |reg| {
            if let Place::Narrow(slot) = allocation.places[reg as usize] {
                sums.insert(slot + 2 * allocation.wide as u16);
            }
        });
        let mut locations = HashMap::new();
        let mut params = Vec::new();
        let mut param_bytes = 0usize;
        for param in &function.params {
            let (size, align) = (param.size_bytes, param.align.max(1));
            let offset = param_bytes.next_multiple_of(align);
            params.push(Param { offset, size, align });
            locations.insert(param.name.clone(), Location::Param(offset));
            param_bytes = offset + size;
        }
        let (mut shared_bytes, mut frames) = (0usize, vec![0usize; 1 + flat.functions.len()]);
        let owners = shared.iter().map(|_| &0).chain(&flat.owners);
        let (mut dynamic, mut dynamic_align) = (Vec::new(), 16);
        for (variable, &owner) in shared.iter().chain(&flat.variables).zip(owners) {
            let size = variable.size_bytes;
            if variable.space == Space::Shared && variable.is_extern && size == 0 {
                dynamic.push(variable.name.clone());
                dynamic_align = dynamic_align.max(variable.align);
                continue;
            }
            let bytes = if variable.space == Space::Shared { &mut shared_bytes } else { &mut frames[owner] };
            let offset = bytes.next_multiple_of(variable.align.max(1));
            *bytes = offset + size;
            let location = match variable.space {
                Space::Shared => Location::Shared(offset as u64),
                _ if owner > 0 => Location::Frame(offset as u64),
                _ => Location::Local(offset as u64),
            };
            locations.insert(variable.name.clone(), location);
        }
        let dynamic_shared_offset = shared_bytes.next_multiple_of(dynamic_align);
        for name in dynamic {
            locations.insert(name, Location::Shared(dynamic_shared_offset as u64));
        }
        // A frame begins where it is aligned for whatever is in it.
        let align = flat.variables.iter().map(|variable| variable.align).max().unwrap_or(1).max(16);
        frames.iter_mut().for_each(|bytes| *bytes = bytes.next_multiple_of(align));
        let local_bytes = frames[0] + if flat.functions.is_empty() { 0 } else { STACK_BYTES };
        let directives = &function.directives;
        let block = directives.req_ntid.or(directives.max_ntid);
        // A thread's registers on a GPU, roughly: what is live at once, and a few for addresses.
        let registers = (allocation.narrow + 2 * allocation.wide + 8).min(255) as u32;
        let first_narrow = 2 * allocation.wide;
        let first_temp = first_narrow + allocation.narrow;
        Lower {
            host,
            checks,
            counts: false,
            flat,
            locations,
            globals,
            next_slot: first_temp + 8,
            temps: std::array::from_fn(|i| (first_temp + 2 * i) as u16),
            constants: HashMap::new(),
            specials: HashMap::new(),
            params: HashMap::new(),
            guard: 0,
            line: function.line,
            branches: Vec::new(),
            last_run: None,
            frames,
            owner: 0,
            variables: (flat.variables.iter().filter(|_| !flat.functions.is_empty()))
                .map(|variable| (variable.name.as_str(), variable))
                .collect(),
            leader: true,
            sums,
            kernel: Kernel {
                name: function.name.clone(),
                params,
                param_bytes,
                static_shared_bytes: shared_bytes,
                local_bytes_per_thread: local_bytes,
                registers_estimate: registers,
                max_threads_per_block: block.map_or(1024, |[x, y, z]| x.saturating_mul(y).saturating_mul(z)),
                cluster: directives.cluster,
                granule_bytes: 4,
                marks: Marks::default(),
                ops: Vec::new(),
                runs: Vec::new(),
                lists: Vec::new(),
                targets: Vec::new(),
                calls: Calls::new([allocation.wide, allocation.narrow]),
                slots: 0,
                preds: allocation.preds + 1,
                constants: Vec::new(),
                param_slots: Vec::new(),
                specials: Vec::new(),
                dynamic_shared_offset,
                source_lines: HashMap::new(),
            },
            allocation,
        }
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), (u32, String)> {
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
            table::decode(self, instruction)
        });
        decoded.map_err(|why| {
            let opcode = instruction.opcode.join(".");
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

    /// Lets an instruction that names sums of matrix products make sure that they are done, if that is asked for.
    fn guard_sums(&mut self, instruction: &Instruction) {
        if self.sums.is_empty() || instruction.opcode[0] == "wgmma" {
            return;
        }
        let mut named = Vec::new();
        registers(&instruction.operands, &mut |reg| {
            if let Place::Narrow(slot) = self.allocation.places[reg as usize] {
                named.push(slot + 2 * self.allocation.wide as u16);
            }
        });
        if named.iter().any(|slot| self.sums.contains(slot)) {
            let (count, list) = (named.len() as u16, self.list(&named));
            self.emit::<SumsAtRest>([count, 0, 0, 0, 0], list as i64);
        }
    }

    /// Resolves branch targets, from instructions to operations.
    fn finish(mut self, starts: &[usize]) -> Result<Kernel, (u32, String)> {
        for &branch in &self.branches {
            let op = &mut self.kernel.ops[branch];
            op.imm = starts[op.imm as usize] as i64;
        }
        for target in &mut self.kernel.targets {
            *target = starts[*target];
        }
        for (called, &frame_bytes) in self.flat.functions.iter().zip(&self.frames[1..]) {
            let address = self.address_of(&called.name).map_err(|why| (0, why))?;
            self.kernel.calls.functions.push(Callable { address, pc: starts[called.entry], frame_bytes });
        }
        if self.next_slot > NO_PRED as usize {
            return Err((0, format!("{} registers and constants: too many", self.next_slot)));
        }
        self.kernel.slots = self.next_slot;
        Ok(self.kernel)
    }

    /// Appends an operation under the instruction's guard; `operands` are d, a, b, c, e.
    pub fn emit<B: Body>(&mut self, [d, a, b, c, e]: [u16; 5], imm: i64) {
        let run = self.host.version::<B>();
        self.leader = false;
        self.kernel.ops.push(Op { run, d, a, b, c, e, guard: self.guard, line: self.line, imm });
    }

    /// Whether accesses have a check before them.
    pub fn is_watched(&self) -> bool {
        self.checks.init || self.checks.race
    }

    /// Before an access of `bytes` at slot `a` plus `imm`: its check, if there are any. `flags` and `elements`
    /// as [`Check`] has them.
    pub fn emit_check(&mut self, kind: Kind, at: (u8, u16, i64), bytes: usize, flags: u16, elements: u16) {
        if !self.is_watched() {
            return;
        }
        if kind.writes() {
            self.kernel.granule_bytes = self.kernel.granule_bytes.min(bytes);
        }
        let (space, a, imm) = at;
        let slots = [0, a, bytes as u16, kind as u16 | flags, elements];
        match space {
            access::GLOBAL => self.emit::<Check<{ access::GLOBAL }>>(slots, imm),
            access::SHARED32 => self.emit::<Check<{ access::SHARED32 }>>(slots, imm),
            access::SHARED64 => self.emit::<Check<{ access::SHARED64 }>>(slots, imm),
            access::LOCAL => self.emit::<Check<{ access::LOCAL }>>(slots, imm),
            _ => self.emit::<Check<{ access::GENERIC }>>(slots, imm),
        }
    }

    /// `fma.rn.f32`, joined to a run of them where nothing may come between.
    pub fn emit_fma(&mut self, slots: [u16; 4]) {
        let next = self.kernel.ops.len();
        match self.kernel.ops.last_mut() {
            _ if self.guard != 0 => {
                let [d, a, b, c] = slots;
                return self.emit::<Fma32>([d, a, b, c, 0], 0);
            }
            Some(last) if !self.leader && self.last_run == Some(next - 1) && last.a < u16::MAX => last.a += 1,
            _ => {
                self.last_run = Some(next);
                self.emit::<FmaRun>([0, 1, 0, 0, 0], self.kernel.runs.len() as i64);
            }
        }
        self.kernel.runs.push(slots);
    }

    /// A branch to an instruction, which becomes its operation in the end.
    pub fn emit_branch(&mut self, target: usize) {
        self.branches.push(self.kernel.ops.len());
        self.emit::<Branch>([0; 5], target as i64);
    }

    /// A table of branch targets; its place.
    pub fn branch_targets(&mut self, targets: &[usize]) -> i64 {
        self.kernel.targets.extend_from_slice(targets);
        (self.kernel.targets.len() - targets.len()) as i64
    }

    /// A list of slots for an operation that has more than five; its place in [`Kernel::lists`].
    pub fn list(&mut self, slots: &[u16]) -> usize {
        self.kernel.lists.extend_from_slice(slots);
        self.kernel.lists.len() - slots.len()
    }

    /// A slot for values on their way between the operations of one instruction.
    pub fn temp(&self, number: usize) -> u16 {
        self.temps[number]
    }

    /// A predicate for the same.
    pub fn temp_pred(&self) -> u16 {
        self.allocation.preds as u16
    }

    /// Whether a register has 64 bits.
    pub fn is_wide(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Reg(reg) => matches!(self.allocation.places[*reg as usize], Place::Wide(_)),
            _ => false,
        }
    }

    /// The slot that a result goes to.
    pub fn destination(&self, operand: &Operand, wide: bool) -> Result<u16, String> {
        match operand {
            Operand::Sink => Ok(self.temps[3]),
            Operand::Reg(_) => {
                let (slot, is_wide) = self.register(operand)?;
                if is_wide == wide { Ok(slot) } else { Err("a destination of another width".to_string()) }
            }
            _ => Err("a destination that is not a register".to_string()),
        }
    }

    /// The slot that holds a source of 32 or 64 bits.
    pub fn source(&mut self, operand: &Operand, wide: bool) -> Result<u16, String> {
        match operand {
            Operand::Reg(_) => {
                let (slot, is_wide) = self.register(operand)?;
                if is_wide == wide { Ok(slot) } else { Err("a source of another width".to_string()) }
            }
            Operand::Int(value) => Ok(self.constant(*value as u64, wide)),
            Operand::F32(bits) => Ok(self.constant(u64::from(*bits), wide)),
            Operand::F64(bits) => Ok(self.constant(*bits, wide)),
            Operand::Special(name) => self.special(name, wide),
            Operand::Symbol(name, offset) => {
                if let Location::Frame(at) = self.locate(name)? {
                    return Ok(self.frame_address(at.wrapping_add(*offset as u64), 1, wide));
                }
                let address = self.address_of(name)?.wrapping_add(*offset as u64);
                Ok(self.constant(address, wide))
            }
            Operand::Function(name) => {
                let address = self.address_of(name)?;
                Ok(self.constant(address, wide))
            }
            _ => Err("an operand of a kind that is not expected here".to_string()),
        }
    }

    fn register(&self, operand: &Operand) -> Result<(u16, bool), String> {
        let Operand::Reg(reg) = operand else { return Err("not a register".to_string()) };
        match self.allocation.places[*reg as usize] {
            Place::Narrow(slot) => Ok((slot + 2 * self.allocation.wide as u16, false)),
            Place::Wide(slot) => Ok((2 * slot, true)),
            Place::Pred(_) => Err("a predicate where a value is expected".to_string()),
        }
    }

    /// The number of a predicate that a result goes to.
    pub fn pred_destination(&self, operand: &Operand) -> Result<u16, String> {
        match operand {
            Operand::Sink => Ok(self.temp_pred()),
            Operand::Reg(_) => self.pred(operand),
            _ => Err("a destination that is not a predicate".to_string()),
        }
    }

    /// A source predicate's number, bit 15 set for `!p`.
    pub fn pred(&self, operand: &Operand) -> Result<u16, String> {
        let (reg, negated) = match operand {
            Operand::Reg(reg) => (reg, 0),
            Operand::NotReg(reg) => (reg, 0x8000),
            _ => return Err("a value where a predicate is expected".to_string()),
        };
        match self.allocation.places[*reg as usize] {
            Place::Pred(number) if self.flat.registers[*reg as usize] == Type::Pred => Ok(number | negated),
            _ => Err("a value where a predicate is expected".to_string()),
        }
    }

    fn new_slot(&mut self, wide: bool) -> u16 {
        let slot = self.next_slot;
        self.next_slot += 1 + wide as usize;
        slot.min(NO_PRED as usize) as u16 // past the end: `finish` refuses
    }

    /// A slot that always holds `value`.
    pub fn constant(&mut self, value: u64, wide: bool) -> u16 {
        let value = if wide { value } else { value as u32 as u64 };
        if let Some(&slot) = self.constants.get(&(value, wide)) {
            return slot;
        }
        let slot = self.new_slot(wide);
        self.constants.insert((value, wide), slot);
        self.kernel.constants.push(Constant { slot, wide, value });
        slot
    }

    /// A slot that always holds bytes of a kernel parameter.
    pub fn param(&mut self, offset: usize, bytes: usize, signed: bool, wide: bool) -> Result<u16, String> {
        if offset + bytes > self.kernel.param_bytes {
            return Err(format!(
                "parameter bytes {offset}..{} of {}",
                offset + bytes,
                self.kernel.param_bytes
            ));
        }
        if let Some(&slot) = self.params.get(&(offset, bytes, signed, wide)) {
            return Ok(slot);
        }
        let slot = self.new_slot(wide);
        self.params.insert((offset, bytes, signed, wide), slot);
        self.kernel.param_slots.push(ParamSlot { slot, wide, offset, bytes, signed });
        Ok(slot)
    }

    fn special(&mut self, name: &str, wide: bool) -> Result<u16, String> {
        if let Some(value) = fixed(name) {
            return Ok(self.constant(value, wide));
        }
        let (base, axis) = match name.rsplit_once('.') {
            Some((base, "x")) => (base, 0),
            Some((base, "y")) => (base, 1),
            Some((base, "z")) => (base, 2),
            _ => (name, 0),
        };
        let special = match base {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            "cluster_ctaid" => Special::ClusterCtaid(axis),
            "cluster_nctaid" => Special::ClusterNctaid(axis),
            "clusterid" => Special::ClusterId(axis),
            "nclusterid" => Special::Nclusterid(axis),
            "cluster_ctarank" => Special::ClusterCtarank,
            "cluster_nctarank" => Special::ClusterNctarank,
            "is_explicit_cluster" => Special::IsExplicitCluster,
            "laneid" => Special::LaneId,
            "warpid" => Special::WarpId,
            "nwarpid" => Special::WarpCount,
            "lanemask_eq" => Special::LaneMaskEq,
            "lanemask_lt" => Special::LaneMaskLt,
            "lanemask_le" => Special::LaneMaskLe,
            "lanemask_gt" => Special::LaneMaskGt,
            "lanemask_ge" => Special::LaneMaskGe,
            "dynamic_smem_size" => Special::DynamicSharedBytes,
            "total_smem_size" | "aggr_smem_size" => Special::SharedBytes,
            _ => return Err(format!("special register %{name} is not supported")),
        };
        if wide {
            return Err(format!("special register %{name} as a 64-bit source"));
        }
        Ok(self.special_slot(special))
    }

    /// The slot that holds a special register.
    pub fn special_slot(&mut self, special: Special) -> u16 {
        if let Some(&slot) = self.specials.get(&special) {
            return slot;
        }
        let slot = self.new_slot(false);
        self.specials.insert(special, slot);
        self.kernel.specials.push((special, slot));
        slot
    }

    /// The place in local memory of byte `at` of the running function's variables, in a temporary.
    pub fn frame_address(&mut self, at: u64, temp: usize, wide: bool) -> u16 {
        let (frame, at, to) = (self.special_slot(Special::Frame), self.constant(at, false), self.temps[temp]);
        self.emit::<w32::Add>([to, frame, at, 0, 0], 0);
        if wide {
            self.emit::<WidenU32>([to, to, 0, 0, 0], 0);
        }
        to
    }

    /// The number of a function that is called.
    pub fn function(&self, name: &str) -> Option<usize> {
        self.flat.numbers.get(name).copied()
    }

    /// A variable of the bodies.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name).copied()
    }

    /// Bytes of the variables of the function whose instruction it is.
    pub fn frame_bytes(&self) -> usize {
        self.frames[self.owner]
    }

    pub fn calls(&mut self) -> &mut Calls {
        &mut self.kernel.calls
    }

    /// Where a variable is.
    pub fn locate(&self, name: &str) -> Result<Location, String> {
        self.locations
            .get(name)
            .or_else(|| self.globals.get(name))
            .copied()
            .ok_or_else(|| format!("{name} is not defined"))
    }

    /// A variable's address in its own space.
    fn address_of(&self, name: &str) -> Result<u64, String> {
        match self.locate(name)? {
            Location::Shared(address) | Location::Local(address) | Location::Global(address) => Ok(address),
            Location::Param(offset) => Ok(PARAM_WINDOW + offset as u64),
            Location::Frame(_) => Err(format!("the address of {name} of a called function")),
        }
    }
}

/// Special registers that are the same everywhere here: every CTA is on the one multiprocessor of the one
/// grid, no shared memory is reserved, and nothing is counted or set from outside.
fn fixed(name: &str) -> Option<u64> {
    match name {
        "nsmid" => Some(1),
        "smid" | "gridid" | "current_graph_exec" => Some(0),
        _ if name.starts_with("reserved_smem_offset") => Some(0),
        _ if name.starts_with("envreg") || name.starts_with("pm") => Some(0),
        _ => None,
    }
}
