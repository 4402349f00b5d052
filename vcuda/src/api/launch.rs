//! Launches: validated as the hardware would, then run to their end; and occupancy.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::device::{MAX_CTAS, MAX_SM_THREADS, MAX_THREADS, SHARED_BYTES, shared_per_sm_bytes};
use super::module::{Function, FunctionHandle, function};
use super::{Outcome, Status, context, device, export, profile, put};
use crate::exec::{FaultKind, Launch, cluster_shape, run_counted};

/// `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: *mut c_void,
    attributes: *const c_void,
    attribute_count: u32,
}

/// Marks in cuLaunchKernel's `extra`.
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;

export! {
    cuLaunchKernel(
        handle: FunctionHandle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared_bytes: u32,
        _stream: *mut c_void, params: *const *const c_void, extra: *const *const c_void,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        let launch = Launch { grid, cluster: [1; 3], block, dynamic_shared_bytes: shared_bytes };
        start(handle, launch, params, extra)
    }
    cuLaunchCooperativeKernel(
        handle: FunctionHandle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared_bytes: u32,
        _stream: *mut c_void, params: *const *const c_void,
    ) {
        // CTAs run one after another: a grid-wide barrier is for one CTA only.
        if gx as u64 * gy as u64 * gz as u64 > 1 {
            eprintln!("vcuda: cuLaunchCooperativeKernel: more than one CTA is not supported");
            return Err(Status::NotSupported);
        }
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        let launch = Launch { grid, cluster: [1; 3], block, dynamic_shared_bytes: shared_bytes };
        start(handle, launch, params, std::ptr::null())
    }
    cuLaunchKernelEx(
        config: *const LaunchConfig, handle: FunctionHandle, params: *const *const c_void, extra: *const *const c_void,
    ) {
        // SAFETY: the caller's.
        let config = unsafe { config.as_ref() }.ok_or(Status::InvalidValue)?;
        if config.attribute_count > 0 {
            eprintln!("vcuda: cuLaunchKernelEx: launch attributes are not supported");
            return Err(Status::NotSupported);
        }
        let (grid, block) = (config.grid, config.block);
        let launch = Launch { grid, cluster: [1; 3], block, dynamic_shared_bytes: config.shared_bytes };
        start(handle, launch, params, extra)
    }
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
        let per_cta = shared_per_sm_bytes() as usize / ctas.max(1) as usize;
        let available = per_cta.saturating_sub(1024 + function(handle)?.kernel().static_shared_bytes);
        // SAFETY: the caller's.
        unsafe { put(bytes, available) }
    }
}

fn start(
    handle: FunctionHandle,
    launch: Launch,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Outcome {
    context::require()?;
    let function = function(handle)?;
    let kernel = function.kernel();
    validate(function, &launch)?;
    let mut buffer = vec![0u8; kernel.param_bytes];
    if !params.is_null() {
        for (i, param) in kernel.params.iter().enumerate() {
            // SAFETY: the caller's array has a pointer for each parameter, to as many bytes as it has.
            unsafe {
                let from = *params.add(i);
                if from.is_null() {
                    return Err(Status::InvalidValue);
                }
                std::ptr::copy_nonoverlapping(from.cast(), buffer[param.offset..].as_mut_ptr(), param.size);
            }
        }
    } else if !extra.is_null() {
        // SAFETY: pairs of mark and value up to a null mark, as the caller must see to.
        unsafe {
            let (mut from, mut size, mut at) = (std::ptr::null::<u8>(), 0, extra);
            while !(*at).is_null() {
                match *at as usize {
                    BUFFER_POINTER => from = (*at.add(1)).cast(),
                    BUFFER_SIZE => size = *(*at.add(1)).cast::<usize>(),
                    _ => return Err(Status::InvalidValue),
                }
                at = at.add(2);
            }
            if from.is_null() || size < buffer.len() {
                return Err(Status::InvalidValue);
            }
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len());
        }
    } else if !kernel.params.is_empty() {
        return Err(Status::InvalidValue);
    }
    let counted = run_counted(kernel, &launch, &buffer, &device().memory, &device().options);
    counted.map(|counters| profile::record(kernel, &launch, &counters)).map_err(|fault| {
        eprintln!("vcuda: {}: {fault}", fault.kind.check());
        let status = match fault.kind {
            FaultKind::IllegalAddress => Status::IllegalAddress,
            FaultKind::MisalignedAddress => Status::MisalignedAddress,
            FaultKind::IllegalInstruction => Status::IllegalInstruction,
            FaultKind::Assert => Status::Assert,
            FaultKind::Deadlock => Status::LaunchTimeout,
            FaultKind::Uninitialised | FaultKind::Race | FaultKind::Sync | FaultKind::Asynchrony => {
                Status::LaunchFailed
            }
        };
        device().fault.store(status as i32, Ordering::Relaxed);
        status
    })
}

fn validate(function: &Function, launch: &Launch) -> Outcome {
    let kernel = function.kernel();
    let [grid, block] = [launch.grid, launch.block];
    let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
    let limits = [
        (grid[0], i32::MAX as u32),
        (grid[1], 65_535),
        (grid[2], 65_535),
        (block[0], 1024),
        (block[1], 1024),
        (block[2], 64),
    ];
    if limits.iter().any(|&(value, limit)| value == 0 || value > limit) || threads > u64::from(MAX_THREADS) {
        eprintln!("vcuda: {}: grid {grid:?} of CTAs {block:?} is not possible", kernel.name);
        return Err(Status::InvalidValue);
    }
    if threads > u64::from(kernel.max_threads_per_block) {
        eprintln!("vcuda: {}: {threads} threads; its bound is {}", kernel.name, kernel.max_threads_per_block);
        return Err(Status::InvalidValue);
    }
    cluster_shape(kernel, launch).map_err(|what| {
        eprintln!("vcuda: {what}");
        Status::InvalidClusterSize
    })?;
    let dynamic_limit = function.dynamic_shared_limit.load(Ordering::Relaxed) as usize;
    let (dynamic, fixed) = (launch.dynamic_shared_bytes as usize, kernel.static_shared_bytes);
    if dynamic > dynamic_limit || fixed > SHARED_BYTES as usize {
        eprintln!(
            "vcuda: {}: {dynamic} dynamic and {fixed} static shared bytes; {dynamic_limit} dynamic are allowed",
            kernel.name
        );
        return Err(Status::InvalidValue);
    }
    Ok(())
}

/// CTAs of a multiprocessor: bounded by threads, registers, shared memory.
fn occupancy(function: &Function, threads: i32, shared_bytes: usize) -> i32 {
    let kernel = function.kernel();
    let threads = (threads.max(1) as u32).next_multiple_of(32);
    let registers = kernel.registers_estimate.next_multiple_of(8) * threads;
    let shared = (kernel.static_shared_bytes + shared_bytes + 1024) as u32;
    let by = [MAX_CTAS, MAX_SM_THREADS / threads, 65_536 / registers.max(1), shared_per_sm_bytes() / shared];
    by.into_iter().min().unwrap_or(0) as i32
}
