//! Allocations of device memory, and the rows that copies and fills are made of, all checked against what is live.

use super::allocation::{self, Allocation, Kind};
use super::context::device;
use super::device::{Device, devices};
use super::{graph_memory, pool};
use crate::api::error::{Outcome, Status};
use crate::memory::Reach;

/// A new allocation of this kind, if there is room.
pub fn allocate(bytes: usize, kind: Kind, device: &Device) -> Option<u64> {
    let new = device.memory.alloc(bytes)?;
    if kind == Kind::Managed {
        device.memory.set_reach(new, Reach::Devices(u32::MAX));
    }
    allocation::add(new, bytes, kind, device);
    Some(new)
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
