//! Allocation, copies and fills, all checked against the live allocations.

use std::ffi::c_void;

use super::{Outcome, Status, context, device, export, put};

type Stream = *mut c_void;
/// The one memory pool.
static POOL: u8 = 0;

export! {
    cuMemAlloc_v2(address: *mut u64, bytes: usize) { alloc(address, bytes) }
    cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: Stream) { alloc(address, bytes) }
    cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, _pool: *mut c_void, _stream: Stream) { alloc(address, bytes) }
    cuMemAllocManaged(address: *mut u64, bytes: usize, _flags: u32) { alloc(address, bytes) }
    cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, _element: u32) {
        let row = width.checked_next_multiple_of(512).ok_or(Status::OutOfMemory)?;
        alloc(address, row.checked_mul(height).ok_or(Status::OutOfMemory)?)?;
        // SAFETY: the caller's.
        unsafe { put(pitch, row) }
    }
    cuMemFree_v2(address: u64) { free(address) }
    cuMemFreeAsync(address: u64, _stream: Stream) { free(address) }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        context::require()?;
        let (free_bytes, total_bytes) = device().memory.info();
        // SAFETY: the caller's.
        unsafe {
            put(free, free_bytes)?;
            put(total, total_bytes)
        }
    }
    cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) {
        let (start, end) = device().memory.range_of(address).ok_or(Status::NotFound)?;
        // SAFETY: the caller's; either may be null.
        unsafe {
            if !base.is_null() {
                put(base, start)?;
            }
            if !bytes.is_null() {
                put(bytes, (end - start) as usize)?;
            }
        }
        Ok(())
    }
    cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) { alloc_host(pointer, bytes) }
    cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: u32) { alloc_host(pointer, bytes) }
    cuMemFreeHost(pointer: *mut c_void) {
        // SAFETY: null, or from `alloc_host`; the caller frees it once.
        unsafe { libc::free(pointer) };
        Ok(())
    }
    cuMemHostGetDevicePointer_v2(address: *mut u64, pointer: *mut c_void, _flags: u32) {
        // SAFETY: the caller's.
        unsafe { put(address, pointer as u64) }
    }
    cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) { copy(to, from as u64, bytes, [true, false]) }
    cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, _stream: Stream) { copy(to, from as u64, bytes, [true, false]) }
    cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) { copy(to as u64, from, bytes, [false, true]) }
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, _stream: Stream) { copy(to as u64, from, bytes, [false, true]) }
    cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) { copy(to, from, bytes, [true, true]) }
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: Stream) { copy(to, from, bytes, [true, true]) }
    cuMemcpy(to: u64, from: u64, bytes: usize) { copy(to, from, bytes, [device().memory.owns(to), device().memory.owns(from)]) }
    cuMemcpyAsync(to: u64, from: u64, bytes: usize, _stream: Stream) {
        copy(to, from, bytes, [device().memory.owns(to), device().memory.owns(from)])
    }
    cuMemcpyPeerAsync(to: u64, _to_context: *mut c_void, from: u64, _from_context: *mut c_void, bytes: usize, _stream: Stream) {
        copy(to, from, bytes, [true, true])
    }
    cuMemsetD8_v2(to: u64, value: u8, count: usize) { fill(to, value, count) }
    cuMemsetD8Async(to: u64, value: u8, count: usize, _stream: Stream) { fill(to, value, count) }
    cuMemsetD16_v2(to: u64, value: u16, count: usize) { fill(to, value, count) }
    cuMemsetD16Async(to: u64, value: u16, count: usize, _stream: Stream) { fill(to, value, count) }
    cuMemsetD32_v2(to: u64, value: u32, count: usize) { fill(to, value, count) }
    cuMemsetD32Async(to: u64, value: u32, count: usize, _stream: Stream) { fill(to, value, count) }
    cuMemAdvise_v2(_address: u64, _bytes: usize, _advice: u32, _kind: i32, _id: i32) { Ok(()) }
    cuMemPrefetchAsync_v2(_address: u64, _bytes: usize, _kind: i32, _id: i32, _flags: u32, _stream: Stream) { Ok(()) }
    cuDeviceGetDefaultMemPool(pool: *mut *mut c_void, ordinal: i32) {
        super::device::check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(pool, (&raw const POOL).cast_mut().cast()) }
    }
    cuDeviceGetMemPool(pool: *mut *mut c_void, ordinal: i32) {
        super::device::check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(pool, (&raw const POOL).cast_mut().cast()) }
    }
    cuDeviceSetMemPool(ordinal: i32, _pool: *mut c_void) { super::device::check(ordinal) }
    cuMemPoolTrimTo(_pool: *mut c_void, _bytes: usize) { Ok(()) }
    cuMemPoolSetAttribute(_pool: *mut c_void, _attribute: i32, _value: *mut c_void) { Ok(()) }
}

fn alloc(address: *mut u64, bytes: usize) -> Outcome {
    context::require()?;
    if bytes == 0 {
        return Err(Status::InvalidValue);
    }
    let new = device().memory.alloc(bytes).ok_or(Status::OutOfMemory)?;
    // SAFETY: the caller's.
    unsafe { put(address, new) }
}

fn free(address: u64) -> Outcome {
    if address == 0 || device().memory.free(address) { Ok(()) } else { Err(Status::InvalidValue) }
}

fn alloc_host(pointer: *mut *mut c_void, bytes: usize) -> Outcome {
    // SAFETY: a plain allocation; null is checked.
    let memory = unsafe { libc::malloc(bytes.max(1)) };
    if memory.is_null() {
        return Err(Status::OutOfMemory);
    }
    // SAFETY: the caller's.
    unsafe { put(pointer, memory) }
}

/// Refuses a range that is not inside one live allocation.
fn inside(address: u64, bytes: usize, what: &str) -> Outcome {
    let (start, end) = device().memory.range_of(address).unwrap_or((0, 0));
    if address >= start && address < end && end - address >= bytes as u64 {
        return Ok(());
    }
    eprintln!("vcuda: {what} of {bytes} bytes at {address:#x} is not inside a live allocation");
    Err(Status::InvalidValue)
}

/// `on_device`: whether destination and source are device memory.
fn copy(to: u64, from: u64, bytes: usize, on_device: [bool; 2]) -> Outcome {
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

fn fill<T: Copy>(to: u64, value: T, count: usize) -> Outcome {
    if count == 0 {
        return Ok(());
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::InvalidValue)?;
    inside(to, bytes, "a fill")?;
    if !to.is_multiple_of(size_of::<T>() as u64) {
        return Err(Status::InvalidValue);
    }
    // SAFETY: checked just now, in size and alignment.
    unsafe { std::slice::from_raw_parts_mut(to as *mut T, count) }.fill(value);
    device().memory.mark_written(to, bytes);
    Ok(())
}
