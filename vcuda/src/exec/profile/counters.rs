//! What is counted: how often each straight run of instructions ran, and what each access touched.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::marks::Marks;

/// Bytes of a sector: the unit of the traffic to L2 and device memory.
pub const SECTOR_BYTES: u64 = 32;

/// Memories that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    Global,
    Shared,
    Local,
}

impl Space {
    pub const COUNT: usize = 3;
    pub const NAMES: [&'static str; Space::COUNT] = ["global", "shared", "local"];
}

/// What an access is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    Load,
    Store,
    Atomic,
    /// `cp.async`.
    CopyAsync,
    /// `cp.async.bulk` and its reductions.
    Bulk,
    /// `cp.async.bulk.tensor` and its reductions.
    Tensor,
    /// `ldmatrix` and `stmatrix`.
    Matrix,
    /// Operands of `wgmma` in shared memory.
    Product,
}

impl Action {
    pub const COUNT: usize = 8;
    pub const NAMES: [&'static str; Action::COUNT] =
        ["load", "store", "atomic", "cp_async", "bulk", "tensor", "matrix", "wgmma"];
}

/// Traffic of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Instructions of warps.
    pub requests: u64,
    /// Bytes that the lanes asked for, one lane's beside the next one's even where they are the same.
    pub bytes: u64,
    /// Sectors of 32 bytes; in shared memory wavefronts.
    pub units: u64,
    /// As many as the same bytes would take side by side and without conflicts, if that is fewer.
    pub ideal: u64,
}

impl Traffic {
    fn add(&mut self, other: &Traffic) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.units += other.units;
        self.ideal += other.ideal;
    }
}

/// How often a run was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::exec) struct Tally {
    /// By warps.
    pub issued: u64,
    /// By lanes that were active, and by those whose guard held.
    pub active: u64,
    pub executed: u64,
}

/// The counts of one host thread, or summed of a launch.
#[derive(Default)]
pub struct Counters {
    pub(in crate::exec) tallies: Vec<Tally>,
    /// Units beyond the ideal, of each access.
    pub(in crate::exec) excess: Vec<u64>,
    /// Of each space and action; none where nothing is counted, as most launches have it.
    pub traffic: Vec<[Traffic; Action::COUNT]>,
    /// Conditional and indexed branches of warps, and those at which lanes parted.
    pub branches: u64,
    pub divergent_branches: u64,
    /// Sectors of global memory that were touched.
    pub read: Sectors,
    pub written: Sectors,
}

impl Counters {
    /// For a kernel; counts nothing if that was not loaded for it.
    pub(in crate::exec) fn new(marks: &Marks) -> Counters {
        let mut counters = Counters::default();
        if marks.tallies > 0 {
            counters.tallies = vec![Tally::default(); marks.tallies];
            counters.excess = vec![0; marks.accesses.len()];
            counters.traffic = vec![Default::default(); Space::COUNT];
        }
        counters
    }

    /// Adds what another thread counted of the same kernel.
    pub fn add(&mut self, other: &Counters) {
        for (sum, tally) in self.tallies.iter_mut().zip(&other.tallies) {
            sum.issued += tally.issued;
            sum.active += tally.active;
            sum.executed += tally.executed;
        }
        self.excess.iter_mut().zip(&other.excess).for_each(|(sum, excess)| *sum += excess);
        for (sum, traffic) in self.traffic.iter_mut().flatten().zip(other.traffic.iter().flatten()) {
            sum.add(traffic);
        }
        self.branches += other.branches;
        self.divergent_branches += other.divergent_branches;
        self.read.add(&other.read);
        self.written.add(&other.written);
    }

    /// Traffic of one kind.
    pub fn traffic(&self, space: Space, action: Action) -> Traffic {
        self.traffic.get(space as usize).map_or_else(Traffic::default, |all| all[action as usize])
    }

    /// All traffic of a space.
    pub fn all_traffic(&self, space: Space) -> Traffic {
        let mut sum = Traffic::default();
        self.traffic.get(space as usize).into_iter().flatten().for_each(|traffic| sum.add(traffic));
        sum
    }

    /// Bytes that must come from or go to device memory at least: each touched sector once.
    pub fn compulsory_bytes(&self) -> u64 {
        (self.read.count() + self.written.count()) * SECTOR_BYTES
    }
}

/// Words of 64 sectors that a page of the set has: 64 KiB of memory.
const PAGE_WORDS: usize = 32;

/// A set of sectors.
#[derive(Default)]
pub struct Sectors {
    pages: HashMap<u64, usize, BuildHasherDefault<DefaultHasher>>,
    bits: Vec<[u64; PAGE_WORDS]>,
    /// The last page that was looked up, and its place.
    last: Option<(u64, usize)>,
}

impl Sectors {
    /// Adds a sector by its number: address / 32.
    pub fn insert(&mut self, sector: u64) {
        let (page, at) = (sector / (PAGE_WORDS as u64 * 64), sector as usize % (PAGE_WORDS * 64));
        let place = self.place(page);
        self.bits[place][at / 64] |= 1 << (at % 64);
    }

    /// Adds the sectors of a range of addresses.
    pub fn insert_range(&mut self, address: u64, bytes: u64) {
        (address / SECTOR_BYTES..(address + bytes).div_ceil(SECTOR_BYTES))
            .for_each(|sector| self.insert(sector));
    }

    fn place(&mut self, page: u64) -> usize {
        if let Some((last, place)) = self.last
            && last == page
        {
            return place;
        }
        let place = *self.pages.entry(page).or_insert(self.bits.len());
        if place == self.bits.len() {
            self.bits.push([0; PAGE_WORDS]);
        }
        self.last = Some((page, place));
        place
    }

    fn add(&mut self, other: &Sectors) {
        for (&page, &from) in &other.pages {
            let place = self.place(page);
            self.bits[place].iter_mut().zip(other.bits[from]).for_each(|(sum, bits)| *sum |= bits);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.bits.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
    }
}
