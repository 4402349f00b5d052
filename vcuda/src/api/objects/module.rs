//! Modules that are loaded, and their functions; libraries, which are modules that belong to no context.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use super::context::Context;
use super::device::SHARED_BYTES;
use crate::api::error::Status;
use crate::exec::{Kernel, Module};

/// A `CUmodule`: the decoded text, and a handle for each of its kernels.
pub struct Loaded {
    pub module: Module,
    pub functions: Vec<Function>,
    pub context: &'static Context,
    /// What it takes to have it in other contexts, if it is a library.
    pub library: Option<Library>,
}

/// What it takes to have a library in other contexts than its first.
pub struct Library {
    pub text: String,
    /// By context: the modules there, which are this library's own.
    pub twins: Mutex<BTreeMap<usize, Handle>>,
}

// SAFETY: modules that belong to no thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// A `CUfunction`.
pub struct Function {
    module: *const Loaded,
    index: usize,
    name: CString,
    /// Attributes from [`DYNAMIC_SHARED_LIMIT`] on, as they were set: a library's in all contexts.
    settings: Arc<[AtomicI32; 8]>,
}

/// `CUfunction_attribute`s that can be set, and one that cannot.
pub const DYNAMIC_SHARED_LIMIT: i32 = 8;
pub const CARVEOUT: i32 = 9;
pub const CLUSTER_REQUIRED: i32 = 10;
pub const NON_PORTABLE_CLUSTER: i32 = 14;
pub const CLUSTER_POLICY: i32 = 15;

impl Loaded {
    /// A module with a handle, and its functions.
    pub fn new(module: Module, context: &'static Context, library: Option<Library>) -> Handle {
        let loaded = Box::into_raw(Box::new(Loaded { module, functions: Vec::new(), context, library }));
        // SAFETY: boxed just now, and known to nobody else; the functions stay where they are from here on.
        unsafe {
            let kernels = (*loaded).module.kernels().iter().enumerate();
            let functions =
                kernels.map(|(index, kernel)| Function::new(loaded, index, &kernel.name)).collect();
            (*loaded).functions = functions;
        }
        loaded
    }
}

impl Function {
    fn new(module: *const Loaded, index: usize, name: &str) -> Function {
        let settings = Arc::new([SHARED_BYTES as i32, -1, 0, 0, 0, 0, 0, 0].map(AtomicI32::new));
        // A name of PTX has no NUL; were there one, the name would have no end to give.
        Function { module, index, name: CString::new(name).unwrap_or_default(), settings }
    }

    /// Dynamic shared memory it may have, bytes.
    pub fn dynamic_shared_limit(&self) -> usize {
        self.setting(DYNAMIC_SHARED_LIMIT).load(Ordering::Relaxed) as usize
    }

    /// Whether its clusters may have more CTAs than are portable.
    pub fn may_have_large_clusters(&self) -> bool {
        self.setting(NON_PORTABLE_CLUSTER).load(Ordering::Relaxed) != 0
    }

    /// One of the attributes that can be set.
    pub fn setting(&self, attribute: i32) -> &AtomicI32 {
        &self.settings[(attribute - DYNAMIC_SHARED_LIMIT) as usize]
    }

    /// From now on it has the other's attributes.
    pub fn share_settings(&mut self, other: &Function) {
        self.settings = other.settings.clone();
    }

    /// Which of its module's functions it is.
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn name(&self) -> *const c_char {
        self.name.as_ptr()
    }

    pub fn module(&self) -> Handle {
        self.module.cast_mut()
    }

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
/// A `CUmodule` or a `CUlibrary`.
pub type Handle = *mut Loaded;

/// A live function.
pub fn function<'a>(handle: FunctionHandle) -> Result<&'a Function, Status> {
    // SAFETY: null, or from a module that is loaded, as the caller must see to.
    unsafe { handle.as_ref() }.ok_or(Status::InvalidHandle)
}

/// A live module.
pub fn loaded<'a>(handle: Handle) -> Result<&'a Loaded, Status> {
    // SAFETY: null, or from `load` and not unloaded, as the caller must see to.
    unsafe { handle.as_ref() }.ok_or(Status::InvalidHandle)
}
