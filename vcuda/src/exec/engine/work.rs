//! Copies under way.

use super::barrier::Barrier;
use crate::exec::fault::{Blame, FaultKind, Origin};
use crate::memory::Memory;

/// Moves the bytes, given where they come from.
pub type Job = Box<dyn FnOnce(*const u8, &Memory) -> Result<(), String>>;

/// Where work reads from: memory as it is when the work lands, or bytes that have been read already.
pub enum Source {
    Memory(*const u8, usize),
    Taken(Vec<u8>),
}

/// Work of the bulk and tensor copies.
pub struct Work {
    pub origin: Origin,
    /// Rank of the CTA that issued it.
    pub rank: u32,
    /// Ranks, as bits, of the CTAs whose shared memory it writes.
    pub targets: u32,
    pub source: Source,
    /// What it will read of the cluster's shared memory, and nobody may write before: offset and bytes.
    pub reads: (usize, usize),
    /// Whether it will read all of that: a box may reach out of its tensor.
    pub reads_all: bool,
    /// What it will write of it, and nobody may touch before.
    pub writes: Vec<(usize, usize)>,
    /// Barriers to tell when it is done, and the bytes to tell them of.
    pub completes: Vec<(Barrier, u32)>,
}

/// A `cp.async`: `taken` bytes from global memory, zeros up to `bytes`.
#[derive(Clone, Copy)]
pub struct Copy {
    pub to: *mut u8,
    /// Of `to` in the cluster's shared memory.
    pub offset: usize,
    pub from: *const u8,
    pub taken: usize,
    pub bytes: usize,
    pub lane: u32,
    pub origin: Origin,
}

impl Copy {
    /// # Safety
    /// `to` has room for `bytes`, and `taken`, which are no more, can be read at `from`.
    pub unsafe fn land(&self) {
        // SAFETY: the caller's; shared and global memory do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(self.from, self.to, self.taken);
            self.to.add(self.taken).write_bytes(0, self.bytes - self.taken);
        }
    }
}

impl Work {
    #[cold]
    pub(super) fn blame(&self, kind: FaultKind, what: String) -> Blame {
        Blame { kind, what, origin: self.origin }
    }

    /// The warp that issued it, counted through the cluster.
    pub(super) fn warp(&self) -> usize {
        (self.rank * 32 + self.origin.thread / 32) as usize
    }

    /// What it has yet to read of the cluster's shared memory: by which lane, where, and how many bytes.
    pub(super) fn read(&self) -> Option<(usize, *const u8, usize)> {
        (self.reads_all && self.reads.1 > 0).then(|| (self.lane(), self.source.at(), self.reads.1))
    }

    pub(super) fn lane(&self) -> usize {
        self.origin.thread as usize % 32
    }
}

impl Source {
    pub(super) fn at(&self) -> *const u8 {
        match self {
            Source::Memory(at, _) => *at,
            Source::Taken(bytes) => bytes.as_ptr(),
        }
    }

    pub(super) fn take(&mut self) {
        if let Source::Memory(at, bytes) = *self {
            // SAFETY: checked when the work was issued.
            *self = Source::Taken(unsafe { std::slice::from_raw_parts(at, bytes) }.to_vec());
        }
    }
}
