//! Kernels: compiled and loaded on first use, launched with checked arguments.

use std::ffi::{CString, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use cudarc::driver::sys::{CUfunction, CUfunction_attribute_enum as FunctionAttribute, CUmodule};
use cudarc::driver::{result, sys};

use super::nvrtc::{self, Nvrtc};
use super::{Gpu, SOURCES, Slice, cuda_error};

/// Grid and block of a launch, and its dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub grid: [usize; 3],
    pub block: [usize; 3],
    pub shared_bytes: usize,
}

impl Launch {
    /// A one-dimensional launch without dynamic shared memory.
    pub fn new(grid: usize, block: usize) -> Launch {
        Launch { grid: [grid, 1, 1], block: [block, 1, 1], shared_bytes: 0 }
    }

    /// One thread for each of `n` elements.
    pub fn per_element(n: usize, block: usize) -> Launch {
        Launch::new(n.div_ceil(block), block)
    }
}

/// One kernel argument: an address or a number, with its size in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    bits: u64,
    size_bytes: usize,
}

impl Arg {
    /// An address of nothing.
    pub const NULL: Arg = Arg { bits: 0, size_bytes: 8 };
}

impl<T> From<&Slice<T>> for Arg {
    fn from(slice: &Slice<T>) -> Arg {
        Arg { bits: slice.address(), size_bytes: 8 }
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Arg {
        Arg { bits: value as u32 as u64, size_bytes: 4 }
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Arg {
        Arg { bits: value as u64, size_bytes: 4 }
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg { bits: value, size_bytes: 8 }
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Arg {
        Arg { bits: value.to_bits() as u64, size_bytes: 4 }
    }
}

/// `args![out, inp, n as i32]`: the arguments of [`Gpu::launch`], in the kernel's order.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::gpu::Arg::from($value)),*] };
}

/// A loaded module. Lives until the process ends, as its context does.
#[derive(Clone, Copy)]
pub(super) struct Module(CUmodule);

#[derive(Clone)]
pub(super) struct Kernel {
    function: CUfunction,
    /// Sizes of its parameters, where the driver can tell (CUDA 12.4 and later).
    parameter_bytes: Option<Vec<usize>>,
    /// Dynamic shared memory it was last allowed.
    allowed_shared_bytes: usize,
}

// SAFETY: both are handles of the driver, valid in every thread that has bound the context.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Send for Kernel {}

/// Dynamic shared memory that needs no permission.
const DEFAULT_SHARED_BYTES: usize = 48 * 1024;

impl Gpu {
    /// Queues kernel `name` of `kernels/{stem}.cu`.
    ///
    /// The caller answers for what no check here can see: that every buffer is as long as the
    /// kernel, at these numbers, reads and writes. Launchers in `ops` check that before they call.
    ///
    /// # Errors
    /// Compilation, loading or the launch itself, naming kernel, grid, block and shared bytes.
    pub fn launch(&self, stem: &'static str, name: &'static str, launch: Launch, args: &[Arg]) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.bind()?;
        let mut kernel = self.kernel(stem, name)?;
        let describe = || {
            let Launch { grid, block, shared_bytes } = launch;
            format!("launching {name} (grid {grid:?}, block {block:?}, {shared_bytes} shared bytes)")
        };
        if let Some(sizes) = &kernel.parameter_bytes {
            let given: Vec<usize> = args.iter().map(|arg| arg.size_bytes).collect();
            ensure!(*sizes == given, "{}: arguments of {given:?} bytes, not {sizes:?}", describe());
        }
        if launch.shared_bytes > kernel.allowed_shared_bytes {
            // SAFETY: the function is loaded; the driver refuses sizes past its limit.
            unsafe {
                result::function::set_function_attribute(
                    kernel.function,
                    FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    launch.shared_bytes.try_into().with_context(describe)?,
                )
            }
            .map_err(cuda_error)
            .with_context(describe)?;
            kernel.allowed_shared_bytes = launch.shared_bytes;
            lock(&self.0.kernels).insert((stem, name), kernel.clone());
        }

        let mut values: Vec<u64> = args.iter().map(|arg| arg.bits).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| (v as *mut u64).cast()).collect();
        let dimension = |n: usize| u32::try_from(n).map_err(|_| anyhow!("{}: too large", describe()));
        let [grid, block] = [launch.grid, launch.block];
        // SAFETY: one pointer per parameter, each to 8 live bytes, copied before the call returns.
        unsafe {
            result::launch_kernel(
                kernel.function,
                (dimension(grid[0])?, dimension(grid[1])?, dimension(grid[2])?),
                (dimension(block[0])?, dimension(block[1])?, dimension(block[2])?),
                dimension(launch.shared_bytes)?,
                self.0.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(cuda_error)
        .with_context(describe)?;
        *lock(&self.0.last) = Some(name);
        Ok(())
    }

    fn kernel(&self, stem: &'static str, name: &'static str) -> Result<Kernel> {
        if let Some(kernel) = lock(&self.0.kernels).get(&(stem, name)) {
            return Ok(kernel.clone());
        }
        self.load_modules(&[stem])?;
        let module = lock(&self.0.modules)[stem];
        // SAFETY: the module is loaded and never unloaded.
        let function = unsafe { result::module::get_function(module.0, CString::new(name)?) }
            .map_err(cuda_error)
            .with_context(|| format!("finding kernel {name} in kernels/{stem}.cu"))?;
        let kernel = Kernel {
            function,
            parameter_bytes: parameter_bytes(function),
            allowed_shared_bytes: DEFAULT_SHARED_BYTES,
        };
        lock(&self.0.kernels).insert((stem, name), kernel.clone());
        Ok(kernel)
    }

    /// Loads the modules that are not loaded yet, compiling in parallel what the cache lacks.
    pub(super) fn load_modules(&self, stems: &[&'static str]) -> Result<()> {
        self.bind()?;
        let missing: Vec<&'static str> = {
            let modules = lock(&self.0.modules);
            stems.iter().copied().filter(|stem| !modules.contains_key(stem)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let nvrtc = Nvrtc::find()?;
        let target =
            nvrtc::Target { virtual_driver: self.driver().is_virtual(), architecture: self.architecture() };
        let images = std::thread::scope(|scope| {
            let running: Vec<_> = missing
                .iter()
                .map(|&stem| scope.spawn(move || self.0.cache.compiled(nvrtc, stem, source(stem)?, target)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<u8>>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("compiling kernels: the compiler's thread died")))
            };
            running.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        for (stem, mut image) in missing.into_iter().zip(images) {
            image.push(0); // PTX is read as a C string; a cubin ends where its own header says
            // SAFETY: a whole image from NVRTC, NUL-terminated.
            let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
                .map_err(cuda_error)
                .with_context(|| format!("loading the compiled kernels/{stem}.cu"))?;
            lock(&self.0.modules).insert(stem, Module(module));
        }
        Ok(())
    }
}

fn source(stem: &str) -> Result<&'static str> {
    let found = SOURCES.iter().find(|(name, _)| *name == stem);
    found.map(|(_, text)| *text).ok_or_else(|| anyhow!("kernels/{stem}.cu: not part of this build"))
}

/// Each parameter's size, in order; `None` where the driver is older than the question.
fn parameter_bytes(function: CUfunction) -> Option<Vec<usize>> {
    // SAFETY: the function is loaded; both outputs are ours. The symbol is looked up first, since an
    // older driver lacks it.
    unsafe {
        sys::culib().get::<unsafe extern "C" fn()>(b"cuFuncGetParamInfo\0").ok()?;
        let mut sizes = Vec::new();
        let (mut offset, mut size) = (0, 0);
        while sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size).result().is_ok() {
            sizes.push(size);
        }
        Some(sizes)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
