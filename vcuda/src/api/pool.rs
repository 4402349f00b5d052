//! Memory pools. What is freed goes back at once, so that a pool holds nothing but counts.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use super::allocation::Kind;
use super::graph_memory::GraphMemory;
use super::memory::{allocate, free};
use super::stream::StreamHandle;
use super::work::{Work, submit};
use super::{Outcome, Status, capture, context, device, export, put};

/// A `CUmemoryPool`.
#[derive(Default)]
pub struct Pool {
    release_threshold_bytes: AtomicU64,
    used_bytes: AtomicU64,
    used_high_bytes: AtomicU64,
    /// The three reuse attributes, which change nothing here.
    reuse: [AtomicU64; 3],
}

type Handle = *mut Pool;

static DEFAULT: Pool = Pool {
    release_threshold_bytes: AtomicU64::new(0),
    used_bytes: AtomicU64::new(0),
    used_high_bytes: AtomicU64::new(0),
    reuse: [const { AtomicU64::new(1) }; 3],
};

fn default_pool() -> Handle {
    (&raw const DEFAULT).cast_mut()
}

/// The device's pool, which plain asynchronous allocations come from.
fn current_pool() -> Handle {
    let set = device().pool.load(Ordering::Relaxed) as Handle;
    if set.is_null() { default_pool() } else { set }
}

fn live<'a>(pool: Handle) -> Result<&'a Pool, Status> {
    // SAFETY: null, the default, or made by `cuMemPoolCreate` and not destroyed, as the caller must see to.
    unsafe { pool.as_ref() }.ok_or(Status::InvalidValue)
}

/// Counts an allocation that went back.
pub fn returned(handle: usize, bytes: usize) {
    // `cuMemPoolDestroy` leaves a pool in place that has allocations.
    if let Ok(pool) = live(handle as Handle) {
        pool.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

fn alloc(address: *mut u64, bytes: usize, handle: Handle, stream: StreamHandle) -> Outcome {
    context::require()?;
    if address.is_null() || bytes == 0 {
        return Err(Status::InvalidValue);
    }
    let pool = live(handle)?;
    if capture::holds(stream)? {
        let memory = GraphMemory::new(bytes)?;
        let new = memory.address;
        submit(stream, Work::Alloc(memory))?;
        // SAFETY: the caller's.
        return unsafe { put(address, new) };
    }
    let new = allocate(bytes, Kind::Pool(handle as usize))?;
    let used = pool.used_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    pool.used_high_bytes.fetch_max(used, Ordering::Relaxed);
    // SAFETY: the caller's.
    unsafe { put(address, new) }
}

/// `CUmemPool_attribute`: reuse 1 to 3 are 32-bit, the others 64-bit.
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED: i32 = 5;
const RESERVED_HIGH: i32 = 6;
const USED: i32 = 7;
const USED_HIGH: i32 = 8;

export! {
    cuMemAllocAsync(address: *mut u64, bytes: usize, stream: StreamHandle) {
        alloc(address, bytes, current_pool(), stream)
    }
    cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: Handle, stream: StreamHandle) {
        alloc(address, bytes, pool, stream)
    }
    cuMemFreeAsync(address: u64, stream: StreamHandle) {
        context::require()?;
        match capture::holds(stream)? {
            true => submit(stream, Work::Free(GraphMemory::at(address)?)),
            false => free(address),
        }
    }
    cuMemPoolCreate(pool: *mut Handle, props: *const c_void) {
        if pool.is_null() || props.is_null() {
            return Err(Status::InvalidValue);
        }
        let new = Pool { reuse: [const { AtomicU64::new(1) }; 3], ..Pool::default() };
        // SAFETY: the caller's.
        unsafe { put(pool, Box::into_raw(Box::new(new))) }
    }
    cuMemPoolDestroy(pool: Handle) {
        let used = live(pool)?.used_bytes.load(Ordering::Relaxed);
        if pool == default_pool() {
            return Err(Status::InvalidValue);
        }
        if current_pool() == pool {
            device().pool.store(0, Ordering::Relaxed);
        }
        if used == 0 {
            // SAFETY: made by `cuMemPoolCreate`; the caller destroys it once, and nothing refers to it.
            drop(unsafe { Box::from_raw(pool) });
        }
        Ok(())
    }
    cuMemPoolTrimTo(pool: Handle, _bytes: usize) { live(pool).map(|_| ()) }
    cuMemPoolGetAttribute(pool: Handle, attribute: i32, value: *mut c_void) {
        let pool = live(pool)?;
        let found = match attribute {
            1..=3 => {
                let reuse = pool.reuse[attribute as usize - 1].load(Ordering::Relaxed);
                // SAFETY: the caller's, an int for these attributes.
                return unsafe { put(value.cast::<i32>(), reuse as i32) };
            }
            RELEASE_THRESHOLD => &pool.release_threshold_bytes,
            RESERVED | USED => &pool.used_bytes,
            RESERVED_HIGH | USED_HIGH => &pool.used_high_bytes,
            _ => return Err(Status::InvalidValue),
        };
        // SAFETY: the caller's, a 64-bit count for these attributes.
        unsafe { put(value.cast::<u64>(), found.load(Ordering::Relaxed)) }
    }
    cuMemPoolSetAttribute(pool: Handle, attribute: i32, value: *mut c_void) {
        let pool = live(pool)?;
        if value.is_null() {
            return Err(Status::InvalidValue);
        }
        if let 1..=3 = attribute {
            // SAFETY: the caller's, an int for these attributes.
            let given = unsafe { *value.cast::<i32>() };
            pool.reuse[attribute as usize - 1].store(given as u64, Ordering::Relaxed);
            return Ok(());
        }
        // SAFETY: the caller's, a 64-bit count for these attributes.
        let given = unsafe { *value.cast::<u64>() };
        match attribute {
            RELEASE_THRESHOLD => pool.release_threshold_bytes.store(given, Ordering::Relaxed),
            // High-water marks may only be reset.
            RESERVED_HIGH | USED_HIGH if given == 0 => {
                pool.used_high_bytes.store(pool.used_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            _ => return Err(Status::InvalidValue),
        }
        Ok(())
    }
    cuMemPoolSetAccess(pool: Handle, _descriptions: *const c_void, _count: usize) { live(pool).map(|_| ()) }
    cuMemPoolGetAccess(flags: *mut u32, pool: Handle, _location: *const c_void) {
        live(pool)?;
        // SAFETY: the caller's; 3 is read and write.
        unsafe { put(flags, 3) }
    }
    cuDeviceGetDefaultMemPool(pool: *mut Handle, ordinal: i32) {
        super::device::check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(pool, default_pool()) }
    }
    cuDeviceGetMemPool(pool: *mut Handle, ordinal: i32) {
        super::device::check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(pool, current_pool()) }
    }
    cuDeviceSetMemPool(ordinal: i32, pool: Handle) {
        super::device::check(ordinal)?;
        live(pool)?;
        device().pool.store(pool as usize, Ordering::Relaxed);
        Ok(())
    }
}
