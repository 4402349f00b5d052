//! Instructions on clusters: CTAs that run together and reach each other's shared memory, PTX ISA 9.7.13.4.

use super::control::ARRIVE;
use super::fault::FaultKind;
use super::op::{Body, Flow, Op};
use super::registers::LANES;
use super::warp::Warp;

macro_rules! mapping {
    ($mapa:ident, $rank:ident, $word:ty) => {
        /// `mapa`: the address `a` as it is in the CTA of rank `b`.
        pub struct $mapa;
        impl Body for $mapa {
            #[inline(always)]
            unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
                // SAFETY: the decoder gave every operand a slot of its width.
                unsafe {
                    let (a, b): ([$word; LANES], [u32; LANES]) = (warp.lanes(op.a), warp.lanes(op.b));
                    let mut out = [0; LANES];
                    for lane in 0..LANES {
                        out[lane] = warp.cta.mapped(a[lane].into(), b[lane].into()) as $word;
                    }
                    warp.set_lanes(op.d, out);
                }
                Flow::Next
            }
        }

        /// `getctarank`: of the CTA that address `a` is in.
        pub struct $rank;
        impl Body for $rank {
            #[inline(always)]
            unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
                // SAFETY: as above.
                unsafe {
                    let a: [$word; LANES] = warp.lanes(op.a);
                    let mut out = [0; LANES];
                    for lane in 0..LANES {
                        out[lane] = warp.cta.rank_of(a[lane].into()) as u32;
                    }
                    warp.set_lanes(op.d, out);
                }
                Flow::Next
            }
        }
    };
}
mapping!(Mapa32, Rank32, u32);
mapping!(Mapa64, Rank64, u64);

/// `barrier.cluster.arrive` (`imm` is [`ARRIVE`]) and `.wait`. Every lane arrives and waits in turn.
pub struct ClusterBarrier;
impl Body for ClusterBarrier {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let wrong = match op.imm {
            ARRIVE => warp.mask & warp.cluster_owed,
            _ => warp.mask & !warp.cluster_owed,
        };
        if wrong != 0 {
            let message = match op.imm {
                ARRIVE => "barrier.cluster.arrive a second time without a wait between",
                _ => "barrier.cluster.wait without an arrive before it",
            };
            let lane = wrong.trailing_zeros() as usize;
            return warp.fail_lane(lane, FaultKind::Sync, message.to_string());
        }
        warp.cluster_owed ^= warp.mask;
        if op.imm != ARRIVE && warp.mask & warp.cluster_arrived == 0 {
            warp.meet_cluster(false, warp.mask);
            return Flow::Next; // the phase is over already
        }
        Flow::ClusterBarrier
    }
}
