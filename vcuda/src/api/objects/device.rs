//! The process's devices, and their limits: an H100's, or another GPU's of its capability.

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use super::pool::Pool;
use crate::api::error::{Outcome, Status};
use crate::api::settings::settings;
use crate::exec::profile::Gpu;
use crate::memory::Memory;

/// One of the process's devices, which are all of a kind.
pub struct Device {
    pub ordinal: usize,
    pub memory: Memory,
    pub default_pool: Pool,
    /// The current memory pool's handle, or 0 for the default one.
    pub pool: AtomicUsize,
}

/// All devices.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let (checks, bytes) = (settings().options.checks, settings().memory_bytes);
        let is_watched = checks.init || checks.race;
        let first = if is_watched { Memory::watched(bytes, checks) } else { Memory::new(bytes) };
        let mut memories = vec![first];
        memories.extend(
            (1..settings().devices).map(|ordinal| memories[0].of_device(ordinal)).collect::<Vec<_>>(),
        );
        let device = |(ordinal, memory)| Device {
            ordinal,
            memory,
            default_pool: Pool::new(ordinal),
            pool: AtomicUsize::new(0),
        };
        memories.into_iter().enumerate().map(device).collect()
    })
}

/// The device of this ordinal.
///
/// # Errors
/// There is none.
pub fn device_of(ordinal: i32) -> Result<&'static Device, Status> {
    usize::try_from(ordinal).ok().and_then(|ordinal| devices().get(ordinal)).ok_or(Status::InvalidDevice)
}

/// Refuses an ordinal of no device.
///
/// # Errors
/// There is none.
pub fn check(ordinal: i32) -> Outcome {
    device_of(ordinal).map(|_| ())
}

/// Threads of a CTA, at most.
pub const MAX_THREADS: u32 = 1024;
/// Dynamic and static shared memory without an opt-in.
pub const SHARED_BYTES: u32 = 48 * 1024;

/// Shared memory of a CTA with an opt-in.
pub fn shared_opt_in_bytes() -> u32 {
    // Before sm_80 the system keeps none of it for itself.
    let kept = if settings().capability.0 >= 8 { 1024 } else { 0 };
    gpu().limits.shared_bytes - kept
}

/// The GPU whose multiprocessors the device claims to have.
pub fn gpu() -> &'static Gpu {
    settings().options.gpu
}

pub fn multiprocessors() -> i32 {
    gpu().sms as i32
}
