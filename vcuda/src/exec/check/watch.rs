//! All that the checks are told, and what they say: whoever runs a kernel calls a [`Watch`], and nothing else of theirs.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::cell::Cells;
use super::clock::Clocks;
use super::init::Written;
use super::pieces::{Present, Unordered};
use super::probe::Probe;
use super::race::{Conflict, Race};
use super::span::{Access, Place};
use crate::exec::options::Checks;
use crate::exec::random::Random;
use crate::memory::Memory;

/// A warp's turn lasts for half as many accesses on average.
const MOST_CREDIT: u32 = 128;

/// A group of CTAs that take turns, as it begins.
pub struct Beginning {
    pub seed: u64,
    /// Which of the groups it is.
    pub place: [u32; 3],
    /// Numbers of its CTAs.
    pub ctas: Range<usize>,
    /// Host addresses of its shared and local memory: start and bytes.
    pub shared: (usize, usize),
    pub local: (usize, usize),
    /// Bytes of the kernel's smallest store.
    pub granule_bytes: usize,
    /// Other groups of the host thread are under way.
    pub has_company: bool,
}

/// What is wrong with an access.
pub enum Trouble {
    /// A lane reads a byte of its access that nobody has written.
    Unwritten {
        lane: usize,
        byte: usize,
    },
    Race(Conflict),
    Pieces(Unordered),
}

/// What the checks know of a group of CTAs that take turns; a host thread uses it for one group after another.
#[derive(Default)]
pub struct Watch {
    /// Of shared and of local memory.
    shared: Option<Written>,
    local: Option<Written>,
    pub(super) race: Option<Race>,
    /// What the launch touches, where other work may be unordered with it.
    present: Option<Box<Present>>,
    random: Random,
    /// Accesses until another warp's turn.
    credit: u32,
    /// Of warps that seem to go round for ever.
    pub probe: Option<Probe>,
}

impl Watch {
    /// Watches nothing yet. The group will have `threads`, with numbers from `first_thread` on.
    pub fn new(memory: &Memory, checks: Checks, first_thread: usize, threads: usize) -> Watch {
        let mut watch = Watch::default();
        if checks.init && memory.is_watched() {
            (watch.shared, watch.local) = (Some(Written::default()), Some(Written::default()));
        }
        if checks.race && memory.is_watched() {
            watch.race = Some(Race::new(memory, first_thread, threads));
            watch.present = memory.shadow.pieces.take();
        }
        watch
    }

    /// A new group.
    pub fn begin(&mut self, group: Beginning) {
        let Beginning { seed, place, ctas, shared, local, granule_bytes, has_company } = group;
        self.random = Random::new(seed);
        self.credit = 1 + self.random.below(MOST_CREDIT);
        self.probe = None;
        if let Some(written) = &mut self.shared {
            written.begin(shared);
        }
        if let Some(written) = &mut self.local {
            written.begin(local);
        }
        if let Some(race) = &mut self.race {
            race.begin(place, ctas, shared, granule_bytes, has_company);
        }
    }

    /// Goes on from where another group has come to, whose turn it was.
    pub fn follow(&mut self, other: &mut Watch) {
        std::mem::swap(&mut self.present, &mut other.present);
        if let (Some(race), Some(other)) = (&mut self.race, &mut other.race) {
            race.follow(other);
        }
    }

    /// No races are looked for any more; whether they were.
    pub fn ignore_races(&mut self, memory: &Memory) -> bool {
        self.end(memory);
        self.race.take().is_some()
    }

    /// Nobody need write the first bytes of a CTA's shared memory: they are the system's.
    pub fn reserve(&mut self, start: usize, bytes: usize) {
        if let Some(written) = &mut self.shared {
            written.fill(start, bytes, true);
        }
    }

    /// A part of local memory is new.
    pub fn renew(&mut self, start: *const u8, bytes: usize) {
        if let Some(written) = &mut self.local {
            written.fill(start as usize, bytes, false);
        }
    }

    /// A call has copied a value from one place in local memory to another.
    pub fn carry(&mut self, from: *const u8, to: *const u8, bytes: usize) {
        if let Some(written) = &mut self.local {
            written.carry(from as usize, to as usize, bytes);
        }
    }

    /// The launch is over.
    pub fn end(&mut self, memory: &Memory) {
        if let Some(present) = self.present.take() {
            memory.shadow.pieces.give(present);
        }
        if let Some(race) = &self.race {
            memory.shadow.now.store(race.time(), Relaxed);
        }
    }

    /// What the race check knows of the order of things, if it is asked for.
    #[inline(always)]
    pub(super) fn clocks(&mut self) -> Option<&mut Clocks> {
        self.race.as_mut().map(|race| &mut race.clocks)
    }

    /// Whether it is another warp's turn.
    #[inline(always)]
    pub fn pauses(&mut self) -> bool {
        self.credit -= 1;
        if self.credit > 0 {
            return false;
        }
        self.credit = 1 + self.random.below(MOST_CREDIT);
        true
    }

    /// What is wrong with an access: bytes that nobody has written, and races. `same` says whether two lanes store the
    /// same.
    #[inline(always)]
    pub fn access(
        &mut self,
        memory: &Memory,
        access: &Access,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<Trouble> {
        let Access { span, place, kind, line, .. } = *access;
        let written = match place {
            Place::Global => Written::of(memory),
            Place::Shared => self.shared.as_ref().map(Written::share),
            Place::Local => self.local.as_ref().map(Written::share),
            Place::Other => None,
        };
        if let Some(written) = written {
            let unwritten = if kind.reads() { written.first_unwritten(span) } else { None };
            if let Some((lane, byte)) = unwritten {
                return Some(Trouble::Unwritten { lane, byte });
            }
            if kind.writes() {
                written.mark(span);
            }
        }
        if place == Place::Global
            && let Some(present) = &mut self.present
            && let Some(unordered) = present.access(span, kind, line)
        {
            return Some(Trouble::Pieces(unordered));
        }
        let race = self.race.as_mut()?;
        let cells = match place {
            Place::Global => Cells::of(memory)?,
            Place::Shared => race.shared_cells(),
            Place::Local | Place::Other => return None,
        };
        race.access(&cells, access, same).map(Trouble::Race)
    }
}
