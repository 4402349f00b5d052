//! Where a kernel's variables are: its parameters in the parameter buffer, the others in a CTA's shared memory, or in
//! a thread's local memory, where each function that is called has a frame of its own.

use std::collections::HashMap;

use crate::exec::inline::Flat;
use crate::exec::kernel::Param;
use crate::exec::profile::occupancy::RESERVED_SHARED_BYTES;
use crate::exec::space::{PARAM_START, STACK_BYTES};
use crate::ptx::ast::{Function, Operand, Space, Variable};

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

/// The places of all variables that a kernel can name.
pub struct Layout<'a> {
    variables: HashMap<&'a str, (&'a Variable, Location)>,
    globals: &'a HashMap<String, Location>,
    pub params: Vec<Param>,
    pub param_bytes: usize,
    pub reserved_shared_bytes: usize,
    pub static_shared_bytes: usize,
    /// Where dynamic shared memory begins.
    pub dynamic_shared_offset: usize,
    /// Bytes of the variables of the kernel, and of each function that it calls.
    pub frames: Vec<usize>,
    pub local_bytes: usize,
    /// Whether anything takes from the stack but calls.
    pub has_alloca: bool,
}

impl<'a> Layout<'a> {
    /// Of `function` with its parameters, the module's variables that it has in `shared` memory, and those of `flat`.
    ///
    /// # Errors
    /// They take more than hardware has room for.
    pub fn new(
        function: &'a Function,
        flat: &'a Flat,
        globals: &'a HashMap<String, Location>,
        shared: &'a [Variable],
    ) -> Result<Layout<'a>, String> {
        let mut layout = Layout {
            variables: HashMap::new(),
            globals,
            params: Vec::new(),
            param_bytes: 0,
            reserved_shared_bytes: if names_reserved(flat) { RESERVED_SHARED_BYTES as usize } else { 0 },
            static_shared_bytes: 0,
            dynamic_shared_offset: 0,
            frames: vec![0; 1 + flat.functions.len()],
            local_bytes: 0,
            has_alloca: flat.instructions.iter().any(|instruction| instruction.opcode[0] == "alloca"),
        };
        layout.place_params(function);
        layout.place_variables(flat, shared);
        for (bytes, limit, what) in [
            (layout.param_bytes, MAX_PARAM_BYTES, "parameters"),
            (layout.static_shared_bytes, MAX_STATIC_SHARED_BYTES, "static shared memory"),
            (layout.local_bytes, MAX_LOCAL_BYTES, "local memory a thread"),
        ] {
            if bytes > limit {
                return Err(format!("{bytes} bytes of {what}; at most {limit} are possible"));
            }
        }
        Ok(layout)
    }

    fn place_params(&mut self, function: &'a Function) {
        for param in &function.params {
            let (size, align) = (param.size_bytes, param.align.max(1));
            let offset = self.param_bytes.next_multiple_of(align);
            self.params.push(Param { offset, size, align });
            self.variables.insert(&param.name, (param, Location::Param(offset)));
            self.param_bytes = offset + size;
        }
    }

    fn place_variables(&mut self, flat: &'a Flat, shared: &'a [Variable]) {
        let owners = shared.iter().map(|_| &0).chain(&flat.owners);
        let (mut dynamic, mut dynamic_align) = (Vec::new(), 16);
        for (variable, &owner) in shared.iter().chain(&flat.variables).zip(owners) {
            let is_shared = variable.space == Space::Shared;
            if is_shared && variable.is_extern && variable.size_bytes == 0 {
                dynamic.push(variable);
                dynamic_align = dynamic_align.max(variable.align);
                continue;
            }
            let bytes = if is_shared { &mut self.static_shared_bytes } else { &mut self.frames[owner] };
            let offset = bytes.next_multiple_of(variable.align.max(1));
            *bytes = offset + variable.size_bytes;
            let location = match variable.space {
                Space::Shared => Location::Shared((self.reserved_shared_bytes + offset) as u64),
                _ if owner > 0 => Location::Frame(offset as u64),
                _ => Location::Local(offset as u64),
            };
            self.variables.insert(&variable.name, (variable, location));
        }
        let taken = self.reserved_shared_bytes + self.static_shared_bytes;
        self.dynamic_shared_offset = taken.next_multiple_of(dynamic_align);
        for variable in dynamic {
            let location = Location::Shared(self.dynamic_shared_offset as u64);
            self.variables.insert(&variable.name, (variable, location));
        }
        // A frame begins where it is aligned for whatever is in it.
        let align = flat.variables.iter().map(|variable| variable.align).max().unwrap_or(1).max(16);
        self.frames.iter_mut().for_each(|bytes| *bytes = bytes.next_multiple_of(align));
        let has_stack = !flat.functions.is_empty() || self.has_alloca;
        self.local_bytes = self.frames[0] + if has_stack { STACK_BYTES } else { 0 };
    }

    /// A variable of the kernel, or of a function that it calls.
    pub fn variable(&self, name: &str) -> Option<&'a Variable> {
        self.variables.get(name).map(|(variable, _)| *variable)
    }

    /// Where a variable is.
    pub fn locate(&self, name: &str) -> Result<Location, String> {
        let own = self.variables.get(name).map(|(_, location)| location);
        own.or_else(|| self.globals.get(name)).copied().ok_or_else(|| format!("{name} is not defined"))
    }

    /// A variable's address in its own space.
    pub fn address_of(&self, name: &str) -> Result<u64, String> {
        match self.locate(name)? {
            Location::Shared(address) | Location::Local(address) | Location::Global(address) => Ok(address),
            Location::Param(offset) => Ok(PARAM_START + offset as u64),
            Location::Frame(_) => Err(format!("the address of {name} of a called function")),
        }
    }
}

/// Whether instructions ask where reserved shared memory is.
fn names_reserved(flat: &Flat) -> bool {
    let mut found = false;
    for operand in flat.instructions.iter().flat_map(|instruction| &instruction.operands) {
        operand.visit(&mut |part| {
            found |= matches!(part, Operand::Special(name) if name.starts_with("reserved_smem_offset"));
        });
    }
    found
}
