//! What of a kernel is counted.

use super::class::{Class, Flops};

/// How an instruction is counted.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Mark {
    pub class: Class,
    pub flops: Option<Flops>,
    /// Its place in [`Counters::tallies`](super::counters::Counters::tallies): its own, or of the straight run that it is in.
    pub tally: u32,
}

/// How a kernel is counted: empty where it is not.
#[derive(Default)]
pub(in crate::exec) struct Marks {
    pub tallies: usize,
    pub instructions: Vec<Mark>,
    /// The PTX lines of accesses.
    pub accesses: Vec<u32>,
    /// The run that the next instruction belongs to, unless it is a branch target.
    pub open: Option<u32>,
}
