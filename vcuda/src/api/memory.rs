//! Allocation, and the rows that copies and fills are made of, all checked against the live allocations.

use std::ffi::c_void;

use super::allocation::{self, Allocation, Kind};
use super::device::{Device, devices};
use super::stream::{self, StreamHandle};
use super::{Outcome, Status, capture, context, device, export, graph_memory, pool, put, queue, settings};
use crate::memory::Reach;

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
    let mut new = device.memory.alloc(bytes);
    if new.is_none() && settings().defers {
        // What is queued may free some.
        queue::drain();
        new = device.memory.alloc(bytes);
    }
    let new = new.ok_or(Status::OutOfMemory)?;
    if kind == Kind::Managed {
        device.memory.set_reach(new, Reach::Devices(u32::MAX));
    }
    allocation::add(new, bytes, kind, device);
    Ok(new)
}

/// Frees an allocation of device memory, or null.
///
/// # Errors
/// None begins there.
pub fn free(address: u64) -> Outcome {
    if address != 0 {
        release(address, &forget(address)?);
    }
    Ok(())
}

/// An allocation of device memory is the client's no more.
///
/// # Errors
/// None begins there.
pub fn forget(address: u64) -> Result<Allocation, Status> {
    allocation::remove(address, Kind::on_device).ok_or_else(|| {
        say!(
            "memory: no allocation to free begins at {address:#x}: it is {}",
            device().memory.whereabouts(address, 0)
        );
        Status::InvalidValue
    })
}

/// Gives device memory back that is no allocation of the client's any more.
pub fn release(address: u64, allocation: &Allocation) {
    device().memory.free(address);
    match allocation.kind {
        Kind::Pool(pool) => pool::returned(pool, allocation.bytes),
        Kind::Graph => graph_memory::returned(address),
        _ => {}
    }
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

/// Refuses a range that is not inside one live allocation.
///
/// # Errors
/// It is not.
pub fn inside(address: u64, bytes: usize, what: &str) -> Outcome {
    let found = device().memory.range_anywhere(address);
    let (start, end, owner) = found.unwrap_or((0, 0, device().ordinal));
    if address >= start && address < end && end - address >= bytes as u64 {
        return Ok(());
    }
    let place = devices()[owner].memory.whereabouts(address, bytes as u64);
    say!("memory: {what} of {bytes} bytes at {address:#x} is not inside a live allocation: it is {place}");
    Err(Status::InvalidValue)
}

/// `on_device`: whether destination and source are device memory.
///
/// # Errors
/// A range that is not inside one live allocation.
pub fn copy_row(to: u64, from: u64, bytes: usize, on_device: [bool; 2]) -> Outcome {
    if bytes == 0 {
        return Ok(());
    }
    if on_device[0] {
        inside(to, bytes, "a copy to device memory")?;
    }
    if on_device[1] {
        inside(from, bytes, "a copy from device memory")?;
    }
    if to == 0 || from == 0 {
        return Err(Status::InvalidValue);
    }
    // SAFETY: device ranges are checked, host ranges are the caller's; they may overlap.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
    match on_device {
        [true, true] => device().memory.mark_copied(from, to, bytes),
        [true, false] => device().memory.mark_written(to, bytes),
        [false, _] => {}
    }
    Ok(())
}

/// # Errors
/// A fill is not aligned to its elements.
pub fn aligned(to: u64, bytes: usize) -> Outcome {
    if to.is_multiple_of(bytes as u64) {
        return Ok(());
    }
    say!("memory: a fill at {to:#x} is not aligned to its elements of {bytes} bytes");
    Err(Status::InvalidValue)
}

/// # Errors
/// A range that is not inside one live allocation, or not aligned.
pub fn fill_row<T: Copy>(to: u64, value: T, count: usize) -> Outcome {
    if count == 0 {
        return Ok(());
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::InvalidValue)?;
    inside(to, bytes, "a fill")?;
    aligned(to, size_of::<T>())?;
    // SAFETY: checked just now, in size and alignment.
    unsafe { std::slice::from_raw_parts_mut(to as *mut T, count) }.fill(value);
    device().memory.mark_written(to, bytes);
    Ok(())
}
