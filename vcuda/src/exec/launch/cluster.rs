//! Clusters: CTAs that run together and reach each other's shared memory, PTX ISA 3.2 and 9.7.13.4.
//!
//! In the cluster's shared window an offset below 2²⁴ is the CTA's own, and `(rank + 1) << 24 | offset`
//! is that of the CTA of this rank.

use std::cell::{Cell, RefCell};

use super::run::Cta;
use crate::exec::asynchronous::engine::Engine;
use crate::exec::control::ARRIVE;
use crate::exec::fault::FaultKind;
use crate::exec::kernel::Kernel;
use crate::exec::op::{Body, Flow, Op, Warp};
use crate::exec::options::{Launch, MAX_CTAS, UNSAID};
use crate::exec::registers::LANES;
use crate::exec::space::SHARED_WINDOW;

const RANK_SHIFT: u32 = 24;
const OFFSET_MASK: u64 = (1 << RANK_SHIFT) - 1;

/// What the CTAs of a cluster share.
pub struct Cluster {
    /// Among the clusters of a host thread, as CTAs are counted there.
    pub number: u32,
    pub ctas: u32,
    /// Shared memory of the CTA of rank 0, and from one to the next.
    shared: *mut u8,
    stride_bytes: usize,
    /// Ranks, as bits, of the CTAs that have exited.
    pub exited: Cell<u32>,
    pub engine: RefCell<Engine>,
}

impl Cluster {
    pub fn new(launch: &Launch, number: u32, shared: *mut u8, stride_bytes: usize) -> Cluster {
        let ctas = launch.cluster.iter().product();
        let engine = RefCell::new(Engine::new(0));
        Cluster { number, ctas, shared, stride_bytes, exited: Cell::new(0), engine }
    }

    /// Its CTAs begin.
    pub fn begin(&self, seed: u64) {
        self.exited.set(0);
        self.engine.replace(Engine::new(seed));
    }

    /// Where a host pointer is in the cluster's shared memory.
    pub fn offset(&self, host: *const u8) -> usize {
        host as usize - self.shared as usize
    }
}

/// The launch as it runs: with the cluster that it asks for, or else the kernel's, and its grid in CTAs.
///
/// # Errors
/// A cluster other than the kernel asks for, or none where it must be said; more CTAs of one than are possible; a grid
/// that is no multiple of it.
pub fn resolve(kernel: &Kernel, launch: &Launch) -> Result<Launch, String> {
    let (name, asked) = (&kernel.name, launch.cluster);
    let cluster = match kernel.cluster {
        Some(required) if asked != UNSAID && asked != required => {
            return Err(format!("{name}: a cluster of {asked:?}; it requires {required:?}"));
        }
        Some(required) => required,
        None if asked != UNSAID => asked,
        None if kernel.needs_cluster => {
            return Err(format!("{name}: no cluster; it is .explicitcluster, whose launch must say one"));
        }
        None => [1; 3],
    };
    let ctas = cluster.iter().try_fold(1u32, |product, &n| product.checked_mul(n)).unwrap_or(u32::MAX);
    let most = kernel.max_cluster_ctas.min(MAX_CTAS);
    if ctas == 0 || ctas > most {
        return Err(format!("{name}: a cluster of {cluster:?}; at most {most} CTAs"));
    }
    let mut grid = launch.grid;
    for (n, along) in grid.iter_mut().zip(cluster) {
        if kernel.counts_clusters {
            *n = n.saturating_mul(along); // more than any grid may have
        } else if !n.is_multiple_of(along) {
            let grid = launch.grid;
            return Err(format!("{name}: a grid of {grid:?} is no multiple of its cluster {cluster:?}"));
        }
    }
    Ok(Launch { grid, cluster, ..*launch })
}

impl Cluster {
    /// Host address and bytes of all its shared memory.
    pub fn shared_range(&self) -> (usize, usize) {
        (self.shared as usize, self.ctas as usize * self.stride_bytes)
    }

    /// From the shared memory of one CTA to the next.
    pub fn stride_bytes(&self) -> usize {
        self.stride_bytes
    }
}

impl Cta<'_> {
    /// The rank of the CTA that an address of the shared window belongs to.
    pub fn rank_of(&self, address: u64) -> u64 {
        match (address & !SHARED_WINDOW) >> RANK_SHIFT {
            0 => self.rank.into(),
            rank => rank - 1,
        }
    }

    /// The host pointer of `bytes` at an address of the shared window, in whichever CTA.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn shared_at(&self, address: u64, bytes: u64) -> Result<*mut u8, String> {
        let (rank, offset) = (self.rank_of(address), address & OFFSET_MASK);
        let (size, ctas) = (self.shared_bytes as u64, u64::from(self.cluster.ctas));
        let access = || format!("a shared access of {bytes} bytes at {:#x}", address & !SHARED_WINDOW);
        if rank >= ctas {
            return Err(format!("{} is in CTA {rank} of a cluster of {ctas}", access()));
        }
        if !(offset < size && size - offset >= bytes) {
            return Err(format!("{} is outside its {size} bytes", access()));
        }
        if self.cluster.exited.get() >> rank & 1 != 0 {
            return Err(format!("{} is in CTA {rank} of the cluster, which has exited", access()));
        }
        // SAFETY: inside this CTA's part of the cluster's shared memory.
        Ok(unsafe { self.cluster.shared.add(rank as usize * self.cluster.stride_bytes + offset as usize) })
    }

    /// The same place in the CTA of another rank, or this one.
    pub fn mapped(&self, address: u64, rank: u64) -> u64 {
        let rank_bits = if rank == self.rank.into() { 0 } else { (rank + 1) << RANK_SHIFT };
        address & (SHARED_WINDOW | OFFSET_MASK) | rank_bits
    }
}

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
