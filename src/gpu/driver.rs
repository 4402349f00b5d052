//! Which CUDA driver answers: the machine's own or vcuda.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, bail, ensure};
use libloading::Library;

use super::CudaVersion;

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU where the real driver finds one, else the virtual driver.
    #[default]
    Auto,
    /// A real GPU, by number.
    Gpu(usize),
    /// Every real GPU.
    AllGpus,
    /// vcuda, also where there is a GPU.
    Virtual,
    /// Every device that vcuda is told to have.
    AllVirtual,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "gpu" => Ok(DeviceChoice::Gpu(0)),
            "gpu:all" => Ok(DeviceChoice::AllGpus),
            "virtual" => Ok(DeviceChoice::Virtual),
            "virtual:all" => Ok(DeviceChoice::AllVirtual),
            _ => match text.strip_prefix("gpu:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(DeviceChoice::Gpu(ordinal)),
                _ => Err("expected auto, gpu, gpu:N, gpu:all or virtual".to_string()),
            },
        }
    }
}

/// The driver a process has settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The machine's own `libcuda.so`.
    Real,
    /// vcuda: kernels run on the CPU.
    Virtual,
}

impl Driver {
    pub fn is_virtual(self) -> bool {
        self == Driver::Virtual
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_virtual() { "virtual" } else { "NVIDIA" })
    }
}

/// The driver for a choice, and its devices: `None` for all of them. cudarc opens one driver a process, so the first call decides.
pub(super) fn select(choice: DeviceChoice) -> Result<(Driver, Option<usize>)> {
    static SETTLED: Mutex<Option<Driver>> = Mutex::new(None);
    let mut settled = super::lock(&SETTLED);
    let (wanted, ordinal) = match choice {
        DeviceChoice::Virtual => (Driver::Virtual, Some(0)),
        DeviceChoice::AllVirtual => (Driver::Virtual, None),
        DeviceChoice::Auto if settled.is_some() => (settled.unwrap_or(Driver::Virtual), Some(0)),
        DeviceChoice::Auto if installed().is_ok_and(|driver| driver.gpus > 0) => (Driver::Real, Some(0)),
        DeviceChoice::Auto => (Driver::Virtual, Some(0)),
        DeviceChoice::AllGpus => {
            let count = installed().context("opening all GPUs")?.gpus;
            ensure!(
                count > 0,
                "opening all GPUs: the driver shows none{}; --device virtual runs on the CPU",
                hidden()
            );
            (Driver::Real, None)
        }
        DeviceChoice::Gpu(ordinal) => {
            let count = installed().with_context(|| format!("opening GPU {ordinal}"))?.gpus;
            ensure!(
                ordinal < count,
                "opening GPU {ordinal}: the driver shows {count}{}; choose a lower number or --device virtual",
                hidden()
            );
            (Driver::Real, Some(ordinal))
        }
    };
    match *settled {
        Some(first) if first != wanted => {
            bail!("opening the {wanted} driver: this process already uses the {first} one")
        }
        Some(_) => {}
        None => {
            if wanted.is_virtual() {
                load_virtual()?;
            }
            *settled = Some(wanted);
        }
    }
    Ok((wanted, ordinal))
}

/// The machine's own driver.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// The newest CUDA that it serves.
    pub version: CudaVersion,
    /// GPUs, or MIG slices of one, that it shows to this process.
    pub gpus: usize,
}

/// Asks the machine's own driver.
///
/// # Errors
/// No driver installed, or it does not start: with what to do.
pub fn installed() -> Result<Installed> {
    static INSTALLED: OnceLock<Result<Installed, String>> = OnceLock::new();
    INSTALLED.get_or_init(ask_installed).clone().map_err(anyhow::Error::msg)
}

