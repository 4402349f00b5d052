//! NVRTC, NVIDIA's run-time compiler: finding it and calling it.
//!
//! Opened by path here instead of through cudarc, whose search begins with whatever
//! `libnvrtc.so` the loader knows: the version in a cache key must be the one that compiles.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use libloading::Library;
use sha2::{Digest, Sha256};

use super::addresses::addresses_left_bytes;
use super::{CudaVersion, human_bytes};

mod find;

pub use find::how_to_get;

/// More than NVRTC 13.0 takes for any kernel, of memory and of addresses. Where it gets less, it aborts the process.
const NEEDED_BYTES: usize = 256 << 20;

/// What compiled kernels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Machine code, which a driver of the compiler's major version loads, be it older than the compiler.
    Cubin,
    /// Text for the driver's own compiler, and for vcuda.
    Ptx,
}

/// What to compile for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub form: Form,
    /// Such as `90a`.
    pub architecture: &'a str,
}

impl Target<'_> {
    /// The compiler's options for a source: ours, then the source's own `// nvrtc:` line.
    pub fn options(&self, source: &str) -> Vec<String> {
        let kind = if self.form == Form::Ptx { "compute" } else { "sm" };
        let mut options = vec![
            format!("--gpu-architecture={kind}_{}", self.architecture),
            "--std=c++17".to_string(),
            "--generate-line-info".to_string(),
        ];
        let own = source.lines().find_map(|line| line.strip_prefix("// nvrtc:"));
        options.extend(own.into_iter().flat_map(str::split_whitespace).map(str::to_string));
        options
    }

    /// The file extension of what [`Nvrtc::compile`] returns.
    pub fn extension(&self) -> &'static str {
        if self.form == Form::Ptx { "ptx" } else { "cubin" }
    }
}

/// An open NVRTC.
pub struct Nvrtc {
    path: PathBuf,
    version: CudaVersion,
    architectures: Vec<u32>,
    fingerprint: OnceLock<String>,
    library: Library,
}

type Program = *mut c_void;
type Status = c_int;

impl Nvrtc {
    pub fn version(&self) -> CudaVersion {
        self.version
    }

    /// Compute capabilities that it compiles for, such as 75.
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// The best that it compiles for a device of this architecture, such as `90a`: that one, or of an older kind whose PTX the
    /// device's driver makes its own code of.
    ///
    /// # Errors
    /// A device that is older than all that it knows.
    pub fn architecture_for(&self, device: &str) -> Result<String> {
        let number = compute_capability(device);
        let known = self.architectures.iter().copied().filter(|&known| known <= number).max();
        let known = known.with_context(|| {
            let oldest = self.architectures.iter().min().unwrap_or(&0);
            format!(
                "NVRTC {} compiles for sm_{oldest} and newer devices; this one is sm_{device}",
                self.version
            )
        })?;
        Ok(if known == number { device.to_string() } else { known.to_string() })
    }

    /// The full version, such as `13.0.88`. Only what NVRTC writes above its PTX says it, so this compiles something.
    ///
    /// # Errors
    /// A compiler that does not work, or does not say.
    pub fn release(&self) -> Result<String> {
        let target = Target { form: Form::Ptx, architecture: "80" };
        let ptx = self.compile("release", "extern \"C\" __global__ void nothing() {}", target)?;
        let text = String::from_utf8_lossy(&ptx);
        let said = text.lines().find_map(|line| line.strip_prefix("// Cuda compilation tools, release "));
        let release = said.and_then(|said| said.split_once(", V")).map(|(_, release)| release.trim());
        Ok(release
            .ok_or_else(|| anyhow!("{}: it does not say its release", self.path.display()))?
            .to_string())
    }

