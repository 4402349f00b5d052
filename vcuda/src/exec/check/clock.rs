//! Happens-before by time stamps, after FastTrack (Flanagan and Freund, 2009).
//!
//! Threads of a launch run one at a time, so one clock serves them all; it advances where a thread publishes what it
//! has done. A thread has seen all of the cluster up to its last common barrier (`base`), and of each other thread what
//! it has published to it (`seen`). A stamp before the cluster's own start, or of a thread that is not its own, is
//! another cluster's, which only [`Clocks::observe`] orders. Clusters that take turns have clocks of their own, and hand
//! on what they share ([`Clocks::follow`]).

use std::collections::HashMap;
use std::mem::swap;
use std::ops::Range;
use std::rc::Rc;

use super::cell::Record;
use crate::exec::registers::{LANES, lanes_of};

/// What threads of a cluster have published, thread by thread: all their accesses up to a stamp.
#[derive(Clone)]
struct Published {
    /// When the cluster began, and its first thread's number.
    start: u32,
    first_thread: usize,
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

/// Who has seen what of a launch. The cluster's threads have numbers from `first_thread` on.
pub struct Clocks {
    /// The time, when the launch and the cluster began, and the cluster's last common barrier.
    pub now: u32,
    launch: u32,
    start: u32,
    base: u32,
    first_thread: usize,
    /// Whether other clusters take turns with this one, and its last common barrier before they did.
    has_company: bool,
    base_alone: u32,
    seen: Vec<Seen>,
    /// Each thread's last fence of any scope, and of one wider than the cluster.
    fenced: [Vec<Option<Fenced>>; 2],
    has_fences: bool,
    /// Barriers and atomic words, by their key.
    published: HashMap<usize, Clock>,
    /// What other clusters have published to this one.
    foreign: Clock,
    /// When anything was last published in a way that another cluster may observe.
    last_published: u32,
}

impl Clocks {
    /// For a launch at time `now` with so many threads a cluster.
    pub fn new(now: u32, first_thread: usize, threads: usize) -> Clocks {
        let nothing = Rc::new(vec![0; threads]);
        Clocks {
            now,
            launch: now,
            start: now,
            base: now,
            first_thread,
            has_company: false,
            base_alone: now,
            seen: vec![nothing; threads],
            fenced: [vec![None; threads], vec![None; threads]],
            has_fences: false,
            published: HashMap::new(),
            foreign: Clock::default(),
            last_published: 0,
        }
    }

    /// Goes on from where another cluster's clocks are, which has had its turn.
    pub fn follow(&mut self, other: &mut Clocks) {
        (self.now, self.last_published) = (other.now, other.last_published);
        swap(&mut self.published, &mut other.published);
        (self.has_company, other.has_company) = (true, true);
    }

    /// A new cluster with barriers of these keys, and its shared memory: start and bytes.
    pub fn begin(&mut self, barriers: Range<usize>, (origin, bytes): (usize, usize), has_company: bool) {
        (self.start, self.base, self.base_alone) = (self.now, self.now, self.now);
        self.has_company = has_company;
        self.now += 1;
        self.foreign = Clock::default();
        // What a cluster's own threads know of each other ends with it; what they published stays.
        if self.has_fences {
            self.fenced.iter_mut().for_each(|fenced| fenced.fill(None));
            self.has_fences = false;
        }
        if !self.published.is_empty() {
            let is_own = |key: usize| key.wrapping_sub(origin) < bytes.max(1) || barriers.contains(&key);
            self.published.retain(|&key, _| !is_own(key));
        }
    }

    /// Whether an access is known at a glance to be before this launch, or before the cluster's last common barrier.
    #[inline(always)]
    pub fn is_ordered(&self, record: Record) -> bool {
        let stamp = record.stamp();
        (stamp <= self.launch) | (stamp.wrapping_sub(self.start + 1) < self.base_alone - self.start)
    }

    /// Whether it is before this launch, or before the cluster's last common barrier.
    pub fn is_before_barrier(&self, record: Record) -> bool {
        self.is_ordered(record) || !self.is_foreign(record) && record.stamp() <= self.base
    }

    /// Whether an access is another cluster's of this launch.
    #[inline(always)]
    pub fn is_foreign(&self, record: Record) -> bool {
        let is_other = self.has_company && record.thread().wrapping_sub(self.first_thread) >= self.seen.len();
        record.stamp() > self.launch && (record.stamp() <= self.start || is_other)
    }

    /// Whether nothing needs to be asked about an access: it is ordered, or the thread's own.
    #[inline(always)]
    pub fn is_free(&self, record: Record, thread: usize) -> bool {
        self.is_ordered(record) | (record.stamp() > self.start) & (record.thread() == thread)
    }

