//! Modules of PTX text, their functions and variables.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

use super::device::{SHARED_BYTES, shared_opt_in_bytes};
use super::{Outcome, Status, context, device, export, profile, put};
use crate::exec::{Kernel, Module};
use crate::ptx;

/// A `CUmodule`: the decoded text, and a handle for each of its kernels.
pub struct Loaded {
    module: Module,
    functions: Vec<Function>,
}

/// A `CUfunction`.
pub struct Function {
    module: *const Loaded,
    index: usize,
    /// Dynamic shared memory it may have, bytes.
    pub dynamic_shared_limit: AtomicI32,
}

impl Function {
    /// The decoded kernel, which lives as long as its module.
    pub fn kernel(&self) -> &Kernel {
        // SAFETY: set when the module was boxed, and functions live inside it.
        unsafe {
            let module: &Loaded = &*self.module;
            &module.module.kernels()[self.index]
        }
    }
}

pub type FunctionHandle = *mut Function;
type Handle = *mut Loaded;

/// A live function.
pub fn function<'a>(handle: FunctionHandle) -> Result<&'a Function, Status> {
    // SAFETY: null, or from a module that is loaded, as the caller must see to.
    unsafe { handle.as_ref() }.ok_or(Status::InvalidHandle)
}

fn loaded<'a>(handle: Handle) -> Result<&'a Loaded, Status> {
    // SAFETY: null, or from `load` and not unloaded, as the caller must see to.
    unsafe { handle.as_ref() }.ok_or(Status::InvalidHandle)
}

fn name<'a>(text: *const c_char) -> Result<&'a str, Status> {
    if text.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: a C string of the caller's.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Status::NotFound)
}

export! {
    cuModuleLoadData(module: *mut Handle, image: *const c_void) { load_image(module, image) }
    cuModuleLoadDataEx(module: *mut Handle, image: *const c_void, _count: u32, _options: *mut c_void, _values: *mut c_void) {
        load_image(module, image)
    }
    cuModuleLoadFatBinary(module: *mut Handle, image: *const c_void) { load_image(module, image) }
    cuModuleLoad(module: *mut Handle, path: *const c_char) {
        let text = std::fs::read_to_string(name(path)?).map_err(|_| Status::FileNotFound)?;
        load(module, &text)
    }
    cuModuleUnload(module: Handle) {
        loaded(module)?;
        // SAFETY: from `load`; the caller unloads it once, and runs none of its kernels any more.
        let mut gone = unsafe { Box::from_raw(module) };
        gone.module.free_variables(&device().memory);
        Ok(())
    }
    cuModuleGetFunction(out: *mut FunctionHandle, module: Handle, text: *const c_char) {
        let wanted = name(text)?;
        let function = loaded(module)?.functions.iter().find(|function| function.kernel().name == wanted);
        // SAFETY: the caller's.
        unsafe { put(out, std::ptr::from_ref(function.ok_or(Status::NotFound)?).cast_mut()) }
    }
    cuModuleGetFunctionCount(count: *mut u32, module: Handle) {
        // SAFETY: the caller's.
        unsafe { put(count, loaded(module)?.functions.len() as u32) }
    }
    cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: Handle, text: *const c_char) {
        let (at, size) = loaded(module)?.module.global(name(text)?).ok_or(Status::NotFound)?;
        // SAFETY: the caller's; either may be null.
        unsafe {
            if !address.is_null() {
                put(address, at)?;
            }
            if !bytes.is_null() {
                put(bytes, size)?;
            }
        }
        Ok(())
    }
    cuModuleGetLoadingMode(mode: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(mode, 1) }
    }
    cuFuncGetModule(module: *mut Handle, handle: FunctionHandle) {
        // SAFETY: the caller's.
        unsafe { put(module, function(handle)?.module.cast_mut()) }
    }
    cuFuncGetParamInfo(handle: FunctionHandle, index: usize, offset: *mut usize, size: *mut usize) {
        let param = function(handle)?.kernel().params.get(index).ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's; the size may be null.
        unsafe {
            put(offset, param.offset)?;
            if !size.is_null() {
                put(size, param.size)?;
            }
        }
        Ok(())
    }
    cuFuncGetAttribute(value: *mut i32, attribute: i32, handle: FunctionHandle) {
        let function = function(handle)?;
        let kernel = function.kernel();
        let (major, minor) = device().capability;
        let found = match attribute {
            0 => kernel.max_threads_per_block as i32,
            1 => kernel.static_shared_bytes as i32,
            2 | 7 | 9 => 0,
            3 => kernel.local_bytes_per_thread as i32,
            4 => kernel.registers_estimate as i32,
            5 | 6 => 10 * major + minor,
            8 => function.dynamic_shared_limit.load(Ordering::Relaxed),
            _ => return Err(Status::InvalidValue),
        };
        // SAFETY: the caller's.
        unsafe { put(value, found) }
    }
    cuFuncSetAttribute(handle: FunctionHandle, attribute: i32, value: i32) {
        let function = function(handle)?;
        match attribute {
            8 if value >= 0 && value as usize + function.kernel().static_shared_bytes <= shared_opt_in_bytes() as usize => {
                function.dynamic_shared_limit.store(value, Ordering::Relaxed);
                Ok(())
            }
            9 => Ok(()),
            _ => Err(Status::InvalidValue),
        }
    }
    cuFuncSetCacheConfig(handle: FunctionHandle, _config: u32) { function(handle).map(|_| ()) }
}

fn load_image(module: *mut Handle, image: *const c_void) -> Outcome {
    if image.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: an image has at least four bytes, and PTX is a C string.
    let text = unsafe {
        let magic = *image.cast::<[u8; 4]>();
        if magic == *b"\x7fELF" || magic == [0x50, 0xed, 0x55, 0xba] {
            eprintln!("vcuda: a cubin cannot run here; load PTX (compile for compute_XX instead of sm_XX)");
            return Err(Status::NoBinaryForGpu);
        }
        CStr::from_ptr(image.cast())
    };
    load(module, text.to_str().map_err(|_| Status::InvalidImage)?)
}

fn load(out: *mut Handle, text: &str) -> Outcome {
    context::require()?;
    let invalid = |message: &dyn std::fmt::Display| {
        eprintln!("vcuda: loading a module: {message}");
        Status::InvalidPtx
    };
    let tree = ptx::parse(text).map_err(|error| invalid(&error))?;
    let load = if profile::is_on() { Module::load_counted } else { Module::load };
    let module = load(&tree, &device().memory, device().options.checks).map_err(|error| invalid(&error))?;
    let count = module.kernels().len();
    let loaded = Box::into_raw(Box::new(Loaded { module, functions: Vec::new() }));
    let function =
        |index| Function { module: loaded, index, dynamic_shared_limit: AtomicI32::new(SHARED_BYTES as i32) };
    // SAFETY: boxed just now, and known to nobody else; the functions stay where they are from here on.
    unsafe {
        (*loaded).functions = (0..count).map(function).collect();
        put(out, loaded)
    }
}
