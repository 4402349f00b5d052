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

/// What to compile for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// PTX for vcuda; otherwise a cubin, which a driver older than this NVRTC takes too.
    pub virtual_driver: bool,
    /// Such as `90a`.
    pub architecture: &'a str,
}

impl Target<'_> {
    /// The compiler's options for a source: ours, then the source's own `// nvrtc:` line.
    pub fn options(&self, source: &str) -> Vec<String> {
        let kind = if self.virtual_driver { "compute" } else { "sm" };
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
        if self.virtual_driver { "ptx" } else { "cubin" }
    }
}

/// An open NVRTC.
pub struct Nvrtc {
    path: PathBuf,
    version: (i32, i32),
    fingerprint: OnceLock<String>,
    library: Library,
}

type Program = *mut c_void;
type Status = c_int;

impl Nvrtc {
    /// The first NVRTC found; the same one for the whole process.
    ///
    /// # Errors
    /// None found: with the one command that gets it.
    pub fn find() -> Result<&'static Nvrtc> {
        static FOUND: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            if let Some(path) = std::env::var_os("MEMO_NVRTC") {
                let path = library_in(Path::new(&path)).unwrap_or(PathBuf::from(path));
                return Nvrtc::open(&path).map_err(|e| format!("MEMO_NVRTC={}: {e:#}", path.display()));
            }
            candidates().iter().find_map(|path| Nvrtc::open(path).ok()).ok_or_else(|| {
                "finding NVRTC, the CUDA run-time compiler: not in MEMO_NVRTC, the loader's path, CUDA_HOME, \
                 /usr/local/cuda, a Python environment or .nvrtc/; get it with \
                 `make nvrtc`, or `pip install 'nvidia-cuda-nvrtc==13.0.*'` in the active environment"
                    .to_string()
            })
        });
        found.as_ref().map_err(|message| anyhow!("{message}"))
    }

    /// The library's file, or its bare name when the loader's path had it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The full version, such as `13.0.88`. Only what NVRTC writes above its PTX says it, so this compiles something.
    ///
    /// # Errors
    /// A compiler that does not work, or does not say.
    pub fn release(&self) -> Result<String> {
        let target = Target { virtual_driver: true, architecture: "80" };
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
    fn file(&self) -> Result<PathBuf> {
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
        // The builtins are found by NVRTC only when they are loaded already, by full path.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let builtins = files_starting_with(folder, "libnvrtc-builtins.so");
            if let Some(builtins) = builtins.first() {
                // SAFETY: a data library of NVIDIA's; it has no initialisers. It stays loaded.
                std::mem::forget(unsafe { Library::new(builtins) }?);
            }
        }
        // SAFETY: NVIDIA's compiler library, loaded as any CUDA program does.
        let library = unsafe { Library::new(path) }?;
        let mut nvrtc =
            Nvrtc { path: path.to_path_buf(), version: (0, 0), fingerprint: OnceLock::new(), library };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: nvrtcVersion writes two ints.
        let status = unsafe {
            nvrtc.library.get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status>(b"nvrtcVersion\0")?(
                &mut major, &mut minor,
            )
        };
        nvrtc.check(status, "nvrtcVersion")?;
        nvrtc.version = (major, minor);
        Ok(nvrtc)
    }

    /// Compiles one source to PTX (virtual driver) or a cubin (GPU).
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
        let target = Target { virtual_driver: false, architecture };
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
            let what = if target.virtual_driver { "PTX" } else { "CUBIN" };
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

/// Where NVRTC may be, in the order of preference.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for major in ["13", "12"] {
        found.push(PathBuf::from(format!("libnvrtc.so.{major}"))); // the loader's path
    }
    found.push(PathBuf::from("libnvrtc.so"));

    let toolkits = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    let installed = files_starting_with(Path::new("/usr/local"), "cuda");
    for toolkit in toolkits.chain(installed) {
        for folder in ["lib64", "lib", "targets/x86_64-linux/lib"] {
            found.extend(library_in(&toolkit.join(folder)));
        }
    }

    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let interpreters = std::env::split_paths(&path)
        .filter(|folder| folder.join("python3").exists())
        .filter_map(|folder| folder.parent().map(Path::to_path_buf));
    for prefix in environments.chain(interpreters) {
        for python in files_starting_with(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                found.extend(wheel_libraries(&python.join(packages)));
            }
        }
    }

    // The project's own folder: found from the program's place and from the current folder.
    let program = std::env::current_exe().unwrap_or_default();
    let current = std::env::current_dir().unwrap_or_default();
    for folder in program.ancestors().skip(1).chain(current.ancestors()) {
        found.extend(wheel_libraries(&folder.join(".nvrtc")));
    }
    found.extend(wheel_libraries(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".nvrtc")));
    found
}

/// NVRTC in a folder of installed wheels: `nvidia/*/lib`.
fn wheel_libraries(packages: &Path) -> Vec<PathBuf> {
    let folders = files_starting_with(&packages.join("nvidia"), "");
    folders.iter().rev().filter_map(|folder| library_in(&folder.join("lib"))).collect()
}

/// The newest `libnvrtc.so.N` of a folder.
fn library_in(folder: &Path) -> Option<PathBuf> {
    files_starting_with(folder, "libnvrtc.so").pop()
}

/// The entries of a folder whose name begins so, sorted; none if there is no such folder.
fn files_starting_with(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}
