//! Accesses of one granule since its last plain write, where they are more than one: FastTrack's read sets (Flanagan
//! and Freund, 2009), and strong writes. An entry is what lanes of one warp did at one time in one operation. Lists
//! have the latest first; they are made of a pool, and end with a plain write, which is ordered after all of them. The
//! granules of a row that the same warps have read share one list.

use super::cell::{Class, MOST_THREADS, Record};
use super::clock::Clocks;
use super::groups::Groups;
use crate::exec::registers::LANES;

/// What lanes of a warp did; the record is the first one's.
#[derive(Clone, Copy)]
pub struct Entry {
    pub record: Record,
    pub lanes: u32,
    pub class: Class,
}

/// Which lane has which granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The last bits of the first granule that lane 0 has, or would have.
    pub first: u32,
    /// log2 of a lane's granules.
    pub per_lane: u32,
}

impl Layout {
    #[inline(always)]
    pub fn lane(self, granule: usize) -> usize {
        (granule as u32).wrapping_sub(self.first) as usize >> self.per_lane
    }
}

/// Whose access of a granule it is.
#[derive(Clone, Copy)]
enum Who {
    Lanes(u32),
    /// One lane's; the record is lane 0's.
    Row(Layout),
}

/// An entry in a list, which may be one for many granules.
#[derive(Clone, Copy)]
struct Node {
    record: Record,
    who: Who,
    next: u32,
    /// Entries until the list is looked through for what later ones cover.
    left: u32,
    /// Granules of whose lists it is the first, and nodes before it.
    references: u32,
    class: Class,
}

/// The end of a list.
const NONE: u32 = u32::MAX;
/// Entries of a pool: 84 MB. With none left a granule keeps its last access alone.
const MOST_ENTRIES: usize = 1 << 21;
/// Entries of a list before it is looked through.
const FIRST_LEFT: u32 = 16;

pub struct Members {
    nodes: Vec<Node>,
    free: u32,
    /// All that was there at this barrier of the cluster has been thrown away.
    base: u32,
}

impl Default for Members {
    fn default() -> Members {
        Members { nodes: Vec::new(), free: NONE, base: 0 }
    }
}

impl Entry {
    pub fn new(record: Record, lanes: u32, class: Class) -> Entry {
        Entry { record, lanes, class }
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

impl Node {
    fn new(Entry { record, lanes, class }: Entry, next: u32, left: u32) -> Node {
        Node { record, who: Who::Lanes(lanes), next, left, references: 1, class }
    }

    /// As it is for a granule.
    fn at(&self, granule: usize) -> Entry {
        match self.who {
            Who::Lanes(lanes) => Entry::new(self.record, lanes, self.class),
            Who::Row(layout) => {
                let lane = layout.lane(granule);
                Entry::new(self.record.of_lane(lane), 1 << lane, self.class)
            }
        }
    }
}

impl Members {
    /// All accesses up to a common barrier of the cluster are over.
    pub fn begin_after(&mut self, base: u32) {
        if self.base != base {
            (self.base, self.free) = (base, NONE);
            self.nodes.clear();
        }
    }

    /// Those of a granule's list.
    pub fn list(&self, place: u32, granule: usize) -> impl Iterator<Item = Entry> {
        let node = |at: u32| self.nodes.get(at as usize);
        std::iter::successors(node(place), move |before| node(before.next)).map(move |node| node.at(granule))
    }

    /// What the last access of a list is.
    pub fn last_class(&self, place: u32) -> Class {
        self.nodes[place as usize].class
    }

    /// The last access of a row's granules, which all have this record, or one that differs by its lane: lane 0's
    /// record, if it was a plain read of just such a row.
    pub fn last_of_row(&self, old: Record, layout: Layout) -> Option<Record> {
        let Some(place) = old.place() else { return Some(old.of_lane(0)) };
        let node = &self.nodes[place as usize];
        let is_such = matches!(node.who, Who::Row(other) if other == layout) && node.class == Class::Read;
        is_such.then_some(node.record)
    }

    /// One more plain read of a row of `count` granules, where [`Members::last_of_row`] was such a read: the list of
    /// all of them. `covers`: it is ordered after that read, and stands for it. `None` where the list is to be looked
    /// through, or has no space.
    pub fn join_row(
        &mut self,
        old: Record,
        new: Record,
        layout: Layout,
        count: usize,
        covers: bool,
    ) -> Option<u32> {
        let count = count as u32;
        let node = Node {
            record: new,
            who: Who::Row(layout),
            next: NONE,
            left: FIRST_LEFT,
            references: count,
            class: Class::Read,
        };
        let Some(place) = old.place() else {
            let next = self.put(Node { record: old.of_lane(0), references: 1, ..node })?;
            return self.put(Node { next, ..node }).or_else(|| {
                self.end(next);
                None
            });
        };
        let head = self.nodes[place as usize];
        if covers && head.references == count {
            self.nodes[place as usize].record = new;
            return Some(place);
        }
        let (next, left) = if covers { (head.next, head.left) } else { (place, head.left - 1) };
        if left == 0 {
            return None;
        }
        let first = self.put(Node { next, left, ..node })?;
        self.nodes[place as usize].references -= count;
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.references += 1;
        }
        Some(first)
    }

    /// The record of an access alone; `instead` if the pool is full.
    pub fn alone(&mut self, new: Entry, instead: Record) -> Record {
        let single = new.record.single(new.class, new.lanes);
        let has_writes = new.class == Class::StrongWrite;
        single
            .or_else(|| Some(new.record.several(self.put(Node::new(new, NONE, FIRST_LEFT))?, has_writes)))
            .unwrap_or(instead)
    }

    /// What came since a granule's last write after one more access: `old` is an entry that nothing orders before all
    /// else.
    pub fn join(
        &mut self,
        granule: usize,
        old: Record,
        new: Entry,
        clocks: &Clocks,
        groups: &Groups,
    ) -> Record {
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
            let Some(next) = self.put(Node::new(before, NONE, FIRST_LEFT)) else {
                return self.alone(new, old);
            };
            return match self.put(Node::new(new, next, FIRST_LEFT)) {
                Some(place) => new.record.several(place, has_writes),
                None => {
                    self.end(next);
                    self.alone_at_last(new)
                }
            };
        };
        let node = self.nodes[place as usize];
        let head = node.at(granule);
        let list = if head.is_with(&new) {
            match head.lanes | new.lanes {
                lanes if lanes == head.lanes => return old,
                lanes => self.change(place, Entry { lanes, ..head }),
            }
        } else if head.uncovered(&new, clocks) == 0 {
            self.change(place, new)
        } else {
            let left = node.left - 1;
            match self.put(Node::new(new, place, left)) {
                Some(first) if left == 0 => self.thin(first, granule, clocks, groups),
                Some(first) => Some(first),
                None => {
                    self.end(place);
                    None
                }
            }
        };
        match list {
            Some(place) => new.record.several(place, has_writes),
            None => self.alone_at_last(new),
        }
    }

