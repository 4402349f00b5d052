//! Memory pools, and allocations and frees in the order of a stream.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::memory::allocate;
use super::{export, list, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::allocation::{self, Kind};
use crate::api::objects::context;
use crate::api::objects::device::{Device, device_of, devices};
use crate::api::objects::graph_memory::GraphMemory;
use crate::api::objects::handles::StreamHandle;
use crate::api::objects::memory::{forget, free, release};
use crate::api::objects::pool::{Pool, PoolHandle, live};
use crate::api::objects::stream;
use crate::api::settings::settings;
use crate::api::streams::plan::Task;
use crate::api::streams::submit::submit;
use crate::api::streams::touch::Touch;
use crate::api::streams::work::Work;
use crate::api::streams::{capture, queue};
use crate::order::When;

fn owner(pool: &Pool) -> &'static Device {
    &devices()[pool.ordinal]
}

fn default_pool(device: &Device) -> PoolHandle {
    (&raw const device.default_pool).cast_mut()
}

/// The device's pool, which plain asynchronous allocations come from.
fn current_pool(device: &Device) -> PoolHandle {
    let set = device.pool.load(Ordering::Relaxed) as PoolHandle;
    if set.is_null() { default_pool(device) } else { set }
}

fn alloc(address: *mut u64, bytes: usize, handle: PoolHandle, stream: StreamHandle) -> Outcome {
    context::require()?;
    if address.is_null() || bytes == 0 {
        return Err(Status::InvalidValue);
    }
    let pool = live(handle)?;
    if capture::holds(stream)? {
        let memory = GraphMemory::new(bytes, owner(pool))?;
        let new = memory.address;
        submit(stream, Work::Alloc(memory))?;
        // SAFETY: the caller's.
        return unsafe { put(address, new) };
    }
    let new = allocate(bytes, Kind::Pool(handle as usize), owner(pool))?;
    owner(pool).memory.set_reach(new, pool.reach());
    touch(stream, new, bytes, "an allocation")?;
    pool.taken(bytes);
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

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolProps {
    pub kind: u32,
    pub handles: u32,
    pub location: u32,
    pub ordinal: i32,
    pub rest: [u64; 9],
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
    cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: PoolHandle, stream: StreamHandle) {
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
    cuMemPoolCreate(pool: *mut PoolHandle, props: *const PoolProps) {
        // SAFETY: the caller's.
        let props = unsafe { props.as_ref() }.ok_or(Status::InvalidValue)?;
        if pool.is_null() {
            return Err(Status::InvalidValue);
        }
        let new = Pool::new(device_of(props.ordinal).map_err(|_| Status::InvalidValue)?.ordinal);
        // SAFETY: the caller's.
        unsafe { put(pool, Box::into_raw(Box::new(new))) }
    }
    cuMemPoolDestroy(pool: PoolHandle) {
        let (used, device) = (live(pool)?.used_bytes.load(Ordering::Relaxed), owner(live(pool)?));
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
    cuMemPoolTrimTo(pool: PoolHandle, _bytes: usize) { live(pool).map(|_| ()) }
    cuMemPoolGetAttribute(pool: PoolHandle, attribute: i32, value: *mut c_void) {
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
    cuMemPoolSetAttribute(pool: PoolHandle, attribute: i32, value: *mut c_void) {
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
    cuMemPoolSetAccess(handle: PoolHandle, descriptions: *const AccessDescription, count: usize) {
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
        let memory = &owner(pool).memory;
        allocation::of_pool(handle as usize).into_iter().for_each(|at| memory.set_reach(at, pool.reach()));
        Ok(())
    }
    cuMemPoolGetAccess(flags: *mut u32, pool: PoolHandle, location: *const [i32; 2]) {
        // SAFETY: the caller's.
        let [_, ordinal] = *unsafe { location.as_ref() }.ok_or(Status::InvalidValue)?;
        let may = live(pool)?.access.load(Ordering::Relaxed) >> device_of(ordinal)?.ordinal & 1;
        // SAFETY: the caller's.
        unsafe { put(flags, may * READ_WRITE) }
    }
    cuDeviceGetDefaultMemPool(pool: *mut PoolHandle, ordinal: i32) {
        // SAFETY: the caller's.
        unsafe { put(pool, default_pool(device_of(ordinal)?)) }
    }
    cuDeviceGetMemPool(pool: *mut PoolHandle, ordinal: i32) {
        // SAFETY: the caller's.
        unsafe { put(pool, current_pool(device_of(ordinal)?)) }
    }
    cuDeviceSetMemPool(ordinal: i32, pool: PoolHandle) {
        let device = device_of(ordinal)?;
        live(pool)?;
        device.pool.store(pool as usize, Ordering::Relaxed);
        Ok(())
    }
}
