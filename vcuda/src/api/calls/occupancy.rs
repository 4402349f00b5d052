//! Occupancy: how much of a kernel fits on a multiprocessor at once.

use super::launch::LaunchConfig;
use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::device::{MAX_THREADS, gpu, multiprocessors};
use crate::api::objects::module::{Function, FunctionHandle, function};
use crate::api::streams::launch::as_it_runs;
use crate::exec::profile::occupancy::{self, RESERVED_SHARED_BYTES};
use crate::exec::{MAX_CTAS, PORTABLE_CTAS};

/// Shared memory of a CTA of so many threads.
type SharedOfThreads = unsafe extern "C" fn(i32) -> usize;

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
        let function = function(handle)?;
        let fits = occupancy(function, threads_of(config.block), config.shared_bytes as usize) > 0;
        // SAFETY: the caller's.
        unsafe { put(ctas, if fits { largest_cluster(function) as i32 } else { 0 }) }
    }
    cuOccupancyMaxActiveClusters(clusters: *mut i32, handle: FunctionHandle, config: *const LaunchConfig) {
        // SAFETY: the caller's.
        let config = unsafe { config.as_ref() }.ok_or(Status::InvalidValue)?;
        let function = function(handle)?;
        let launch = as_it_runs(function, &config.launch()?.0)?;
        // SAFETY: the caller's.
        unsafe { put(clusters, occupancy::clusters(gpu(), function.kernel(), &launch) as i32) }
    }
}

fn threads_of(block: [u32; 3]) -> i32 {
    block.iter().map(|&n| u64::from(n)).product::<u64>().min(i32::MAX as u64) as i32
}

/// CTAs of the largest cluster that a kernel may have.
fn largest_cluster(function: &Function) -> u32 {
    let kernel = function.kernel();
    let most = if function.may_have_large_clusters() { MAX_CTAS } else { PORTABLE_CTAS };
    let required = kernel.cluster.map(|cluster| cluster.iter().product());
    required.unwrap_or(kernel.max_cluster_ctas).min(most)
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
