//! A kernel with the functions it calls written out in place: registers and variables of each call are
//! its own, parameters are variables in local memory, and `ret` is a branch to the end of the call.
//! Functions that call themselves, and those that are called through an address, stand before the kernel's body
//! once each, and end with `return`.

use std::collections::HashMap;

use super::functions::Functions;
use crate::ptx::ast::{Body, Function, Guard, Instruction, Operand, RegId, Type, Variable};
use crate::ptx::forms::Opcode;

/// Calls inside calls, at most.
const MAX_DEPTH: usize = 64;
/// What a module's kernels may hold together after inlining: instructions, operands, registers, calls.
const MAX_SIZE: usize = 1 << 22;

/// A kernel without calls.
#[derive(Default)]
pub struct Flat {
    pub registers: Vec<Type>,
    pub instructions: Vec<Instruction>,
    /// The bodies' own variables under unique names, and whose they are: 0 for the kernel's, `i + 1` for
    /// those of `functions[i]`.
    pub variables: Vec<Variable>,
    pub owners: Vec<usize>,
    owner: usize,
    calls_addresses: bool,
    /// Functions that are called, not written out.
    pub functions: Vec<Called>,
    /// Their numbers.
    pub numbers: HashMap<String, usize>,
    /// The kernel's first instruction.
    pub entry: usize,
    size: usize,
}

/// A function before the kernel's body.
pub struct Called {
    pub name: String,
    /// Its first instruction.
    pub entry: usize,
}

/// What `ret` is in the body that is being copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kernel,
    /// Called from this line.
    WrittenOut(u32),
    Called,
}

/// Where, and why not.
pub struct InlineError {
    pub line: u32,
    pub message: String,
}

/// Adds to `size`, which counts for the whole module.
pub fn inline(functions: &Functions, kernel: &Function, size: &mut usize) -> Result<Flat, InlineError> {
    let mut flat = Flat { size: *size, ..Flat::default() };
    if let Some(body) = &kernel.body {
        flat.expand(functions, body, HashMap::new(), 0, End::Kernel)?;
    }
    if !flat.functions.is_empty() {
        flat.push("exit", Vec::new(), kernel.line);
    }
    let mut next = 0;
    while let Some(called) = flat.functions.get_mut(next) {
        called.entry = flat.instructions.len();
        next += 1;
        flat.owner = next;
        let function = functions.bodies.get(called.name.as_str());
        let Some(Function { body: Some(body), params, returns, line, .. }) = function else { continue };
        flat.grow(1 + returns.len() + params.len(), *line)?;
        let mut names = HashMap::new();
        for formal in returns.iter().chain(params) {
            names.insert(formal.name.clone(), flat.own(formal));
        }
        flat.expand(functions, body, names, 0, End::Called)?;
        flat.push("return", Vec::new(), *line);
    }
    if !flat.functions.is_empty() {
        flat.put_functions_first(kernel.line);
    }
    *size = flat.size;
    Ok(flat)
}

impl Flat {
    /// Adds a function to those that are called, once.
    fn called(&mut self, name: &str) {
        if !self.numbers.contains_key(name) {
            self.numbers.insert(name.to_string(), self.functions.len());
            self.functions.push(Called { name: name.to_string(), entry: 0 });
        }
    }

    /// Takes a variable over under a unique name, which it returns.
    fn own(&mut self, variable: &Variable) -> String {
        let name = format!("{}#{}", variable.name, self.variables.len());
        self.variables.push(Variable { name: name.clone(), ..variable.clone() });
        self.owners.push(self.owner);
        name
    }

    /// Moves functions before what calls them, and the kernel last: as the lowest lanes of a warp run first, those
    /// in a function then come back before others go on without them.
    fn put_functions_first(&mut self, line: u32) {
        let mut rest = std::mem::take(&mut self.instructions);
        let mut places = vec![0; rest.len()];
        self.push("bra", vec![Operand::Label(0)], line);
        let starts: Vec<usize> = self.functions.iter().map(|called| called.entry).collect();
        for start in starts.into_iter().rev().chain([0]) {
            let body = rest.split_off(start);
            (0..body.len()).for_each(|i| places[start + i] = self.instructions.len() + i);
            self.instructions.extend(body);
        }
        for instruction in &mut self.instructions {
            instruction.operands.iter_mut().for_each(|operand| relabel(operand, &places));
        }
        self.functions.iter_mut().for_each(|called| called.entry = places[called.entry]);
        self.entry = places[0];
    }

    fn push(&mut self, opcode: &str, operands: Vec<Operand>, line: u32) {
        let opcode = Opcode::bare(opcode);
        self.instructions.push(Instruction { guard: None, opcode, operands, line, source: None });
    }

