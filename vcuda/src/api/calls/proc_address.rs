//! Functions by name and version: the library looks them up in itself.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::settings::settings;
use crate::api::version;

/// The highest suffix that there is.
const VARIANTS: u32 = 4;

/// `CUdriverProcAddressQueryResult`.
const SUCCESS: u32 = 0;
const NOT_FOUND: u32 = 1;
const VERSION_NOT_SUFFICIENT: u32 = 2;

/// A function that this library exports under exactly this name.
fn exported(name: &str) -> Option<*mut c_void> {
    static SELF: OnceLock<usize> = OnceLock::new();
    let library = *SELF.get_or_init(|| {
        // SAFETY: a zeroed Dl_info is one, and the address is of this library.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if libc::dladdr(cuGetProcAddress_v2 as *const c_void, &mut info) == 0 {
                return 0;
            }
            // It is loaded already: this finds it under the name that it was loaded by.
            libc::dlopen(info.dli_fname, libc::RTLD_NOW | libc::RTLD_NOLOAD) as usize
        }
    }) as *mut c_void;
    let name = CString::new(name).ok()?;
    if library.is_null() || !name.as_bytes().starts_with(b"cu") {
        return None;
    }
    // SAFETY: a handle from dlopen, and a C string.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// The newest variant of a function that a client of this CUDA version knows.
fn lookup(name: &str, asked: i32) -> Result<*mut c_void, u32> {
    let mut newer = false;
    for variant in (2..=VARIANTS).rev() {
        let full = format!("{name}_v{variant}");
        if let Some(found) = exported(&full) {
            if version::since(&full) <= asked {
                return Ok(found);
            }
            newer |= version::since(&full) <= settings().driver_version;
        }
    }
    let since = version::since(name);
    match exported(name).filter(|_| since <= settings().driver_version) {
        Some(found) if since <= asked => Ok(found),
        None if !newer => Err(NOT_FOUND),
        _ => Err(VERSION_NOT_SUFFICIENT),
    }
}

fn answer(name: *const c_char, out: *mut *mut c_void, version: i32, status: *mut u32) -> Outcome {
    if name.is_null() || out.is_null() || version > settings().driver_version {
        return Err(Status::InvalidValue);
    }
    // SAFETY: a C string of the caller's.
    let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Status::NotFound)?;
    let (found, result) = match lookup(name, version) {
        Ok(found) => (found, SUCCESS),
        Err(result) => (std::ptr::null_mut(), result),
    };
    // SAFETY: the caller's; the status may be null.
    unsafe {
        put(out, found)?;
        if !status.is_null() {
            put(status, result)?;
        }
    }
    // With a status to tell it by, a function that is not there is no error.
    if result == SUCCESS || !status.is_null() { Ok(()) } else { Err(Status::NotFound) }
}

export! {
    cuGetProcAddress(name: *const c_char, out: *mut *mut c_void, version: i32, _flags: u64) {
        answer(name, out, version, std::ptr::null_mut())
    }
    cuGetProcAddress_v2(name: *const c_char, out: *mut *mut c_void, version: i32, _flags: u64, status: *mut u32) {
        answer(name, out, version, status)
    }
}
