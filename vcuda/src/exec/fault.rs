//! What can go wrong in a kernel.

use std::fmt;

/// The kind of a fault, which decides the CUDA error that the launch fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An address outside every live allocation, or outside shared or local memory.
    IllegalAddress,
    /// An address that is no multiple of the access's size.
    MisalignedAddress,
    /// `trap`, or an instruction that cannot be executed as it stands.
    IllegalInstruction,
    /// A failed `assert`.
    Assert,
    /// Every warp waits for another.
    Deadlock,
    /// A read of memory that nobody wrote.
    Uninitialised,
    /// Two accesses that nothing orders.
    Race,
    /// A barrier, or an instruction that lanes execute together, used against its rules.
    Sync,
    /// Asynchronous work used before it is done, or against its rules.
    Asynchrony,
}

impl FaultKind {
    /// What finds it: a check as `VCUDA_CHECK` names it; `memory`, `sync` in part, or `instruction`, which are always on.
    pub fn check(self) -> &'static str {
        match self {
            FaultKind::IllegalAddress | FaultKind::MisalignedAddress => "memory",
            FaultKind::IllegalInstruction | FaultKind::Assert => "instruction",
            FaultKind::Deadlock | FaultKind::Sync => "sync",
            FaultKind::Uninitialised => "init",
            FaultKind::Race => "race",
            FaultKind::Asynchrony => "async",
        }
    }
}

/// A fault, with kernel, PTX line, CTA, thread and address in its message.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

/// Where something was done: CTA, thread of it, PTX line.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub cta: [u32; 3],
    pub thread: u32,
    pub line: u32,
}

/// A fault of what a thread has done, before it is put into words.
#[derive(Clone, Debug)]
pub struct Blame {
    pub kind: FaultKind,
    pub what: String,
    pub origin: Origin,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Why a module cannot be loaded.
#[derive(Clone, Debug)]
pub struct LoadError {
    /// Names the function, the PTX line and the instruction.
    pub message: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoadError {}
