//! A client: opens the library that cargo has built, and calls it through `cudarc`.

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, result};

use crate::kernels::ptx;

/// Where cargo leaves `libvcuda.so`: beside this program. In the GPU bundle it is in the folder above.
pub fn library_path() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    let found = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("libvcuda.so"))
        .find(|path| path.is_file());
    found.expect("libvcuda.so is built beside the tests")
}

/// Opens the library once; `cudarc` finds it by its SONAME then.
pub fn open() -> &'static libloading::Library {
    static LIBRARY: OnceLock<libloading::Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        if std::env::var_os(CHILD).is_none() {
            // SAFETY: the library, which reads the environment by itself, is not open yet.
            SETTINGS.iter().for_each(|name| unsafe { std::env::remove_var(name) });
        }
        // SAFETY: opening it runs nothing of its own.
        unsafe { libloading::Library::new(library_path()) }.expect("libvcuda.so opens")
    })
}

/// The primary context, current on this thread.
pub fn context() -> Arc<CudaContext> {
    open();
    CudaContext::new(0).expect("a context")
}

/// A module, of the tests' kernels if it is [`Module::load`]ed.
pub struct Module(pub sys::CUmodule);

// SAFETY: modules belong to no thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    pub fn load() -> Module {
        Module::of(&ptx())
    }

    pub fn of(text: &str) -> Module {
        let text = CString::new(text).expect("PTX without NUL");
        // SAFETY: a C string of PTX.
        Module(unsafe { result::module::load_data(text.as_ptr().cast()) }.expect("the kernels load"))
    }

    pub fn function(&self, name: &str) -> sys::CUfunction {
        let name = CString::new(name).expect("a name without NUL");
        // SAFETY: a loaded module.
        unsafe { result::module::get_function(self.0, name) }.expect("a kernel")
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once. After a fault the driver refuses it, which is no matter here.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

/// Launches a kernel of one grid axis with parameters of 4 or 8 bytes each.
pub fn launch(
    function: sys::CUfunction,
    grid: u32,
    block: u32,
    stream: sys::CUstream,
    params: &mut [&mut dyn Param],
) -> Result<(), CUresult> {
    let mut pointers: Vec<*mut c_void> = params.iter_mut().map(|param| param.pointer()).collect();
    // SAFETY: pointers to as many parameters as the kernel has, of its types.
    unsafe { result::launch_kernel(function, (grid, 1, 1), (block, 1, 1), 0, stream, &mut pointers) }
        .map_err(|error| error.0)
}

/// A kernel's parameter.
pub trait Param {
    fn pointer(&mut self) -> *mut c_void;
}

impl Param for u32 {
    fn pointer(&mut self) -> *mut c_void {
        (self as *mut u32).cast()
    }
}

impl Param for u64 {
    fn pointer(&mut self) -> *mut c_void {
        (self as *mut u64).cast()
    }
}

const CHILD: &str = "VCUDA_DRIVER_TEST_CHILD";

/// What changes when work is done, and what is said of it: tests that want these ask for them.
const SETTINGS: [&str; 2] = ["VCUDA_CHECK", "VCUDA_SEED"];

/// Runs a test in a process of its own, where settings and faults disturb no other: `None` in that
/// process, which is to do the test, and in the parent what came of it.
pub fn in_child(test: &str, settings: &[(&str, &str)]) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    for name in SETTINGS {
        command.env_remove(name);
    }
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").envs(settings.iter().copied());
    let output = command.output().expect("this program runs again");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} in its own process: {text}");
    Some(output)
}
