//! What is launched, and how it is to run.

use super::profile::gpu::Gpu;

/// CTAs of a cluster at most, and those that every device with clusters has room for.
pub const MAX_CTAS: u32 = 16;
pub const PORTABLE_CTAS: u32 = 8;
/// The cluster of a launch that says nothing of one.
pub const UNSAID: [u32; 3] = [0; 3];

/// Grid, cluster, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// CTAs along each axis, or clusters where the kernel is `.blocksareclusters`.
    pub grid: [u32; 3],
    /// CTAs of a cluster along each axis; [`UNSAID`] leaves it to the kernel.
    pub cluster: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared_bytes: u32,
}

impl Launch {
    #[inline]
    pub(in crate::exec) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    #[inline]
    pub(in crate::exec) fn clusters(&self) -> usize {
        (0..3).map(|axis| (self.grid[axis] / self.cluster[axis]) as usize).product()
    }

    #[inline]
    pub fn ctas_per_cluster(&self) -> usize {
        self.cluster.iter().map(|&n| n as usize).product()
    }
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Host threads at most.
    pub threads: usize,
    /// What to look for; bounds and alignment always are.
    pub checks: Checks,
    /// Of the order of warps and CTAs, which is by number only for 0 and no [`Checks`].
    pub seed: u64,
    /// Its room for CTAs at once is the most that wait for each other in an ordinary launch.
    pub gpu: &'static Gpu,
    /// Whose sums matrix products have; fused multiply-adds in the order of k if nobody's.
    pub sums: Option<TensorCore>,
}

impl Options {
    /// Whether warps and CTAs run in an order drawn from the seed.
    #[inline]
    pub fn is_unkind(&self) -> bool {
        self.seed != 0 || self.checks != Checks::default()
    }
}

/// What `VCUDA_CHECK` asks for. Modules are decoded for it when they are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Reads of memory that nobody wrote.
    pub init: bool,
    /// Accesses by two threads that nothing orders.
    pub race: bool,
    /// Asynchronous copies and products land at the latest legal moment.
    pub asynchrony: bool,
    /// Results of approximate instructions are as wrong as the ISA allows.
    pub approx: bool,
}

impl Checks {
    /// All that look for broken rules. What they let pass gives the numbers of a run without; `approx` gives others.
    pub const ALL: Checks = Checks { init: true, race: true, asynchrony: true, approx: false };
}

/// Whose sums matrix products have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorCore {
    A100,
    H100,
}
