//! `VCUDA_CHECK`: what a kernel may not do and yet gets away with.
//!
//! Before each load, store and atomic of a module that is loaded into watched memory stands a [`Check`] of
//! the same address. It asks the [`proxy`](super::asynchronous::proxy) whether a copy under way minds, [`init`] whether somebody
//! wrote what is read, and [`race`] whether anything orders the access with those of other threads; now and then it
//! lets another warp go first. What threads do to be ordered (barriers, fences, atomics) is told to [`race`] too, by
//! [`order`].
//!
//! An operation that touches memory in a way of its own calls [`Warp::access`] (a matrix load) or [`Warp::touch`]
//! (an asynchronous copy) for each of its accesses, with the host pointer that [`Warp::pointer`] gave it; a barrier
//! of its own calls [`Warp::publish`] where threads arrive and [`Warp::observe`] where they go on. Both cost
//! next to nothing where no checks are asked for.

mod cell;
mod clock;
mod footprint;
mod groups;
mod init;
mod members;
pub mod order;
pub mod pieces;
mod place;
mod probe;
mod products;
mod race;
mod reading;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::access::{Together, addresses, pointers, together};
use super::fault::FaultKind;
use super::op::{Body, Flow, Op};
use super::options::Checks;
use super::random::Random;
use super::registers::{ALL, LANES};
use super::space::{GENERIC, GLOBAL, LOCAL, SHARED32, SHARED64, space};
use super::warp::Warp;
use crate::memory::Memory;
use cell::Cells;
pub use cell::MOST_THREADS;
use clock::Clocks;
use init::Written;
use pieces::Present;
use place::Place;
pub use probe::Probe;
use race::Race;
pub use reading::Reading;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    Read,
    Write,
    /// Reads and writes at once.
    Atomic,
    /// `ld` and `st` that are relaxed, acquire, release or volatile: no race with each other or an atomic.
    StrongRead,
    StrongWrite,
}

const KINDS: [Kind; 5] = [Kind::Read, Kind::Write, Kind::Atomic, Kind::StrongRead, Kind::StrongWrite];

impl Kind {
    fn reads(self) -> bool {
        matches!(self, Kind::Read | Kind::StrongRead | Kind::Atomic)
    }

    pub fn writes(self) -> bool {
        !matches!(self, Kind::Read | Kind::StrongRead)
    }

    fn is_strong(self) -> bool {
        !matches!(self, Kind::Read | Kind::Write)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Read | Kind::StrongRead => "read",
            Kind::Write | Kind::StrongWrite => "write",
            Kind::Atomic => "atomic",
        }
    }
}

/// Addresses of the lanes in `mask`, `bytes` each.
pub struct Span {
    pub at: [usize; LANES],
    pub bytes: usize,
    pub mask: u32,
    /// One after the other, all 32.
    pub contiguous: bool,
    /// All the same, all 32.
    pub uniform: bool,
}

impl Span {
    /// Of all lanes, each `step` bytes further on.
    #[inline(always)]
    fn every(first: *mut u8, bytes: u64, step: u64) -> Span {
        let mut at = [0; LANES];
        for lane in 0..LANES {
            at[lane] = first as usize + lane * step as usize;
        }
        Span { at, bytes: bytes as usize, mask: ALL, contiguous: step != 0, uniform: step == 0 }
    }

    /// Of lanes that go where they will.
    #[inline(always)]
    fn new(host: [*mut u8; LANES], bytes: u64, mask: u32) -> Span {
        let (mut at, mut apart, mut differ) = ([0; LANES], 0, 0);
        let bytes = bytes as usize;
        for lane in 0..LANES {
            at[lane] = host[lane] as usize;
            apart |= at[lane].wrapping_sub(at[0]) ^ (lane * bytes);
            differ |= at[lane] ^ at[0];
        }
        Span { at, bytes, mask, contiguous: apart == 0 && mask == ALL, uniform: differ == 0 && mask == ALL }
    }
}

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

