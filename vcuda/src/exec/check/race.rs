//! Races: two accesses of the same bytes by different threads, at least one of them a write and not both
//! atomic, that nothing orders (PTX ISA 8, the memory consistency model).
//!
//! Each access is held against the last plain write of its granules ([`super::cell`]; no store of the kernel is smaller
//! than a granule) and against what came since: reads and strong accesses, all of them that are ordered before no later
//! one ([`super::members`]). [`super::clock`] knows what is ordered. What neighbouring lanes access in a row is looked at
//! in one go first ([`super::row`]).

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::cell::{Cells, Class, Record, SharedCells};
use super::clock::Clocks;
use super::groups::{Group, Groups};
use super::key::barriers;
use super::members::{Entry, Members};
use super::span::{Access, Kind, Span};
use crate::exec::registers::{ALL, LANES};
use crate::memory::Memory;

/// Two accesses that nothing orders: whose is the present one, where, and the other, what it was.
pub struct Conflict {
    pub lane: usize,
    pub at: usize,
    pub name: &'static str,
    pub thread: usize,
    pub pc: usize,
    /// Whether the other is of another group of CTAs, and which.
    pub is_foreign: bool,
    pub group: Group,
}

/// What is known of a launch, and of its present cluster.
pub struct Race {
    pub clocks: Clocks,
    shared: SharedCells,
    /// What came since writes of global memory, and of shared memory.
    pub(super) members: [Members; 2],
    /// log2 of a granule's bytes.
    pub(super) shift: u32,
    groups: Groups,
}

/// Stamps beyond this are too near the end of their 32 bits to begin a launch with.
const LATEST: u32 = 1 << 30;

impl Race {
    /// For launches of `threads` a group, with numbers from `first_thread` on.
    pub fn new(memory: &Memory, first_thread: usize, threads: usize) -> Race {
        let mut now = memory.shadow.now.load(Relaxed).max(1);
        if let Some(cells) = memory.shadow.cells.as_ref().filter(|_| now > LATEST) {
            // Stamps would run out: begin anew.
            cells.clear(0, cells.bytes());
            now = 1;
            memory.shadow.now.store(now, Relaxed);
        }
        let clocks = Clocks::new(now, first_thread, threads);
        Race {
            clocks,
            shared: SharedCells::default(),
            members: Default::default(),
            shift: 0,
            groups: Groups::new(threads),
        }
    }

    /// Goes on from where another group has come to.
    pub fn follow(&mut self, other: &mut Race) {
        self.clocks.follow(&mut other.clocks);
        std::mem::swap(&mut self.groups, &mut other.groups);
        std::mem::swap(&mut self.members[0], &mut other.members[0]);
    }

    /// A new group at its place, its CTAs' numbers, its shared memory (start and bytes), and the bytes of the smallest
    /// store. `has_company`: it takes turns with other groups.
    pub fn begin(
        &mut self,
        place: [u32; 3],
        ctas: Range<usize>,
        shared: (usize, usize),
        granule: usize,
        has_company: bool,
    ) {
        self.clocks.begin(barriers(&ctas), shared, has_company);
        self.groups.begin(self.clocks.now, self.clocks.first_thread(), place);
        self.shared.begin(shared, granule);
        self.shift = granule.trailing_zeros();
    }

    /// The time now, for the next launch.
    pub fn time(&self) -> u32 {
        self.clocks.now
    }

    pub fn shared_cells(&mut self) -> Cells {
        self.shared.share()
    }

    /// Whether all that came since a write is known at a glance to be over. Several accesses of global memory may be those
    /// of many clusters: only the next launch is after all of them.
    #[inline(always)]
    pub(super) fn is_over(&self, since: Record, is_shared: bool) -> bool {
        match is_shared {
            true => self.clocks.is_ordered(since),
            false => {
                self.clocks.is_of_earlier_launch(since) | !since.is_several() & self.clocks.is_ordered(since)
            }
        }
    }

