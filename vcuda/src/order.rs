//! What is ordered before what, among pieces of work on streams: vector clocks (Mattern, 1989).

use std::collections::BTreeMap;
use std::sync::Arc;

/// Of each lane (a stream, or a branch of a graph in one), how many of its pieces of work come before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock(BTreeMap<u32, u64>);

impl Clock {
    /// All that comes before the other comes before this, too.
    pub fn join(&mut self, other: &Clock) {
        for (&lane, &tick) in &other.0 {
            self.reach(lane, tick);
        }
    }

    /// So does the lane's piece of this number.
    pub fn reach(&mut self, lane: u32, tick: u64) {
        let own = self.0.entry(lane).or_default();
        *own = (*own).max(tick);
    }

    /// Whether the lane's piece of this number comes before.
    pub fn covers(&self, lane: u32, tick: u64) -> bool {
        self.0.get(&lane).is_some_and(|&own| own >= tick)
    }
}

/// A piece of work's place in the order: which of its lane's it is, and what comes before it, itself included.
#[derive(Clone, Debug)]
pub struct When {
    pub lane: u32,
    pub tick: u64,
    pub known: Arc<Clock>,
    /// Its stream, in words.
    pub stream: Arc<str>,
    /// Whether anything may be unordered with it.
    pub has_company: bool,
}

impl When {
    /// Whether it is ordered after the other.
    pub fn is_after(&self, other: &When) -> bool {
        self.known.covers(other.lane, other.tick)
    }
}

/// A place in the order: a piece of work by its number, and all that comes before it.
#[derive(Clone, Debug)]
pub struct Mark {
    pub item: u64,
    pub lane: u32,
    pub clock: Arc<Clock>,
}
