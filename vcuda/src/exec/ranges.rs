//! Which allocation each operation found last, and where in it: most find it again, and need not look for it, and go on
//! by equal steps.

use std::cell::Cell;
use std::mem::take;

use super::asynchronous::maps::Maps;
use crate::memory::Memory;

/// Operations that are told apart, at most.
const MOST: usize = 1024;
/// And of visits.
const MOST_VISITS: usize = 4096;

/// Start and end of an allocation.
type Range = (u64, u64);

/// What a host thread keeps from one launch to the next.
#[derive(Default)]
struct Kept {
    /// The memory that it is of.
    memory: usize,
    last: Vec<Cell<Range>>,
    visited: Vec<Cell<u64>>,
    distances: Vec<Cell<u64>>,
    losses: usize,
}

thread_local! {
    static KEPT: Cell<Kept> = const {
        Cell::new(Kept {
            memory: 0,
            last: Vec::new(),
            visited: Vec::new(),
            distances: Vec::new(),
            losses: 0,
        })
    };
}

/// Of a host thread's CTAs in one launch. What an operation of another launch has found is as good: a live allocation.
pub struct Ranges {
    memory: usize,
    /// By the operation's number, modulo the length, which is a power of two.
    last: Vec<Cell<Range>>,
    /// The last address of each operation that asks for its steps, all operations for one warp after the other, likewise.
    visited: Vec<Cell<u64>>,
    /// From each of them to the second next, and the last two that have come.
    distances: Vec<Cell<u64>>,
    before: Cell<[(usize, u64); 2]>,
    /// What any operation found last.
    latest: Cell<Range>,
    /// How often access to memory had been lost when these were live.
    losses: Cell<usize>,
    /// Tensor maps that they have used.
    pub maps: Maps,
}

impl Ranges {
    /// For a kernel of so many operations, in CTAs of so many warps.
    pub fn new(operations: usize, warps: usize, memory: &Memory) -> Ranges {
        let operations = operations.next_power_of_two().min(MOST);
        let visits = (operations * warps.next_power_of_two()).min(MOST_VISITS);
        let mut kept = KEPT.take();
        if kept.memory != memory.number() {
            kept = Kept { memory: memory.number(), losses: memory.losses(), ..Kept::default() };
        }
        if kept.last.len() < operations {
            kept.last.resize(operations, Cell::default());
        }
        if kept.visited.len() < visits {
            kept.visited.resize(visits, Cell::default());
            kept.distances.resize(visits, Cell::default());
        }
        Ranges {
            memory: kept.memory,
            last: kept.last,
            visited: kept.visited,
            distances: kept.distances,
            before: Cell::default(),
            latest: Cell::default(),
            losses: kept.losses.into(),
            maps: Maps::default(),
        }
    }

    #[inline(always)]
    fn cell(&self, pc: usize) -> &Cell<Range> {
        // SAFETY: the length is a power of two.
        unsafe { self.last.get_unchecked(pc & (self.last.len() - 1)) }
    }

    /// The allocation that an operation has found last; an empty range if there is none.
    #[inline(always)]
    pub fn last(&self, pc: usize) -> Range {
        self.cell(pc).get()
    }

    /// An operation's place among the visits of all.
    #[inline(always)]
    fn place(&self, pc: usize, warp: u32) -> usize {
        pc.wrapping_add(warp as usize * self.last.len()) & (self.visited.len() - 1)
    }

    /// How far an operation's address is from its last one in a warp, and so where the next may be.
    #[inline(always)]
    pub fn step(&self, pc: usize, warp: u32, address: u64) -> u64 {
        // SAFETY: as above.
        let visited = unsafe { self.visited.get_unchecked(self.place(pc, warp)) };
        address.wrapping_sub(visited.replace(address))
    }

    /// The same, and how far it was from there to that of the second next operation which asks this.
    #[inline(always)]
    pub fn soon(&self, pc: usize, warp: u32, address: u64) -> [u64; 2] {
        let (place, [first, second]) = (self.place(pc, warp), self.before.get());
        self.before.set([second, (place, address)]);
        // SAFETY: as above; there are as many distances.
        let ahead = unsafe {
            self.distances.get_unchecked(first.0).set(address.wrapping_sub(first.1));
            self.distances.get_unchecked(place).get()
        };
        [self.step(pc, warp, address), ahead]
    }

    /// The live allocation that an address is in, now for this operation; an empty range if there is none.
    pub fn find(&self, pc: usize, address: u64, memory: &Memory) -> Range {
        let is_in = |&(start, end): &Range| address >= start && address < end;
        let known = [self.last(pc), self.latest.get()].into_iter().find(is_in);
        let range = known.or_else(|| memory.range_of(address)).unwrap_or_default();
        self.cell(pc).set(range);
        self.latest.set(range);
        range
    }

    /// Forgets all if access to any memory has been lost since.
    pub fn renew(&self, memory: &Memory) {
        let losses = memory.losses();
        if losses != self.losses.replace(losses) {
            self.last.iter().chain([&self.latest]).for_each(|range| range.set((0, 0)));
        }
    }
}

impl Drop for Ranges {
    fn drop(&mut self) {
        let [visited, distances] = [&mut self.visited, &mut self.distances].map(take);
        let (last, losses) = (take(&mut self.last), self.losses.get());
        KEPT.set(Kept { memory: self.memory, last, visited, distances, losses });
    }
}
