//! Initialisation, and the properties of devices.

use std::ffi::{CStr, CString, c_char};

use super::{export, put};
use crate::api::error::Status;
use crate::api::objects::allocation;
use crate::api::objects::device::{
    MAX_THREADS, SHARED_BYTES, check, device_of, devices, gpu, multiprocessors, shared_opt_in_bytes,
};
use crate::api::settings::settings;
use crate::api::streams::queue;
use crate::exec::profile::occupancy::RESERVED_SHARED_BYTES;

/// Where a device would be.
fn bus_id(ordinal: usize) -> CString {
    CString::new(format!("0000:{ordinal:02x}:00.0")).unwrap_or_default()
}

/// `vcuda-virtual-00` and so on.
fn uuid(ordinal: usize) -> [u8; 16] {
    let mut uuid = *b"vcuda-virtual-00";
    (uuid[14], uuid[15]) = (b'0' + (ordinal / 10) as u8, b'0' + (ordinal % 10) as u8);
    uuid
}

export! {
    cuInit(flags: u32) {
        if flags != 0 {
            return Err(Status::InvalidValue);
        }
        allocation::report_at_end();
        queue::start()
    }
    cuDriverGetVersion(version: *mut i32) {
        // SAFETY: the caller's.
        unsafe { put(version, settings().driver_version) }
    }
    cuDeviceGetCount(count: *mut i32) {
        // SAFETY: the caller's.
        unsafe { put(count, devices().len() as i32) }
    }
    cuDeviceGet(out: *mut i32, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(out, ordinal) }
    }
    cuDeviceGetName(name: *mut c_char, len: i32, ordinal: i32) {
        check(ordinal)?;
        let text = device_name();
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
        // SAFETY: the caller's.
        unsafe { put(bytes, device_of(ordinal)?.memory.info().1) }
    }
    cuDeviceGetUuid(out: *mut [u8; 16], ordinal: i32) {
        // SAFETY: the caller's.
        unsafe { put(out, uuid(device_of(ordinal)?.ordinal)) }
    }
    cuDeviceGetUuid_v2(out: *mut [u8; 16], ordinal: i32) {
        // SAFETY: the caller's.
        unsafe { put(out, uuid(device_of(ordinal)?.ordinal)) }
    }
    cuDeviceComputeCapability(major: *mut i32, minor: *mut i32, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe {
            put(major, settings().capability.0)?;
            put(minor, settings().capability.1)
        }
    }
    cuDeviceGetAttribute(value: *mut i32, attribute: i32, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(value, attribute_value(attribute, ordinal).ok_or(Status::InvalidValue)?) }
    }
    cuDeviceGetProperties(properties: *mut [i32; 14], ordinal: i32) {
        check(ordinal)?;
        // The members of a CUdevprop are the first attributes, in their order.
        let all = std::array::from_fn(|i| attribute_value(i as i32 + 1, ordinal).unwrap_or(0));
        // SAFETY: the caller's.
        unsafe { put(properties, all) }
    }
    cuDeviceGetPCIBusId(text: *mut c_char, len: i32, ordinal: i32) {
        let id = bus_id(device_of(ordinal)?.ordinal);
        let bytes = id.as_bytes_with_nul();
        if text.is_null() || len < bytes.len() as i32 {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the caller's `len` bytes, which are enough.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), text, bytes.len()) };
        Ok(())
    }
    cuDeviceGetByPCIBusId(ordinal: *mut i32, text: *const c_char) {
        if text.is_null() {
            return Err(Status::InvalidValue);
        }
        // SAFETY: a C string of the caller's.
        let text = unsafe { CStr::from_ptr(text) };
        let found = devices().iter().find(|device| bus_id(device.ordinal).as_c_str() == text);
        // SAFETY: the caller's.
        unsafe { put(ordinal, found.ok_or(Status::InvalidValue)?.ordinal as i32) }
    }
}

fn device_name() -> String {
    let (major, minor) = settings().capability;
    format!("vcuda virtual GPU (sm_{major}{minor}{})", if major == 9 { "a" } else { "" })
}

/// `CUdevice_attribute` by number; those of features that are not here are 0.
fn attribute_value(attribute: i32, ordinal: i32) -> Option<i32> {
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
        33 => ordinal,               // PCI bus
        34 | 35 => 0,
        36 => 2_619_000, // memory clock, kHz
        37 => 5120,      // memory bus, bits
        38 => match settings().capability {
            (7, _) => 4 << 20,
            (8, 0) => 40 << 20,
            (9, _) => 50 << 20,
            _ => 72 << 20,
        }, // L2
        39 => 32 * limits.warps as i32,
        75 => settings().capability.0,
        76 => settings().capability.1,
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
