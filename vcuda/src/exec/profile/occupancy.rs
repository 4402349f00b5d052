//! How many CTAs a multiprocessor holds at once, and how many waves a grid takes: the rules of NVIDIA's
//! occupancy calculator.

use super::gpu::Gpu;
use crate::exec::kernel::Kernel;
use crate::exec::options::Launch;

/// Registers are given to a warp in units of this.
const REGISTER_UNIT: u32 = 256;
/// Warps that share a multiprocessor's registers come in fours, one for each of its parts.
const WARP_UNIT: u32 = 4;
const SHARED_UNIT: u32 = 128;
/// Shared memory that the system takes of each CTA.
pub const RESERVED_SHARED_BYTES: u32 = 1024;

/// What a CTA needs.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub threads: u32,
    /// Of a thread.
    pub registers: u32,
    /// Static and dynamic.
    pub shared_bytes: u32,
}

/// CTAs that fit on a multiprocessor by each limit, and what follows for a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occupancy {
    pub by_warps: u32,
    pub by_registers: u32,
    pub by_shared: u32,
    pub by_slots: u32,
    /// The least of them.
    pub ctas_per_sm: u32,
    /// Resident warps, of those that there is room for.
    pub theoretical: f64,
    /// The grid over what all multiprocessors hold at once.
    pub waves: f64,
    /// Part of the last wave that is filled; 1 where it is full.
    pub tail: f64,
}

impl Occupancy {
    pub fn new(gpu: &Gpu, needs: Needs, ctas: u64) -> Occupancy {
        let limits = gpu.limits;
        let warps = needs.threads.div_ceil(32).max(1);
        let per_warp = (needs.registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
        let shared = needs.shared_bytes.saturating_add(RESERVED_SHARED_BYTES).div_ceil(SHARED_UNIT);
        let by_warps = limits.warps / warps;
        let by_registers = limits.registers / per_warp / WARP_UNIT * WARP_UNIT / warps;
        let by_shared = limits.shared_bytes / SHARED_UNIT / shared;
        let ctas_per_sm = by_warps.min(by_registers).min(by_shared).min(limits.ctas);
        let room = u64::from(gpu.sms) * u64::from(ctas_per_sm);
        let waves = if room == 0 { 0.0 } else { ctas as f64 / room as f64 };
        Occupancy {
            by_warps,
            by_registers,
            by_shared,
            by_slots: limits.ctas,
            ctas_per_sm,
            theoretical: f64::from(ctas_per_sm * warps) / f64::from(limits.warps),
            waves,
            tail: if waves.fract() == 0.0 { 1.0 } else { waves.fract() },
        }
    }

    /// The limit that is met first.
    pub fn limit(&self) -> &'static str {
        let by = [
            (self.by_warps, "threads"),
            (self.by_registers, "registers"),
            (self.by_shared, "shared memory"),
            (self.by_slots, "CTA slots"),
        ];
        by.into_iter().find(|&(ctas, _)| ctas == self.ctas_per_sm).map_or("", |(_, name)| name)
    }
}

/// Multiprocessors that a cluster is placed on together.
const CLUSTER_SMS: u32 = 16;

/// CTAs of a kernel on a multiprocessor at once; none where its bound on threads is passed.
pub fn ctas_per_sm(gpu: &Gpu, kernel: &Kernel, threads: u32, dynamic_shared_bytes: usize) -> u32 {
    if threads > kernel.max_threads_per_block {
        return 0;
    }
    let shared = kernel.static_shared_bytes.saturating_add(dynamic_shared_bytes);
    let needs = Needs {
        threads,
        registers: kernel.registers_estimate,
        shared_bytes: u32::try_from(shared).unwrap_or(u32::MAX),
    };
    Occupancy::new(gpu, needs, 1).ctas_per_sm
}

/// Clusters of a launch on the device at once.
pub fn clusters(gpu: &Gpu, kernel: &Kernel, launch: &Launch) -> usize {
    let per_sm = ctas_per_sm(gpu, kernel, launch.threads(), launch.dynamic_shared_bytes as usize);
    let clusters = match launch.ctas_per_cluster() as u32 {
        1 => per_sm * gpu.sms,
        ctas => per_sm * CLUSTER_SMS / ctas * (gpu.sms / CLUSTER_SMS),
    };
    clusters as usize
}
