//! What the race check keeps beside each granule of memory: its last write and its last read.

use crate::memory::Memory;

/// An access: its stamp in 32 bits, thread 14, operation 17, flag 1: the write was strong, or several threads read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record(u64);

const THREAD_SHIFT: u32 = 18;
const THREAD_MASK: u64 = 0x3fff;
/// Threads that a record can tell apart.
pub const MOST_THREADS: usize = THREAD_MASK as usize + 1;
const PC_MASK: u64 = 0x1_ffff;

impl Record {
    /// Without the flag; a `pc` past the largest is that.
    #[inline(always)]
    pub fn new(stamp: u32, thread: usize, pc: usize) -> Record {
        Record(u64::from(stamp) << 32 | (thread as u64) << THREAD_SHIFT | (pc as u64).min(PC_MASK) << 1)
    }

    /// The same, with the flag where it is wanted.
    #[inline(always)]
    pub fn flagged(self, flag: bool) -> Record {
        Record(self.0 | flag as u64)
    }

    #[inline(always)]
    pub fn stamp(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    pub fn thread(self) -> usize {
        (self.0 >> THREAD_SHIFT & THREAD_MASK) as usize
    }

    pub fn pc(self) -> usize {
        (self.0 >> 1 & PC_MASK) as usize
    }

    #[inline(always)]
    pub fn flag(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The cells of the memory that begins at host address `origin`, wherever they are.
#[derive(Clone, Copy)]
pub struct Cells {
    pub origin: usize,
    pub writes: *mut Record,
    pub reads: *mut Record,
}

impl Cells {
    /// Device memory's, if there are any.
    #[inline(always)]
    pub fn of(memory: &Memory) -> Option<Cells> {
        let region = memory.shadow.cells.as_ref()?;
        let reads = region.at(region.bytes() / 2).cast();
        Some(Cells { origin: memory.base(), writes: region.at(0).cast(), reads })
    }
}

/// The cells of a cluster's shared memory.
#[derive(Default)]
pub struct SharedCells {
    origin: usize,
    writes: Vec<Record>,
    reads: Vec<Record>,
}

impl SharedCells {
    /// A new range, start and bytes, with a cell for each `granule` bytes.
    pub fn begin(&mut self, (origin, bytes): (usize, usize), granule: usize) {
        self.origin = origin;
        for records in [&mut self.writes, &mut self.reads] {
            records.clear();
            records.resize(bytes.div_ceil(granule), Record(0));
        }
    }

    #[inline(always)]
    pub fn share(&mut self) -> Cells {
        Cells { origin: self.origin, writes: self.writes.as_mut_ptr(), reads: self.reads.as_mut_ptr() }
    }
}