    fn expand(
        &mut self,
        functions: &Functions,
        body: &Body,
        mut names: HashMap<String, String>,
        depth: usize,
        end: End,
    ) -> Result<(), InlineError> {
        let line = match end {
            End::WrittenOut(line) => line,
            _ => body.instructions.first().map_or(0, |first| first.line),
        };
        self.grow(1 + body.registers.len() + body.variables.len(), line)?;
        let first_reg = self.registers.len() as RegId;
        self.registers.extend(&body.registers);
        for variable in &body.variables {
            names.insert(variable.name.clone(), self.own(variable));
        }
        // New index of each of the body's instructions, and which of ours have its labels.
        let mut places = Vec::with_capacity(body.instructions.len() + 1);
        let mut own = Vec::new();
        for instruction in &body.instructions {
            places.push(self.instructions.len());
            self.grow(1 + instruction.operands.iter().map(operand_count).sum::<usize>(), instruction.line)?;
            let mut copy = instruction.clone();
            copy.guard = copy.guard.map(|guard| Guard { reg: guard.reg + first_reg, ..guard });
            copy.operands.iter_mut().for_each(|operand| rename(operand, first_reg, &names));
            match copy.opcode[0].as_str() {
                "call" => self.call(functions, copy, depth)?,
                "ret" if end == End::Called => {
                    self.instructions.push(Instruction { opcode: Opcode::bare("return"), ..copy });
                }
                "ret" if matches!(end, End::WrittenOut(_)) => {
                    copy.opcode = Opcode::bare("bra");
                    copy.operands = vec![Operand::Label(body.instructions.len())];
                    own.push(self.instructions.len());
                    self.instructions.push(copy);
                }
                _ => {
                    own.push(self.instructions.len());
                    self.instructions.push(copy);
                }
            }
        }
        places.push(self.instructions.len());
        for index in own {
            self.instructions[index].operands.iter_mut().for_each(|operand| relabel(operand, &places));
        }
        Ok(())
    }

    /// Counts what is added, before it is.
    fn grow(&mut self, by: usize, line: u32) -> Result<(), InlineError> {
        self.size += by;
        if self.size <= MAX_SIZE {
            return Ok(());
        }
        let message =
            format!("more than {MAX_SIZE} instructions, operands and registers with all calls written out");
        Err(InlineError { line, message })
    }

    fn call(&mut self, functions: &Functions, call: Instruction, depth: usize) -> Result<(), InlineError> {
        let fail = |message: String| Err(InlineError { line: call.line, message });
        let [Operand::List(returns), callee, Operand::List(arguments), ..] = &call.operands[..] else {
            return fail("a call of another form".to_string());
        };
        let Operand::Function(name) = callee else {
            if functions.addressed.is_empty() {
                return fail(
                    "a call through an address, in a module that takes no function's address".to_string(),
                );
            }
            if !std::mem::replace(&mut self.calls_addresses, true) {
                functions.addressed.iter().for_each(|name| self.called(name));
            }
            self.instructions.push(call);
            return Ok(());
        };
        if matches!(name.as_str(), "__assertfail" | "vprintf" | "malloc" | "free") {
            let (opcode, operands) = (Opcode::bare(name), arguments.iter().chain(returns).cloned().collect());
            self.instructions.push(Instruction { opcode, operands, ..call });
            return Ok(());
        }
        let function = functions.bodies.get(name.as_str());
        let Some(Function { body: Some(body), params, returns: results, .. }) = function else {
            return fail(format!("a call of {name}, which is not defined here"));
        };
        if (params.len(), results.len()) != (arguments.len(), returns.len()) {
            return fail(format!(
                "a call of {name} with {} arguments and {} results; it has {} and {}",
                arguments.len(),
                returns.len(),
                params.len(),
                results.len()
            ));
        }
        if functions.recursive.contains(name.as_str()) || depth == MAX_DEPTH {
            self.called(name);
            self.instructions.push(call);
            return Ok(());
        }
        let mut names = HashMap::new();
        let pairs = [(params, arguments), (results, returns)];
        for (formal, actual) in pairs.into_iter().flat_map(|(f, a)| f.iter().zip(a)) {
            let Operand::Symbol(variable, 0) = actual else {
                return fail(format!("a call of {name} with an argument that is not a .param variable"));
            };
            names.insert(formal.name.clone(), variable.clone());
        }
        // A guarded call is jumped over by the lanes that do not make it.
        let skip = call.guard.map(|guard| {
            let guard = Some(Guard { negated: !guard.negated, ..guard });
            let (opcode, operands) = (Opcode::bare("bra"), vec![Operand::Label(0)]);
            self.instructions.push(Instruction {
                guard,
                opcode,
                operands,
                line: call.line,
                source: call.source,
            });
            self.instructions.len() - 1
        });
        self.expand(functions, body, names, depth + 1, End::WrittenOut(call.line))?;
        if let Some(skip) = skip {
            self.instructions[skip].operands = vec![Operand::Label(self.instructions.len())];
        }
        Ok(())
    }
}

/// An operand's parts, itself one of them.
fn operand_count(operand: &Operand) -> usize {
    match operand {
        Operand::Vector(all) | Operand::List(all) | Operand::TensorAddress(_, all) => 1 + all.len(),
        _ => 1,
    }
}

fn rename(operand: &mut Operand, first_reg: RegId, names: &HashMap<String, String>) {
    match operand {
        Operand::Reg(reg) | Operand::NotReg(reg) | Operand::Part(reg, _) => *reg += first_reg,
        Operand::Symbol(name, _) => {
            if let Some(unique) = names.get(name) {
                *name = unique.clone();
            }
        }
        Operand::Pair(a, b) => {
            rename(a, first_reg, names);
            rename(b, first_reg, names);
        }
        Operand::Address(base, _) => rename(base, first_reg, names),
        Operand::Vector(all) | Operand::List(all) => all.iter_mut().for_each(|o| rename(o, first_reg, names)),
        Operand::TensorAddress(base, all) => {
            rename(base, first_reg, names);
            all.iter_mut().for_each(|o| rename(o, first_reg, names));
        }
        Operand::Sink
        | Operand::Int(_)
        | Operand::F32(_)
        | Operand::F64(_)
        | Operand::Special(_)
        | Operand::Label(_)
        | Operand::Function(_) => {}
    }
}

fn relabel(operand: &mut Operand, places: &[usize]) {
    match operand {
        Operand::Label(target) => *target = places[*target],
        Operand::List(all) => all.iter_mut().for_each(|operand| relabel(operand, places)),
        _ => {}
    }
}
