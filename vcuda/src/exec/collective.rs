//! What lanes do together: shuffles, votes, matches, reductions (PTX ISA 9.7.9.6, 9.7.13).

use super::groups::Form;
use super::groups::Role::{Predicate, Register, Unused, Wide};
use super::meeting::{Collective, groups, mode};
use super::op::{Body, Flow, Op};
use super::registers::{ALL, LANES, NO_PRED, lanes_of};
use super::warp::Warp;

/// `shfl.sync`, mode: 0 up, 1 down, 2 bfly, 3 idx. `a` value, `b` lane, `c` clamp and segment
/// mask; predicate `e`: the source lane was in range.
pub struct Shuffle;
impl Body for Shuffle {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.c));
            if mode(op) == BUTTERFLY
                && let Some(out) = exchanged(&a, &b, &c)
            {
                warp.set_lanes(op.d, out);
                if op.e != NO_PRED {
                    warp.set_pred(op.e, ALL);
                }
                return Flow::Next;
            }
            let (mut out, mut in_range) = ([0; LANES], 0u32);
            for lane in 0..LANES as u32 {
                let (by, clamp, segment) =
                    (b[lane as usize] & 31, c[lane as usize] & 31, c[lane as usize] >> 8 & 31);
                let max_lane = lane & segment | clamp & !segment;
                let (source, valid) = match mode(op) {
                    0 => {
                        let source = lane.wrapping_sub(by);
                        (source, source as i32 >= max_lane as i32)
                    }
                    1 => (lane + by, lane + by <= max_lane),
                    2 => (lane ^ by, lane ^ by <= max_lane),
                    _ => {
                        let source = lane & segment | by & !segment;
                        (source, source <= max_lane)
                    }
                };
                out[lane as usize] = a[if valid { source & 31 } else { lane } as usize];
                in_range |= (valid as u32) << lane;
            }
            warp.set_lanes(op.d, out);
            if op.e != NO_PRED {
                warp.set_pred(op.e, in_range);
            }
        }
        Flow::Next
    }
}
impl Collective for Shuffle {
    const FORM: Form =
        Form { name: "shfl.sync", roles: |_| [Register, Register, Register, Register, Predicate] };
}

/// [`Shuffle`]'s mode `bfly`.
const BUTTERFLY: i64 = 2;

/// Of a butterfly in the whole warp, halves of equal parts exchanged; nothing of others.
#[inline(always)]
fn exchanged(a: &[u32; LANES], b: &[u32; LANES], c: &[u32; LANES]) -> Option<[u32; LANES]> {
    let mut differ = 0;
    for lane in 0..LANES {
        differ |= b[lane] ^ b[0] | c[lane] ^ (LANES as u32 - 1);
    }
    if differ != 0 {
        return None;
    }
    let mut out = [0; LANES];
    /// By a number that is known when compiled, for which hosts have vectors.
    macro_rules! by {
        ($apart:literal) => {
            for lane in 0..LANES {
                out[lane] = a[lane ^ $apart];
            }
        };
    }
    match b[0] {
        1 => by!(1),
        2 => by!(2),
        4 => by!(4),
        8 => by!(8),
        16 => by!(16),
        _ => return None,
    }
    Some(out)
}

/// Writes `value` to the lanes of `mask`.
#[inline(always)]
fn fill(out: &mut [u32; LANES], mask: u32, value: u32) {
    for (lane, out) in out.iter_mut().enumerate() {
        *out = if mask >> lane & 1 != 0 { value } else { *out };
    }
}

