//! Memory pools. What is freed goes back at once, so that a pool holds nothing but counts.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::allocation::Kind;
use super::device::{Device, device_of, devices};
use super::graph_memory::{GraphMemory, PoolProps};
use super::memory::{allocate, forget, free, release};
use super::queue::{self, Task};
use super::stream::{self, StreamHandle};
use super::touch::Touch;
use super::work::{Work, submit};
use super::{Outcome, Status, allocation, capture, context, export, list, put, settings};
use crate::memory::Reach;
use crate::order::When;

/// A `CUmemoryPool`.
pub struct Pool {
    /// The device that it is of, and those that may access its memory: a bit each.
    ordinal: usize,
    access: AtomicU32,
    release_threshold_bytes: AtomicU64,
    used_bytes: AtomicU64,
    used_high_bytes: AtomicU64,
    /// The three reuse attributes, which change nothing here.
    reuse: [AtomicU64; 3],
}

type Handle = *mut Pool;

impl Pool {
    pub fn new(ordinal: usize) -> Pool {
        Pool {
            ordinal,
            access: AtomicU32::new(1 << ordinal),
            release_threshold_bytes: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            used_high_bytes: AtomicU64::new(0),
            reuse: [const { AtomicU64::new(1) }; 3],
        }
    }

    fn device(&self) -> &'static Device {
        &devices()[self.ordinal]
    }

    fn reach(&self) -> Reach {
        Reach::Devices(self.access.load(Ordering::Relaxed))
    }
}

fn default_pool(device: &Device) -> Handle {
    (&raw const device.default_pool).cast_mut()
}

/// The device's pool, which plain asynchronous allocations come from.
fn current_pool(device: &Device) -> Handle {
    let set = device.pool.load(Ordering::Relaxed) as Handle;
    if set.is_null() { default_pool(device) } else { set }
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
        let memory = GraphMemory::new(bytes, pool.device())?;
        let new = memory.address;
        submit(stream, Work::Alloc(memory))?;
        // SAFETY: the caller's.
        return unsafe { put(address, new) };
    }
    let new = allocate(bytes, Kind::Pool(handle as usize), pool.device())?;
    pool.device().memory.set_reach(new, pool.reach());
    touch(stream, new, bytes, "an allocation")?;
    let used = pool.used_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    pool.used_high_bytes.fetch_max(used, Ordering::Relaxed);
    // SAFETY: the caller's.
    unsafe { put(address, new) }
}

/// Has the race check know what comes and goes in a stream, if that is queued.
fn touch(stream: StreamHandle, address: u64, bytes: usize, what: &'static str) -> Outcome {
    if settings().defers {
        let task = move |when: &When| Touch::new(Some(when), what).range(address, bytes, true);
        queue::push(&stream::place(stream)?, Task::Call(Box::new(task)), &[]);
    }
    Ok(())
}

/// `CUmemAccessDesc`.
#[repr(C)]
pub struct AccessDescription {
    kind: u32,
    ordinal: i32,
    flags: u32,
}

/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: u32 = 3;

/// `CUmemPool_attribute`: reuse 1 to 3 are 32-bit, the others 64-bit.
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED: i32 = 5;
const RESERVED_HIGH: i32 = 6;
const USED: i32 = 7;
const USED_HIGH: i32 = 8;

export! {
    cuMemAllocAsync(address: *mut u64, bytes: usize, stream: StreamHandle) {
        alloc(address, bytes, current_pool(stream::place(stream)?.context.device), stream)
    }
    cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: Handle, stream: StreamHandle) {
        alloc(address, bytes, pool, stream)
    }
    cuMemFreeAsync(address: u64, stream: StreamHandle) {
        context::require()?;
        match capture::holds(stream)? {
            true => submit(stream, Work::Free(GraphMemory::at(address)?)),
            false if settings().defers && address != 0 => {
                let gone = forget(address)?;
                touch(stream, address, gone.bytes, "a free")?;
                let task = Task::Tell(Box::new(move || release(address, &gone)));
                queue::push(&stream::place(stream)?, task, &[]);
                Ok(())
            }
            false => free(address),
        }
    }
    cuMemPoolCreate(pool: *mut Handle, props: *const PoolProps) {
        // SAFETY: the caller's.
        let props = unsafe { props.as_ref() }.ok_or(Status::InvalidValue)?;
        if pool.is_null() {
            return Err(Status::InvalidValue);
        }
        let new = Pool::new(device_of(props.ordinal).map_err(|_| Status::InvalidValue)?.ordinal);
        // SAFETY: the caller's.
        unsafe { put(pool, Box::into_raw(Box::new(new))) }
    }
    cuMemPoolDestroy(pool: Handle) {
        let (used, device) = (live(pool)?.used_bytes.load(Ordering::Relaxed), live(pool)?.device());
        if pool == default_pool(device) {
            return Err(Status::InvalidValue);
        }
        if current_pool(device) == pool {
            device.pool.store(0, Ordering::Relaxed);
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
    cuMemPoolSetAccess(handle: Handle, descriptions: *const AccessDescription, count: usize) {
        let pool = live(handle)?;
        for AccessDescription { ordinal, flags, .. } in list(descriptions, count)? {
            let other = device_of(*ordinal)?.ordinal;
            match *flags {
                READ_WRITE => pool.access.fetch_or(1 << other, Ordering::Relaxed),
                // A device always has access to its own.
                0 if other != pool.ordinal => pool.access.fetch_and(!(1 << other), Ordering::Relaxed),
                _ => return Err(Status::InvalidValue),
            };
        }
        let memory = &pool.device().memory;
        allocation::of_pool(handle as usize).into_iter().for_each(|at| memory.set_reach(at, pool.reach()));
        Ok(())
    }
    cuMemPoolGetAccess(flags: *mut u32, pool: Handle, location: *const [i32; 2]) {
        // SAFETY: the caller's.
        let [_, ordinal] = *unsafe { location.as_ref() }.ok_or(Status::InvalidValue)?;
        let may = live(pool)?.access.load(Ordering::Relaxed) >> device_of(ordinal)?.ordinal & 1;
        // SAFETY: the caller's.
        unsafe { put(flags, may * READ_WRITE) }
    }
    cuDeviceGetDefaultMemPool(pool: *mut Handle, ordinal: i32) {
        // SAFETY: the caller's.
        unsafe { put(pool, default_pool(device_of(ordinal)?)) }
    }
    cuDeviceGetMemPool(pool: *mut Handle, ordinal: i32) {
        // SAFETY: the caller's.
        unsafe { put(pool, current_pool(device_of(ordinal)?)) }
    }
    cuDeviceSetMemPool(ordinal: i32, pool: Handle) {
        let device = device_of(ordinal)?;
        live(pool)?;
        device.pool.store(pool as usize, Ordering::Relaxed);
        Ok(())
    }
}
