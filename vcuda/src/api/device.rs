//! Initialisation and the device's properties: an H100's limits, or an A100's.

use std::ffi::{CStr, c_char};

use super::{Outcome, Status, device, export, put};
use crate::exec::profile::Gpu;
use crate::exec::profile::occupancy::RESERVED_SHARED_BYTES;

/// CUDA 13.0.
const DRIVER_VERSION: i32 = 13_000;
/// Where the device would be.
const BUS_ID: &[u8] = b"0000:00:00.0\0";

export! {
    cuInit(flags: u32) {
        if flags == 0 { Ok(()) } else { Err(Status::InvalidValue) }
    }
    cuDriverGetVersion(version: *mut i32) {
        // SAFETY: the caller's.
        unsafe { put(version, DRIVER_VERSION) }
    }
    cuDeviceGetCount(count: *mut i32) {
        // SAFETY: the caller's.
        unsafe { put(count, 1) }
    }
    cuDeviceGet(out: *mut i32, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(out, 0) }
    }
    cuDeviceGetName(name: *mut c_char, len: i32, ordinal: i32) {
        check(ordinal)?;
        let text = super::device::name();
        if name.is_null() || len <= 0 {
            return Err(Status::InvalidValue);
        }
        let count = text.len().min(len as usize - 1);
        // SAFETY: the caller's `len` bytes; the count leaves room for the NUL.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, count);
            name.add(count).write(0);
        }
        Ok(())
    }
    cuDeviceTotalMem_v2(bytes: *mut usize, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(bytes, device().memory.info().1) }
    }
    cuDeviceGetUuid(uuid: *mut [u8; 16], ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(uuid, *b"vcuda-virtual-00") }
    }
    cuDeviceGetUuid_v2(uuid: *mut [u8; 16], ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(uuid, *b"vcuda-virtual-00") }
    }
    cuDeviceComputeCapability(major: *mut i32, minor: *mut i32, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe {
            put(major, device().capability.0)?;
            put(minor, device().capability.1)
        }
    }
    cuDeviceGetAttribute(value: *mut i32, attribute: i32, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(value, attribute_value(attribute).ok_or(Status::InvalidValue)?) }
    }
    cuDeviceGetProperties(properties: *mut [i32; 14], ordinal: i32) {
        check(ordinal)?;
        // The members of a CUdevprop are the first attributes, in their order.
        let all = std::array::from_fn(|i| attribute_value(i as i32 + 1).unwrap_or(0));
        // SAFETY: the caller's.
        unsafe { put(properties, all) }
    }
    cuDeviceCanAccessPeer(can: *mut i32, ordinal: i32, peer: i32) {
        check(ordinal)?;
        check(peer)?;
        // SAFETY: the caller's.
        unsafe { put(can, 0) }
    }
    cuDeviceGetPCIBusId(text: *mut c_char, len: i32, ordinal: i32) {
        check(ordinal)?;
        if text.is_null() || len < BUS_ID.len() as i32 {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the caller's `len` bytes, which are enough.
        unsafe { std::ptr::copy_nonoverlapping(BUS_ID.as_ptr().cast(), text, BUS_ID.len()) };
        Ok(())
    }
    cuDeviceGetByPCIBusId(ordinal: *mut i32, text: *const c_char) {
        // SAFETY: null, or a C string of the caller's.
        if text.is_null() || unsafe { CStr::from_ptr(text) }.to_bytes_with_nul() != BUS_ID {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the caller's.
        unsafe { put(ordinal, 0) }
    }
}

pub fn check(ordinal: i32) -> Outcome {
    if ordinal == 0 { Ok(()) } else { Err(Status::InvalidDevice) }
}

fn name() -> String {
    let (major, minor) = device().capability;
    format!("vcuda virtual GPU (sm_{major}{minor}{})", if major == 9 { "a" } else { "" })
}

/// Threads of a CTA, at most.
pub const MAX_THREADS: u32 = 1024;
/// Dynamic and static shared memory without an opt-in.
pub const SHARED_BYTES: u32 = 48 * 1024;

/// Shared memory of a CTA with an opt-in.
pub fn shared_opt_in_bytes() -> u32 {
    if device().capability.0 >= 9 { 227 * 1024 } else { 163 * 1024 }
}

/// The GPU whose multiprocessors the device claims to have.
pub fn gpu() -> &'static Gpu {
    device().options.gpu
}

pub fn multiprocessors() -> i32 {
    gpu().sms as i32
}

/// `CUdevice_attribute` by number; those of features that are not here are 0.
fn attribute_value(attribute: i32) -> Option<i32> {
    let hopper = device().capability.0 >= 9;
    let limits = gpu().limits;
    Some(match attribute {
        1..=3 => MAX_THREADS as i32,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65_535,
        8 => SHARED_BYTES as i32,
        9 => 65_536,    // constant memory
        10 => 32,       // warp size
        11 => i32::MAX, // pitch
        12 | 82 => limits.registers as i32,
        13 => 1_755_000, // clock, kHz
        14 => 512,       // texture alignment
        16 => multiprocessors(),
        31 | 40 | 41 | 78 | 90 => 1, // concurrent kernels, copy engine, unified addresses, priorities, preemption
        33..=35 => 0,
        36 => 2_619_000, // memory clock, kHz
        37 => 5120,      // memory bus, bits
        38 => {
            if hopper {
                50 << 20
            } else {
                40 << 20
            }
        }
        39 => 32 * limits.warps as i32,
        75 => device().capability.0,
        76 => device().capability.1,
        81 => limits.shared_bytes as i32,
        87 => 2,
        95 => 1, // cooperative launches
        97 => shared_opt_in_bytes() as i32,
        106 => limits.ctas as i32,
        111 => RESERVED_SHARED_BYTES as i32,
        115 => 1, // memory pools
        17..=160 => 0,
        _ => return None,
    })
}
