//! A device: its context, what it can do, its memory, and the kernels that are loaded on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use super::error::CudaError;
use super::kernel::{Kernel, Module, ModuleKey};
use super::{Cache, CudaVersion, DeviceChoice, Driver, Form, Nvrtc, driver};

/// A device with its loaded kernels. Cheap to clone; a process may have several.
#[derive(Clone)]
pub struct Gpu(pub(super) Arc<Inner>);

pub(super) struct Inner {
    context: Arc<CudaContext>,
    driver: Driver,
    /// The newest CUDA that the driver serves.
    version: CudaVersion,
    architecture: String,
    /// Whether a GPU's driver has made kernels from PTX, whose code is then its own.
    pub(super) own_code: AtomicBool,
    pub(super) cache: Cache,
    pub(super) kernels: Mutex<HashMap<(ModuleKey, &'static str), Kernel>>,
    pub(super) modules: Mutex<HashMap<ModuleKey, Module>>,
}

impl Gpu {
    /// Opens a device. The first call of a process settles the driver for good: real or virtual.
    ///
    /// # Errors
    /// No such device, no virtual driver beside the program, a choice of several, or of another driver than the first.
    pub fn open(choice: DeviceChoice) -> Result<Gpu> {
        let (driver, ordinal) = driver::select(choice)?;
        Gpu::open_one(
            driver,
            ordinal.context("opening a device: all of them were asked for, where one is needed")?,
        )
    }

    /// Opens every device that is asked for: see [`Gpu::open`].
    ///
    /// # Errors
    /// Its own; devices of several kinds.
    pub fn open_all(choice: DeviceChoice) -> Result<Vec<Gpu>> {
        let (driver, ordinal) = driver::select(choice)?;
        let ordinals = match ordinal {
            Some(ordinal) => ordinal..ordinal + 1,
            None => {
                0..CudaContext::device_count().map_err(CudaError::from).context("counting devices")? as usize
            }
        };
        let gpus = ordinals.map(|ordinal| Gpu::open_one(driver, ordinal)).collect::<Result<Vec<Gpu>>>()?;
        let kind = |gpu: &Gpu| Ok(format!("{} (sm_{})", gpu.name()?, gpu.architecture()));
        of_one_kind(&gpus.iter().map(kind).collect::<Result<Vec<String>>>()?)?;
        Ok(gpus)
    }

    fn open_one(driver: Driver, ordinal: usize) -> Result<Gpu> {
        let open = || -> Result<Gpu> {
            let context = CudaContext::new(ordinal).map_err(CudaError::from)?;
            let (major, minor) = context.compute_capability().map_err(CudaError::from)?;
            let mut version = 0;
            // SAFETY: a live local.
            unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(CudaError::from)?;
            // Hopper's own instructions (wgmma, TMA) are only in the architecture-specific target.
            let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
            Ok(Gpu(Arc::new(Inner {
                context,
                driver,
                version: CudaVersion::from_number(version),
                own_code: AtomicBool::new(false),
                architecture: format!("{major}{minor}{suffix}"),
                cache: Cache::from_environment(),
                kernels: Mutex::default(),
                modules: Mutex::default(),
            })))
        };
        open().with_context(|| format!("opening device {ordinal} of the {driver} driver"))
    }

    /// The driver that answers.
    pub fn driver(&self) -> Driver {
        self.0.driver
    }

    /// The newest CUDA that the driver serves.
    pub fn driver_version(&self) -> CudaVersion {
        self.0.version
    }

    /// The version whose NVRTC fits it best, for advice: where the driver is virtual and newer, what most tests are run with.
    pub fn fitting(&self) -> CudaVersion {
        let version = self.0.version;
        if self.driver().is_virtual() { version.min(CudaVersion::TESTED) } else { version }
    }

