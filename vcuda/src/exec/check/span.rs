//! What an access is: what it does, where, and in which memory.

use crate::exec::registers::{ALL, LANES};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    Read,
    Write,
    /// Reads and writes at once.
    Atomic,
    /// `ld` and `st` that are relaxed, acquire, release or volatile: no race with each other or an atomic.
    StrongRead,
    StrongWrite,
}

/// By their numbers.
pub const KINDS: [Kind; 5] = [Kind::Read, Kind::Write, Kind::Atomic, Kind::StrongRead, Kind::StrongWrite];

impl Kind {
    pub fn reads(self) -> bool {
        matches!(self, Kind::Read | Kind::StrongRead | Kind::Atomic)
    }

    pub fn writes(self) -> bool {
        !matches!(self, Kind::Read | Kind::StrongRead)
    }

    pub fn is_strong(self) -> bool {
        !matches!(self, Kind::Read | Kind::Write)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Read | Kind::StrongRead => "read",
            Kind::Write | Kind::StrongWrite => "write",
            Kind::Atomic => "atomic",
        }
    }
}

/// Addresses of the lanes in `mask`, `bytes` each.
pub struct Span {
    pub at: [usize; LANES],
    pub bytes: usize,
    pub mask: u32,
    /// One after the other, all 32.
    pub contiguous: bool,
    /// All the same, whatever the mask.
    pub uniform: bool,
}

/// An access by a warp's lanes, or by a warpgroup.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub span: &'a Span,
    pub place: Place,
    pub kind: Kind,
    /// The number of lane 0 among the threads that take turns.
    pub first_thread: usize,
    /// Of the operation, and its PTX line.
    pub pc: usize,
    pub line: u32,
}

impl Span {
    /// Of all lanes, each `step` bytes further on.
    #[inline(always)]
    pub fn every(first: *mut u8, bytes: u64, step: u64) -> Span {
        let mut at = [0; LANES];
        for lane in 0..LANES {
            at[lane] = first as usize + lane * step as usize;
        }
        Span { at, bytes: bytes as usize, mask: ALL, contiguous: step != 0, uniform: step == 0 }
    }

    /// Of lanes that go where they will.
    #[inline(always)]
    pub fn new(host: [*mut u8; LANES], bytes: u64, mask: u32) -> Span {
        let (mut at, mut apart, mut differ) = ([0; LANES], 0, 0);
        let bytes = bytes as usize;
        for lane in 0..LANES {
            at[lane] = host[lane] as usize;
            apart |= at[lane].wrapping_sub(at[0]) ^ (lane * bytes);
            differ |= at[lane] ^ at[0];
        }
        Span { at, bytes, mask, contiguous: apart == 0 && mask == ALL, uniform: differ == 0 }
    }

    /// Of lanes that go to one place.
    pub fn at_one(at: usize, bytes: usize, mask: u32) -> Span {
        Span { at: [at; LANES], bytes, mask, contiguous: false, uniform: true }
    }

    /// Of one lane.
    pub fn one(at: usize, bytes: usize, lane: usize) -> Span {
        Span::at_one(at, bytes, 1 << lane)
    }
}

/// Where a pointer leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Global,
    Shared,
    Local,
    /// Kernel parameters.
    Other,
}
