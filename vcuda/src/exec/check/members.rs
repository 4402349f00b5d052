//! Accesses of one granule since its last plain write, where they are more than one: FastTrack's read sets (Flanagan
//! and Freund, 2009), and strong writes. An entry is what lanes of one warp did at one time in one operation. Lists
//! have the latest first; they are made of a pool, and end with a plain write, which is ordered after all of them.

use super::cell::{Class, MOST_THREADS, Record};
use super::clock::Clocks;
use super::groups::Groups;
use crate::exec::registers::LANES;

/// What lanes of a warp did; the record is the first one's.
#[derive(Clone, Copy)]
pub struct Entry {
    pub record: Record,
    pub lanes: u32,
    next: u32,
    /// Entries until the list is looked through for what later ones cover.
    left: u32,
    pub class: Class,
}

/// The end of a list.
const NONE: u32 = u32::MAX;
/// Entries of a pool: 48 MB. With none left a granule keeps its last access alone.
const MOST_ENTRIES: usize = 1 << 21;
/// Entries of a list before it is looked through.
const FIRST_LEFT: u32 = 16;

pub struct Members {
    entries: Vec<Entry>,
    free: u32,
    /// All that was there at this barrier of the cluster has been thrown away.
    base: u32,
}

impl Default for Members {
    fn default() -> Members {
        Members { entries: Vec::new(), free: NONE, base: 0 }
    }
}

impl Entry {
    pub fn new(record: Record, lanes: u32, class: Class) -> Entry {
        Entry { record, lanes, next: NONE, left: FIRST_LEFT, class }
    }

    /// Of one that came since a write and is not several.
    pub fn of(record: Record) -> Entry {
        let (class, lanes) = record.class();
        Entry::new(record, lanes, class)
    }

    fn warp(&self) -> usize {
        self.record.thread() / LANES
    }

    /// Whether it is of the same warp, time and operation.
    fn is_with(&self, other: &Entry) -> bool {
        self.record.of_lane(0) == other.record.of_lane(0) && self.class == other.class
    }

    /// The lanes whose accesses none of the later `other` covers: whoever is ordered after that is ordered after them.
    fn uncovered(&self, other: &Entry, clocks: &Clocks) -> u32 {
        if !other.class.covers(self.class) {
            return self.lanes;
        }
        let is_own = self.warp() == other.warp() && !clocks.is_foreign(self.record);
        let lanes = if is_own { self.lanes & !other.lanes } else { self.lanes };
        clocks.unseen(other.record.thread(), self.record, lanes)
    }
}

impl Members {
    /// All accesses up to a common barrier of the cluster are over.
    pub fn begin_after(&mut self, base: u32) {
        if self.base != base {
            (self.base, self.free) = (base, NONE);
            self.entries.clear();
        }
    }

    /// Those of a list.
    pub fn list(&self, place: u32) -> impl Iterator<Item = &Entry> {
        let entry = |at: u32| self.entries.get(at as usize);
        std::iter::successors(entry(place), move |before| entry(before.next))
    }

    /// What the last access of a list is.
    pub fn first_class(&self, place: u32) -> Class {
        self.entries[place as usize].class
    }

    /// The record of an access alone; `instead` if the pool is full.
    pub fn alone(&mut self, new: Entry, instead: Record) -> Record {
        let single = new.record.single(new.class, new.lanes);
        single
            .or_else(|| Some(new.record.several(self.put(new)?, new.class == Class::StrongWrite)))
            .unwrap_or(instead)
    }

    /// What came since the last write after one more access: `old` is an entry that nothing orders before all else.
    pub fn join(&mut self, old: Record, new: Entry, clocks: &Clocks, groups: &Groups) -> Record {
        let has_writes = !old.is_reads() || new.class == Class::StrongWrite;
        let Some(place) = old.place() else {
            let mut before = Entry::of(old);
            before.lanes = before.uncovered(&new, clocks);
            if before.lanes == 0 {
                return self.alone(new, old);
            }
            if before.is_with(&new) {
                return self.alone(Entry { lanes: before.lanes | new.lanes, ..new }, old);
            }
            before.record = before.record.of_lane(before.lanes.trailing_zeros() as usize);
            let Some(next) = self.put(before) else { return self.alone(new, old) };
            return match self.put(Entry { next, ..new }) {
                Some(place) => new.record.several(place, has_writes),
                None => self.alone_after(next, new, old),
            };
        };
        let head = &mut self.entries[place as usize];
        if head.is_with(&new) {
            head.lanes |= new.lanes;
            return old;
        }
        if head.uncovered(&new, clocks) == 0 {
            *head = Entry { next: head.next, left: head.left, ..new };
            return new.record.several(place, has_writes);
        }
        let left = head.left - 1;
        let Some(first) = self.put(Entry { next: place, left, ..new }) else {
            return self.alone_after(place, new, old);
        };
        if left == 0 {
            self.thin(first, clocks, groups);
        }
        new.record.several(first, has_writes)
    }

    /// A list is over.
    pub fn end(&mut self, place: u32) {
        let mut last = place as usize;
        while self.entries[last].next != NONE {
            last = self.entries[last].next as usize;
        }
        (self.entries[last].next, self.free) = (self.free, place);
    }

    /// Forgets a list for lack of space.
    fn alone_after(&mut self, place: u32, new: Entry, old: Record) -> Record {
        self.end(place);
        self.alone(new, old)
    }

    fn put(&mut self, entry: Entry) -> Option<u32> {
        let place = self.free;
        if let Some(free) = self.entries.get_mut(place as usize) {
            self.free = free.next;
            *free = entry;
            return Some(place);
        }
        if self.entries.len() == MOST_ENTRIES {
            return None;
        }
        self.entries.push(entry);
        Some(self.entries.len() as u32 - 1)
    }

    /// Takes out of a list what later accesses by the same threads cover, and the head's what a common barrier does.
    #[cold]
    #[inline(never)]
    fn thin(&mut self, first: u32, clocks: &Clocks, groups: &Groups) {
        // By warp: when its group began, and which lanes have later entries of each class.
        let mut later = [(0, [0u32; 3]); MOST_THREADS / LANES];
        let head_class = self.entries[first as usize].class;
        let (mut last, mut at, mut count) = (first, first, 0);
        while at != NONE {
            let Entry { record, class, next, .. } = self.entries[at as usize];
            let entry = &mut self.entries[at as usize];
            let (start, seen) = &mut later[entry.warp()];
            if *start != groups.start(record) {
                (*start, *seen) = (groups.start(record), [0; 3]);
            }
            let covering = [Class::Read, Class::StrongRead, Class::StrongWrite];
            let covered = covering.iter().zip(*seen).filter(|(other, _)| other.covers(class));
            entry.lanes &= !covered.fold(0, |mask, (_, lanes)| mask | lanes);
            seen[class as usize] |= entry.lanes;
            if at != first && head_class.covers(class) && clocks.is_before_barrier(record) {
                entry.lanes = 0;
            }
            if entry.lanes == 0 {
                (entry.next, self.free) = (self.free, at);
                self.entries[last as usize].next = next;
            } else {
                (last, count) = (at, count + 1);
            }
            at = next;
        }
        self.entries[first as usize].left = count.max(FIRST_LEFT);
    }
}