/// What the checks know of a group of CTAs that take turns; a host thread uses it for one group after another.
#[derive(Default)]
pub struct Watch {
    /// Of shared and of local memory.
    shared: Option<Written>,
    local: Option<Written>,
    race: Option<Race>,
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
    fn clocks(&mut self) -> Option<&mut Clocks> {
        self.race.as_mut().map(|race| &mut race.clocks)
    }

    /// Whether it is another warp's turn.
    #[inline(always)]
    fn pauses(&mut self) -> bool {
        self.credit -= 1;
        if self.credit > 0 {
            return false;
        }
        self.credit = 1 + self.random.below(MOST_CREDIT);
        true
    }
}

/// A warp's turn lasts for half as many accesses on average.
const MOST_CREDIT: u32 = 128;

/// What was found, in words that [`super::kernel::Kernel::blame`] completes; and by which lane.
pub struct Finding {
    pub lane: usize,
    pub kind: FaultKind,
    pub what: String,
}

/// A strong read that sees what was published there; a strong write that is a fence as well. In `Check`'s `c`.
pub const OBSERVES: u16 = 1 << 8;
pub const RELEASES: u16 = 1 << 9;

/// The access of `b` bytes at `a + imm` that the next operation makes: a [`Kind`] and flags in `c`; in `e` a
/// store's number of elements, and bit 8 for 64-bit ones.
pub struct Check;
impl Body for Check {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let watch: &RefCell<Watch> = warp.cta.watch;
        let mut is_probed = false;
        if warp.cta.memory.is_watched() {
            let mut watch = watch.borrow_mut();
            if watch.pauses() {
                return Flow::Pause;
            }
            is_probed = watch.probe.is_some();
        }
        // SAFETY: the decoder gave the address a slot.
        let at = unsafe { addresses(warp, op) };
        let bytes = op.b.into();
        let span = match together(warp, op, &at, bytes) {
            Some(Together::Row(first)) => Span::every(first, bytes, bytes),
            Some(Together::One(place)) => Span::every(place, bytes, 0),
            None => {
                let Some(at) = pointers(warp, op, at, bytes) else { return Flow::Fault };
                Span::new(at, bytes, warp.mask)
            }
        };
        let kind = KINDS[(op.c & 0xff) as usize];
        warp.polls |= kind.is_strong();
        if is_probed {
            warp.probe(&span, kind);
        }
        let space = space(op);
        let place = match space {
            GLOBAL => Place::Global,
            SHARED32 | SHARED64 => Place::Shared,
            // Local memory, or by `ld.param` a parameter whose address has been taken.
            _ => warp.place(span.at[warp.mask.trailing_zeros() as usize & 31]),
        };
        if space == GENERIC || space == LOCAL {
            let mut differs = place == Place::Other;
            if !span.contiguous && !span.uniform {
                for lane in 0..LANES {
                    differs |= warp.place(span.at[lane]) != place;
                }
            }
            if differs {
                return apart(warp, &span, kind);
            }
        }
        let minded = if place == Place::Shared && warp.cta.kernel.is_asynchronous {
            warp.meet_copies(&span, kind)
        } else {
            None
        };
        // No closure: it would be compiled for the plainest host.
        let finding = match minded {
            None => examine(warp, &span, place, kind, op.e, warp.first_thread()),
            finding => finding,
        };
        match finding {
            None if kind.is_strong() => {
                if let Some(clocks) = watch.borrow_mut().clocks() {
                    let is_shared = place == Place::Shared;
                    order::strong(clocks, &span, warp.first_thread(), kind, is_shared, op.c);
                }
                Flow::Next
            }
            None => Flow::Next,
            Some(finding) => warp.fail_lane(finding.lane, finding.kind, finding.what),
        }
    }
}

/// The same for lanes whose addresses lead to different memories.
#[cold]
#[inline(never)]
fn apart(warp: &mut Warp, span: &Span, kind: Kind) -> Flow {
    for lane in super::registers::lanes_of(span.mask) {
        if warp.access(lane, span.at[lane] as *const u8, span.bytes, kind).is_none() {
            return Flow::Fault;
        }
    }
    Flow::Next
}

