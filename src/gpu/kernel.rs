//! Kernels: compiled, loaded and resolved once, launched with arguments whose sizes are checked.

use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, ensure};
use bytemuck::Pod;
use cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute_enum as FunctionAttribute, CUlaunchAttribute,
    CUlaunchAttributeID_enum as LaunchAttribute, CUlaunchConfig, CUmodule,
};
use cudarc::driver::{DriverError, result};

use super::error::CudaError;
use super::nvrtc::{self, Nvrtc};
use super::timeline::Kind;
use super::{Gpu, SOURCES, Stream, Tensor, lock, trace};

/// What a kernel's source is compiled with: `#define NAME VALUE` each.
pub type Defines<'a> = &'a [(&'static str, i64)];

/// A source of `kernels/` by its stem, and its defines.
pub type ModuleKey = (&'static str, Vec<(&'static str, i64)>);

/// Grid, cluster and block of a launch, and its dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    pub grid: [usize; 3],
    pub cluster: [usize; 3],
    pub block: [usize; 3],
    pub shared_bytes: usize,
}

impl Launch {
    /// A one-dimensional launch without dynamic shared memory.
    pub fn new(grid: usize, block: usize) -> Launch {
        Launch::over([grid, 1, 1], block)
    }

    /// A launch over a grid of CTAs of `block` threads in a row.
    pub fn over(grid: [usize; 3], block: usize) -> Launch {
        Launch { grid, cluster: [1; 3], block: [block, 1, 1], shared_bytes: 0 }
    }

    /// The same with dynamic shared memory.
    pub fn shared(self, shared_bytes: usize) -> Launch {
        Launch { shared_bytes, ..self }
    }

    /// One thread for each of `n` elements.
    pub fn per_element(n: usize, block: usize) -> Launch {
        Launch::new(n.div_ceil(block), block)
    }
}

/// One kernel argument: an address, a number, or a struct by value.
#[derive(Clone, Debug)]
pub struct Arg {
    words: Words,
    size_bytes: usize,
    /// Of the tensor that it is the address of.
    tensor_bytes: usize,
}

#[derive(Clone, Debug)]
enum Words {
    One(u64),
    Many(Vec<u64>),
}

impl Arg {
    /// An address of nothing.
    pub const NULL: Arg = Arg { words: Words::One(0), size_bytes: 8, tensor_bytes: 0 };

    /// A struct, laid out as the kernel has it.
    pub fn bytes<T: Pod>(value: &T) -> Arg {
        Arg::all(std::slice::from_ref(value))
    }

    /// A struct of several alike, such as tensor maps.
    pub fn all<T: Pod>(values: &[T]) -> Arg {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Arg { words: Words::Many(words), size_bytes: bytes.len(), tensor_bytes: 0 }
    }

    fn address(&mut self) -> *mut c_void {
        match &mut self.words {
            Words::One(word) => (word as *mut u64).cast(),
            Words::Many(words) => words.as_mut_ptr().cast(),
        }
    }
}

impl<T> From<&Tensor<T>> for Arg {
    fn from(tensor: &Tensor<T>) -> Arg {
        Arg {
            words: Words::One(tensor.address()),
            size_bytes: 8,
            tensor_bytes: tensor.len() * size_of::<T>(),
        }
    }
}