    /// The compiler of its kernels, and the forms that its driver may load from there, the best first.
    ///
    /// # Errors
    /// No NVRTC: with the command that gets the one that fits. One that knows no device as old as this.
    pub fn compiler(&self) -> Result<(&'static Nvrtc, &'static [Form])> {
        let nvrtc = Nvrtc::find(self.0.version, self.fitting())?;
        nvrtc.architecture_for(self.architecture())?;
        let loads_cubins = !self.driver().is_virtual() && self.suits(nvrtc);
        Ok((nvrtc, if loads_cubins { &[Form::Cubin, Form::Ptx] } else { &[Form::Ptx] }))
    }

    /// Whether the driver is not of an older CUDA major version than the compiler, and the compiler knows the device.
    pub fn suits(&self, nvrtc: &Nvrtc) -> bool {
        let own = self.architecture();
        nvrtc.version().major <= self.0.version.major
            && nvrtc.architecture_for(own).is_ok_and(|best| best == own)
    }

    /// What has written the device's code, which results may depend on: such as `NVRTC 13.0`, and the driver where that did the last part.
    ///
    /// # Errors
    /// Those of [`Gpu::compiler`].
    pub fn code_by(&self) -> Result<String> {
        let driver = match self.0.own_code.load(Ordering::Relaxed) {
            true => format!(", by the driver of CUDA {}", self.0.version),
            false => String::new(),
        };
        Ok(format!("NVRTC {}{driver}", self.compiler()?.0.version()))
    }

    /// The device's own name.
    pub fn name(&self) -> Result<String> {
        Ok(self.context().name().map_err(CudaError::from)?)
    }

    /// Its number among those of the driver, which is one in a process.
    pub fn ordinal(&self) -> usize {
        self.context().ordinal()
    }

    /// What kernels are compiled for, which their results depend on: such as `sm_90a`, or `virtual sm_90a`.
    pub fn target(&self) -> String {
        format!("{}sm_{}", if self.driver().is_virtual() { "virtual " } else { "" }, self.architecture())
    }

    /// Compute capability as NVRTC writes it, such as `90a`.
    pub fn architecture(&self) -> &str {
        &self.0.architecture
    }

    /// Free and total device memory, bytes.
    pub fn memory_bytes(&self) -> Result<(usize, usize)> {
        Ok(self.context().mem_get_info().map_err(CudaError::from)?)
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> Result<usize> {
        let count = self.context().attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        Ok(count.map_err(CudaError::from)? as usize)
    }

    /// The most bytes of shared memory that a CTA can have.
    ///
    /// # Errors
    /// The driver's.
    pub fn shared_bytes(&self) -> Result<usize> {
        let most = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        Ok(self.context().attribute(most).map_err(CudaError::from)? as usize)
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    /// Makes its context this thread's.
    pub(super) fn bind(&self) -> Result<()> {
        Ok(self.context().bind_to_thread().map_err(CudaError::from)?)
    }
}

/// Refuses devices that are not all alike, by what they are: results would depend on which of them had which image.
fn of_one_kind(kinds: &[String]) -> Result<()> {
    let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) else { return Ok(()) };
    let alike: Vec<String> =
        (0..kinds.len()).filter(|&i| kinds[i] == kinds[0]).map(|i| i.to_string()).collect();
    bail!(
        "opening all GPUs: 0 is {}, {other} is {}, and results would depend on which of them had which image; choose one \
         (--device gpu:N), or hide others with CUDA_VISIBLE_DEVICES: {} are alike",
        kinds[0],
        kinds[other],
        alike.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_several_kinds_are_refused_by_name() {
        let refused = |kinds: &[&str]| {
            let kinds: Vec<String> = kinds.iter().map(|kind| kind.to_string()).collect();
            of_one_kind(&kinds).err().map(|error| error.to_string())
        };
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&["A100 (sm_80)", "A100 (sm_80)"]), None);
        let said =
            refused(&["A100 (sm_80)", "A100 (sm_80)", "H100 (sm_90a)", "A100 (sm_80)"]).expect("refused");
        for words in [
            "0 is A100 (sm_80), 2 is H100 (sm_90a)",
            "--device gpu:N",
            "CUDA_VISIBLE_DEVICES: 0,1,3 are alike",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }
}
