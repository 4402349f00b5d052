//! Races: two accesses of the same bytes by different threads, at least one of them a write and not both
//! atomic, that nothing orders (PTX ISA 8, the memory consistency model).
//!
//! Happens-before by time stamps, after FastTrack (Flanagan and Freund, 2009). Threads of a launch run one
//! at a time, so one clock serves them all; it advances where a thread publishes what it has done. A cell
//! beside each granule of memory (no store of the kernel is smaller) holds the last write and the last read:
//! when, which thread, which operation. A thread has seen all of the cluster up to its last common barrier
//! (`base`), and of each other thread what it has published to it (`seen`). Clusters run one after another
//! when races are looked for: a stamp before the cluster's own start is another cluster's, which only
//! [`Race::observe`] orders.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::fault::FaultKind;
use super::super::op::{LANES, Warp, lanes_of};
use super::{Finding, Kind, Place, Span};
use crate::memory::Memory;

/// Stamp 32 bits, thread 14, operation 17, flag 1: the write was strong, or several threads read.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record(u64);

const THREAD_SHIFT: u32 = 18;
const THREAD_MASK: u64 = 0x3fff;
const PC_MASK: u64 = 0x1_ffff;

impl Record {
    #[inline(always)]
    fn stamp(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn thread(self) -> usize {
        (self.0 >> THREAD_SHIFT & THREAD_MASK) as usize
    }

    fn pc(self) -> usize {
        (self.0 >> 1 & PC_MASK) as usize
    }

    #[inline(always)]
    fn flag(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The cells of the memory that begins at host address `origin`: its last writes, and its last reads.
#[derive(Clone, Copy)]
pub struct Cells {
    origin: usize,
    writes: *mut Record,
    reads: *mut Record,
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

/// Two accesses that nothing orders: whose is the present one, where, and the other.
pub struct Conflict {
    lane: usize,
    at: usize,
    other: Record,
    is_write: bool,
}

/// What threads of a cluster have published, thread by thread: all their accesses up to a stamp.
#[derive(Clone)]
struct Published {
    /// When the cluster began.
    start: u32,
    seen: Vec<u32>,
}

/// What a thread has seen of each other: all its accesses up to a stamp.
type Seen = Rc<Vec<u32>>;

type Clock = Rc<Vec<Rc<Published>>>;

/// What a thread had seen when it last executed a fence.
#[derive(Clone)]
struct Fenced {
    base: u32,
    own: u32,
    seen: Seen,
}

/// What is known of a launch, and of its present cluster.
pub struct Race {
    shift: u32,
    /// The time, when the launch and the cluster began, and the cluster's last common barrier.
    now: u32,
    launch: u32,
    start: u32,
    base: u32,
    seen: Vec<Seen>,
    /// Each thread's last fence of any scope, and of one wider than the cluster.
    fenced: [Vec<Option<Fenced>>; 2],
    has_fences: bool,
    /// When each warp last observed something, and whether any has in this cluster.
    observed: Vec<u32>,
    is_partial: bool,
    /// Barriers and atomic words, by their key.
    clocks: HashMap<usize, Clock>,
    /// What other clusters have published to this one.
    foreign: Clock,
    writes: Vec<Record>,
    reads: Vec<Record>,
    origin: usize,
    /// When each cluster began, and which it was.
    clusters: Vec<(u32, [u32; 3])>,
}

/// Stamps beyond this are too near the end of their 32 bits to begin a launch with.
const LATEST: u32 = 1 << 30;

impl Race {
    /// For launches of `threads` a cluster.
    pub fn new(memory: &Memory, threads: usize) -> Race {
        let mut now = memory.shadow.now.load(Relaxed).max(1);
        if let Some(cells) = memory.shadow.cells.as_ref().filter(|_| now > LATEST) {
            // Stamps would run out: begin anew.
            cells.clear(0, cells.bytes());
            now = 1;
        }
        let nothing = Rc::new(vec![0; threads]);
        Race {
            shift: 0,
            now,
            launch: now,
            start: now,
            base: now,
            seen: vec![nothing; threads],
            fenced: [vec![None; threads], vec![None; threads]],
            has_fences: false,
            observed: vec![0; threads.div_ceil(LANES)],
            is_partial: false,
            clocks: HashMap::new(),
            foreign: Clock::default(),
            writes: Vec::new(),
            reads: Vec::new(),
            origin: 0,
            clusters: Vec::new(),
        }
    }

    /// A new cluster, its shared memory (start and bytes), and the bytes of the smallest store.
    pub fn begin(&mut self, place: [u32; 3], (origin, bytes): (usize, usize), granule: usize) {
        (self.start, self.base) = (self.now, self.now);
        self.now += 1;
        self.clusters.push((self.now, place));
        self.shift = granule.trailing_zeros();
        self.origin = origin;
        let cells = bytes.div_ceil(granule);
        for records in [&mut self.writes, &mut self.reads] {
            records.clear();
            records.resize(cells, Record(0));
        }
        self.is_partial = false;
        self.foreign = Clock::default();
        // What a cluster's own threads know of each other ends with it; what they published stays.
        if self.has_fences {
            self.fenced.iter_mut().for_each(|fenced| fenced.fill(None));
            self.has_fences = false;
        }
        if !self.clocks.is_empty() {
            self.clocks.retain(|&key, _| key.wrapping_sub(origin) >= bytes.max(1) && key >= FIRST_ADDRESS);
        }
    }

    /// The time now, for the next launch.
    pub fn time(&self) -> u32 {
        self.now
    }

    pub fn shared_cells(&mut self) -> Cells {
        Cells { origin: self.origin, writes: self.writes.as_mut_ptr(), reads: self.reads.as_mut_ptr() }
    }

    /// Whether an access is before this launch, or before the cluster's last common barrier.
    #[inline(always)]
    fn is_ordered(&self, record: Record) -> bool {
        let stamp = record.stamp();
        stamp <= self.launch || stamp.wrapping_sub(self.start + 1) < self.base - self.start
    }

    #[inline(always)]
    fn is_foreign(&self, record: Record) -> bool {
        record.stamp() <= self.start && record.stamp() > self.launch
    }

    /// Whether nothing needs to be asked about an access: it is ordered, or the thread's own.
    #[inline(always)]
    fn is_free(&self, record: Record, thread: usize) -> bool {
        self.is_ordered(record) | (record.stamp() > self.start) & (record.thread() == thread)
    }

    /// Whether something may conflict with the last write and read of a cell.
    #[inline(always)]
    fn is_suspect(&self, write: Record, read: Record, thread: usize, kind: Kind) -> bool {
        let write_is_free = self.is_free(write, thread) | kind.is_strong() & write.flag();
        let read_is_free = self.is_ordered(read) | self.is_free(read, thread) & !read.flag();
        !write_is_free | kind.writes() & !read_is_free
    }

    /// What a cell's last read is after one more.
    #[inline(always)]
    fn read_after(&self, old: Record, new: Record, thread: usize) -> Record {
        let alone = self.is_ordered(old)
            | self.is_free(old, thread) & !old.flag()
            | (self.is_partial && !self.is_free(old, thread) && self.has_seen(thread, old));
        let kept = self.is_foreign(old);
        Record(if alone {
            new.0
        } else if kept {
            old.0
        } else {
            new.0 | 1
        })
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
        let granule = 1usize << self.shift;
        let stamp = u64::from(self.now) << 32 | (pc as u64).min(PC_MASK) << 1;
        let new = |thread: usize| Record(stamp | (thread as u64) << THREAD_SHIFT);
        let strong = kind.is_strong() as u64;
        let cell = (span.at[0] - cells.origin) >> self.shift;
        if span.contiguous && span.bytes >= granule && span.at[0] & (granule - 1) == 0 {
            let per_lane = span.bytes.trailing_zeros() - self.shift;
            // SAFETY: the addresses have been checked, and each granule of theirs has a cell.
            let (writes, reads) = unsafe {
                let count = LANES << per_lane;
                let writes = std::slice::from_raw_parts_mut(cells.writes.add(cell), count);
                (writes, std::slice::from_raw_parts_mut(cells.reads.add(cell), count))
            };
            let mut suspect = false;
            for (k, (write, read)) in writes.iter().zip(reads.iter()).enumerate() {
                suspect |= self.is_suspect(*write, *read, first_thread + (k >> per_lane), kind);
            }
            if !suspect {
                if kind.writes() {
                    for (k, write) in writes.iter_mut().enumerate() {
                        *write = Record(new(first_thread + (k >> per_lane)).0 | strong);
                    }
                } else if kind == Kind::Read {
                    for (k, read) in reads.iter_mut().enumerate() {
                        let thread = first_thread + (k >> per_lane);
                        *read = self.read_after(*read, new(thread), thread);
                    }
                }
                return None;
            }
        }
        let uniform_read = span.uniform && !kind.writes();
        let lanes = if uniform_read { 1 } else { span.mask };
        for lane in lanes_of(lanes) {
            let at = span.at[lane];
            let thread = first_thread + lane;
            let (from, to) =
                ((at - cells.origin) >> self.shift, (at + span.bytes - 1 - cells.origin) >> self.shift);
            for cell in from..=to {
                // SAFETY: as above.
                let (write, read) = unsafe { (&mut *cells.writes.add(cell), &mut *cells.reads.add(cell)) };
                if self.is_suspect(*write, *read, thread, kind) {
                    let in_span = |other: Record| {
                        let lane = other.thread().wrapping_sub(first_thread);
                        other.stamp() == self.now
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
                    *write = Record(new(thread).0 | strong);
                } else if kind == Kind::Read {
                    *read = self.read_after(*read, new(thread), thread);
                    read.0 |= uniform_read as u64;
                }
            }
        }
        None
    }

    /// The access that really conflicts, and whether it is a write.
    #[cold]
    #[inline(never)]
    fn conflict(&self, write: Record, read: Record, thread: usize, kind: Kind) -> Option<(Record, bool)> {
        if !(kind.is_strong() && write.flag()) && !self.has_seen(thread, write) {
            return Some((write, true));
        }
        if !kind.writes() {
            return None;
        }
        // Of several readers only the last is known: the others read as late, unless this warp has
        // observed something since.
        let others = read.flag()
            && !self.is_ordered(read)
            && !self.is_foreign(read)
            && read.thread() == thread
            && self.observed[thread / LANES] < read.stamp();
        (others || !self.has_seen(thread, read)).then_some((read, false))
    }

    /// Whether an access is ordered before what the thread does now.
    fn has_seen(&self, thread: usize, record: Record) -> bool {
        if self.is_free(record, thread) {
            return true;
        }
        if !self.is_foreign(record) {
            return self.seen[thread][record.thread()] >= record.stamp();
        }
        let next = self.foreign.partition_point(|published| published.start < record.stamp());
        next > 0 && self.foreign[next - 1].seen[record.thread()] >= record.stamp()
    }

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
        let (rank, thread) = (other.thread() / per_cta, other.thread() % per_cta);
        let [bx, by, _] = launch.block.map(|n| n as usize);
        let name = format!("[{}, {}, {}]", thread % bx, thread / bx % by, thread / bx / by);
        let line = kernel.ops.get(other.pc()).map_or(0, |op| op.line);
        let source = kernel.source_lines.get(&line).map_or(String::new(), |at| format!(" ({at})"));
        let own = other.thread() == warp.first_thread() + lane && !self.is_foreign(other);
        let who = match () {
            () if own => "another thread".to_string(),
            () if self.is_foreign(other) || rank != warp.cta.rank as usize => {
                format!("thread {name} of CTA {:?}", self.cta(other, rank, launch.cluster))
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
    fn cta(&self, record: Record, rank: usize, [cx, cy, cz]: [u32; 3]) -> [u32; 3] {
        let next = self.clusters.partition_point(|&(start, _)| start <= record.stamp());
        let place = self.clusters.get(next.wrapping_sub(1)).map_or([0; 3], |&(_, place)| place);
        let rank = rank as u32;
        [place[0] * cx + rank % cx, place[1] * cy + rank / cx % cy, place[2] * cz + rank / cx / cy]
    }
}

/// Keys below this are barriers of the cluster; the others are addresses.
const FIRST_ADDRESS: usize = 4096;

impl Race {
    /// Every thread that is left has come to one barrier: all is ordered.
    pub fn join_all(&mut self) {
        self.base = self.now;
        self.now += 1;
    }

    /// The lanes of a warp publish all they have done and seen at `key`.
    pub fn publish(&mut self, key: usize, first_thread: usize, mask: u32) {
        for lane in lanes_of(mask) {
            let thread = first_thread + lane;
            let seen = self.seen[thread].clone();
            self.publish_as(key, thread, &Fenced { base: self.base, own: self.now, seen });
        }
        self.now += 1;
    }

    fn publish_as(&mut self, key: usize, thread: usize, known: &Fenced) {
        let clock = self.clocks.entry(key).or_default();
        if clock.last().is_none_or(|last| last.start != self.start) {
            // All that the cluster has seen of others goes with it.
            if !Rc::ptr_eq(clock, &self.foreign) {
                *clock = merged(clock, &self.foreign);
            }
            let own = Published { start: self.start, seen: vec![0; self.seen.len()] };
            Rc::make_mut(clock).push(Rc::new(own));
        }
        let all = Rc::make_mut(clock);
        let Some(own) = all.last_mut() else { return };
        let own = Rc::make_mut(own);
        for (published, seen) in own.seen.iter_mut().zip(known.seen.iter()) {
            *published = (*published).max(*seen).max(known.base);
        }
        own.seen[thread] = own.seen[thread].max(known.own);
    }

    /// The lanes of a warp see what has been published at `key`.
    pub fn observe(&mut self, key: usize, first_thread: usize, mask: u32) {
        let Some(clock) = self.clocks.get(&key).cloned() else { return };
        let own = clock.last().filter(|last| last.start == self.start);
        let others = clock.len() - own.is_some() as usize;
        if others > 0 && !Rc::ptr_eq(&clock, &self.foreign) {
            let others = if own.is_none() { clock.clone() } else { Rc::new(clock[..others].to_vec()) };
            self.foreign = if self.foreign.is_empty() { others } else { merged(&self.foreign, &others) };
        }
        let Some(own) = own else { return };
        let mut last: Option<(Seen, Seen)> = None;
        for lane in lanes_of(mask) {
            let seen = &mut self.seen[first_thread + lane];
            if last.as_ref().is_none_or(|(before, _)| !Rc::ptr_eq(before, seen)) {
                let joined = seen.iter().zip(&own.seen).map(|(a, b)| *a.max(b)).collect();
                last = Some((seen.clone(), Rc::new(joined)));
            }
            if let Some((_, after)) = &last {
                *seen = after.clone();
            }
        }
        (self.observed[first_thread / LANES], self.is_partial) = (self.now, true);
        self.now += 1;
    }

    /// Nobody will ask for a barrier's last phase any more.
    pub fn forget(&mut self, key: usize) {
        self.clocks.remove(&key);
    }

    /// Whether anything has been published at `key`.
    pub fn knows(&self, key: usize) -> bool {
        self.clocks.contains_key(&key)
    }

    /// `fence` of a warp's lanes: what they have seen so far is what their atomics publish.
    pub fn fence(&mut self, first_thread: usize, mask: u32, is_wide: bool) {
        for lane in lanes_of(mask) {
            let thread = first_thread + lane;
            let fenced = Fenced { base: self.base, own: self.now, seen: self.seen[thread].clone() };
            if is_wide {
                self.fenced[1][thread] = Some(fenced.clone());
            }
            self.fenced[0][thread] = Some(fenced);
        }
        self.has_fences = true;
        self.now += 1;
    }

    /// A strong write by a thread: it publishes what it had seen at its last fence, and what others have
    /// fenced that it has seen since.
    pub fn publish_fenced(&mut self, key: usize, thread: usize, is_wide: bool) {
        if !self.has_fences {
            return;
        }
        let fenced = &self.fenced[is_wide as usize];
        let (base, seen) = (self.base, self.seen[thread].clone());
        let known = |other: usize| if other == thread { self.now } else { base.max(seen[other]) };
        let mut published = vec![0; self.seen.len()];
        let mut any = false;
        for (other, published) in published.iter_mut().enumerate() {
            if let Some(fenced) = fenced[other].as_ref().filter(|fenced| fenced.own <= known(other)) {
                *published = fenced.own;
                any = true;
            }
        }
        if let Some(fenced) = &fenced[thread] {
            for (published, seen) in published.iter_mut().zip(fenced.seen.iter()) {
                *published = (*published).max(*seen).max(fenced.base);
            }
        }
        if any {
            let own = published[thread];
            self.publish_as(key, thread, &Fenced { base: 0, own, seen: Rc::new(published) });
        }
    }
}

/// What either list has, by cluster.
fn merged(a: &[Rc<Published>], b: &[Rc<Published>]) -> Clock {
    let mut all: Vec<Rc<Published>> = a.to_vec();
    for published in b {
        match all.binary_search_by_key(&published.start, |other| other.start) {
            Ok(at) => {
                let own = Rc::make_mut(&mut all[at]);
                own.seen.iter_mut().zip(&published.seen).for_each(|(a, b)| *a = (*a).max(*b));
            }
            Err(at) => all.insert(at, published.clone()),
        }
    }
    Rc::new(all)
}