/// `vote.sync`, mode: 0 all, 1 any, 2 uni, 3 ballot. `a` predicate; the result goes to predicate `d`, a ballot to
/// register `d`.
pub struct Vote;
impl Body for Vote {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot or a predicate.
        unsafe {
            let (mut ballots, mut holds) = ([0; LANES], 0);
            for (members, lanes) in groups(warp, op) {
                let members = members & warp.mask;
                let yes = warp.pred(op.a) & members;
                let vote = match mode(op) {
                    0 => yes == members,
                    1 => yes != 0,
                    _ => yes == 0 || yes == members,
                };
                fill(&mut ballots, lanes, yes);
                holds |= if vote { lanes } else { 0 };
            }
            match mode(op) {
                3 => warp.set_lanes(op.d, ballots),
                _ => warp.set_pred(op.d, holds),
            }
        }
        Flow::Next
    }
}
impl Collective for Vote {
    const FORM: Form = Form {
        name: "vote.sync",
        roles: |mode| [if mode == 3 { Register } else { Predicate }, Predicate, Unused, Unused, Unused],
    };
}

/// `match.sync`: 32- or 64-bit values (mode bit 0 wide), any or all (bit 1); predicate `e` for all.
pub struct Match;
impl Body for Match {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let value: [u64; LANES] = match mode(op) & 1 {
                0 => warp.wide_lanes(op.a),
                _ => warp.lanes(op.a),
            };
            let equal = |lane: usize| {
                (0..LANES).fold(0, |mask, other| mask | ((value[other] == value[lane]) as u32) << other)
            };
            let (mut out, mut agree) = ([0; LANES], 0);
            for (members, lanes) in groups(warp, op) {
                let members = members & warp.mask;
                if mode(op) & 2 == 0 {
                    lanes_of(lanes).for_each(|lane| out[lane] = equal(lane) & members);
                } else if equal(members.trailing_zeros() as usize & 31) & members == members {
                    fill(&mut out, lanes, members);
                    agree |= lanes;
                }
            }
            warp.set_lanes(op.d, out);
            if op.e != NO_PRED {
                warp.set_pred(op.e, agree);
            }
        }
        Flow::Next
    }
}
impl Collective for Match {
    const FORM: Form = Form {
        name: "match.sync",
        roles: |mode| [Register, if mode & 1 != 0 { Wide } else { Register }, Unused, Unused, Predicate],
    };
}

/// `redux.sync`, mode: 0 add, 1 and, 2 or, 3 xor, 4 min, 5 max; and 8 where it is signed.
pub struct Redux;
impl Body for Redux {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let value: [u32; LANES] = warp.lanes(op.a);
            let combine = |a: u32, b: u32| match mode(op) {
                0 | 8 => a.wrapping_add(b),
                1 => a & b,
                2 => a | b,
                3 => a ^ b,
                4 => a.min(b),
                5 => a.max(b),
                12 => (a as i32).min(b as i32) as u32,
                _ => (a as i32).max(b as i32) as u32,
            };
            let mut out = [0; LANES];
            for (members, lanes) in groups(warp, op) {
                let values = lanes_of(members & warp.mask).map(|lane| value[lane]);
                fill(&mut out, lanes, values.reduce(combine).unwrap_or(0));
            }
            warp.set_lanes(op.d, out);
        }
        Flow::Next
    }
}
impl Collective for Redux {
    const FORM: Form = Form { name: "redux.sync", roles: |_| [Register, Register, Unused, Unused, Unused] };
}

/// `elect.sync`: predicate `e` in the lowest member, its lane in register `d`.
pub struct Elect;
impl Body for Elect {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the operands slots and a predicate.
        unsafe {
            let (mut leaders, mut elected) = ([0; LANES], 0);
            for (members, lanes) in groups(warp, op) {
                let leader = (members & warp.mask).trailing_zeros();
                fill(&mut leaders, lanes, leader);
                elected |= 1u32.checked_shl(leader).unwrap_or(0) & lanes;
            }
            warp.set_lanes(op.d, leaders);
            warp.set_pred(op.e, elected);
        }
        Flow::Next
    }
}
impl Collective for Elect {
    const FORM: Form = Form { name: "elect.sync", roles: |_| [Register, Unused, Unused, Unused, Predicate] };
}