impl<T> From<Option<&Tensor<T>>> for Arg {
    fn from(tensor: Option<&Tensor<T>>) -> Arg {
        tensor.map_or(Arg::NULL, Arg::from)
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Arg {
        Arg::from(value as u32)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Arg {
        Arg { words: Words::One(u64::from(value)), size_bytes: 4, tensor_bytes: 0 }
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg { words: Words::One(value), size_bytes: 8, tensor_bytes: 0 }
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Arg {
        Arg::from(value.to_bits())
    }
}

/// `args![out, inp, n as i32]`: the arguments of [`Kernel::launch`], in the kernel's order.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::gpu::Arg::from($value)),*] };
}

/// A loaded module. Lives until the process ends, as its context does.
#[derive(Clone, Copy)]
pub(super) struct Module(CUmodule);

/// A kernel that can be launched; in a rehearsal, its name. Cheap to clone.
#[derive(Clone)]
pub struct Kernel(State);

#[derive(Clone)]
enum State {
    Loaded(Arc<Inner>),
    Noted(Arc<ModuleKey>, &'static str),
}

struct Inner {
    name: &'static str,
    function: CUfunction,
    /// Sizes of its parameters, where the driver can tell (CUDA 12.4 and later).
    parameter_bytes: Option<Vec<usize>>,
    /// The most dynamic shared memory that it was allowed.
    allowed_shared_bytes: Mutex<usize>,
}

// SAFETY: handles of the driver, valid in every thread that has bound the context.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Send for Inner {}
// SAFETY: as above; the driver serialises calls with them.
unsafe impl Sync for Inner {}

/// Dynamic shared memory that needs no permission.
const DEFAULT_SHARED_BYTES: usize = 48 * 1024;

impl Kernel {
    /// Queues the kernel.
    ///
    /// # Errors
    /// Arguments of other sizes than the kernel's parameters; the launch itself, naming kernel, grid, block and shared
    /// bytes.
    ///
    /// # Safety
    /// Every buffer is as long as the kernel, at these numbers, reads and writes. Launchers in `ops` check that by shapes.
    pub unsafe fn launch(&self, stream: &Stream, launch: Launch, args: &[Arg]) -> Result<()> {
        let Launch { grid, cluster, block, shared_bytes } = launch;
        if grid.contains(&0) {
            return Ok(());
        }
        let inner = match &self.0 {
            State::Loaded(inner) => inner,
            State::Noted(module, kernel) => {
                stream.count_launch();
                stream.note_launch(
                    module,
                    kernel,
                    launch,
                    args.iter().map(|arg| arg.tensor_bytes as u64).sum(),
                );
                return Ok(());
            }
        };
        let Inner { name, function, parameter_bytes, allowed_shared_bytes } = &**inner;
        let _range = trace::range(name);
        let raw = stream.raw()?;
        let describe =
            || format!("launching {name} (grid {grid:?}, block {block:?}, {shared_bytes} shared bytes)");
        if let Some(sizes) = parameter_bytes {
            let given: Vec<usize> = args.iter().map(|arg| arg.size_bytes).collect();
            ensure!(*sizes == given, "{}: arguments of {given:?} bytes, not {sizes:?}", describe());
        }
        let mut allowed_shared_bytes = lock(allowed_shared_bytes);
        if shared_bytes > *allowed_shared_bytes {
            let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = shared_bytes.try_into().with_context(describe)?;
            // SAFETY: the function is loaded; the driver refuses sizes past its limit.
            unsafe { result::function::set_function_attribute(*function, attribute, bytes) }
                .map_err(CudaError::from)
                .with_context(describe)?;
            *allowed_shared_bytes = shared_bytes;
        }
        drop(allowed_shared_bytes);

        let mut args = args.to_vec();
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(Arg::address).collect();
        let size = |n: usize| u32::try_from(n).map_err(|_| anyhow!("{}: too large", describe()));
        // SAFETY: an attribute is a tagged union; all bits zero is one that is ignored.
        let mut attribute: CUlaunchAttribute = unsafe { std::mem::zeroed() };
        attribute.id = LaunchAttribute::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attribute.value.clusterDim.x = size(cluster[0])?;
        attribute.value.clusterDim.y = size(cluster[1])?;
        attribute.value.clusterDim.z = size(cluster[2])?;
        let config = CUlaunchConfig {
            gridDimX: size(grid[0])?,
            gridDimY: size(grid[1])?,
            gridDimZ: size(grid[2])?,
            blockDimX: size(block[0])?,
            blockDimY: size(block[1])?,
            blockDimZ: size(block[2])?,
            sharedMemBytes: size(shared_bytes)?,
            hStream: raw,
            attrs: &mut attribute,
            // A device older than Hopper does not know clusters.
            numAttrs: (cluster != [1; 3]).into(),
        };
        stream.span(name, Kind::Kernel, || {
            // SAFETY: one pointer per parameter, each to as many live bytes as it has, copied before the call returns; the
            // rest is the caller's promise.
            let launched: Result<(), DriverError> = unsafe {
                sys::cuLaunchKernelEx(&config, *function, pointers.as_mut_ptr(), std::ptr::null_mut())
                    .result()
            };
            launched.map_err(CudaError::from).with_context(describe)
        })?;
        stream.launched(name);
        Ok(())
    }
}

impl Stream {
    /// Kernel `name` of `kernels/{stem}.cu`, compiled with `defines`: see [`Gpu::kernel`].
    pub fn kernel(&self, stem: &'static str, name: &'static str, defines: Defines) -> Result<Kernel> {
        match self.is_rehearsal() {
            true => Ok(Kernel(State::Noted(Arc::new(self.note(stem, defines)), name))),
            false => self.gpu().kernel(stem, name, defines),
        }
    }
}

impl Gpu {
    /// Kernel `name` of `kernels/{stem}.cu`, compiled with `defines`; compiled, loaded and resolved when first asked for.
    ///
    /// # Errors
    /// Compilation or loading; a name that the source does not have.
    pub fn kernel(&self, stem: &'static str, name: &'static str, defines: Defines) -> Result<Kernel> {
        let key = ((stem, defines.to_vec()), name);
        if let Some(kernel) = lock(&self.0.kernels).get(&key) {
            return Ok(kernel.clone());
        }
        self.load(std::slice::from_ref(&key.0))?;
        let module = lock(&self.0.modules)[&key.0];
        // SAFETY: the module is loaded and never unloaded.
        let function = unsafe { result::module::get_function(module.0, CString::new(name)?) }
            .map_err(CudaError::from)
            .with_context(|| format!("finding kernel {name} in kernels/{stem}.cu"))?;
        let kernel = Kernel(State::Loaded(Arc::new(Inner {
            name,
            function,
            parameter_bytes: parameter_bytes(function),
            allowed_shared_bytes: Mutex::new(DEFAULT_SHARED_BYTES),
        })));
        // Of several that were made at once the first one stays: a function's allowance is known in one place.
        Ok(lock(&self.0.kernels).entry(key).or_insert(kernel).clone())
    }

    /// Compiles and loads these sources now, in parallel, so that none is compiled later in the middle of work.
    ///
    /// # Errors
    /// Those of the compiler and of the driver, once all others are loaded.
    pub fn load<'a>(&self, keys: impl IntoIterator<Item = &'a ModuleKey>) -> Result<()> {
        self.bind()?;
        let missing: BTreeSet<&ModuleKey> = {
            let modules = lock(&self.0.modules);
            keys.into_iter().filter(|key| !modules.contains_key(key)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let nvrtc = Nvrtc::find()?;
        let target =
            nvrtc::Target { virtual_driver: self.driver().is_virtual(), architecture: self.architecture() };
        let load = |(stem, defines): &ModuleKey| -> Result<Module> {
            let mut image = self.0.cache.compiled(nvrtc, stem, &specialised(stem, defines)?, target)?;
            image.push(0); // PTX is read as a C string; a cubin ends where its own header says
            self.bind()?;
            // SAFETY: a whole image from NVRTC, NUL-terminated.
            unsafe { result::module::load_data(image.as_ptr().cast()) }
                .map(Module)
                .map_err(CudaError::from)
                .with_context(|| format!("loading the compiled kernels/{stem}.cu"))
        };
        let loaded: Vec<Result<Module>> = std::thread::scope(|scope| {
            let running: Vec<_> = missing.iter().map(|key| scope.spawn(|| load(key))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Module>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("compiling kernels: the compiler's thread died")))
            };
            running.into_iter().map(join).collect()
        });
        let mut modules = lock(&self.0.modules);
        let mut keep = |(key, module): (&ModuleKey, Result<Module>)| {
            modules.insert(key.clone(), module?);
            Ok(())
        };
        let kept: Vec<Result<()>> = missing.into_iter().zip(loaded).map(&mut keep).collect();
        kept.into_iter().collect()
    }

    /// Sources that are loaded.
    pub fn loaded(&self) -> usize {
        lock(&self.0.modules).len()
    }
}

/// The text of `kernels/{stem}.cu` behind its defines.
///
/// # Errors
/// There is none of this stem.
pub fn specialised(stem: &str, defines: Defines) -> Result<String> {
    let found = SOURCES.iter().find(|(name, _)| *name == stem);
    let (_, text) = found.ok_or_else(|| anyhow!("kernels/{stem}.cu: not part of this build"))?;
    let defines: String = defines.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
    Ok(defines + text)
}

/// Each parameter's size, in order; `None` where the driver is older than the question.
fn parameter_bytes(function: CUfunction) -> Option<Vec<usize>> {
    // SAFETY: the function is loaded; both outputs are ours. The symbol is looked up first, since an older driver lacks it.
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
