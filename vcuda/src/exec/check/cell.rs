//! What the race check keeps beside each granule of memory: its last plain write, and what came since.

use super::span::Kind;
use crate::memory::Memory;

/// An access that is no plain write, as far as those after it are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Read,
    StrongRead,
    /// Atomics too.
    StrongWrite,
}

impl Class {
    /// `None` for a plain write.
    #[inline(always)]
    pub fn of(kind: Kind) -> Option<Class> {
        match kind {
            Kind::Read => Some(Class::Read),
            Kind::StrongRead => Some(Class::StrongRead),
            Kind::Atomic | Kind::StrongWrite => Some(Class::StrongWrite),
            Kind::Write => None,
        }
    }

    /// Whether it races with an access that nothing orders after it.
    pub fn minds(self, kind: Kind) -> bool {
        match self {
            Class::Read => kind.writes(),
            Class::StrongRead => kind == Kind::Write,
            Class::StrongWrite => !kind.is_strong(),
        }
    }

    /// Whether it minds all that the other does.
    pub fn covers(self, other: Class) -> bool {
        self == other || other == Class::StrongRead
    }

    pub fn name(self) -> &'static str {
        match self {
            Class::Read | Class::StrongRead => "read",
            Class::StrongWrite => "atomic write",
        }
    }
}

/// An access: its stamp in 32 bits, thread 14, operation 16, and what it is: 2. Or several since the last plain
/// write: the stamp of the last of them, and 29 bits that say where [`super::members`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record(u64);

const THREAD_SHIFT: u32 = 18;
const THREAD_MASK: u64 = 0x3fff;
/// Threads that a record can tell apart.
pub const MOST_THREADS: usize = THREAD_MASK as usize + 1;
const PC_MASK: u64 = 0xffff;

/// The last bits: a thread's plain access, a read by all lanes of a warp, a strong write, several.
const PLAIN: u64 = 0;
const WARP_READ: u64 = 1;
const STRONG_WRITE: u64 = 2;
const SEVERAL: u64 = 3;
/// Above where several are kept.
const WRITES_SHIFT: u32 = 29;

impl Record {
    /// Older than everything.
    pub const NONE: Record = Record(0);

    /// A plain access; a `pc` past the largest is that.
    #[inline(always)]
    pub fn new(stamp: u32, thread: usize, pc: usize) -> Record {
        Record(u64::from(stamp) << 32 | (thread as u64) << THREAD_SHIFT | (pc as u64).min(PC_MASK) << 2)
    }

    /// The same access as a strong write.
    #[inline(always)]
    pub fn strong(self) -> Record {
        Record(self.0 | STRONG_WRITE)
    }

    /// The same access by all lanes of the warp, whose first thread it is.
    #[inline(always)]
    pub fn by_warp(self) -> Record {
        Record(self.0 | WARP_READ)
    }

    /// Several accesses, of which this was the last; whether there may be strong writes among them.
    pub fn several(self, place: u32, has_writes: bool) -> Record {
        let place = u64::from(place) | u64::from(has_writes) << WRITES_SHIFT;
        Record(self.0 & !0xffff_ffff | place << 2 | SEVERAL)
    }

    /// Whether all accesses since the last plain write are reads.
    #[inline(always)]
    pub fn is_reads(self) -> bool {
        self.is_read() | self.is_several() & (self.0 >> (WRITES_SHIFT + 2) & 1 == 0)
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
        (self.0 >> 2 & PC_MASK) as usize
    }

    /// Whether it is a thread's plain access.
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        self.0 & 3 == PLAIN
    }

    /// Whether it is a plain read, of those that came since a write.
    #[inline(always)]
    pub fn is_read(self) -> bool {
        self.0 & 3 <= WARP_READ
    }

    /// Where several are kept.
    #[inline(always)]
    pub fn place(self) -> Option<u32> {
        (self.0 & 3 == SEVERAL).then_some(self.0 as u32 >> 2 & ((1 << WRITES_SHIFT) - 1))
    }

    #[inline(always)]
    pub fn is_several(self) -> bool {
        self.0 & 3 == SEVERAL
    }

    /// The same access of another lane.
    pub fn of_lane(self, lane: usize) -> Record {
        Record(self.0 & !(0x1f << THREAD_SHIFT) | (lane as u64) << THREAD_SHIFT)
    }

    /// The same access of a lane so many further on.
    #[inline(always)]
    pub fn lanes_on(self, lanes: usize) -> Record {
        Record(self.0 + ((lanes as u64) << THREAD_SHIFT))
    }

    /// Of one that came since a write and is not several: what it was, and by which lanes.
    pub fn class(self) -> (Class, u32) {
        let own = 1 << (self.thread() & 0x1f);
        match self.0 & 3 {
            WARP_READ => (Class::Read, u32::MAX),
            STRONG_WRITE => (Class::StrongWrite, own),
            _ => (Class::Read, own),
        }
    }

    /// One access of these lanes of a warp as a record, if it can be.
    pub fn single(self, class: Class, lanes: u32) -> Option<Record> {
        let own = 1 << (self.thread() & 0x1f);
        match class {
            Class::Read if lanes == own => Some(self),
            Class::Read if lanes == u32::MAX => Some(self.by_warp()),
            Class::StrongWrite if lanes == own => Some(self.strong()),
            _ => None,
        }
    }
}

/// The cells of the memory that begins at host address `origin`, wherever they are.
#[derive(Clone, Copy)]
pub struct Cells {
    pub origin: usize,
    pub is_shared: bool,
    /// The last plain write.
    pub writes: *mut Record,
    /// Since then.
    pub since: *mut Record,
}

impl Cells {
    /// Device memory's, if there are any.
    #[inline(always)]
    pub fn of(memory: &Memory) -> Option<Cells> {
        let region = memory.shadow.cells.as_ref()?;
        let since = region.at(region.bytes() / 2).cast();
        Some(Cells { origin: memory.base(), is_shared: false, writes: region.at(0).cast(), since })
    }
}

/// The cells of a cluster's shared memory.
#[derive(Default)]
pub struct SharedCells {
    origin: usize,
    writes: Vec<Record>,
    since: Vec<Record>,
}

impl SharedCells {
    /// A new range, start and bytes, with a cell for each `granule` bytes.
    pub fn begin(&mut self, (origin, bytes): (usize, usize), granule: usize) {
        self.origin = origin;
        for records in [&mut self.writes, &mut self.since] {
            records.clear();
            records.resize(bytes.div_ceil(granule), Record::NONE);
        }
    }

    #[inline(always)]
    pub fn share(&mut self) -> Cells {
        let (writes, since) = (self.writes.as_mut_ptr(), self.since.as_mut_ptr());
        Cells { origin: self.origin, is_shared: true, writes, since }
    }
}
