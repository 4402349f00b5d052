//! What a pointer points to.

use std::ffi::c_void;

use super::{export, list, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::allocation::{self, Allocation, Kind};
use crate::api::objects::context::device;

/// `CUpointer_attribute`.
const CONTEXT: u32 = 1;
const MEMORY_TYPE: u32 = 2;
const DEVICE_POINTER: u32 = 3;
const HOST_POINTER: u32 = 4;
const SYNC_MEMOPS: u32 = 6;
const BUFFER_ID: u32 = 7;
const IS_MANAGED: u32 = 8;
const DEVICE_ORDINAL: u32 = 9;
const RANGE_START: u32 = 11;
const RANGE_SIZE: u32 = 12;
const MAPPED: u32 = 13;
const ACCESS_FLAGS: u32 = 16;
const MEMPOOL_HANDLE: u32 = 17;

/// `CUmemorytype`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// What is known of an address: of the client's allocations, and of modules' variables.
fn find(address: u64) -> Option<(u64, Allocation)> {
    allocation::find(address).or_else(|| {
        let (start, end, device) = device().memory.range_anywhere(address)?;
        let bytes = (end - start) as usize;
        Some((start, Allocation { bytes, kind: Kind::Device, context: 0, device, number: 0 }))
    })
}

/// # Safety
/// `out` may be written, as much as the attribute has.
unsafe fn write(out: *mut c_void, attribute: u32, address: u64, found: (u64, Allocation)) -> Outcome {
    let (start, Allocation { bytes, kind, context, device, number }) = found;
    let on_device = kind.on_device();
    // SAFETY: the caller's.
    unsafe {
        match attribute {
            CONTEXT => put(out.cast(), context),
            MEMORY_TYPE => put(out.cast(), if on_device { DEVICE } else { HOST }),
            DEVICE_POINTER if on_device => put(out.cast(), address),
            HOST_POINTER if !on_device || kind == Kind::Managed => put(out.cast(), address),
            SYNC_MEMOPS => put(out.cast(), 0u32),
            BUFFER_ID => put(out.cast(), number),
            IS_MANAGED => put(out.cast(), u8::from(kind == Kind::Managed)),
            DEVICE_ORDINAL => put(out.cast(), device as i32),
            RANGE_START => put(out.cast(), start),
            RANGE_SIZE => put(out.cast(), bytes),
            MAPPED => put(out.cast(), 1u8),
            ACCESS_FLAGS => put(out.cast(), 3u64),
            MEMPOOL_HANDLE => put(out.cast(), if let Kind::Pool(pool) = kind { pool } else { 0 }),
            _ => Err(Status::InvalidValue),
        }
    }
}

/// Bytes of an attribute, which become 0 where an address has none.
fn size(attribute: u32) -> Result<usize, Status> {
    Ok(match attribute {
        MEMORY_TYPE | SYNC_MEMOPS | DEVICE_ORDINAL => 4,
        IS_MANAGED | MAPPED => 1,
        CONTEXT | DEVICE_POINTER | HOST_POINTER | BUFFER_ID | RANGE_START | RANGE_SIZE | ACCESS_FLAGS
        | MEMPOOL_HANDLE => 8,
        _ => return Err(Status::InvalidValue),
    })
}

export! {
    cuPointerGetAttribute(out: *mut c_void, attribute: u32, address: u64) {
        let found = find(address).ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's.
        unsafe { write(out, attribute, address, found) }
    }
    cuPointerGetAttributes(count: u32, attributes: *const u32, outs: *const *mut c_void, address: u64) {
        let (attributes, outs) = (list(attributes, count as usize)?, list(outs, count as usize)?);
        for (&attribute, &out) in attributes.iter().zip(outs) {
            let bytes = size(attribute)?;
            if out.is_null() {
                return Err(Status::InvalidValue);
            }
            // SAFETY: the caller's; what is not known of the address stays 0.
            unsafe { std::ptr::write_bytes(out.cast::<u8>(), 0, bytes) };
            if let Some(found) = find(address) {
                // SAFETY: the caller's.
                let _ = unsafe { write(out, attribute, address, found) };
            }
        }
        Ok(())
    }
    cuPointerSetAttribute(_value: *const c_void, attribute: u32, address: u64) {
        find(address).filter(|_| attribute == SYNC_MEMOPS).map(|_| ()).ok_or(Status::InvalidValue)
    }
    cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) {
        let (start, end, _) = device().memory.range_anywhere(address).ok_or(Status::NotFound)?;
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
}
