//! A loaded module: its variables placed in device memory, its kernels decoded.

use std::collections::{BTreeSet, HashMap};

use super::fault::LoadError;
use super::functions::Functions;
use super::host::Host;
use super::inline::{Flat, inline};
use super::kernel::Kernel;
use super::lower::{Location, lower};
use super::options::Checks;
use super::table::decode;
use crate::memory::Memory;
use crate::ptx::ast::{self, Operand, Space, Variable};

/// Decoded kernels and placed variables. Its variables stay in device memory until
/// [`Module::free_variables`].
pub struct Module {
    kernels: Vec<Kernel>,
    variables: HashMap<String, (u64, usize)>,
}

impl Module {
    /// Decodes every kernel, with what `checks` look for, and places every variable.
    ///
    /// # Errors
    /// Anything that cannot be run, naming function, PTX line and instruction; out of memory.
    pub fn load(ast: &ast::Module, memory: &Memory, checks: Checks) -> Result<Module, LoadError> {
        Module::load_for(ast, memory, checks, false)
    }

    /// The same, for [`run_counted`](super::run_counted).
    ///
    /// # Errors
    /// As [`Module::load`].
    pub fn load_counted(ast: &ast::Module, memory: &Memory, checks: Checks) -> Result<Module, LoadError> {
        Module::load_for(ast, memory, checks, true)
    }

    fn load_for(
        ast: &ast::Module,
        memory: &Memory,
        checks: Checks,
        counts: bool,
    ) -> Result<Module, LoadError> {
        let mut module = Module { kernels: Vec::new(), variables: HashMap::new() };
        let functions = Functions::new(ast);
        let loaded = module
            .place(ast, &functions, memory)
            .and_then(|()| module.decode(ast, &functions, checks, counts));
        if let Err(message) = loaded {
            module.free_variables(memory);
            return Err(LoadError { message });
        }
        Ok(module)
    }

    fn place(&mut self, ast: &ast::Module, functions: &Functions, memory: &Memory) -> Result<(), String> {
        let in_memory = |variable: &&Variable| matches!(variable.space, Space::Global | Space::Const);
        for variable in ast.variables.iter().filter(in_memory) {
            let address = memory.alloc(variable.size_bytes.max(1)).ok_or_else(|| {
                format!("{}: no device memory for {} bytes", variable.name, variable.size_bytes)
            })?;
            self.variables.insert(variable.name.clone(), (address, variable.size_bytes));
        }
        for variable in ast.variables.iter().filter(in_memory) {
            // Fresh memory is zero already: only what has initial values is written.
            let relocated = variable.relocations.iter().map(|(offset, ..)| offset + 8).max().unwrap_or(0);
            let mut bytes = variable.init.clone();
            bytes.resize(bytes.len().max(relocated).min(variable.size_bytes), 0);
            for (offset, symbol, addend) in &variable.relocations {
                let of_variable = self.variables.get(symbol).map(|(address, _)| *address);
                let Some(address) = of_variable.or_else(|| functions.address(symbol)) else {
                    return Err(format!(
                        "{}: the address of {symbol}, which is not in memory",
                        variable.name
                    ));
                };
                let place = bytes.get_mut(*offset..offset + 8);
                let place = place.ok_or_else(|| format!("{}: an address past its end", variable.name))?;
                place.copy_from_slice(&address.wrapping_add(*addend as u64).to_le_bytes());
            }
            let (address, _) = self.variables[&variable.name];
            // SAFETY: allocated above with at least as many bytes; nobody else knows of it yet.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
            memory.mark_written(address, variable.size_bytes);
        }
        Ok(())
    }

    fn decode(
        &mut self,
        ast: &ast::Module,
        functions: &Functions,
        checks: Checks,
        counts: bool,
    ) -> Result<(), String> {
        let host = Host::detect();
        let variables = self.variables.iter().map(|(name, &(address, _))| (name.as_str(), address));
        let globals: HashMap<String, Location> = variables
            .chain(functions.addresses())
            .map(|(name, address)| (name.to_string(), Location::Global(address)))
            .collect();
        let shared: HashMap<&str, &Variable> = ast
            .variables
            .iter()
            .filter(|variable| variable.space == Space::Shared)
            .map(|variable| (variable.name.as_str(), variable))
            .collect();
        let const_ranges: Vec<(u64, u64)> = (ast.variables.iter())
            .filter(|variable| variable.space == Space::Const)
            .filter_map(|variable| self.global(&variable.name))
            .map(|(address, bytes)| (address, address + bytes.max(1) as u64))
            .collect();
        let mut size = 0;
        for function in ast.functions.iter().filter(|f| f.is_kernel && f.body.is_some()) {
            let at = |line: u32, message: String| format!("{}: line {line}: {message}", function.name);
            let mut flat =
                inline(functions, function, &mut size).map_err(|error| at(error.line, error.message))?;
            let shared = named(&flat, &shared);
            let mut kernel = lower(function, &mut flat, &globals, &shared, host, (checks, counts), decode)
                .map_err(|(line, message)| at(line, message))?;
            kernel.const_ranges = const_ranges.clone();
            kernel.source_lines = source_lines(ast, &flat.instructions);
            self.kernels.push(kernel);
        }
        Ok(())
    }

    /// A kernel by name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// All kernels, in the text's order.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Address and size in bytes of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, usize)> {
        self.variables.get(name).copied()
    }

    /// Gives the variables' memory back; no kernel may run after that.
    pub fn free_variables(&mut self, memory: &Memory) {
        for (_, (address, _)) in self.variables.drain() {
            memory.free(address);
        }
    }
}

/// The module's shared variables that a kernel names, and so has in its shared memory, in order of their names.
fn named(flat: &Flat, shared: &HashMap<&str, &Variable>) -> Vec<Variable> {
    let mut names = BTreeSet::new();
    for operand in flat.instructions.iter().flat_map(|instruction| &instruction.operands) {
        operand.visit(&mut |part| {
            if let Operand::Symbol(name, _) = part {
                names.extend(shared.get_key_value(name.as_str()).map(|(name, _)| *name));
            }
        });
    }
    names.into_iter().map(|name| shared[name].clone()).collect()
}

/// `file:line` of each PTX line that has a `.loc`.
fn source_lines(ast: &ast::Module, instructions: &[ast::Instruction]) -> HashMap<u32, String> {
    let files: HashMap<u32, &str> = ast.files.iter().map(|(index, path)| (*index, path.as_str())).collect();
    let at = |instruction: &ast::Instruction| {
        let (file, line) = instruction.source?;
        Some((instruction.line, format!("{}:{line}", files.get(&file)?)))
    };
    instructions.iter().filter_map(at).collect()
}