    /// A granule's list is over.
    pub fn end(&mut self, mut place: u32) {
        while let Some(node) = self.nodes.get_mut(place as usize) {
            node.references -= 1;
            if node.references > 0 {
                return; // others have it
            }
            (node.next, self.free, place) = (self.free, place, node.next);
        }
    }

    /// A granule's list with another first entry; it is over if there is no space.
    fn change(&mut self, place: u32, first: Entry) -> Option<u32> {
        let Node { next, left, references, .. } = self.nodes[place as usize];
        if references == 1 {
            self.nodes[place as usize] = Node::new(first, next, left);
            return Some(place);
        }
        let changed = self.put(Node::new(first, next, left));
        self.nodes[place as usize].references -= 1;
        if let (Some(_), Some(next)) = (changed, self.nodes.get_mut(next as usize)) {
            next.references += 1;
        }
        changed
    }

    /// The record of an access whose granule's list is over for lack of space: one lane's where there is none even now.
    fn alone_at_last(&mut self, new: Entry) -> Record {
        let own = 1 << (new.record.thread() % LANES);
        self.alone(new, new.record.single(new.class, own).unwrap_or(Record::NONE))
    }

    fn put(&mut self, node: Node) -> Option<u32> {
        let place = self.free;
        if let Some(free) = self.nodes.get_mut(place as usize) {
            self.free = free.next;
            *free = node;
            return Some(place);
        }
        if self.nodes.len() == MOST_ENTRIES {
            return None;
        }
        self.nodes.push(node);
        Some(self.nodes.len() as u32 - 1)
    }

    /// A granule's list without what later accesses by the same threads cover, and the head's what a common barrier
    /// does; it is over if there is no space.
    #[cold]
    #[inline(never)]
    fn thin(&mut self, first: u32, granule: usize, clocks: &Clocks, groups: &Groups) -> Option<u32> {
        // By warp: when its group began, and which lanes have later entries of each class.
        let mut later = [(0, [0u32; 3]); MOST_THREADS / LANES];
        let head_class = self.last_class(first);
        let mut kept = Vec::new();
        for (place, mut entry) in self.list(first, granule).enumerate() {
            let Entry { record, class, .. } = entry;
            let (start, seen) = &mut later[entry.warp()];
            if *start != groups.start(record) {
                (*start, *seen) = (groups.start(record), [0; 3]);
            }
            let covering = [Class::Read, Class::StrongRead, Class::StrongWrite];
            let covered = covering.iter().zip(*seen).filter(|(other, _)| other.covers(class));
            entry.lanes &= !covered.fold(0, |mask, (_, lanes)| mask | lanes);
            seen[class as usize] |= entry.lanes;
            let is_before = place > 0 && head_class.covers(class) && clocks.is_before_barrier(record);
            if entry.lanes != 0 && !is_before {
                kept.push(entry);
            }
        }
        self.end(first);
        let left = FIRST_LEFT.max(kept.len() as u32);
        let mut list = NONE;
        for &entry in kept.iter().rev() {
            let Some(place) = self.put(Node::new(entry, list, left)) else {
                self.end(list);
                return None;
            };
            list = place;
        }
        Some(list)
    }
}
