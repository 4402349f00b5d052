//! Races: two accesses of the same bytes by different threads, at least one of them a write and not both
//! atomic, that nothing orders (PTX ISA 8, the memory consistency model).
//!
//! Each access is held against the last write and the last read of its granules ([`super::cell`]; no store of
//! the kernel is smaller than a granule) and takes their place; [`super::clock`] knows what is ordered.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::cell::{Cells, Record, SharedCells};
use super::clock::Clocks;
use super::{Finding, Kind, Place, Span, order};
use crate::exec::fault::FaultKind;
use crate::exec::op::{LANES, Warp, lanes_of};
use crate::memory::Memory;

/// Two accesses that nothing orders: whose is the present one, where, and the other.
pub struct Conflict {
    lane: usize,
    at: usize,
    other: Record,
    is_write: bool,
}

/// What is known of a launch, and of its present cluster.
pub struct Race {
    pub clocks: Clocks,
    shared: SharedCells,
    /// log2 of a granule's bytes.
    shift: u32,
    /// When each group of CTAs that take turns began, the number of its first CTA, and which group it was.
    groups: Vec<(u32, usize, [u32; 3])>,
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
        Race { clocks, shared: SharedCells::default(), shift: 0, groups: Vec::new() }
    }

    /// Goes on from where another group has come to.
    pub fn follow(&mut self, other: &mut Race) {
        self.clocks.follow(&mut other.clocks);
        std::mem::swap(&mut self.groups, &mut other.groups);
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
        self.clocks.begin(order::barriers(&ctas), shared, has_company);
        self.groups.push((self.clocks.now, ctas.start, place));
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

    /// Whether something may conflict with the last write and read of a cell.
    #[inline(always)]
    fn is_suspect(&self, write: Record, read: Record, thread: usize, kind: Kind) -> bool {
        let clocks = &self.clocks;
        let write_is_free = clocks.is_free(write, thread) | kind.is_strong() & write.flag();
        let read_is_free = clocks.is_ordered(read) | clocks.is_free(read, thread) & !read.flag();
        !write_is_free | kind.writes() & !read_is_free
    }

    /// What a cell's last read is after one more.
    #[inline(always)]
    fn read_after(&self, old: Record, new: Record, thread: usize) -> Record {
        let clocks = &self.clocks;
        let alone = clocks.is_ordered(old)
            | clocks.is_free(old, thread) & !old.flag()
            | clocks.has_observed(thread, old);
        if alone {
            new
        } else if clocks.is_foreign(old) {
            old
        } else {
            new.flagged(true)
        }
    }

    /// Checks and records the accesses of a warp's lanes. `same` says whether two lanes store the same.
    #[inline(always)]
    pub fn access(
        &mut self,
        cells: &Cells,
        span: &Span,
        first_thread: usize,
        pc: usize,
        kind: Kind,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<Conflict> {
        if self.access_at_once(cells, span, first_thread, pc, kind) {
            return None;
        }
        let granule_of = |at: usize| (at - cells.origin) >> self.shift;
        let strong = kind.is_strong();
        let uniform_read = span.uniform && !kind.writes();
        let lanes = if uniform_read { 1 } else { span.mask };
        for lane in lanes_of(lanes) {
            let at = span.at[lane];
            let thread = first_thread + lane;
            let new = Record::new(self.clocks.now, thread, pc);
            for cell in granule_of(at)..granule_of(at + span.bytes - 1) + 1 {
                // SAFETY: the addresses have been checked, and each granule of theirs has a cell.
                let (write, read) = unsafe { (&mut *cells.writes.add(cell), &mut *cells.reads.add(cell)) };
                if self.is_suspect(*write, *read, thread, kind) {
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
                    if let Some((other, is_write)) =
                        self.conflict(*write, *read, thread, kind).filter(|_| !harmless)
                    {
                        let at = at.max(cells.origin + (cell << self.shift));
                        return Some(Conflict { lane, at, other, is_write });
                    }
                }
                if kind.writes() {
                    *write = new.flagged(strong);
                } else if kind == Kind::Read {
                    *read = self.read_after(*read, new, thread).flagged(uniform_read);
                }
            }
        }
        None
    }

    /// The same for a whole warp's neighbouring granules, of which none is suspect: false, and nothing done, if
    /// it is otherwise.
    #[inline(always)]
    fn access_at_once(
        &mut self,
        cells: &Cells,
        span: &Span,
        first_thread: usize,
        pc: usize,
        kind: Kind,
    ) -> bool {
        let granule = 1usize << self.shift;
        if !span.contiguous || span.bytes < granule || span.at[0] & (granule - 1) != 0 {
            return false;
        }
        let first = (span.at[0] - cells.origin) >> self.shift;
        let per_lane = span.bytes.trailing_zeros() - self.shift;
        // SAFETY: the addresses have been checked, and each granule of theirs has a cell.
        let (writes, reads) = unsafe {
            let count = LANES << per_lane;
            let writes = std::slice::from_raw_parts_mut(cells.writes.add(first), count);
            (writes, std::slice::from_raw_parts_mut(cells.reads.add(first), count))
        };
        let mut suspect = false;
        for (k, (write, read)) in writes.iter().zip(reads.iter()).enumerate() {
            suspect |= self.is_suspect(*write, *read, first_thread + (k >> per_lane), kind);
        }
        if suspect {
            return false;
        }
        let new = |thread: usize| Record::new(self.clocks.now, thread, pc);
        if kind.writes() {
            for (k, write) in writes.iter_mut().enumerate() {
                *write = new(first_thread + (k >> per_lane)).flagged(kind.is_strong());
            }
        } else if kind == Kind::Read {
            for (k, read) in reads.iter_mut().enumerate() {
                let thread = first_thread + (k >> per_lane);
                *read = self.read_after(*read, new(thread), thread);
            }
        }
        true
    }

    /// The access that really conflicts, and whether it is a write.
    #[cold]
    #[inline(never)]
    fn conflict(&self, write: Record, read: Record, thread: usize, kind: Kind) -> Option<(Record, bool)> {
        let clocks = &self.clocks;
        if !(kind.is_strong() && write.flag()) && !clocks.has_seen(thread, write) {
            return Some((write, true));
        }
        if !kind.writes() {
            return None;
        }
        // Of several readers only the last is known: the others read as late, unless this warp has
        // observed something since.
        let others = read.flag()
            && !clocks.is_before_barrier(read)
            && !clocks.is_foreign(read)
            && read.thread() == thread
            && clocks.is_unaware(thread, read);
        (others || !clocks.has_seen(thread, read)).then_some((read, false))
    }

    /// What to say of a conflict.
    #[cold]
    pub(super) fn finding(
        &self,
        warp: &Warp,
        conflict: &Conflict,
        span: &Span,
        kind: Kind,
        is_shared: bool,
    ) -> Finding {
        let Conflict { lane, at, other, is_write } = *conflict;
        let (kernel, launch) = (warp.cta.kernel, warp.cta.launch);
        let place = if is_shared { Place::Shared } else { Place::Global };
        let per_cta = (launch.threads() as usize).next_multiple_of(LANES);
        let (number, thread) = (other.thread() / per_cta, other.thread() % per_cta);
        let [bx, by, _] = launch.block.map(|n| n as usize);
        let name = format!("[{}, {}, {}]", thread % bx, thread / bx % by, thread / bx / by);
        let line = kernel.ops.get(other.pc()).map_or(0, |op| op.line);
        let source = kernel.source_lines.get(&line).map_or(String::new(), |at| format!(" ({at})"));
        let own = other.thread() == warp.first_thread() + lane && !self.clocks.is_foreign(other);
        let who = match () {
            () if own => "another thread".to_string(),
            () if self.clocks.is_foreign(other) || number != warp.cta.number as usize => {
                format!("thread {name} of CTA {:?}", self.cta(other, number, warp.cta.common.in_turn))
            }
            () => format!("thread {name}"),
        };
        let what = format!(
            "a race: nothing orders this {} of {} bytes at {} and the {} by {who} at PTX line {line}{source}",
            kind.name(),
            span.bytes,
            warp.name(at, place),
            match (is_write, other.flag()) {
                (true, true) => "atomic write",
                (true, false) => "write",
                _ => "read",
            },
        );
        Finding { lane, kind: FaultKind::Race, what }
    }

    /// The CTA of an access.
    fn cta(&self, record: Record, number: usize, [cx, cy, cz]: [u32; 3]) -> [u32; 3] {
        let next = self.groups.partition_point(|&(start, ..)| start <= record.stamp());
        let ctas = (cx * cy * cz) as usize;
        let own = self.groups[..next].iter().rev().find(|&&(_, first, _)| number.wrapping_sub(first) < ctas);
        let (first, place) = own.map_or((number, [0; 3]), |&(_, first, place)| (first, place));
        let number = (number - first) as u32;
        [place[0] * cx + number % cx, place[1] * cy + number / cx % cy, place[2] * cz + number / cx / cy]
    }
}
