//! Functions by name and version: the library looks them up in itself.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

use super::{Outcome, Status, export, put};

/// The CUDA version of which a function's second and later variants are: those that are not here came
/// with 64-bit addresses, in 3.2 or 4.0.
const SINCE: &[(&str, i32)] = &[
    ("cuCtxCreate_v3", 11_040),
    ("cuCtxCreate_v4", 12_050),
    ("cuCtxGetDevice_v2", 13_000),
    ("cuCtxSynchronize_v2", 13_000),
    ("cuDeviceGetUuid_v2", 11_040),
    ("cuDevicePrimaryCtxRelease_v2", 11_000),
    ("cuDevicePrimaryCtxReset_v2", 11_000),
    ("cuDevicePrimaryCtxSetFlags_v2", 11_000),
    ("cuEventElapsedTime_v2", 12_080),
    ("cuGetProcAddress_v2", 12_000),
    ("cuGraphAddDependencies_v2", 12_030),
    ("cuGraphAddKernelNode_v2", 12_000),
    ("cuGraphAddNode_v2", 12_030),
    ("cuGraphExecKernelNodeSetParams_v2", 12_000),
    ("cuGraphExecUpdate_v2", 12_000),
    ("cuGraphGetEdges_v2", 12_030),
    ("cuGraphKernelNodeGetParams_v2", 12_000),
    ("cuGraphKernelNodeSetParams_v2", 12_000),
    ("cuGraphNodeGetDependencies_v2", 12_030),
    ("cuGraphNodeGetDependentNodes_v2", 12_030),
    ("cuGraphRemoveDependencies_v2", 12_030),
    ("cuGraphicsResourceSetMapFlags_v2", 6_050),
    ("cuIpcOpenMemHandle_v2", 11_000),
    ("cuLinkAddData_v2", 6_050),
    ("cuLinkAddFile_v2", 6_050),
    ("cuLinkCreate_v2", 6_050),
    ("cuMemAdvise_v2", 12_020),
    ("cuMemHostRegister_v2", 6_050),
    ("cuMemPrefetchAsync_v2", 12_020),
    ("cuMemcpy3DBatchAsync_v2", 13_000),
    ("cuMemcpyBatchAsync_v2", 13_000),
    ("cuStreamBatchMemOp_v2", 11_070),
    ("cuStreamBeginCapture_v2", 10_010),
    ("cuStreamGetCaptureInfo_v2", 11_030),
    ("cuStreamGetCaptureInfo_v3", 12_030),
    ("cuStreamGetCtx_v2", 12_050),
    ("cuStreamUpdateCaptureDependencies_v2", 12_030),
    ("cuStreamWaitValue32_v2", 11_070),
    ("cuStreamWaitValue64_v2", 11_070),
    ("cuStreamWriteValue32_v2", 11_070),
    ("cuStreamWriteValue64_v2", 11_070),
];
const SINCE_BY_DEFAULT: i32 = 4_000;
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
fn lookup(name: &str, version: i32) -> Result<*mut c_void, u32> {
    let mut newer = false;
    for variant in (2..=VARIANTS).rev() {
        let full = format!("{name}_v{variant}");
        if let Some(found) = exported(&full) {
            let since =
                SINCE.iter().find(|(name, _)| *name == full).map_or(SINCE_BY_DEFAULT, |&(_, since)| since);
            if since <= version {
                return Ok(found);
            }
            newer = true;
        }
    }
    exported(name).ok_or(if newer { VERSION_NOT_SUFFICIENT } else { NOT_FOUND })
}

fn answer(name: *const c_char, out: *mut *mut c_void, version: i32, status: *mut u32) -> Outcome {
    if name.is_null() || out.is_null() {
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