    /// Tells one release's library from another's, whose version may be the same, though they do not all generate the same
    /// code: of its file the length, and a digest of both ends. To compile something would take 0.3 s of every start.
    ///
    /// # Errors
    /// The library's file cannot be read.
    pub fn fingerprint(&self) -> Result<&str> {
        const END_BYTES: usize = 1 << 20;
        if let Some(fingerprint) = self.fingerprint.get() {
            return Ok(fingerprint);
        }
        let path = self.file()?;
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&path)?;
            let len = file.metadata()?.len();
            let mut digest = Sha256::new();
            for start in [0, len.saturating_sub(END_BYTES as u64)] {
                let mut end = Vec::with_capacity(END_BYTES);
                file.seek(SeekFrom::Start(start))?;
                Read::by_ref(&mut file).take(END_BYTES as u64).read_to_end(&mut end)?;
                digest.update(&end);
            }
            Ok(format!("{len} {:x?}", digest.finalize()))
        };
        let fingerprint = read().with_context(|| format!("reading {}", path.display()))?;
        Ok(self.fingerprint.get_or_init(|| fingerprint))
    }

    /// The file that was opened, also where the loader's path had it.
    ///
    /// # Errors
    /// The loader does not know.
    pub fn file(&self) -> Result<PathBuf> {
        // SAFETY: dladdr fills the struct where it finds an object around the function, which stays loaded as long as `self`.
        unsafe {
            let function = self.library.get::<unsafe extern "C" fn()>(b"nvrtcVersion\0")?;
            let mut found: libc::Dl_info = std::mem::zeroed();
            let known = libc::dladdr(*function as *const c_void, &mut found);
            ensure!(
                known != 0 && !found.dli_fname.is_null(),
                "{}: its file is not known",
                self.path.display()
            );
            Ok(PathBuf::from(OsStr::from_bytes(CStr::from_ptr(found.dli_fname).to_bytes())))
        }
    }

    fn open(path: &Path) -> Result<Nvrtc> {
        // SAFETY: NVIDIA's compiler library, loaded as any CUDA program does.
        let library = unsafe { Library::new(path) }?;
        let mut nvrtc = Nvrtc {
            path: path.to_path_buf(),
            version: CudaVersion::from_number(0),
            architectures: Vec::new(),
            fingerprint: OnceLock::new(),
            library,
        };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: nvrtcVersion writes two ints, the others one, and as many ints as that says.
        unsafe {
            type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
            type Ints = unsafe extern "C" fn(*mut c_int) -> Status;
            let version = nvrtc.library.get::<Version>(b"nvrtcVersion\0")?;
            nvrtc.check(version(&mut major, &mut minor), "nvrtcVersion")?;
            let counts = nvrtc.library.get::<Ints>(b"nvrtcGetNumSupportedArchs\0")?;
            nvrtc.check(counts(&mut count), "nvrtcGetNumSupportedArchs")?;
            let mut architectures = vec![0; count as usize];
            let list = nvrtc.library.get::<Ints>(b"nvrtcGetSupportedArchs\0")?;
            nvrtc.check(list(architectures.as_mut_ptr()), "nvrtcGetSupportedArchs")?;
            nvrtc.architectures = architectures.into_iter().map(|number| number as u32).collect();
        }
        nvrtc.version = CudaVersion { major: major as u32, minor: minor as u32 };
        // NVRTC looks for its builtins beside itself where its file says so, which that of 13.0 does not; what is loaded already,
        // it finds. Its file's folder may hold other versions' too.
        let builtins = format!("libnvrtc-builtins.so.{}", nvrtc.version);
        let beside = nvrtc.file()?.canonicalize()?.with_file_name(&builtins);
        // SAFETY: a data library of NVIDIA's; it has no initialisers. It stays loaded.
        let loaded = unsafe { Library::new(&beside).or_else(|_| Library::new(&builtins)) };
        std::mem::forget(loaded.with_context(|| format!("{}: without its {builtins}", path.display()))?);
        Ok(nvrtc)
    }

    /// Compiles one source.
    ///
    /// # Errors
    /// The compiler's log.
    pub fn compile(&self, name: &str, source: &str, target: Target) -> Result<Vec<u8>> {
        Ok(self.compile_with(name, source, target, &[])?.0)
    }

    /// The cubin of one source, the same that [`Nvrtc::compile`] makes for a GPU, and what `ptxas -v` says of its kernels: the
    /// assembler is part of NVRTC.
    ///
    /// # Errors
    /// The compiler's log.
    pub fn compile_verbosely(
        &self,
        name: &str,
        source: &str,
        architecture: &str,
    ) -> Result<(Vec<u8>, String)> {
        let target = Target { form: Form::Cubin, architecture };
        self.compile_with(name, source, target, &["--ptxas-options=-v"])
    }

    /// What is compiled, and the log.
    fn compile_with(
        &self,
        name: &str,
        source: &str,
        target: Target,
        more: &[&str],
    ) -> Result<(Vec<u8>, String)> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> Status;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status;
        type Destroy = unsafe extern "C" fn(*mut Program) -> Status;

        let left_bytes = addresses_left_bytes().unwrap_or(usize::MAX);
        ensure!(
            left_bytes >= NEEDED_BYTES,
            "compiling kernels/{name}.cu: NVRTC may take {}, and the process has {} of addresses left (ulimit -v)",
            human_bytes(NEEDED_BYTES),
            human_bytes(left_bytes)
        );
        let text = CString::new(source)?;
        let file = CString::new(format!("{name}.cu"))?;
        let options = target.options(source).into_iter().chain(more.iter().map(|option| option.to_string()));
        let options: Vec<CString> = options.map(CString::new).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program: Program = null_mut();
        // SAFETY: the signatures are nvrtc.h's, unchanged since CUDA 11; every pointer outlives its
        // call; the program is destroyed once, on every path.
        unsafe {
            let create = self.library.get::<Create>(b"nvrtcCreateProgram\0")?;
            let compile = self.library.get::<Compile>(b"nvrtcCompileProgram\0")?;
            let destroy = self.library.get::<Destroy>(b"nvrtcDestroyProgram\0")?;
            let null = null_mut();
            let status = create(&mut program, text.as_ptr(), file.as_ptr(), 0, null, null);
            self.check(status, "nvrtcCreateProgram")?;
            let status = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let log = self.fetch(program, "ProgramLog").unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let what = if target.form == Form::Ptx { "PTX" } else { "CUBIN" };
            let result = match self.check(status, "compiling") {
                Ok(()) => self.fetch(program, what).map(|compiled| (compiled, log)),
                Err(error) => Err(anyhow!("kernels/{name}.cu: {error}\n{log}")),
            };
            destroy(&mut program);
            result
        }
    }

    /// One of NVRTC's outputs, by the name in `nvrtcGet{what}Size` and `nvrtcGet{what}`.
    ///
    /// # Safety
    /// `program` is live, and compiled if `what` is not the log.
    unsafe fn fetch(&self, program: Program, what: &str) -> Result<Vec<u8>> {
        type Size = unsafe extern "C" fn(Program, *mut usize) -> Status;
        type Get = unsafe extern "C" fn(Program, *mut c_char) -> Status;
        let mut bytes = 0;
        // SAFETY: the second call writes as many bytes as the first one said.
        unsafe {
            let size = self.library.get::<Size>(format!("nvrtcGet{what}Size\0").as_bytes())?;
            self.check(size(program, &mut bytes), what)?;
            let mut output = vec![0u8; bytes];
            let get = self.library.get::<Get>(format!("nvrtcGet{what}\0").as_bytes())?;
            self.check(get(program, output.as_mut_ptr().cast()), what)?;
            while what != "CUBIN" && output.last() == Some(&0) {
                output.pop();
            }
            Ok(output)
        }
    }

    fn check(&self, status: Status, what: &str) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        type Text = unsafe extern "C" fn(Status) -> *const c_char;
        // SAFETY: returns a static C string for any status.
        let text = unsafe {
            let get = self.library.get::<Text>(b"nvrtcGetErrorString\0")?;
            CStr::from_ptr(get(status)).to_string_lossy().into_owned()
        };
        ensure!(status == 0, "{what}: {text}");
        Ok(())
    }
}

/// `90` of `90a`.
pub fn compute_capability(architecture: &str) -> u32 {
    architecture.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}
