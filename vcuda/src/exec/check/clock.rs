//! Happens-before by time stamps, after FastTrack (Flanagan and Freund, 2009).
//!
//! Threads of a launch run one at a time, so one clock serves them all; it advances where a thread publishes what it
//! has done. A thread has seen all of the cluster up to its last common barrier (`base`), and of each other thread what
//! it has published to it (`seen`). Clusters run one after another when races are looked for: a stamp before the
//! cluster's own start is another cluster's, which only [`Clocks::observe`] orders.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::op::{LANES, lanes_of};
use super::cell::Record;

/// What threads of a cluster have published, thread by thread: all their accesses up to a stamp.
#[derive(Clone)]
struct Published {
    /// When the cluster began.
    start: u32,
    seen: Vec<u32>,
}

/// What a thread has seen of each other: all its accesses up to a stamp.
type Seen = Rc<Vec<u32>>;

/// What has been published at one place, by cluster.
type Clock = Rc<Vec<Rc<Published>>>;

/// What a thread had seen when it last executed a fence.
#[derive(Clone)]
struct Fenced {
    base: u32,
    own: u32,
    seen: Seen,
}

/// Who has seen what of a launch.
pub struct Clocks {
    /// The time, when the launch and the cluster began, and the cluster's last common barrier.
    pub now: u32,
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
    published: HashMap<usize, Clock>,
    /// What other clusters have published to this one.
    foreign: Clock,
}

/// Keys below this are barriers of the cluster; the others are addresses.
const FIRST_ADDRESS: usize = 1 << 20;

impl Clocks {
    /// For a launch at time `now` with so many threads a cluster.
    pub fn new(now: u32, threads: usize) -> Clocks {
        let nothing = Rc::new(vec![0; threads]);
        Clocks {
            now,
            launch: now,
            start: now,
            base: now,
            seen: vec![nothing; threads],
            fenced: [vec![None; threads], vec![None; threads]],
            has_fences: false,
            observed: vec![0; threads.div_ceil(LANES)],
            is_partial: false,
            published: HashMap::new(),
            foreign: Clock::default(),
        }
    }

    /// A new cluster, and its shared memory: start and bytes.
    pub fn begin(&mut self, (origin, bytes): (usize, usize)) {
        (self.start, self.base) = (self.now, self.now);
        self.now += 1;
        self.is_partial = false;
        self.foreign = Clock::default();
        // What a cluster's own threads know of each other ends with it; what they published stays.
        if self.has_fences {
            self.fenced.iter_mut().for_each(|fenced| fenced.fill(None));
            self.has_fences = false;
        }
        if !self.published.is_empty() {
            self.published.retain(|&key, _| key.wrapping_sub(origin) >= bytes.max(1) && key >= FIRST_ADDRESS);
        }
    }

    /// Whether an access is before this launch, or before the cluster's last common barrier.
    #[inline(always)]
    pub fn is_ordered(&self, record: Record) -> bool {
        let stamp = record.stamp();
        stamp <= self.launch || stamp.wrapping_sub(self.start + 1) < self.base - self.start
    }

    /// Whether an access is an earlier cluster's of this launch.
    #[inline(always)]
    pub fn is_foreign(&self, record: Record) -> bool {
        record.stamp() <= self.start && record.stamp() > self.launch
    }

    /// Whether nothing needs to be asked about an access: it is ordered, or the thread's own.
    #[inline(always)]
    pub fn is_free(&self, record: Record, thread: usize) -> bool {
        self.is_ordered(record) | (record.stamp() > self.start) & (record.thread() == thread)
    }

    /// Whether a barrier or an atomic has told the thread of another's access.
    #[inline(always)]
    pub fn has_observed(&self, thread: usize, record: Record) -> bool {
        self.is_partial && !self.is_free(record, thread) && self.has_seen(thread, record)
    }

    /// Whether a thread's warp has observed nothing since an access.
    pub fn is_unaware(&self, thread: usize, record: Record) -> bool {
        self.observed[thread / LANES] < record.stamp()
    }

    /// Whether an access is ordered before what the thread does now.
    pub fn has_seen(&self, thread: usize, record: Record) -> bool {
        if self.is_free(record, thread) {
            return true;
        }
        if !self.is_foreign(record) {
            return self.seen[thread][record.thread()] >= record.stamp();
        }
        let next = self.foreign.partition_point(|published| published.start < record.stamp());
        next > 0 && self.foreign[next - 1].seen[record.thread()] >= record.stamp()
    }

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
        let clock = self.published.entry(key).or_default();
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
        let Some(clock) = self.published.get(&key).cloned() else { return };
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
        self.published.remove(&key);
    }

    /// Whether anything has been published at `key`.
    pub fn knows(&self, key: usize) -> bool {
        self.published.contains_key(&key)
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
