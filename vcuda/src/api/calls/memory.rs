//! Memory of the device and of the host.

use std::ffi::c_void;

use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::allocation::{self, Kind};
use crate::api::objects::context::{self, device};
use crate::api::objects::device::Device;
use crate::api::objects::handles::StreamHandle;
use crate::api::objects::memory::{self, free};
use crate::api::objects::stream;
use crate::api::settings::settings;
use crate::api::streams::{capture, queue};

export! {
    cuMemAlloc_v2(address: *mut u64, bytes: usize) { alloc(address, bytes, Kind::Device) }
    cuMemAllocManaged(address: *mut u64, bytes: usize, _flags: u32) { alloc(address, bytes, Kind::Managed) }
    cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, _element: u32) {
        let row = width.checked_next_multiple_of(512).ok_or(Status::OutOfMemory)?;
        alloc(address, row.checked_mul(height).ok_or(Status::OutOfMemory)?, Kind::Device)?;
        // SAFETY: the caller's.
        unsafe { put(pitch, row) }
    }
    cuMemFree_v2(address: u64) {
        capture::forbid()?;
        queue::wait_for_all(); // as the API does where memory may be in use
        context::current().map_or(Ok(()), queue::outcome_of)?;
        free(address)
    }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        context::require()?;
        let (free_bytes, total_bytes) = device().memory.info();
        // SAFETY: the caller's.
        unsafe {
            put(free, free_bytes)?;
            put(total, total_bytes)
        }
    }
    cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) { alloc_host(pointer, bytes) }
    cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: u32) { alloc_host(pointer, bytes) }
    cuMemFreeHost(pointer: *mut c_void) {
        queue::wait_for_all();
        allocation::remove(pointer as u64, |kind| kind == Kind::Host).ok_or(Status::InvalidValue)?;
        // SAFETY: from `alloc_host`, and forgotten just now.
        unsafe { libc::free(pointer) };
        Ok(())
    }
    cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, _flags: u32) {
        context::require()?;
        if pointer.is_null() || bytes == 0 {
            return Err(Status::InvalidValue);
        }
        if allocation::find(pointer as u64).is_some() {
            return Err(Status::HostMemoryAlreadyRegistered);
        }
        allocation::add(pointer as u64, bytes, Kind::Registered, device());
        Ok(())
    }
    cuMemHostUnregister(pointer: *mut c_void) {
        queue::wait_for_all();
        let gone = allocation::remove(pointer as u64, |kind| kind == Kind::Registered);
        gone.map(|_| ()).ok_or(Status::HostMemoryNotRegistered)
    }
    cuMemHostGetFlags(flags: *mut u32, pointer: *mut c_void) {
        allocation::find(pointer as u64).filter(|(_, a)| !a.kind.on_device()).ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's.
        unsafe { put(flags, 0) }
    }
    cuMemHostGetDevicePointer_v2(address: *mut u64, pointer: *mut c_void, _flags: u32) {
        // SAFETY: the caller's.
        unsafe { put(address, pointer as u64) }
    }
    cuMemAdvise_v2(_address: u64, _bytes: usize, _advice: u32, _kind: i32, _id: i32) { Ok(()) }
    cuMemPrefetchAsync_v2(_address: u64, _bytes: usize, _kind: i32, _id: i32, _flags: u32, stream: StreamHandle) {
        stream::check(stream)
    }
}

fn alloc(address: *mut u64, bytes: usize, kind: Kind) -> Outcome {
    capture::forbid()?;
    context::require()?;
    if bytes == 0 {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's.
    unsafe { put(address, allocate(bytes, kind, device())?) }
}

/// A new allocation of this kind.
///
/// # Errors
/// Out of memory.
pub fn allocate(bytes: usize, kind: Kind, device: &Device) -> Result<u64, Status> {
    let mut new = memory::allocate(bytes, kind, device);
    if new.is_none() && settings().defers {
        // What is queued may free some.
        queue::drain();
        new = memory::allocate(bytes, kind, device);
    }
    new.ok_or(Status::OutOfMemory)
}

fn alloc_host(pointer: *mut *mut c_void, bytes: usize) -> Outcome {
    context::require()?;
    if pointer.is_null() || bytes == 0 {
        return Err(Status::InvalidValue);
    }
    // SAFETY: a plain allocation; null is checked.
    let memory = unsafe { libc::malloc(bytes) };
    if memory.is_null() {
        return Err(Status::OutOfMemory);
    }
    allocation::add(memory as u64, bytes, Kind::Host, device());
    // SAFETY: the caller's.
    unsafe { put(pointer, memory) }
}
