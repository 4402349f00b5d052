//! Whether warps that go round in loops change any memory: if they do not, and come back to the state that they were
//! in, they go round for ever.

use super::span::Span;
use crate::exec::registers::lanes_of;

/// The bytes of a vector of the most elements.
const MOST_BYTES: usize = 32;

/// What warps do to memory while they are watched.
#[derive(Default)]
pub struct Probe {
    /// Stores and atomics that changed something, and readings of a clock.
    changes: u64,
    /// What the accesses that are about to be made will write over: where, how many bytes, and what is there.
    written: Vec<(usize, usize, [u8; MOST_BYTES])>,
}

impl Probe {
    /// The lanes of a warp are about to write.
    pub fn expect(&mut self, span: &Span) {
        self.settle();
        for lane in lanes_of(span.mask) {
            let (at, bytes) = (span.at[lane], span.bytes.min(MOST_BYTES));
            let mut before = [0; MOST_BYTES];
            // SAFETY: the addresses have been checked.
            unsafe { std::ptr::copy_nonoverlapping(at as *const u8, before.as_mut_ptr(), bytes) };
            self.written.push((at, bytes, before));
        }
    }

    /// Changes up to now, between two turns.
    pub fn changes(&mut self) -> u64 {
        self.settle();
        self.changes
    }

    /// Something that is no access of the memory has changed.
    pub fn change(&mut self) {
        self.changes += 1;
    }

    /// The last write has been made.
    fn settle(&mut self) {
        for (at, bytes, before) in self.written.drain(..) {
            // SAFETY: the address was checked before the access, a moment ago: nothing has been freed since.
            let now = unsafe { std::slice::from_raw_parts(at as *const u8, bytes) };
            self.changes += u64::from(now != &before[..bytes]);
        }
    }
}
