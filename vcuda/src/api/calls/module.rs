//! Modules of PTX text: loaded, and what is in them.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::jit::Jit;
use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::context::{self, device};
use crate::api::objects::device::shared_opt_in_bytes;
use crate::api::objects::module::{
    CARVEOUT, CLUSTER_POLICY, CLUSTER_REQUIRED, DYNAMIC_SHARED_LIMIT, FunctionHandle, Handle, Library,
    Loaded, NON_PORTABLE_CLUSTER, function, loaded,
};
use crate::api::settings::settings;
use crate::api::streams::queue;
use crate::api::{lock, profile, version};
use crate::exec::Module;
use crate::memory::host_has_room;
use crate::ptx;
use crate::ptx::forms::target::Target;

/// OS ABI and its version in the ELF headers of CUDA 13's cubins, and of those that CUDA 12.8 and 12.9 make for sm_100 and newer; 0x33
/// and 7 in all others of CUDA 12.
const NEWER_ABI: [u8; 2] = [0x41, 8];

fn string<'a>(text: *const c_char) -> Result<&'a CStr, Status> {
    if text.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: a C string of the caller's.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// A client's name of something; one that is not UTF-8 names nothing.
fn name<'a>(text: *const c_char) -> Result<&'a str, Status> {
    string(text)?.to_str().map_err(|_| Status::NotFound)
}

/// A client's name of a file.
///
/// # Errors
/// None.
pub fn file<'a>(text: *const c_char) -> Result<&'a Path, Status> {
    Ok(Path::new(OsStr::from_bytes(string(text)?.to_bytes())))
}

export! {
    cuModuleLoadData(module: *mut Handle, image: *const c_void) { load_image(module, image, &mut Jit::default(), false) }
    cuModuleLoadDataEx(module: *mut Handle, image: *const c_void, count: u32, options: *const u32, values: *mut *mut c_void) {
        load_image(module, image, &mut Jit::new(options, values, count)?, false)
    }
    cuModuleLoadFatBinary(module: *mut Handle, image: *const c_void) {
        load_image(module, image, &mut Jit::default(), false)
    }
    cuModuleLoad(module: *mut Handle, path: *const c_char) { load_file(module, path, &mut Jit::default(), false) }
    cuModuleUnload(module: Handle) { unload(module) }
    cuModuleGetFunction(out: *mut FunctionHandle, module: Handle, text: *const c_char) {
        get_function(out, module, text)
    }
    cuModuleGetFunctionCount(count: *mut u32, module: Handle) {
        // SAFETY: the caller's.
        unsafe { put(count, loaded(module)?.functions.len() as u32) }
    }
    cuModuleEnumerateFunctions(out: *mut FunctionHandle, count: u32, module: Handle) {
        enumerate(out, count, module)
    }
    cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: Handle, text: *const c_char) {
        get_global(address, bytes, module, text)
    }
    cuModuleGetLoadingMode(mode: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(mode, 1) }
    }
    cuFuncGetModule(module: *mut Handle, handle: FunctionHandle) {
        // SAFETY: the caller's.
        unsafe { put(module, function(handle)?.module()) }
    }
    cuFuncGetName(out: *mut *const c_char, handle: FunctionHandle) {
        // SAFETY: the caller's.
        unsafe { put(out, function(handle)?.name()) }
    }
    cuFuncIsLoaded(state: *mut u32, handle: FunctionHandle) {
        function(handle)?;
        // SAFETY: the caller's.
        unsafe { put(state, 1) }
    }
    cuFuncLoad(handle: FunctionHandle) { function(handle).map(|_| ()) }
    cuFuncSetSharedMemConfig(handle: FunctionHandle, _config: u32) { function(handle).map(|_| ()) }
    cuFuncGetParamInfo(handle: FunctionHandle, index: usize, offset: *mut usize, size: *mut usize) {
        param_info(handle, index, offset, size)
    }
    cuFuncGetAttribute(value: *mut i32, attribute: i32, handle: FunctionHandle) {
        get_attribute(value, attribute, handle)
    }
    cuFuncSetAttribute(handle: FunctionHandle, attribute: i32, value: i32) { set_attribute(handle, attribute, value) }
    cuFuncSetCacheConfig(handle: FunctionHandle, _config: u32) { function(handle).map(|_| ()) }
}

pub fn unload(module: Handle) -> Outcome {
    loaded(module)?;
    queue::wait_for_all();
    // SAFETY: from `load`; the caller unloads it once, and runs none of its kernels any more.
    let mut gone = unsafe { Box::from_raw(module) };
    gone.module.free_variables(&device().memory);
    // A library's modules in other contexts are its own.
    let twins = gone.library.map(|library| std::mem::take(&mut *lock(&library.twins))).unwrap_or_default();
    twins.into_values().try_for_each(unload)
}

pub fn get_function(out: *mut FunctionHandle, module: Handle, text: *const c_char) -> Outcome {
    let wanted = name(text)?;
    let function = loaded(module)?.functions.iter().find(|function| function.kernel().name == wanted);
    // SAFETY: the caller's.
    unsafe { put(out, std::ptr::from_ref(function.ok_or(Status::NotFound)?).cast_mut()) }
}

/// The first `count` functions of a module.
pub fn enumerate(out: *mut FunctionHandle, count: u32, module: Handle) -> Outcome {
    for (i, function) in loaded(module)?.functions.iter().take(count as usize).enumerate() {
        // SAFETY: room for as many as the caller says.
        unsafe { put(out.add(i), std::ptr::from_ref(function).cast_mut())? };
    }
    Ok(())
}

