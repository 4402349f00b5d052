//! Kernels: compiled, loaded and resolved once, launched with arguments whose sizes are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_void};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytemuck::Pod;
use cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute_enum as FunctionAttribute, CUlaunchAttribute,
    CUlaunchAttributeID_enum as LaunchAttribute, CUlaunchConfig, CUmodule,
};
use cudarc::driver::{DriverError, result};

use super::addresses::addresses_left_bytes;
use super::error::CudaError;
use super::nvrtc::{Form, Nvrtc, Target, how_to_get};
use super::timeline::Kind;
use super::{CudaVersion, Gpu, SOURCES, Stream, Tensor, lock, trace, version};
use crate::threads::together;

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
    /// How many parameters it has, where the driver can tell; in a rehearsal nobody can.
    pub fn parameters(&self) -> Option<usize> {
        match &self.0 {
            State::Loaded(inner) => inner.parameter_bytes.as_ref().map(Vec::len),
            State::Noted(..) => None,
        }
    }

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
        let kernel = resolved(lock(&self.0.modules)[&key.0], stem, name, self.driver_version())?;
        // Of several that were made at once the first one stays: a function's allowance is known in one place.
        Ok(lock(&self.0.kernels).entry(key).or_insert(kernel).clone())
    }

    /// Kernel `name` of a source that is not of `kernels/`: loaded anew each time, and kept as long as the process is there.
    ///
    /// # Errors
    /// Those of [`Gpu::kernel`].
    pub fn kernel_of(&self, stem: &str, source: &str, name: &'static str) -> Result<Kernel> {
        self.bind()?;
        resolved(self.module(stem, source)?, stem, name, self.driver_version())
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
        let load = |(stem, defines): &ModuleKey| -> Result<Module> {
            let source = specialised(stem, defines)?;
            self.bind()?;
            self.module(stem, &source)
        };
        // A thread each: compilers wait for the disk, and for each other, too. One where each must see what others leave.
        let threads = if addresses_left_bytes().is_some() { 1 } else { missing.len() };
        let queue = Mutex::new(missing.iter().enumerate());
        let work = || -> Vec<(usize, Result<Module>)> {
            std::iter::from_fn(|| lock(&queue).next()).map(|(i, key)| (i, load(key))).collect()
        };
        let loaded: BTreeMap<usize, Result<Module>> = together(threads, work).into_iter().flatten().collect();
        let mut modules = lock(&self.0.modules);
        let mut keep = |(key, module): (&ModuleKey, Result<Module>)| {
            modules.insert(key.clone(), module?);
            Ok(())
        };
        let kept: Vec<Result<()>> = missing.into_iter().zip(loaded.into_values()).map(&mut keep).collect();
        kept.into_iter().collect()
    }

    fn module(&self, stem: &str, source: &str) -> Result<Module> {
        let (nvrtc, forms) = self.compiler()?;
        self.module_in(forms, nvrtc, stem, source)
    }

    /// One source as a module, in the first of these forms that the driver loads.
    fn module_in(&self, forms: &[Form], nvrtc: &Nvrtc, stem: &str, source: &str) -> Result<Module> {
        let architecture = nvrtc.architecture_for(self.architecture())?;
        let mut refused: Vec<String> = Vec::new();
        for &form in forms {
            let target = Target { form, architecture: &architecture };
            let mut image = self.0.cache.compiled(nvrtc, stem, source, target)?;
            if form == Form::Ptx {
                image = version::lowered(&image, self.driver_version());
            }
            image.push(0); // PTX is read as a C string; a cubin ends where its own header says
            match load_image(&image) {
                Ok(module) => {
                    if form == Form::Ptx && !self.driver().is_virtual() {
                        self.note_own_code(nvrtc, refused.first());
                    }
                    return Ok(Module(module));
                }
                // Another form would not help; after a fault nothing would.
                Err((error, _)) if !error.is_of_image() => {
                    return Err(error).with_context(|| format!("loading the compiled kernels/{stem}.cu"));
                }
                Err((error, log)) => {
                    refused.push(format!("{} for sm_{architecture}: {error}{log}", target.extension()))
                }
            }
        }
        bail!(
            "loading the compiled kernels/{stem}.cu: the driver, of CUDA {}, takes nothing of NVRTC {} ({}); the one that fits: {}",
            self.driver_version(),
            nvrtc.version(),
            refused.join("; "),
            how_to_get(self.fitting())
        )
    }

    /// Says once that the driver makes the code, and why.
    fn note_own_code(&self, nvrtc: &Nvrtc, refused: Option<&String>) {
        if self.0.own_code.swap(true, Ordering::Relaxed) {
            return;
        }
        let (compiler, version, device) = (nvrtc.version(), self.driver_version(), self.architecture());
        let why = match refused {
            Some(refused) => format!("it does not load NVRTC {compiler}'s {refused}"),
            None if compiler.major > version.major => format!("NVRTC {compiler}'s own is too new for it"),
            None => format!("NVRTC {compiler} does not know sm_{device}"),
        };
        crate::notice!(
            "note: the driver, of CUDA {version}, compiles the kernels itself, since {why}; one that fits: {}",
            how_to_get(self.fitting())
        );
    }

    /// Sources that are loaded.
    pub fn loaded(&self) -> usize {
        lock(&self.0.modules).len()
    }
}

