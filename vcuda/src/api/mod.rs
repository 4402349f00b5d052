//! The CUDA driver API over the interpreter: what `libcuda.so` exports, as far as it makes sense here.
//!
//! [`work`] is done when its call returns, or kept where a stream is captured: streams are in order
//! trivially, and an error of a kernel is the launch's own. Like on hardware it sticks to the device
//! until the primary context is reset.

mod allocation;
mod capture;
mod context;
mod copy;
mod device;
mod error;
mod event;
mod external;
mod graph;
mod graph_attribute;
mod graph_dot;
mod graph_exec;
mod graph_memory;
mod graph_node;
mod handles;
mod jit;
mod launch;
mod library;
mod memory;
mod module;
mod occupancy;
mod pointer;
mod pool;
mod proc_address;
mod profile;
mod refused;
mod stream;
mod tensor_map;
mod work;

use crate::exec::profile::gpu;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub use error::Status;

use crate::exec::{Checks, Options};
use crate::memory::Memory;

/// The process's one device.
struct Device {
    memory: Memory,
    options: Options,
    /// Compute capability.
    capability: (i32, i32),
    /// The first fault of a kernel, or 0: every later call returns it.
    fault: AtomicI32,
    /// Whether to report what contexts leave allocated.
    leaks: bool,
    /// The current memory pool's handle, or 0 for the default one.
    pool: AtomicUsize,
}

fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            let value = text.parse::<usize>().ok().filter(|&n| n > 0);
            if value.is_none() {
                say!("{name}={text}: expected a number above 0; it is ignored");
            }
            value
        };
        let capability = match std::env::var("VCUDA_ARCH").as_deref() {
            Ok("sm_80") => (8, 0),
            Ok("sm_90a" | "sm_90") | Err(_) => (9, 0),
            Ok(other) => {
                say!("VCUDA_ARCH={other}: expected sm_80 or sm_90a; it is ignored");
                (9, 0)
            }
        };
        let mut checks = Checks::default();
        let mut leaks = false;
        for check in
            std::env::var("VCUDA_CHECK").unwrap_or_default().split(',').filter(|name| !name.is_empty())
        {
            leaks = true;
            match check {
                "all" => checks = Checks::ALL,
                "init" => checks.init = true,
                "race" => checks.race = true,
                "async" => checks.asynchrony = true,
                "memory" => {}
                _ => say!("VCUDA_CHECK={check}: memory, init, race, async and all are known; it is ignored"),
            }
        }
        let capacity = number("VCUDA_MEMORY_BYTES").unwrap_or_else(available_bytes);
        if leaks {
            // SAFETY: a function of this library, called at the latest when that is closed.
            unsafe { libc::atexit(allocation::end_process) };
        }
        Device {
            memory: if checks.init || checks.race {
                Memory::watched(capacity, checks)
            } else {
                Memory::new(capacity)
            },
            options: Options {
                threads: number("VCUDA_THREADS").unwrap_or(cores),
                checks,
                seed: std::env::var("VCUDA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0),
                gpu: if capability.0 >= 9 { &gpu::H100 } else { &gpu::A100 },
            },
            capability,
            fault: AtomicI32::new(0),
            leaks,
            pool: AtomicUsize::new(0),
        }
    })
}

/// The host's memory that can be had without swapping.
fn available_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kilobytes.unwrap_or(1 << 20) * 1024
}

type Outcome = Result<(), Status>;

/// The body of an exported function: a panic ends here, and a device that has failed stays so.
fn guarded(body: impl FnOnce() -> Outcome) -> i32 {
    caught(|| match device().fault.load(Ordering::Relaxed) {
        0 => code(body()),
        fault => fault,
    })
}

/// The same for functions that answer also after a fault.
fn guarded_always(body: impl FnOnce() -> Outcome) -> i32 {
    caught(|| code(body()))
}

/// A `CUresult`.
fn code(outcome: Outcome) -> i32 {
    outcome.map_or_else(|status| status as i32, |()| 0)
}

fn caught(call: impl FnOnce() -> i32) -> i32 {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        say!("this is a bug in the virtual driver; the call failed");
        Status::Unknown as i32
    })
}

/// Writes an output parameter.
///
/// # Safety
/// `to` is null or may be written.
unsafe fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: not null, and the caller's.
    unsafe { to.write(value) };
    Ok(())
}

/// A client's array.
///
/// # Errors
/// Null with a length.
fn list<'a, T>(from: *const T, count: usize) -> Result<&'a [T], Status> {
    match count {
        0 => Ok(&[]),
        _ if from.is_null() => Err(Status::InvalidValue),
        // SAFETY: not null, and as long as the caller says.
        _ => Ok(unsafe { std::slice::from_raw_parts(from, count) }),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exports functions of the driver API: `export! { cuInit(flags: u32) { … } }`.
macro_rules! export {
    ($($body:tt)*) => { $crate::api::export_with! { guarded $($body)* } };
}
use export;

/// The same for functions that answer also after a fault.
macro_rules! export_always {
    ($($body:tt)*) => { $crate::api::export_with! { guarded_always $($body)* } };
}
use export_always;

macro_rules! export_with {
    ($guard:ident $($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        /// As in NVIDIA's CUDA driver API.
        ///
        /// # Safety
        /// Pointers are null or as the CUDA driver API asks for.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
            $crate::api::$guard(|| $body)
        }
    )*};
}
use export_with;
