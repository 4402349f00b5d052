//! Lanes that wait for others of their warp: at a collective for those that the member mask names (PTX ISA 9.7.9.6,
//! 9.7.13), at an instruction that is `.aligned` for all.
//!
//! They wait until all of those that have not exited are at an instruction of the same form with the same mask. It may
//! be another instruction, as in the two branches of a condition: the ISA asks for the same qualifiers only, and `ptxas`
//! brings the lanes together from wherever they are. Those at one instruction go on as one group, which executes it;
//! those at several execute it at once ([`super::apart`]).

use std::marker::PhantomData;

use super::fault::FaultKind;
use super::groups::{ALIGNED, Form, Group, Meeting};
use super::op::{Body, Flow, Op};
use super::registers::{ALL, LANES};
use super::warp::Warp;

/// An operation that the lanes of a member mask execute together; its mode and mask are in `Op::imm`.
pub trait Collective: Body {
    const FORM: Form;
}

const MODE: i64 = 0xff;
/// All lanes have the same mask, always.
const CONSTANT: i64 = 1 << 8;
const MASK_SHIFT: u32 = 16;

/// A collective's `Op::imm`: its mode, and the slot of its mask, which may be that of a constant.
pub fn pack(mode: i64, mask: u16, is_constant: bool) -> i64 {
    mode | if is_constant { CONSTANT } else { 0 } | i64::from(mask) << MASK_SHIFT
}

#[inline(always)]
pub fn mode(op: &Op) -> i64 {
    op.imm & MODE
}

/// The slot of the member mask.
#[inline(always)]
pub(super) fn mask_slot(op: &Op) -> u16 {
    (op.imm >> MASK_SHIFT) as u16
}

/// The member masks of a collective, each with the lanes that have it: one as a rule, but the tiles of a warp execute an
/// instruction together with a mask each.
///
/// # Safety
/// The operation is a collective.
#[inline(always)]
pub unsafe fn groups(warp: &Warp, op: &Op) -> impl Iterator<Item = (u32, u32)> {
    // SAFETY: the decoder gave the mask a slot.
    let masks: [u32; LANES] = unsafe { warp.lanes(mask_slot(op)) };
    let mut rest = warp.mask;
    std::iter::from_fn(move || {
        let mask = *masks.get(rest.trailing_zeros() as usize)?;
        let same = (0..LANES).fold(0, |same, lane| same | ((masks[lane] == mask) as u32) << lane);
        let lanes = same & rest;
        rest &= !same;
        Some((mask, lanes))
    })
}

/// A collective that waits for its members.
pub struct Together<B>(PhantomData<B>);
impl<B: Collective> Body for Together<B> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let is_whole = op.imm & CONSTANT != 0 && warp.all_here();
        // SAFETY: a collective, whose operands the decoder gave slots.
        unsafe {
            match is_whole || groups(warp, op).all(|(members, lanes)| members & !warp.dead & !lanes == 0) {
                true => B::run(warp, op),
                false => wait(warp, op, &B::FORM),
            }
        }
    }
}

/// # Safety
/// The operation is a collective.
#[cold]
#[inline(never)]
unsafe fn wait(warp: &mut Warp, op: &Op, form: &'static Form) -> Flow {
    // SAFETY: the caller's.
    let tiles: Vec<(u32, u32)> = unsafe { groups(warp, op) }.collect();
    warp.meet(&tiles, form, mode(op))
}

impl Warp<'_> {
    /// Whether every lane that has not exited is here.
    #[inline(always)]
    pub fn all_here(&self) -> bool {
        self.mask | self.dead == ALL
    }

    /// The lanes of the mask wait for all others at an instruction that is `.sync.aligned`: a fault where the guard leaves
    /// some out.
    #[cold]
    #[inline(never)]
    pub fn wait_for_all(&mut self) -> Flow {
        if self.active != self.mask {
            let lane = self.mask.trailing_zeros() as usize & 31;
            let what = format!("{}, executed by lanes {:#010x} of it", ALIGNED.name, self.mask);
            return self.fail_lane(lane, FaultKind::Sync, what);
        }
        self.meet(&[(ALL, self.mask)], &ALIGNED, self.pc as i64)
    }

    /// The lanes of the mask wait, each tile for the members of its mask; those that the guard left out go on.
    fn meet(&mut self, tiles: &[(u32, u32)], form: &'static Form, mode: i64) -> Flow {
        let (pc, stay) = (self.pc, self.active & !self.mask);
        self.active = 0;
        for &(members, lanes) in tiles {
            let meeting = Meeting { group: Group { pc, mask: lanes }, members, form, mode };
            self.meetings.push(meeting);
            self.settle(&meeting);
        }
        if stay != 0 {
            self.park(Group { pc: pc + 1, mask: stay });
        }
        if self.resume() { Flow::Jump } else { Flow::Idle }
    }

    /// The lanes that a meeting still waits for.
    fn absent(&self, meeting: &Meeting) -> u32 {
        let come = self.meetings.iter().filter(|other| other.is_with(meeting));
        meeting.members & !self.dead & !come.fold(0, |mask, other| mask | other.group.mask)
    }

    /// Lets those who wait in a meeting go on, if all have come.
    fn settle(&mut self, meeting: &Meeting) {
        if self.absent(meeting) != 0 {
            return;
        }
        let come: Vec<Meeting> = self.meetings.extract_if(.., |other| other.is_with(meeting)).collect();
        let is_apart = come.iter().any(|other| other.group.pc != meeting.group.pc);
        if is_apart {
            // SAFETY: the meetings of collectives of one form and mode; an aligned instruction's are at one place.
            unsafe { self.execute(&come) };
        }
        for Meeting { group: Group { pc, mask }, .. } in come {
            self.park(Group { pc: pc + usize::from(is_apart), mask });
        }
    }

    /// Lanes have exited: nobody waits for them any more. False after a fault, where they should not have.
    #[cold]
    #[inline(never)]
    pub fn leave(&mut self, gone: u32) -> bool {
        let left = |meeting: &&Meeting| meeting.members & gone != 0;
        for meeting in self.meetings.iter().filter(left).copied().collect::<Vec<_>>() {
            let lane = meeting.group.mask.trailing_zeros() as usize & 31;
            let what = match () {
                () if meeting.is_aligned() => {
                    format!("{}, of which lanes {gone:#010x} have exited before it", ALIGNED.name)
                }
                () if self.cta.options.checks.race => exited(meeting.members, gone),
                () => {
                    self.settle(&meeting);
                    continue;
                }
            };
            self.pc = meeting.group.pc;
            self.fail_lane(lane, FaultKind::Sync, what);
            return false;
        }
        true
    }

    /// Who waits where, and for whom.
    #[cold]
    pub fn describe_meetings(&self, warp: &str) -> Vec<String> {
        let kernel = self.cta.kernel;
        let describe = |meeting: &Meeting| {
            let Meeting { group: Group { pc, mask }, members, form, .. } = meeting;
            let (absent, line) = (self.absent(meeting), kernel.line(kernel.ops[*pc].line));
            let of = match meeting.is_aligned() {
                true => String::new(),
                false => format!(" of its member mask {members:#010x}"),
            };
            format!("{warp} lanes {mask:#010x} wait at {} for lanes {absent:#010x}{of}, {line}", form.name)
        };
        self.meetings.iter().map(describe).collect()
    }
}

/// What to say of a mask with lanes that have exited.
#[cold]
pub fn exited(members: u32, gone: u32) -> String {
    format!("its member mask {members:#010x} names lanes that have exited: {:#010x}", members & gone)
}