/// A variable's address and size; neither is asked for where its output is null.
pub fn get_global(address: *mut u64, bytes: *mut usize, module: Handle, text: *const c_char) -> Outcome {
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

pub fn param_info(handle: FunctionHandle, index: usize, offset: *mut usize, size: *mut usize) -> Outcome {
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

/// `CUfunction_attribute` by number.
pub fn get_attribute(value: *mut i32, attribute: i32, handle: FunctionHandle) -> Outcome {
    let function = function(handle)?;
    let kernel = function.kernel();
    let (major, minor) = settings().capability;
    let found = match attribute {
        0 => kernel.max_threads_per_block as i32,
        1 => kernel.static_shared_bytes as i32,
        2 | 7 => 0, // constant memory of its own, global caching
        3 => kernel.local_bytes_per_thread as i32,
        4 => kernel.registers_estimate as i32,
        5 | 6 => 10 * major + minor,
        CLUSTER_REQUIRED => i32::from(kernel.needs_cluster),
        11..=13 => kernel.cluster.map_or(0, |cluster| cluster[attribute as usize - 11] as i32),
        DYNAMIC_SHARED_LIMIT | CARVEOUT | NON_PORTABLE_CLUSTER | CLUSTER_POLICY => {
            function.setting(attribute).load(Ordering::Relaxed)
        }
        _ => return Err(Status::InvalidValue),
    };
    // SAFETY: the caller's.
    unsafe { put(value, found) }
}

pub fn set_attribute(handle: FunctionHandle, attribute: i32, value: i32) -> Outcome {
    let function = function(handle)?;
    let fixed = function.kernel().static_shared_bytes;
    let fits = match attribute {
        DYNAMIC_SHARED_LIMIT => value >= 0 && value as usize + fixed <= shared_opt_in_bytes() as usize,
        CARVEOUT => (-1..=100).contains(&value),
        NON_PORTABLE_CLUSTER => value == 0 || value == 1,
        CLUSTER_POLICY => (0..=2).contains(&value),
        _ => false,
    };
    if !fits {
        return Err(Status::InvalidValue);
    }
    function.setting(attribute).store(value, Ordering::Relaxed);
    Ok(())
}

/// Loads the PTX text of a file.
pub fn load_file(module: *mut Handle, path: *const c_char, jit: &mut Jit, is_library: bool) -> Outcome {
    load(module, &std::fs::read(file(path)?).map_err(|_| Status::FileNotFound)?, jit, is_library)
}

/// Loads PTX text from memory.
pub fn load_image(module: *mut Handle, image: *const c_void, jit: &mut Jit, is_library: bool) -> Outcome {
    if image.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: PTX is a C string, and other images have a NUL somewhere behind their first bytes.
    load(module, unsafe { CStr::from_ptr(image.cast()) }.to_bytes(), jit, is_library)
}

/// Loads PTX text into the thread's context; a library can be had in others too.
///
/// # Errors
/// Whatever is wrong with it.
pub fn load(out: *mut Handle, image: &[u8], jit: &mut Jit, is_library: bool) -> Outcome {
    let context = context::require()?;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    // On a GPU of sm_100 and newer a driver of 12.8 has cubins of this form itself.
    let knows_newer =
        settings().driver_version >= if settings().capability.0 >= 10 { 12_080 } else { 13_000 };
    if image.starts_with(b"\x7fELF") && image.get(7..9) == Some(&NEWER_ABI) && !knows_newer {
        say!(
            "a cubin of CUDA 13; a driver of {} does not know its form",
            version::name(settings().driver_version)
        );
        return Err(Status::InvalidImage);
    }
    if image.starts_with(b"\x7fELF") || image.starts_with(&[0x50, 0xed, 0x55, 0xba]) {
        say!("a cubin cannot run here; load PTX (compile for compute_XX instead of sm_XX)");
        return Err(Status::NoBinaryForGpu);
    }
    let text =
        std::str::from_utf8(image.strip_suffix(b"\0").unwrap_or(image)).map_err(|_| Status::InvalidImage)?;
    let start = Instant::now();
    let invalid = |message: &dyn std::fmt::Display| {
        say!("loading a module: {message}");
        jit.error.write(&message.to_string());
        Status::InvalidPtx
    };
    let (version, target) = ptx::header(text).map_err(|error| invalid(&error))?;
    let (driver, known) = (settings().driver_version, version::newest_ptx(settings().driver_version));
    if version > known {
        let (driver, [of, knows]) =
            (version::name(driver), [version, known].map(|(a, b)| format!("{a}.{b}")));
        invalid(&format!("PTX of version {of}; a driver of {driver} knows {knows}"));
        return Err(Status::UnsupportedPtxVersion);
    }
    if !Target::from_name(target).is_some_and(|(target, _)| target.runs_on(settings().capability)) {
        invalid(&format!(".target {target} does not run on this device"));
        return Err(Status::NoBinaryForGpu);
    }
    if !host_has_room() {
        return Err(Status::OutOfMemory);
    }
    let tree = ptx::parse(text).map_err(|error| invalid(&error))?;
    let load = if profile::is_on() { Module::load_counted } else { Module::load };
    let module = load(&tree, &device().memory, settings().options.checks).map_err(|error| invalid(&error))?;
    let names: Vec<&str> = module.kernels().iter().map(|kernel| kernel.name.as_str()).collect();
    jit.info.write(&format!("kernels: {}", names.join(", ")));
    jit.time(start.elapsed());
    let library = is_library.then(|| Library { text: text.to_string(), twins: Mutex::default() });
    // SAFETY: the caller's.
    unsafe { put(out, Loaded::new(module, context, library)) }
}
