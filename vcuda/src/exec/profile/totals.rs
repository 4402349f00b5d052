//! What the counts of a launch are in all.

use super::class::{Class, Unit};
use super::counters::Counters;
use crate::exec::kernel::Kernel;

impl Counters {
    /// The accesses that take the most units beyond the ideal, worst first.
    pub fn worst_accesses<'a>(&self, kernel: &'a Kernel, most: usize) -> Vec<Access<'a>> {
        let all = kernel.marks.accesses.iter().zip(&self.excess);
        let mut accesses: Vec<Access> = all
            .filter(|&(_, &excess)| excess > 0)
            .map(|(&ptx_line, &excess)| {
                let source = kernel.source_lines.get(&ptx_line).map(String::as_str);
                Access { ptx_line, source, excess }
            })
            .collect();
        accesses.sort_by_key(|access| (std::cmp::Reverse(access.excess), access.ptx_line));
        accesses.truncate(most);
        accesses
    }

    /// Instructions and operations.
    pub fn totals(&self, kernel: &Kernel) -> Totals {
        let mut totals = Totals::default();
        for mark in &kernel.marks.instructions {
            let tally = self.tallies[mark.tally as usize];
            totals.instructions[mark.class as usize] += tally.issued;
            totals.active += tally.active;
            totals.executed += tally.executed;
            if let Some(flops) = mark.flops {
                let times = if flops.of_warp { tally.issued } else { tally.executed };
                totals.flops[flops.unit as usize] += flops.count * times;
            }
        }
        totals
    }
}

/// An access that could be better.
pub struct Access<'a> {
    pub ptx_line: u32,
    /// `file:line`, where the PTX has it.
    pub source: Option<&'a str>,
    /// Sectors or wavefronts beyond the ideal.
    pub excess: u64,
}

/// Instructions and operations of a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of warps, by [`Class`].
    pub instructions: [u64; Class::COUNT],
    /// Of lanes: active ones, and those whose guard held.
    pub active: u64,
    pub executed: u64,
    /// By [`Unit`].
    pub flops: [u64; Unit::COUNT],
}

impl Totals {
    /// Instructions that warps issued.
    pub fn issued(&self) -> u64 {
        self.instructions.iter().sum()
    }

    /// Active lanes of the average instruction, of 32.
    pub fn lanes_per_instruction(&self) -> f64 {
        self.active as f64 / self.issued().max(1) as f64
    }
}
