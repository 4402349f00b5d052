//! The device: which driver answers, its memory, its streams, and kernels compiled when first needed.

mod addresses;
mod arena;
mod cache;
mod device;
mod driver;
mod error;
mod graph;
mod kernel;
mod nvrtc;
mod nvtx;
mod pinned;
mod rehearsal;
mod stream;
mod tensor;
mod timeline;
pub mod trace;
mod version;

pub use arena::{Entry, Plan, measure};
pub use cache::{Cache, read_entry, write_entry};
pub use device::Gpu;
pub use driver::{DeviceChoice, Driver, Installed, find_virtual_driver, installed};
pub use error::{CudaError, is_out_of_memory};
pub use graph::Graph;
pub use kernel::{Arg, Defines, Kernel, Launch, ModuleKey, specialised};
pub use nvrtc::{Form, Nvrtc, Target, compute_capability, how_to_get};
pub use pinned::Pinned;
pub use rehearsal::{Launched, Rehearsed};
pub use stream::{Event, Stream};
pub use tensor::{Shape, Tensor};
pub use timeline::{DeviceSpan, HostSpan, Kind, Timeline};
pub use version::CudaVersion;

use std::sync::{Mutex, MutexGuard, PoisonError};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