    /// Checks and records the accesses of a warp's lanes. `same` says whether two lanes store the same.
    #[inline(always)]
    pub fn access(
        &mut self,
        cells: &Cells,
        access: &Access,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<Conflict> {
        let span = access.span;
        // One lane reads for all where they have all seen the last writes.
        let is_several = span.mask & span.mask.wrapping_sub(1) != 0;
        let is_one = span.uniform && is_several && matches!(access.kind, Kind::Read | Kind::StrongRead) && {
            self.granules(cells, span, 0).all(|cell| {
                // SAFETY: the addresses have been checked, and each granule of theirs has a cell.
                let (write, since) = unsafe { (*cells.writes.add(cell), *cells.since.add(cell)) };
                let is_at_peace = access.kind == Kind::StrongRead || since.is_reads();
                (is_at_peace || self.is_over(since, cells.is_shared))
                    && self.clocks.have_seen(access.first_thread, span.mask, write)
            })
        };
        if is_one {
            let first = span.mask.trailing_zeros() as usize & 31;
            return self.access_lane(cells, access, first, span.mask, &same);
        }
        let followers = span.followers();
        let mut left = span.mask;
        while left != 0 {
            let first = left.trailing_zeros() as usize & 31;
            let lanes = (followers >> first >> 1).trailing_ones() as usize + 1;
            if !self.access_row(cells, access, first, lanes) {
                for lane in first..first + lanes {
                    let conflict = self.access_lane(cells, access, lane, 1 << lane, &same);
                    if conflict.is_some() {
                        return conflict;
                    }
                }
            }
            left &= (ALL << (first + lanes - 1)) << 1;
        }
        None
    }

    /// The granules that a lane's access touches.
    #[inline(always)]
    fn granules(&self, cells: &Cells, span: &Span, lane: usize) -> Range<usize> {
        let at = span.at[lane] - cells.origin;
        at >> self.shift..((at + span.bytes - 1) >> self.shift) + 1
    }

    /// Checks and records a lane's access, granule by granule; or all lanes', `by`, of the same place.
    #[inline(always)]
    fn access_lane(
        &mut self,
        cells: &Cells,
        access: &Access,
        lane: usize,
        by: u32,
        same: &impl Fn(usize, usize) -> bool,
    ) -> Option<Conflict> {
        let Access { span, kind, first_thread, pc, .. } = *access;
        let (at, thread) = (span.at[lane], first_thread + lane);
        let new = Record::new(self.clocks.now, thread, pc);
        for cell in self.granules(cells, span, lane) {
            // SAFETY: as above.
            let (write, since) = unsafe { (&mut *cells.writes.add(cell), &mut *cells.since.add(cell)) };
            let is_over = self.is_over(*since, cells.is_shared);
            let is_at_peace = is_over || self.is_at_peace(*since, thread, kind);
            if !self.clocks.is_free(*write, thread) || !is_at_peace {
                let in_span = |other: Record| {
                    let lane = other.thread().wrapping_sub(first_thread);
                    other.stamp() == self.clocks.now
                        && other.pc() == pc
                        && lane < LANES
                        && span.mask >> lane & 1 != 0
                        && span.at[lane].abs_diff(at) < span.bytes
                };
                // Lanes that store the same to the same place in one instruction do no harm.
                let harmless = kind == Kind::Write
                    && in_span(*write)
                    && span.at[write.thread() - first_thread] == at
                    && same(write.thread() - first_thread, lane);
                let since = if is_at_peace { Record::NONE } else { *since };
                if let Some((other, name)) =
                    self.conflict(cell, *write, since, thread, kind, cells.is_shared).filter(|_| !harmless)
                {
                    let at = at.max(cells.origin + (cell << self.shift));
                    return Some(self.describe(lane, at, other, name));
                }
            }
            match Class::of(kind) {
                Some(class) => {
                    let new = Entry::new(new, by, class);
                    *since = self.after(cell, *since, new, is_over, cells.is_shared);
                }
                None => {
                    if let (Some(place), false) = (since.place(), is_over) {
                        self.members[cells.is_shared as usize].end(place);
                    }
                    (*write, *since) = (new, Record::NONE);
                }
            }
        }
        None
    }

    /// A write of shared memory that a lane's access names, at this time or later.
    pub fn written_since(&mut self, span: &Span, lane: usize, stamp: u32) -> Option<Conflict> {
        self.find_write(span, lane, |_, write| write.stamp() >= stamp)
    }

    /// The same that is not among what is known, thread by thread.
    pub fn unseen_write(&mut self, span: &Span, lane: usize, known: &[u32]) -> Option<Conflict> {
        self.find_write(span, lane, |clocks, write| !clocks.is_known(known, write))
    }

    fn find_write(
        &mut self,
        span: &Span,
        lane: usize,
        is_wanted: impl Fn(&Clocks, Record) -> bool,
    ) -> Option<Conflict> {
        let (cells, at) = (self.shared.share(), span.at[lane]);
        let granules = self.granules(&cells, span, lane);
        // SAFETY: the addresses have been checked, and each granule of theirs has a cell.
        let mut writes = granules.map(|cell| unsafe { *cells.writes.add(cell) });
        let mut last = Record::NONE;
        // Neighbours, as a rule, were written together.
        let mut is_new = |write: Record| std::mem::replace(&mut last, write) != write;
        let write = writes.find(|&write| is_new(write) && is_wanted(&self.clocks, write))?;
        Some(self.describe(lane, at, write, "write"))
    }

    /// Whether nothing need be asked about what came since the last write, though it is not over: reads before a read, and
    /// what comes before a strong one.
    #[inline(always)]
    fn is_at_peace(&self, since: Record, thread: usize, kind: Kind) -> bool {
        match kind {
            Kind::Read => since.is_reads(),
            Kind::StrongRead => true,
            _ => since.is_plain() & self.clocks.is_free(since, thread),
        }
    }

    /// What came since the last write, after one more access that does not conflict with it.
    #[inline(always)]
    fn after(&mut self, granule: usize, old: Record, new: Entry, is_over: bool, is_shared: bool) -> Record {
        let members = &mut self.members[is_shared as usize];
        if is_shared {
            members.begin_after(self.clocks.base_alone());
        }
        if is_over {
            return members.alone(new, old);
        }
        if self.clocks.is_secret(old) {
            let class = old.place().map_or(old.class().0, |place| members.last_class(place));
            // Whoever conflicts with the new one does with that.
            if class != Class::StrongRead {
                return old;
            }
        }
        members.join(granule, old, new, &self.clocks, &self.groups)
    }

    /// The access that really conflicts, and what it is.
    #[cold]
    #[inline(never)]
    fn conflict(
        &self,
        granule: usize,
        write: Record,
        since: Record,
        thread: usize,
        kind: Kind,
        is_shared: bool,
    ) -> Option<(Record, &'static str)> {
        let is_seen = |record: &Record| self.clocks.has_seen(thread, *record);
        if !is_seen(&write) {
            return Some((write, "write"));
        }
        let find = |entry: Entry| {
            let lanes = if entry.class.minds(kind) { entry.lanes } else { 0 };
            let unseen = self.clocks.unseen(thread, entry.record, lanes);
            let lane = unseen.trailing_zeros() as usize;
            (unseen != 0).then(|| (entry.record.of_lane(lane), entry.class.name()))
        };
        match since.place() {
            Some(place) => self.members[is_shared as usize].list(place, granule).find_map(find),
            None => find(Entry::of(since)),
        }
    }

    /// What is known of a conflict.
    #[cold]
    fn describe(&self, lane: usize, at: usize, other: Record, name: &'static str) -> Conflict {
        let (is_foreign, group) = (self.clocks.is_foreign(other), self.groups.of(other));
        Conflict { lane, at, name, thread: other.thread(), pc: other.pc(), is_foreign, group }
    }
}
