//! Races between pieces of work, launches and copies, that nothing orders: each is held against all that have run before
//! and are not known to be ordered before it. Where one stream does everything this is not asked for.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::footprint::{Class, Footprint};
use super::span::{Kind, Span};
use crate::exec::registers::{LANES, lanes_of};
use crate::order::When;

/// A piece of work that has run.
#[derive(Clone)]
struct Piece {
    when: When,
    what: String,
    footprint: Footprint,
}

/// The one that runs, and those before it that nothing orders before it.
pub struct Present {
    piece: Piece,
    others: Vec<Arc<Piece>>,
}

/// An access of the present piece that nothing orders with another's: where, the stream of the one, and the other in
/// words.
pub struct Unordered {
    pub lane: usize,
    pub at: usize,
    pub stream: String,
    pub other: String,
}

/// Pieces that are remembered at most, and what they may take in all: of older ones nothing is found any more.
const MOST_PIECES: usize = 1024;
const MOST_MAPS: usize = 1 << 17;

#[derive(Default)]
pub struct Pieces {
    /// Held by the piece that runs.
    turn: Mutex<()>,
    done: Mutex<VecDeque<Arc<Piece>>>,
    present: Mutex<Option<Box<Present>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A piece of work under way, until it is dropped.
pub struct Turn<'a> {
    pieces: &'a Pieces,
    _turn: MutexGuard<'a, ()>,
}

impl Pieces {
    /// A piece of work begins: `what` it is, in words.
    pub fn begin(&self, when: &When, what: String) -> Turn<'_> {
        let turn = lock(&self.turn);
        let others = lock(&self.done).iter().filter(|piece| !when.is_after(&piece.when)).cloned().collect();
        let piece = Piece { when: when.clone(), what, footprint: Footprint::default() };
        *lock(&self.present) = Some(Box::new(Present { piece, others }));
        Turn { pieces: self, _turn: turn }
    }

    /// The present piece, for whoever runs it.
    pub fn take(&self) -> Option<Box<Present>> {
        lock(&self.present).take()
    }

    /// The same, given back.
    pub fn give(&self, present: Box<Present>) {
        *lock(&self.present) = Some(present);
    }

    /// Memory there is new: what was done there before was done with other memory.
    pub fn forget(&self, start: usize, bytes: usize) {
        let mut done = lock(&self.done);
        if done.is_empty() {
            return;
        }
        let range = start..start + bytes;
        for piece in done.iter_mut() {
            Arc::make_mut(piece).footprint.forget(&range);
        }
    }

    /// All that has run is ordered before all that is to come.
    pub fn settle(&self) {
        lock(&self.done).clear();
    }
}

impl Turn<'_> {
    /// A copy reads or writes a range.
    ///
    /// # Errors
    /// Nothing orders that and what another piece has done there, in words.
    pub fn touch(&mut self, start: usize, bytes: usize, writes: bool) -> Result<(), String> {
        let mut present = lock(&self.pieces.present);
        let Some(present) = present.as_mut().filter(|_| bytes > 0) else { return Ok(()) };
        let (range, class) = (start..start + bytes, if writes { Class::Write } else { Class::Read });
        if let Some((at, other)) = present.conflict(&range, class) {
            let Piece { what, when, .. } = &present.piece;
            return Err(format!(
                "nothing orders the {} at {at:#x} by {what} on {} and {other}",
                class.name(),
                when.stream
            ));
        }
        present.piece.footprint.add(range, class);
        Ok(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(present) = self.pieces.take() else { return };
        let mut done = lock(&self.pieces.done);
        done.push_back(Arc::new(present.piece));
        let mut maps: usize = done.iter().map(|piece| piece.footprint.weight()).sum();
        while done.len() > MOST_PIECES || maps > MOST_MAPS {
            maps -= done.pop_front().map_or(0, |piece| piece.footprint.weight());
        }
    }
}

impl Present {
    /// What another piece has done in a range that races with an access: where, and in words.
    fn conflict(&self, range: &Range<usize>, class: Class) -> Option<(usize, String)> {
        self.others.iter().rev().find_map(|other| {
            let (at, kind, line) = other.footprint.conflict(range, class)?;
            let line = if line > 0 { format!(" at PTX line {line}") } else { String::new() };
            Some((at, format!("the {} by {} on {}{line}", kind.name(), other.what, other.when.stream)))
        })
    }

    /// Accesses of global memory by a warp's lanes.
    pub(super) fn access(&mut self, span: &Span, kind: Kind, line: u32) -> Option<Unordered> {
        let class = Class::of(kind);
        let (lanes, bytes) = match () {
            () if span.contiguous => (1, LANES * span.bytes),
            () if span.uniform => (span.mask & span.mask.wrapping_neg(), span.bytes),
            () => (span.mask, span.bytes),
        };
        for lane in lanes_of(lanes) {
            let range = span.at[lane]..span.at[lane] + bytes;
            if !self.piece.footprint.mark(&range, class, line) {
                continue;
            }
            let Some((at, other)) = self.conflict(&range, class) else { continue };
            let lane = if span.contiguous { (at - span.at[0]) / span.bytes } else { lane };
            return Some(Unordered { lane, at, stream: self.piece.when.stream.to_string(), other });
        }
        None
    }
}