fn ask_installed() -> Result<Installed, String> {
    // SAFETY: the driver's own name and SONAME, whose initialisers any CUDA program runs; these functions have had these
    // signatures in every CUDA version.
    unsafe {
        let library = Library::new("libcuda.so.1").map_err(|_| {
            "no NVIDIA driver (libcuda.so.1) on this machine; --device virtual runs on the CPU".to_string()
        })?;
        let missing = |e: libloading::Error| format!("libcuda.so.1 is not a CUDA driver: {e}");
        let init = library.get::<unsafe extern "C" fn(u32) -> i32>(b"cuInit\0").map_err(missing)?;
        let number = |name: &[u8]| -> Result<(i32, i32), String> {
            let function = library.get::<unsafe extern "C" fn(*mut i32) -> i32>(name).map_err(missing)?;
            let mut number = 0;
            Ok((function(&mut number), number))
        };
        let (started, (asked, version)) = (init(0), number(b"cuDriverGetVersion\0")?);
        let version = CudaVersion::from_number(version);
        let gpus = match (started, number(b"cuDeviceGetCount\0")?) {
            (0, (0, count)) if asked == 0 => count as usize,
            (NO_DEVICE, _) => 0,
            (code, (other, _)) => {
                return Err(does_not_start(if code != 0 { code } else { other.max(asked) }, version));
            }
        };
        std::mem::forget(library); // cudarc opens it again; the driver dislikes being unloaded
        Ok(Installed { version, gpus })
    }
}

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: i32 = 100;

/// What keeps a driver from starting, by its code.
fn does_not_start(code: i32, version: CudaVersion) -> String {
    let (name, what) = match code {
        46 => ("DEVICE_UNAVAILABLE", "another process has the GPU for itself: wait, or choose another one"),
        802 => ("SYSTEM_NOT_READY", "its fabric manager does not run: start nvidia-fabricmanager"),
        803 => ("SYSTEM_DRIVER_MISMATCH", "it is newer or older than the kernel's part of it: reboot"),
        804 => ("COMPAT_NOT_SUPPORTED_ON_DEVICE", "take its compatibility package out of LD_LIBRARY_PATH"),
        999 => {
            ("UNKNOWN", "its kernel part may be missing, or may have lost the GPU: see nvidia-smi and dmesg")
        }
        _ => ("", "see nvidia-smi"),
    };
    let name = if name.is_empty() { code.to_string() } else { format!("{code}, CUDA_ERROR_{name}") };
    format!("the NVIDIA driver (CUDA {version}) does not start: error {name}; {what}")
}

/// How a process comes to see no GPU, or too few.
fn hidden() -> String {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(shown) => format!(" (CUDA_VISIBLE_DEVICES={shown:?} hides all others)"),
        Err(_) => String::new(),
    }
}

/// Opens vcuda by path; its SONAME `libcuda.so` makes it the answer to cudarc's own `dlopen`.
fn load_virtual() -> Result<()> {
    let path = find_virtual_driver()?;
    // SAFETY: our own library; it has no initialisers and stays loaded.
    let library = unsafe { Library::new(&path) }
        .with_context(|| format!("opening the virtual driver {}", path.display()))?;
    std::mem::forget(library);
    Ok(())
}

/// Where `libvcuda.so` is: what `MEMO_VCUDA` names, the library or its folder, where that is set and not empty; else beside the
/// program, in `deps/` beside it, or where cargo built it.
///
/// # Errors
/// None of these, naming them.
pub fn find_virtual_driver() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("MEMO_VCUDA").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        let file = if named.is_dir() { named.join(LIBRARY) } else { named };
        ensure!(
            file.is_file(),
            "finding the virtual driver: MEMO_VCUDA={}: there is no such file; name {LIBRARY} or its folder",
            file.display()
        );
        return Ok(file.canonicalize()?); // a bare name would be searched for
    }
    let program = std::env::current_exe().context("finding the running program")?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = [beside.join("deps"), beside.to_path_buf(), PathBuf::from(env!("MEMO_BUILD_DEPS"))];
    let found = places.iter().map(|place| place.join(LIBRARY)).find(|path| path.is_file());
    found.with_context(|| {
        let mut places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        places.sort();
        places.dedup();
        format!(
            "finding {LIBRARY}, the virtual driver: not in {}; rebuild with `make build`, or name it by MEMO_VCUDA",
            places.join(", ")
        )
    })
}

/// vcuda's file.
const LIBRARY: &str = "libvcuda.so";
