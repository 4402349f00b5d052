//! The memory of a room, which a host thread keeps from one launch to the next: many are so short that the host's allocator
//! and its pages would take a part of their time.

use std::cell::Cell;
use std::mem::take;

use crate::exec::registers::LANES;
use crate::exec::space::POISON;

/// One 128-byte slot: a register of 32 lanes.
#[derive(Clone, Copy)]
#[repr(align(128))]
pub struct Slot(#[allow(dead_code)] [u32; LANES]);

/// What nobody has written.
pub const UNWRITTEN: Slot = Slot([u32::from_ne_bytes([POISON; 4]); LANES]);

/// Bytes that a host thread keeps at most: those of the largest CTAs, in a cluster of four.
const MOST_KEPT: usize = 16 << 20;

thread_local! {
    static KEPT: Cell<[Vec<Slot>; 3]> = const { Cell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// Register files, shared and local memory. They hold what whoever had them before has left there.
pub struct Stores {
    pub regs: Vec<Slot>,
    pub shared: Vec<Slot>,
    pub local: Vec<Slot>,
}

impl Stores {
    /// Of at least so many slots each.
    pub fn new(slots: [usize; 3]) -> Stores {
        let mut kept = KEPT.take();
        for (kept, slots) in kept.iter_mut().zip(slots) {
            if kept.len() < slots {
                *kept = vec![UNWRITTEN; slots];
            }
        }
        let [regs, shared, local] = kept;
        Stores { regs, shared, local }
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        let all = [&mut self.regs, &mut self.shared, &mut self.local].map(take);
        if all.iter().map(Vec::len).sum::<usize>() * size_of::<Slot>() <= MOST_KEPT {
            KEPT.set(all);
        }
    }
}