/// A loaded module's kernel.
fn resolved(module: Module, stem: &str, name: &'static str, driver: CudaVersion) -> Result<Kernel> {
    // SAFETY: the module is loaded and never unloaded.
    let function = unsafe { result::module::get_function(module.0, CString::new(name)?) }
        .map_err(CudaError::from)
        .with_context(|| format!("finding kernel {name} in kernels/{stem}.cu"))?;
    Ok(Kernel(State::Loaded(Arc::new(Inner {
        name,
        function,
        parameter_bytes: parameter_bytes(function, driver),
        allowed_shared_bytes: Mutex::new(DEFAULT_SHARED_BYTES),
    }))))
}

/// Loads a cubin, or PTX with a NUL behind it; or what the driver says, and the first line of what its compiler does.
fn load_image(image: &[u8]) -> Result<CUmodule, (CudaError, String)> {
    let (mut module, mut log) = (std::ptr::null_mut(), [0u8; 1024]);
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    // SAFETY: a whole image, a live local, and as many values as options: a buffer and its length, in a pointer's place.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    loaded.result().map(|()| module).map_err(|error| {
        let text = String::from_utf8_lossy(&log);
        let line = text.split(['\0', '\n']).next().unwrap_or_default().trim();
        (CudaError::from(error), if line.is_empty() { String::new() } else { format!(" ({line})") })
    })
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
fn parameter_bytes(function: CUfunction, driver: CudaVersion) -> Option<Vec<usize>> {
    if driver < (CudaVersion { major: 12, minor: 4 }) {
        return None;
    }
    let (mut sizes, mut offset, mut size) = (Vec::new(), 0, 0);
    // SAFETY: the function is loaded; both outputs are ours.
    while unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) }.result().is_ok() {
        sizes.push(size);
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;

    device_test!(what_does_not_load_as_machine_code_does_as_ptx, |stream| {
        let gpu = stream.gpu();
        if !gpu.driver().is_virtual() {
            return Ok(()); // it loads both
        }
        let (nvrtc, _) = gpu.compiler()?;
        let source = "extern \"C\" __global__ void f(int* p) { *p = 1; }";
        let module = gpu.module_in(&[Form::Cubin, Form::Ptx], nvrtc, "f", source)?;
        resolved(module, "f", "f", gpu.driver_version())?;
        let refused = gpu.module_in(&[Form::Cubin], nvrtc, "f", source).err().expect("vcuda runs PTX alone");
        let said = format!("{refused:#}");
        let cubin = format!("cubin for sm_{}: CUDA_ERROR_NO_BINARY_FOR_GPU", gpu.architecture());
        for words in ["kernels/f.cu", &cubin, &gpu.fitting().wheel()] {
            assert!(said.contains(words), "{said}");
        }
        // The driver's compiler says what is wrong.
        let wrong = load_image(b".version 8.0\n.target sm_80\n.address_size 64\nnonsense\n\0");
        let (error, log) = wrong.expect_err("no PTX");
        assert!(error.is_of_image() && log.contains("nonsense"), "{error}{log}");
    });
}