    /// Whether nobody will ever be ordered after an access: its cluster has ended, and has published nothing since.
    #[inline(always)]
    pub fn is_secret(&self, record: Record) -> bool {
        let stamp = record.stamp();
        !self.has_company & (stamp > self.launch) & (stamp <= self.start) & (stamp >= self.last_published)
    }

    /// The number of the cluster's first thread.
    pub fn first_thread(&self) -> usize {
        self.first_thread
    }

    /// The cluster's last common barrier before it had company.
    #[inline(always)]
    pub fn base_alone(&self) -> u32 {
        self.base_alone
    }

    /// Whether an access is before this launch.
    #[inline(always)]
    pub fn is_of_earlier_launch(&self, record: Record) -> bool {
        record.stamp() <= self.launch
    }

    /// Whether an access is ordered before what the thread does now.
    pub fn has_seen(&self, thread: usize, record: Record) -> bool {
        if self.is_free(record, thread) {
            return true;
        }
        let (stamp, first) = (record.stamp(), self.first_thread);
        if !self.is_foreign(record) {
            return stamp <= self.base || self.seen[thread - first][record.thread() - first] >= stamp;
        }
        // Of the clusters that had begun, the last one with this thread.
        let next = self.foreign.partition_point(|published| published.start < stamp);
        let own = |published: &&Rc<Published>| published.of(record.thread()).is_some();
        self.foreign[..next].iter().rev().find(own).and_then(|all| all.of(record.thread())) >= Some(stamp)
    }

    /// Whether it is ordered before what each of a warp's lanes does now.
    #[inline(always)]
    pub fn have_seen(&self, first_thread: usize, mask: u32, record: Record) -> bool {
        self.is_ordered(record) || self.have_all_seen(first_thread, mask, record)
    }

    #[inline(never)]
    fn have_all_seen(&self, first_thread: usize, mask: u32, record: Record) -> bool {
        let mut last: Option<&Seen> = None;
        lanes_of(mask).map(|lane| first_thread + lane).all(|thread| {
            // Lanes that have seen the same need not be asked again, but for an access that is the first one's own.
            let seen = &self.seen[thread - self.first_thread];
            let is_alike = last.is_some_and(|last| Rc::ptr_eq(last, seen));
            if record.thread() != thread {
                last = Some(seen);
            }
            is_alike || self.has_seen(thread, record)
        })
    }

    /// Of the lanes of a warp that made an access together, those whose access nothing orders before what the thread does now.
    #[inline(always)]
    pub fn unseen(&self, thread: usize, record: Record, lanes: u32) -> u32 {
        let (stamp, first) = (record.stamp(), self.first_thread);
        if lanes == 0 || self.is_ordered(record) {
            return 0;
        }
        if self.is_foreign(record) {
            let is_unseen = |&lane: &usize| !self.has_seen(thread, record.of_lane(lane));
            return lanes_of(lanes).filter(is_unseen).fold(0, |mask, lane| mask | 1 << lane);
        }
        if stamp <= self.base {
            return 0;
        }
        let start = record.of_lane(0).thread() - first;
        let Some(seen) = self.seen[thread - first].get(start..start + LANES) else { return 0 };
        if seen.iter().fold(true, |all, &seen| all & (seen >= stamp)) {
            return 0;
        }
        let own = (thread - first).wrapping_sub(start);
        let own = if own < LANES { 1 << own } else { 0 };
        let (mut left, mut unseen) = (lanes & !own, 0);
        while left != 0 {
            let lane = left.trailing_zeros() as usize & 31;
            unseen |= u32::from(seen[lane] < stamp) << lane;
            left &= left - 1;
        }
        unseen
    }

    /// Every thread that is left has come to one barrier: all is ordered.
    pub fn join_all(&mut self) {
        self.base = self.now;
        if !self.has_company {
            self.base_alone = self.base;
        }
        self.now += 1;
    }

    /// The lanes of a warp publish all they have done and seen at `key`.
    pub fn publish(&mut self, key: usize, first_thread: usize, mask: u32) {
        let first = first_thread - self.first_thread;
        let mut left = mask;
        while left != 0 {
            // Lanes that have seen the same do it at once.
            let seen = self.seen[first + left.trailing_zeros() as usize].clone();
            let same = |&lane: &usize| Rc::ptr_eq(&self.seen[first + lane], &seen);
            let same = lanes_of(left).filter(same).fold(0, |mask, lane| mask | 1 << lane);
            self.publish_as(key, first, same, &Fenced { base: self.base, own: self.now, seen });
            left &= !same;
        }
        self.now += 1;
    }

