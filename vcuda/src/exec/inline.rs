//! A kernel with the functions it calls written out in place: registers and variables of each call are
//! its own, parameters are variables in local memory, and `ret` is a branch to the end of the call.
//! Recursion, which this cannot express, is refused.

use std::collections::HashMap;

use crate::ptx::ast::{Body, Function, Guard, Instruction, Operand, RegId, Type, Variable};

/// Calls inside calls, at most.
const MAX_DEPTH: usize = 64;
/// What a module's kernels may hold together after inlining: instructions, operands, registers, calls.
const MAX_SIZE: usize = 1 << 22;

/// A kernel without calls.
#[derive(Default)]
pub struct Flat {
    pub registers: Vec<Type>,
    pub instructions: Vec<Instruction>,
    /// The bodies' own variables under unique names.
    pub variables: Vec<Variable>,
    size: usize,
}

/// Where, and why not.
pub struct InlineError {
    pub line: u32,
    pub message: String,
}

/// Adds to `size`, which counts for the whole module.
pub fn inline(
    functions: &HashMap<&str, &Function>,
    kernel: &Function,
    size: &mut usize,
) -> Result<Flat, InlineError> {
    let mut flat = Flat { size: *size, ..Flat::default() };
    if let Some(body) = &kernel.body {
        flat.expand(functions, body, HashMap::new(), 0, None)?;
    }
    *size = flat.size;
    Ok(flat)
}

impl Flat {
    fn expand(
        &mut self,
        functions: &HashMap<&str, &Function>,
        body: &Body,
        mut names: HashMap<String, String>,
        depth: usize,
        caller: Option<u32>,
    ) -> Result<(), InlineError> {
        let line = caller.or(body.instructions.first().map(|first| first.line)).unwrap_or(0);
        self.grow(1 + body.registers.len() + body.variables.len(), line)?;
        let first_reg = self.registers.len() as RegId;
        self.registers.extend(body.registers.iter().map(|register| register.ty));
        for variable in &body.variables {
            let name = format!("{}#{}", variable.name, self.variables.len());
            names.insert(variable.name.clone(), name.clone());
            self.variables.push(Variable { name, ..variable.clone() });
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
                "ret" if caller.is_some() => {
                    copy.opcode = vec!["bra".to_string()];
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

    fn call(
        &mut self,
        functions: &HashMap<&str, &Function>,
        call: Instruction,
        depth: usize,
    ) -> Result<(), InlineError> {
        let fail = |message: String| Err(InlineError { line: call.line, message });
        let [Operand::List(returns), Operand::Function(name), Operand::List(arguments), ..] =
            &call.operands[..]
        else {
            return fail("an indirect call".to_string());
        };
        if matches!(name.as_str(), "__assertfail" | "vprintf") {
            let (opcode, operands) = (vec![name.clone()], arguments.iter().chain(returns).cloned().collect());
            self.instructions.push(Instruction { opcode, operands, ..call });
            return Ok(());
        }
        let Some(Function { body: Some(body), params, returns: results, .. }) = functions.get(name.as_str())
        else {
            return fail(format!("a call of {name}, which is not defined here"));
        };
        if depth == MAX_DEPTH {
            return fail(format!("a call of {name}, {MAX_DEPTH} calls deep: recursion is not supported"));
        }
        if (params.len(), results.len()) != (arguments.len(), returns.len()) {
            return fail(format!(
                "a call of {name} with {} arguments and {} results; it has {} and {}",
                arguments.len(),
                returns.len(),
                params.len(),
                results.len()
            ));
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
            let (opcode, operands) = (vec!["bra".to_string()], vec![Operand::Label(0)]);
            self.instructions.push(Instruction {
                guard,
                opcode,
                operands,
                line: call.line,
                source: call.source,
            });
            self.instructions.len() - 1
        });
        self.expand(functions, body, names, depth + 1, Some(call.line))?;
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
        Operand::Reg(reg) | Operand::NotReg(reg) => *reg += first_reg,
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
