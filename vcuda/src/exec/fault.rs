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
}

/// A fault, with kernel, PTX line, CTA, thread and address in its message.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
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