    /// The same of lanes of a warp that know the same, whose lane 0 has this place in the cluster.
    fn publish_as(&mut self, key: usize, first: usize, mask: u32, known: &Fenced) {
        let clock = self.published.entry(key).or_default();
        let place = |clock: &Clock| clock.binary_search_by_key(&self.start, |published| published.start);
        let at = place(clock).unwrap_or_else(|_| {
            // All that the cluster has seen of others goes with it.
            if !Rc::ptr_eq(clock, &self.foreign) {
                *clock = merged(clock, &self.foreign);
            }
            let at = place(clock).unwrap_or_else(|at| at);
            let seen = vec![0; self.seen.len()];
            let own = Published { start: self.start, first_thread: self.first_thread, seen };
            Rc::make_mut(clock).insert(at, Rc::new(own));
            at
        });
        let own = Rc::make_mut(&mut Rc::make_mut(clock)[at]);
        for (published, seen) in own.seen.iter_mut().zip(known.seen.iter()) {
            *published = (*published).max(*seen).max(known.base);
        }
        for lane in lanes_of(mask) {
            own.seen[first + lane] = own.seen[first + lane].max(known.own);
        }
    }

    /// The lanes of a warp see what has been published at `key`.
    pub fn observe(&mut self, key: usize, first_thread: usize, mask: u32) {
        let Some(clock) = self.published.get(&key).cloned() else { return };
        let own = clock.binary_search_by_key(&self.start, |published| published.start).ok();
        if clock.len() > own.is_some() as usize && !Rc::ptr_eq(&clock, &self.foreign) {
            let mut others = clock.clone();
            if let Some(own) = own {
                Rc::make_mut(&mut others).remove(own);
            }
            self.foreign = if self.foreign.is_empty() { others } else { merged(&self.foreign, &others) };
        }
        let Some(own) = own.map(|own| &clock[own]) else { return };
        let mut last: Option<(Seen, Seen)> = None;
        let first = first_thread - self.first_thread;
        for lane in lanes_of(mask) {
            let seen = &mut self.seen[first + lane];
            if last.as_ref().is_none_or(|(before, _)| !Rc::ptr_eq(before, seen)) {
                let joined = seen.iter().zip(&own.seen).map(|(a, b)| *a.max(b)).collect();
                last = Some((seen.clone(), Rc::new(joined)));
            }
            if let Some((_, after)) = &last {
                *seen = after.clone();
            }
        }
        self.now += 1;
    }

    /// Whether an access is among what is known of the cluster's threads, or before all of it.
    pub fn is_known(&self, known: &[u32], record: Record) -> bool {
        let is_before = self.is_before_barrier(record) || self.is_foreign(record);
        is_before || known[record.thread() - self.first_thread] >= record.stamp()
    }

    /// Adds what the lanes of a warp have done and seen to what is `known`, thread by thread.
    pub fn learn(&mut self, known: &mut Vec<u32>, first_thread: usize, mask: u32) {
        known.resize(self.seen.len(), 0);
        let mut last: Option<&Seen> = None;
        for lane in lanes_of(mask) {
            let thread = first_thread + lane - self.first_thread;
            let seen = &self.seen[thread];
            if last.is_none_or(|last| !Rc::ptr_eq(last, seen)) {
                known.iter_mut().zip(seen.iter()).for_each(|(known, seen)| *known = (*known).max(*seen));
                last = Some(seen);
            }
            known[thread] = self.now;
        }
        self.now += 1;
    }

    /// A thread has seen what is `known`, and no more; the time from now on.
    pub fn know(&mut self, thread: usize, known: &[u32]) -> u32 {
        self.seen[thread - self.first_thread] = Rc::new(known.to_vec());
        self.now += 1;
        self.now
    }

    /// The time, which goes on.
    pub fn pass(&mut self) -> u32 {
        self.now += 1;
        self.now - 1
    }

    /// The lanes of a warp see what a thread has done up to a time.
    pub fn see(&mut self, first_thread: usize, mask: u32, thread: usize, stamp: u32) {
        let place = thread - self.first_thread;
        let mut last: Option<(Seen, Seen)> = None;
        for lane in lanes_of(mask) {
            let seen = &mut self.seen[first_thread + lane - self.first_thread];
            if last.as_ref().is_none_or(|(before, _)| !Rc::ptr_eq(before, seen)) {
                let mut after = (**seen).clone();
                after[place] = after[place].max(stamp);
                last = Some((seen.clone(), Rc::new(after)));
            }
            if let Some((_, after)) = &last {
                *seen = after.clone();
            }
        }
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
            let thread = first_thread + lane - self.first_thread;
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
        let thread = thread - self.first_thread;
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
            self.last_published = self.now;
            self.publish_as(key, thread, 1, &Fenced { base: 0, own, seen: Rc::new(published) });
        }
    }
}

impl Published {
    /// Up to where a thread's accesses are published, by its number, if it is the cluster's.
    fn of(&self, thread: usize) -> Option<u32> {
        self.seen.get(thread.wrapping_sub(self.first_thread)).copied()
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
