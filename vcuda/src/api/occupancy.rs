//! Occupancy: how much of a kernel fits on a multiprocessor at once.

use super::device::{MAX_THREADS, gpu, multiprocessors};
use super::launch::LaunchConfig;
use super::module::{Function, FunctionHandle, function};
use super::{Outcome, Status, export, put};
use crate::exec::profile::occupancy::{self, RESERVED_SHARED_BYTES};
use crate::exec::{Launch, cluster_shape};

/// Shared memory of a CTA of so many threads.
type SharedOfThreads = unsafe extern "C" fn(i32) -> usize;
/// CTAs of a cluster, without and with the opt-in.
const PORTABLE_CLUSTER: i32 = 8;

export! {
    cuOccupancyMaxActiveBlocksPerMultiprocessor(count: *mut i32, handle: FunctionHandle, threads: i32, shared_bytes: usize) {
        // SAFETY: the caller's.
        unsafe { put(count, occupancy(function(handle)?, threads, shared_bytes)) }
    }
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: *mut i32, handle: FunctionHandle, threads: i32, shared_bytes: usize, _flags: u32,
    ) {
        // SAFETY: the caller's.
        unsafe { put(count, occupancy(function(handle)?, threads, shared_bytes)) }
    }
    cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, handle: FunctionHandle, ctas: i32, _threads: i32) {
        let per_cta = gpu().limits.shared_bytes as usize / ctas.max(1) as usize;
        let taken = RESERVED_SHARED_BYTES as usize + function(handle)?.kernel().static_shared_bytes;
        // SAFETY: the caller's.
        unsafe { put(bytes, per_cta.saturating_sub(taken)) }
    }
    cuOccupancyMaxPotentialBlockSize(
        grid: *mut i32, block: *mut i32, handle: FunctionHandle, shared_of: Option<SharedOfThreads>, shared_bytes: usize,
        limit: i32,
    ) {
        best_block(grid, block, handle, shared_of, shared_bytes, limit)
    }
    cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut i32, block: *mut i32, handle: FunctionHandle, shared_of: Option<SharedOfThreads>, shared_bytes: usize,
        limit: i32, _flags: u32,
    ) {
        best_block(grid, block, handle, shared_of, shared_bytes, limit)
    }
    cuOccupancyMaxPotentialClusterSize(ctas: *mut i32, handle: FunctionHandle, config: *const LaunchConfig) {
        // SAFETY: the caller's.
        let config = unsafe { config.as_ref() }.ok_or(Status::InvalidValue)?;
        let fits = occupancy(function(handle)?, threads_of(config.block), config.shared_bytes as usize) > 0;
        // SAFETY: the caller's.
        unsafe { put(ctas, if fits { PORTABLE_CLUSTER } else { 0 }) }
    }
    cuOccupancyMaxActiveClusters(clusters: *mut i32, handle: FunctionHandle, config: *const LaunchConfig) {
        // SAFETY: the caller's.
        let config = unsafe { config.as_ref() }.ok_or(Status::InvalidValue)?;
        let count = active_clusters(function(handle)?, &config.launch()?.0)?;
        // SAFETY: the caller's.
        unsafe { put(clusters, count.0 as i32) }
    }
}

fn threads_of(block: [u32; 3]) -> i32 {
    block.iter().map(|&n| u64::from(n)).product::<u64>().min(i32::MAX as u64) as i32
}

/// Clusters of a launch that are on the device at once, and CTAs of each.
fn active_clusters(function: &Function, launch: &Launch) -> Result<(u64, u64), Status> {
    let shape = cluster_shape(function.kernel(), launch).map_err(|what| {
        say!("{what}");
        Status::InvalidClusterSize
    })?;
    let ctas = shape.iter().map(|&n| u64::from(n)).product();
    let launch = Launch { cluster: shape, ..*launch };
    Ok((occupancy::clusters(gpu(), function.kernel(), &launch) as u64, ctas))
}

/// CTAs of a launch that are on the device at once.
///
/// # Errors
/// A cluster that is not possible.
pub fn resident_ctas(function: &Function, launch: &Launch) -> Result<u64, Status> {
    active_clusters(function, launch).map(|(clusters, ctas)| clusters * ctas)
}

/// The block size with the most threads on a multiprocessor, the largest among equals, and the CTAs of
/// it that fill the device.
fn best_block(
    grid: *mut i32,
    block: *mut i32,
    handle: FunctionHandle,
    shared_of: Option<SharedOfThreads>,
    shared_bytes: usize,
    limit: i32,
) -> Outcome {
    let function = function(handle)?;
    let most = function.kernel().max_threads_per_block.min(MAX_THREADS) as i32;
    let most = if limit > 0 { limit.min(most) } else { most };
    let (mut best, mut best_threads) = ((0, 0), 0);
    for threads in (1..=most / 32).rev().map(|warps| warps * 32) {
        // SAFETY: the client's function.
        let shared = shared_of.map_or(shared_bytes, |shared_of| unsafe { shared_of(threads) });
        let ctas = occupancy(function, threads, shared);
        if ctas * threads > best_threads {
            (best, best_threads) = ((ctas, threads), ctas * threads);
        }
    }
    // SAFETY: the caller's.
    unsafe {
        put(grid, best.0 * multiprocessors())?;
        put(block, best.1)
    }
}

/// CTAs of a multiprocessor; none where the kernel's bound on threads is passed.
fn occupancy(function: &Function, threads: i32, shared_bytes: usize) -> i32 {
    occupancy::ctas_per_sm(gpu(), function.kernel(), threads.max(1) as u32, shared_bytes) as i32
}
