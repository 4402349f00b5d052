//! Libraries and their kernels: modules and functions under other names, for there is one device.

use std::ffi::{c_char, c_void};

use super::jit::Jit;
use super::module::{self, FunctionHandle, Handle, function, loaded};
use super::{export, put};

export! {
    cuLibraryLoadData(
        library: *mut Handle, image: *const c_void, options: *const u32, values: *mut *mut c_void, count: u32,
        _library_options: *const u32, _library_values: *mut *mut c_void, _library_count: u32,
    ) {
        module::load_image(library, image, &mut Jit::new(options, values, count)?)
    }
    cuLibraryLoadFromFile(
        library: *mut Handle, path: *const c_char, options: *const u32, values: *mut *mut c_void, count: u32,
        _library_options: *const u32, _library_values: *mut *mut c_void, _library_count: u32,
    ) {
        module::load_file(library, path, &mut Jit::new(options, values, count)?)
    }
    cuLibraryUnload(library: Handle) { module::unload(library) }
    cuLibraryGetModule(out: *mut Handle, library: Handle) {
        loaded(library)?;
        // SAFETY: the caller's.
        unsafe { put(out, library) }
    }
    cuLibraryGetKernel(out: *mut FunctionHandle, library: Handle, name: *const c_char) {
        module::get_function(out, library, name)
    }
    cuLibraryGetKernelCount(count: *mut u32, library: Handle) {
        // SAFETY: the caller's.
        unsafe { put(count, loaded(library)?.functions.len() as u32) }
    }
    cuLibraryEnumerateKernels(out: *mut FunctionHandle, count: u32, library: Handle) {
        module::enumerate(out, count, library)
    }
    cuLibraryGetGlobal(address: *mut u64, bytes: *mut usize, library: Handle, name: *const c_char) {
        module::get_global(address, bytes, library, name)
    }
    cuKernelGetFunction(out: *mut FunctionHandle, kernel: FunctionHandle) {
        function(kernel)?;
        // SAFETY: the caller's.
        unsafe { put(out, kernel) }
    }
    cuKernelGetLibrary(out: *mut Handle, kernel: FunctionHandle) {
        // SAFETY: the caller's.
        unsafe { put(out, function(kernel)?.module()) }
    }
    cuKernelGetName(out: *mut *const c_char, kernel: FunctionHandle) {
        // SAFETY: the caller's.
        unsafe { put(out, function(kernel)?.name()) }
    }
    cuKernelGetParamInfo(kernel: FunctionHandle, index: usize, offset: *mut usize, size: *mut usize) {
        module::param_info(kernel, index, offset, size)
    }
    cuKernelGetAttribute(value: *mut i32, attribute: i32, kernel: FunctionHandle, _ordinal: i32) {
        module::get_attribute(value, attribute, kernel)
    }
    cuKernelSetAttribute(attribute: i32, value: i32, kernel: FunctionHandle, _ordinal: i32) {
        module::set_attribute(kernel, attribute, value)
    }
    cuKernelSetCacheConfig(kernel: FunctionHandle, _config: u32, _ordinal: i32) { function(kernel).map(|_| ()) }
}
