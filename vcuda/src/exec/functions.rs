//! The functions of a module: which may call themselves, and which have addresses.

use std::collections::{HashMap, HashSet};

use super::space::FUNCTION_WINDOW;
use crate::ptx::ast::{Function, Module, Operand};

/// Device functions that have bodies.
pub struct Functions<'a> {
    pub bodies: HashMap<&'a str, &'a Function>,
    /// Those that are called, not written out: that use `alloca`, or may call themselves, by way of others too, and
    /// what calls one of them.
    pub recursive: HashSet<&'a str>,
    /// Those whose address somebody has.
    pub addressed: Vec<&'a str>,
    addresses: HashMap<&'a str, u64>,
}

impl<'a> Functions<'a> {
    pub fn new(module: &'a Module) -> Functions<'a> {
        let with_bodies = module.functions.iter().filter(|f| !f.is_kernel && f.body.is_some());
        let bodies: HashMap<&str, &Function> = with_bodies.map(|f| (f.name.as_str(), f)).collect();
        let mut addressed: Vec<&str> = Vec::new();
        let mut callees: HashMap<&str, HashSet<&str>> = HashMap::new();
        for variable in &module.variables {
            addressed.extend(variable.relocations.iter().map(|(_, symbol, _)| symbol.as_str()));
        }
        for function in &module.functions {
            for instruction in function.body.iter().flat_map(|body| &body.instructions) {
                if instruction.opcode[0] == "alloca" {
                    callees.entry(&function.name).or_default().insert(&function.name);
                }
                for operand in &instruction.operands {
                    let Operand::Function(name) = operand else { continue };
                    match instruction.opcode[0].as_str() {
                        "call" => drop(callees.entry(&function.name).or_default().insert(name.as_str())),
                        _ => addressed.push(name),
                    }
                }
            }
        }
        addressed.retain(|name| bodies.contains_key(name));
        addressed.sort_unstable();
        addressed.dedup();
        // What calls nothing that is left cannot call itself.
        let mut recursive: HashSet<&str> = bodies.keys().copied().collect();
        let mut callers: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut open: HashMap<&str, usize> = HashMap::new();
        for &caller in bodies.keys() {
            for &callee in
                callees.get(caller).into_iter().flatten().filter(|name| bodies.contains_key(**name))
            {
                callers.entry(callee).or_default().push(caller);
                *open.entry(caller).or_default() += 1;
            }
        }
        let mut closed: Vec<&str> = bodies.keys().copied().filter(|name| !open.contains_key(name)).collect();
        while let Some(name) = closed.pop() {
            recursive.remove(name);
            for &caller in callers.get(name).into_iter().flatten() {
                let left = open.entry(caller).or_default();
                *left -= 1;
                if *left == 0 {
                    closed.push(caller);
                }
            }
        }
        let places = (FUNCTION_WINDOW..).step_by(16);
        let addresses = module.functions.iter().map(|f| f.name.as_str()).zip(places).collect();
        Functions { bodies, recursive, addressed, addresses }
    }

    /// Where a function is, so to speak.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.bodies.get(name).and_then(|_| self.addresses.get(name)).copied()
    }

    /// The functions and where they are.
    pub fn addresses(&self) -> impl Iterator<Item = (&'a str, u64)> {
        self.bodies.keys().filter_map(|name| Some((*name, self.address(name)?)))
    }
}
