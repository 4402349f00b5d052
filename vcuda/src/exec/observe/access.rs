//! Accesses of memory. Before each load, store and atomic of a module that is loaded into watched memory stands a
//! [`Check`] of the same address, which now and then lets another warp go first.
//!
//! An operation that touches memory in a way of its own calls [`Warp::access`] (a matrix load) or [`Warp::touch`]
//! (an asynchronous copy) for each of its accesses, with the host pointer that [`Warp::pointer`] gave it. Both cost
//! next to nothing where no checks are asked for.

use std::cell::RefCell;

use crate::exec::access::{Together, pointers, together};
use crate::exec::check::{Access, KINDS, Kind, Place, Span, Trouble, Watch};
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::{GENERIC, GLOBAL, LOCAL, SHARED32, SHARED64, space};
use crate::exec::warp::Warp;

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
        let bytes = op.b.into();
        // SAFETY: the decoder gave the address a slot.
        let found = unsafe { together(warp, op, bytes) };
        let span = match found.as_ref().map(|found| (found, found.row(bytes))) {
            Some((_, Some(first))) => Span::every(first, bytes, bytes),
            Some((&Together::One(place), _)) => Span::every(place, bytes, 0),
            _ => {
                // SAFETY: as above.
                let Some(at) = (unsafe { pointers(warp, op, bytes) }) else { return Flow::Fault };
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
        if place == Place::Shared
            && warp.cta.kernel.is_asynchronous
            && let Some((lane, objection)) = warp.meet_copies(&span, kind)
        {
            return warp.fail_lane(lane, FaultKind::Asynchrony, objection);
        }
        let first_thread = warp.first_thread();
        let access = Access { span: &span, place, kind, first_thread, pc: warp.pc, line: op.line };
        match examine(warp, &access, op.e) {
            None if kind.is_strong() => {
                watch.borrow_mut().strong(&span, first_thread, kind, place == Place::Shared, op.c);
                Flow::Next
            }
            None => Flow::Next,
            Some(trouble) => warp.fail_for(&access, &trouble),
        }
    }
}

/// The same for lanes whose addresses lead to different memories.
#[cold]
#[inline(never)]
fn apart(warp: &mut Warp, span: &Span, kind: Kind) -> Flow {
    for lane in lanes_of(span.mask) {
        if warp.access(lane, span.at[lane] as *const u8, span.bytes, kind).is_none() {
            return Flow::Fault;
        }
    }
    Flow::Next
}

/// What is wrong with an access by the warp, or for it; `elements` as [`Check`] has it.
#[inline(always)]
fn examine(warp: &Warp, access: &Access, elements: u16) -> Option<Trouble> {
    let watch = &mut *warp.cta.watch.borrow_mut();
    watch.access(warp.cta.memory, access, |a, b| warp.stores_same(a, b, elements))
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

    /// The same of lanes that go where they will in shared memory.
    pub fn access_shared(&mut self, span: &Span, kind: Kind) -> Option<()> {
        if self.cta.kernel.is_asynchronous
            && let Some((lane, objection)) = self.meet_copies(span, kind)
        {
            return self.unless(lane, Some(objection));
        }
        if !self.cta.memory.is_watched() {
            return Some(());
        }
        self.touch_span(span, kind)
    }

    /// The same of what an asynchronous copy or an mbarrier accesses, which looks itself at the copies under way.
    #[inline(always)]
    pub fn touch(&mut self, lane: usize, at: *const u8, bytes: usize, kind: Kind) -> Option<()> {
        if !self.cta.memory.is_watched() || bytes == 0 {
            return Some(());
        }
        self.touch_watched(1 << lane, at as usize, bytes, kind)
    }

    /// The same of lanes that access one place, where the memory is watched.
    #[inline(never)]
    pub fn touch_watched(&mut self, lanes: u32, at: usize, bytes: usize, kind: Kind) -> Option<()> {
        self.touch_span(&Span::at_one(at, bytes, lanes), kind)
    }

    /// An access that is not `ld`'s or `st`'s, in one memory.
    fn touch_span(&mut self, span: &Span, kind: Kind) -> Option<()> {
        if kind.writes() {
            self.probe_change();
        }
        let (pc, place, first_thread) = (self.pc, self.place(span.at[0]), self.first_thread());
        let line = self.cta.kernel.ops.get(pc).map_or(0, |op| op.line);
        let access = Access { span, place, kind, first_thread, pc, line };
        match examine(self, &access, 0) {
            None => Some(()),
            Some(trouble) => {
                self.fail_for(&access, &trouble);
                None
            }
        }
    }

    /// The number of lane 0 among the threads that take turns.
    pub(super) fn first_thread(&self) -> usize {
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

    /// Where a host pointer leads.
    pub(super) fn place(&self, at: usize) -> Place {
        let cta = self.cta;
        let inside = |(start, bytes): (usize, usize)| at.wrapping_sub(start) < bytes;
        match () {
            () if inside(cta.cluster.shared_range()) => Place::Shared,
            () if cta.memory.owns(at as u64) => Place::Global,
            () if inside((self.local as usize, cta.kernel.local_bytes_per_thread * LANES)) => Place::Local,
            () => Place::Other,
        }
    }

    /// Tells the probe, if there is one, of the access that comes next.
    #[cold]
    #[inline(never)]
    fn probe(&mut self, span: &Span, kind: Kind) {
        let watch = &mut *self.cta.watch.borrow_mut();
        let Some(probe) = &mut watch.probe else { return };
        if kind.writes() {
            probe.expect(span);
        }
        if kind.reads() {
            self.polled = Some((span.at[span.mask.trailing_zeros() as usize & 31], self.pc));
        }
    }

    /// Something that is no access of the memory has changed.
    #[cold]
    pub fn probe_change(&self) {
        if let Some(probe) = &mut self.cta.watch.borrow_mut().probe {
            probe.change();
        }
    }
}
