//! The device: which driver answers, its memory, and kernels compiled when first launched.
//!
//! One stream does everything in order, so a call's effects are seen by every later call; results
//! are complete on the host after [`Gpu::read`] or [`Gpu::synchronize`].

mod cache;
mod driver;
mod launch;
mod nvrtc;
mod slice;

pub use cache::Cache;
pub use driver::{DeviceChoice, Driver, find_virtual_driver, gpu_count};
pub use launch::{Arg, Launch};
pub use nvrtc::{Nvrtc, Target};
pub use slice::Slice;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use bytemuck::Pod;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A device with its stream and its loaded kernels. Cheap to clone.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    driver: Driver,
    architecture: String,
    cache: Cache,
    kernels: Mutex<HashMap<(&'static str, &'static str), launch::Kernel>>,
    modules: Mutex<HashMap<&'static str, launch::Module>>,
    /// The last kernel launched: an asynchronous error is most likely its own.
    last: Mutex<Option<&'static str>>,
}

impl Gpu {
    /// Opens a device. The first call of a process settles the driver for good: real or virtual.
    ///
    /// # Errors
    /// No such device, no virtual driver beside the program, or a choice other than the first.
    pub fn open(choice: DeviceChoice) -> Result<Gpu> {
        let (driver, ordinal) = driver::select(choice)?;
        let open = || -> Result<Gpu> {
            let context = CudaContext::new(ordinal).map_err(cuda_error)?;
            let stream = context.new_stream().map_err(cuda_error)?;
            let (major, minor) = context.compute_capability().map_err(cuda_error)?;
            // Hopper's own instructions (wgmma, TMA) are only in the architecture-specific target.
            let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
            Ok(Gpu(Arc::new(Inner {
                context,
                stream,
                driver,
                architecture: format!("{major}{minor}{suffix}"),
                cache: Cache::from_environment(),
                kernels: Mutex::default(),
                modules: Mutex::default(),
                last: Mutex::default(),
            })))
        };
        open().with_context(|| format!("opening device {ordinal} of the {driver} driver"))
    }

    /// The driver that answers.
    pub fn driver(&self) -> Driver {
        self.0.driver
    }

    /// The device's own name.
    pub fn name(&self) -> Result<String> {
        self.0.context.name().map_err(cuda_error)
    }

    /// Compute capability as NVRTC writes it, such as `90a`.
    pub fn architecture(&self) -> &str {
        &self.0.architecture
    }

    /// Free and total device memory, bytes.
    pub fn memory_bytes(&self) -> Result<(usize, usize)> {
        self.0.context.mem_get_info().map_err(cuda_error)
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> Result<usize> {
        let count = self.0.context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        Ok(count.map_err(cuda_error)? as usize)
    }

    /// `len` elements, not initialised.
    ///
    /// # Errors
    /// Out of memory, naming what was asked for and what is free.
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<Slice<T>> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| {
            anyhow!("allocating device memory: {len} elements of {} bytes: too many", size_of::<T>())
        })?;
        Slice::new(self.0.context.clone(), bytes, len).with_context(|| {
            let free = self.memory_bytes().map_or(0, |(free, _)| free);
            format!("allocating {} of device memory ({} free)", human_bytes(bytes), human_bytes(free))
        })
    }

    /// `len` elements, all bits zero.
    pub fn zeros<T: Pod>(&self, len: usize) -> Result<Slice<T>> {
        let slice = self.alloc(len)?;
        self.fill_bytes(&slice, 0)?;
        Ok(slice)
    }

    /// A copy of host data on the device.
    pub fn upload<T: Pod>(&self, data: &[T]) -> Result<Slice<T>> {
        let slice = self.alloc(data.len())?;
        self.write(&slice, data)?;
        Ok(slice)
    }

    /// Overwrites `dst` with host data of the same length.
    pub fn write<T: Pod>(&self, dst: &Slice<T>, data: &[T]) -> Result<()> {
        same_length("writing device memory", dst.len(), data.len())?;
        self.bind()?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: dst is a live allocation of at least data's bytes; the stream is synchronised
        // before data's borrow ends.
        unsafe { result::memcpy_htod_async(dst.address(), data, self.0.stream.cu_stream()) }
            .map_err(cuda_error)
            .context("copying to the device")?;
        self.synchronize()
    }

    /// A copy of device data on the host, complete.
    pub fn read<T: Pod>(&self, src: &Slice<T>) -> Result<Vec<T>> {
        let mut data = vec![T::zeroed(); src.len()];
        self.bind()?;
        if !data.is_empty() {
            // SAFETY: src is a live allocation of data's length; the stream is synchronised before
            // data is looked at.
            unsafe { result::memcpy_dtoh_async(&mut data, src.address(), self.0.stream.cu_stream()) }
                .map_err(cuda_error)
                .with_context(|| self.blame("copying from the device"))?;
        }
        self.synchronize()?;
        Ok(data)
    }

    /// Device to device, in stream order.
    pub fn copy<T: Pod>(&self, dst: &Slice<T>, src: &Slice<T>) -> Result<()> {
        same_length("copying device memory", dst.len(), src.len())?;
        self.bind()?;
        if src.is_empty() {
            return Ok(());
        }
        // SAFETY: both are live allocations of src's length; freeing device memory waits for the
        // work that was queued before it.
        unsafe {
            let bytes = src.len() * size_of::<T>();
            result::memcpy_dtod_async(dst.address(), src.address(), bytes, self.0.stream.cu_stream())
        }
        .map_err(cuda_error)
        .context("copying on the device")
    }

    /// Every byte of `dst` becomes `value`, in stream order.
    pub fn fill_bytes<T: Pod>(&self, dst: &Slice<T>, value: u8) -> Result<()> {
        self.bind()?;
        if dst.is_empty() {
            return Ok(());
        }
        // SAFETY: dst is a live allocation of that many bytes.
        unsafe {
            let bytes = dst.len() * size_of::<T>();
            result::memset_d8_async(dst.address(), value, bytes, self.0.stream.cu_stream())
        }
        .map_err(cuda_error)
        .context("filling device memory")
    }

    /// Waits for all queued work and reports its errors.
    pub fn synchronize(&self) -> Result<()> {
        self.0.stream.synchronize().map_err(cuda_error).with_context(|| self.blame("waiting for the device"))
    }

    /// Compiles and loads every kernel now, so that none is compiled later in the middle of work.
    pub fn load_all_kernels(&self) -> Result<()> {
        let stems: Vec<&'static str> = SOURCES.iter().map(|(stem, _)| *stem).collect();
        self.load_modules(&stems)
    }

    fn bind(&self) -> Result<()> {
        self.0.context.bind_to_thread().map_err(cuda_error)
    }

    fn blame(&self, what: &str) -> String {
        match *launch::lock(&self.0.last) {
            Some(kernel) => format!("{what} (last kernel launched: {kernel})"),
            None => what.to_string(),
        }
    }
}

/// `CUDA_ERROR_X: its text`, as one error.
fn cuda_error(error: result::DriverError) -> anyhow::Error {
    match error.error_string() {
        Ok(text) => anyhow!("{:?}: {}", error.0, text.to_string_lossy()),
        Err(_) => anyhow!("{:?}", error.0),
    }
}

fn same_length(what: &str, dst: usize, src: usize) -> Result<()> {
    anyhow::ensure!(dst == src, "{what}: {src} elements for a buffer of {dst}");
    Ok(())
}

/// `1.50 GB`: decimal units, as disks and cards are sold.
pub fn human_bytes(bytes: usize) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b} bytes"),
    }
}
