//! Libraries and their kernels: modules and functions that belong to no context. They are loaded into each that uses them.

use std::ffi::{c_char, c_void};

use super::jit::Jit;
use super::{export, module, put};
use crate::api::error::Status;
use crate::api::lock;
use crate::api::objects::context;
use crate::api::objects::module::{FunctionHandle, Handle, function, loaded};

/// A module in the thread's context.
///
/// # Errors
/// It belongs to another, and is no library.
fn module_here(handle: Handle) -> Result<Handle, Status> {
    let (found, context) = (loaded(handle)?, context::require()?);
    if std::ptr::eq(found.context, context) {
        return Ok(handle);
    }
    let Some(library) = &found.library else {
        say!("handle: {handle:?} is a module of another context");
        return Err(Status::InvalidHandle);
    };
    let mut twins = lock(&library.twins);
    if let Some(&twin) = twins.get(&context.handle()) {
        return Ok(twin);
    }
    let mut twin = std::ptr::null_mut();
    module::load(&mut twin, library.text.as_bytes(), &mut Jit::default(), false)?;
    // SAFETY: loaded just now, and known to nobody else.
    let functions = unsafe { &mut (*twin).functions };
    functions.iter_mut().zip(&found.functions).for_each(|(new, old)| new.share_settings(old));
    twins.insert(context.handle(), twin);
    Ok(twin)
}

/// A function in the thread's context.
///
/// # Errors
/// It belongs to another, and is no library's kernel.
pub fn function_here(handle: FunctionHandle) -> Result<FunctionHandle, Status> {
    let found = function(handle)?;
    match module_here(found.module())? {
        own if own == found.module() => Ok(handle),
        twin => Ok(std::ptr::from_ref(&loaded(twin)?.functions[found.index()]).cast_mut()),
    }
}

export! {
    cuLibraryLoadData(
        library: *mut Handle, image: *const c_void, options: *const u32, values: *mut *mut c_void, count: u32,
        _library_options: *const u32, _library_values: *mut *mut c_void, _library_count: u32,
    ) {
        module::load_image(library, image, &mut Jit::new(options, values, count)?, true)
    }
    cuLibraryLoadFromFile(
        library: *mut Handle, path: *const c_char, options: *const u32, values: *mut *mut c_void, count: u32,
        _library_options: *const u32, _library_values: *mut *mut c_void, _library_count: u32,
    ) {
        module::load_file(library, path, &mut Jit::new(options, values, count)?, true)
    }
    cuLibraryUnload(library: Handle) { module::unload(library) }
    cuLibraryGetModule(out: *mut Handle, library: Handle) {
        // SAFETY: the caller's.
        unsafe { put(out, module_here(library)?) }
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
        module::get_global(address, bytes, module_here(library)?, name)
    }
    cuKernelGetFunction(out: *mut FunctionHandle, kernel: FunctionHandle) {
        // SAFETY: the caller's.
        unsafe { put(out, function_here(kernel)?) }
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
