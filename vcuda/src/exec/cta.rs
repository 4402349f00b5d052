//! What the warps of a CTA share, and the CTAs of a cluster and of a launch (PTX ISA 3.2).
//!
//! In the cluster's shared window an offset below 2²⁴ is the CTA's own, and `(rank + 1) << 24 | offset`
//! is that of the CTA of this rank.

use std::array::from_fn;
use std::cell::{Cell, RefCell};
use std::time::Instant;

use super::check::Watch;
use super::engine::Engine;
use super::fault::{Blame, Fault};
use super::kernel::Kernel;
use super::matrix::fragment::Kept;
use super::matrix::scratch::Scratch;
use super::matrix::warpgroup::Warpgroup;
use super::options::{Checks, Launch, Options};
use super::output::Output;
use super::profile::Counters;
use super::ranges::Ranges;
use super::registers::LANES;
use super::space::SHARED_WINDOW;
use super::underway::Underway;
use crate::memory::Memory;

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
    pub underway: Underway,
}

impl Cluster {
    #[inline]
    pub fn new(launch: &Launch, number: u32, shared: *mut u8, stride_bytes: usize) -> Cluster {
        let ctas = launch.cluster.iter().product();
        let (engine, underway) = (RefCell::default(), Underway::default());
        Cluster { number, ctas, shared, stride_bytes, exited: Cell::new(0), engine, underway }
    }

    /// Its CTAs begin.
    #[inline]
    pub fn begin(&self, seed: u64, is_late: bool) {
        self.exited.set(0);
        self.engine.borrow_mut().begin(seed, is_late);
        self.underway.clear();
    }

    /// Where a host pointer is in the cluster's shared memory.
    pub fn offset(&self, host: *const u8) -> usize {
        host as usize - self.shared as usize
    }

    /// Host address and bytes of all its shared memory.
    pub fn shared_range(&self) -> (usize, usize) {
        (self.shared as usize, self.ctas as usize * self.stride_bytes)
    }

    /// From the shared memory of one CTA to the next.
    pub fn stride_bytes(&self) -> usize {
        self.stride_bytes
    }
}

/// What the warps of a CTA share.
pub struct Cta<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a Memory,
    /// The kernel's parameters, in their window of the generic addresses.
    pub params: *mut u8,
    pub shared: *mut u8,
    pub shared_bytes: usize,
    pub launch: &'a Launch,
    pub options: &'a Options,
    /// Which CTA of the grid is in this place now.
    pub index: Cell<[u32; 3]>,
    /// Its place in its cluster.
    pub rank: u32,
    /// Its place among the CTAs of a host thread.
    pub number: u32,
    pub cluster: &'a Cluster,
    pub ranges: &'a Ranges,
    pub watch: &'a RefCell<Watch>,
    pub counters: &'a RefCell<Counters>,
    pub grid: &'a Grid<'a>,
    /// Matrices that products of its warps have read last, from registers, widened.
    pub kept: RefCell<Option<Box<Kept>>>,
    /// What its warpgroups have issued, and what computing that needs.
    pub warpgroups: RefCell<Vec<Warpgroup>>,
    pub scratch: RefCell<Scratch>,
}

impl Cta<'_> {
    /// The CTA of this index begins.
    #[inline]
    pub fn begin(&self, index: [u32; 3]) {
        self.index.set(index);
        self.kept.take();
        self.warpgroups.borrow_mut().clear();
    }

    /// A fault of work that a thread has issued.
    #[cold]
    pub fn fault(&self, Blame { kind, what, origin }: Blame) -> Fault {
        Fault { kind, message: self.kernel.blame(&what, self.launch.block, origin) }
    }

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

/// A launch under way, as its CTAs see it.
pub struct Grid<'a> {
    pub kernel: &'a Kernel,
    pub launch: &'a Launch,
    /// Whether the launch, or the kernel, has said what its cluster is.
    pub is_explicit_cluster: bool,
    pub params: &'a [u8],
    /// The same, for vector loads.
    pub aligned_params: &'a [u128],
    pub memory: &'a Memory,
    pub options: &'a Options,
    /// Those of the options that this launch has.
    pub checks: Checks,
    pub start: Instant,
    pub output: Output,
    /// CTAs, along each axis, that come together: a cluster, or all of a cooperative grid.
    pub in_turn: [u32; 3],
    /// Address of a cooperative grid's, or 0.
    pub workspace: u64,
}

impl Grid<'_> {
    #[inline]
    pub fn is_cooperative(&self) -> bool {
        self.workspace != 0
    }

    /// CTAs that come together.
    #[inline]
    pub fn ctas_in_turn(&self) -> usize {
        self.in_turn.iter().map(|&n| n as usize).product()
    }

    /// A CTA's threads in whole warps, as the race check counts them: with one more for its warpgroups, if it has any.
    #[inline]
    pub fn threads_per_cta(&self) -> usize {
        let warpgroups = if self.kernel.has_products { LANES } else { 0 };
        (self.launch.threads() as usize).next_multiple_of(LANES) + warpgroups
    }

    /// The same of all CTAs that come together.
    #[inline]
    pub fn threads_in_turn(&self) -> usize {
        self.threads_per_cta() * self.ctas_in_turn()
    }

    /// Where the CTA of this number, cluster by cluster, is among those that come together.
    #[inline]
    pub fn inside(&self, number: usize) -> [u32; 3] {
        if self.in_turn == [1; 3] {
            return [0; 3];
        }
        let (cluster, ctas) = (self.launch.cluster, self.launch.ctas_per_cluster());
        let outside = at((number / ctas) as u32, from_fn(|axis| self.in_turn[axis] / cluster[axis]));
        let inside = at((number % ctas) as u32, cluster);
        from_fn(|axis| outside[axis] * cluster[axis] + inside[axis])
    }
}

/// The place of number `n` in a box, the first axis fastest.
#[inline]
pub fn at(n: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [n % x, n / x % y, n / x / y]
}