/// What is wrong with accesses by threads from `first` on: bytes that nobody has written, and races.
#[inline(always)]
fn examine(
    warp: &Warp,
    span: &Span,
    place: Place,
    kind: Kind,
    elements: u16,
    first: usize,
) -> Option<Finding> {
    let watch = &mut *warp.cta.watch.borrow_mut();
    let memory = warp.cta.memory;
    let written = match place {
        Place::Global => Written::of(memory),
        Place::Shared => watch.shared.as_ref().map(Written::share),
        Place::Local => watch.local.as_ref().map(Written::share),
        Place::Other => None,
    };
    if let Some(written) = written {
        let unwritten = if kind.reads() { written.first_unwritten(span) } else { None };
        if let Some((lane, byte)) = unwritten {
            return Some(init::finding(warp, lane, span, byte, place));
        }
        if kind.writes() {
            written.mark(span);
        }
    }
    if place == Place::Global
        && let Some(present) = &mut watch.present
        && let Some(finding) = present.access(warp, span, kind)
    {
        return Some(finding);
    }
    let race = watch.race.as_mut()?;
    let cells = match place {
        Place::Global => Cells::of(memory)?,
        Place::Shared => race.shared_cells(),
        Place::Local | Place::Other => return None,
    };
    let same = |a: usize, b: usize| warp.stores_same(a, b, elements);
    let conflict = race.access(&cells, span, first, warp.pc, kind, same)?;
    Some(race.finding(warp, &conflict, span, kind, place == Place::Shared))
}

impl Warp<'_> {
    /// Tells the checks that a lane accesses `bytes` at a host pointer, where they are asked for, by an instruction
    /// like `ld` or `st`, whose access is the thread's own; `None` after a fault.
    #[inline(always)]
    pub fn access(&mut self, lane: usize, at: *const u8, bytes: usize, kind: Kind) -> Option<()> {
        if self.cta.kernel.is_asynchronous && self.place(at as usize) == Place::Shared {
            let objection = self.meet_copies_at(at, bytes, kind);
            self.unless(lane, objection)?;
        }
        self.touch(lane, at, bytes, kind)
    }

    /// The same of what an asynchronous copy or an mbarrier accesses, which looks itself at the copies under way.
    #[inline(always)]
    pub fn touch(&mut self, lane: usize, at: *const u8, bytes: usize, kind: Kind) -> Option<()> {
        if !self.cta.memory.is_watched() || bytes == 0 {
            return Some(());
        }
        self.touch_watched(lane, at as usize, bytes, kind)
    }

    #[inline(never)]
    fn touch_watched(&mut self, lane: usize, at: usize, bytes: usize, kind: Kind) -> Option<()> {
        if kind.writes() {
            self.probe_change();
        }
        let span = Span { at: [at; LANES], bytes, mask: 1 << lane, contiguous: false, uniform: false };
        match examine(self, &span, self.place(at), kind, 0, self.first_thread()) {
            None => Some(()),
            Some(finding) => {
                self.fail_lane(finding.lane, finding.kind, finding.what);
                None
            }
        }
    }

    /// The number of lane 0 among the threads that take turns.
    fn first_thread(&self) -> usize {
        self.cta.number as usize * self.cta.grid.threads_per_cta() + self.index as usize * LANES
    }

    /// Whether two lanes are about to store the same: the store is the next operation.
    #[cold]
    fn stores_same(&self, a: usize, b: usize, elements: u16) -> bool {
        let Some(store) = self.cta.kernel.ops.get(self.pc + 1).filter(|_| elements > 0) else { return false };
        let wide = elements >> 8 != 0;
        [store.d, store.b, store.c, store.e][..(elements & 0xff) as usize].iter().all(|&slot| {
            // SAFETY: the slots of a store, of its width.
            unsafe {
                match wide {
                    true => self.lanes::<u64>(slot)[a] == self.lanes::<u64>(slot)[b],
                    false => self.lanes::<u32>(slot)[a] == self.lanes::<u32>(slot)[b],
                }
            }
        })
    }
}
