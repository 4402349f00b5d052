//! Memory pools. What is freed goes back at once, so that a pool holds nothing but counts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::api::error::Status;
use crate::memory::Reach;

/// What is known of a pool.
pub struct Pool {
    /// The device that it is of, and those that may access its memory: a bit each.
    pub ordinal: usize,
    pub access: AtomicU32,
    pub release_threshold_bytes: AtomicU64,
    pub used_bytes: AtomicU64,
    pub used_high_bytes: AtomicU64,
    /// The three reuse attributes, which change nothing here.
    pub reuse: [AtomicU64; 3],
}

/// A `CUmemoryPool`.
pub type PoolHandle = *mut Pool;

impl Pool {
    pub fn new(ordinal: usize) -> Pool {
        Pool {
            ordinal,
            access: AtomicU32::new(1 << ordinal),
            release_threshold_bytes: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            used_high_bytes: AtomicU64::new(0),
            reuse: [const { AtomicU64::new(1) }; 3],
        }
    }

    /// Who may access its memory.
    pub fn reach(&self) -> Reach {
        Reach::Devices(self.access.load(Ordering::Relaxed))
    }

    /// Counts an allocation.
    pub fn taken(&self, bytes: usize) {
        let used = self.used_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.used_high_bytes.fetch_max(used, Ordering::Relaxed);
    }
}

/// A live pool.
///
/// # Errors
/// There is none.
pub fn live<'a>(pool: PoolHandle) -> Result<&'a Pool, Status> {
    // SAFETY: null, the default, or made by `cuMemPoolCreate` and not destroyed, as the caller must see to.
    unsafe { pool.as_ref() }.ok_or(Status::InvalidValue)
}

/// Counts an allocation that went back.
pub fn returned(handle: usize, bytes: usize) {
    // `cuMemPoolDestroy` leaves a pool in place that has allocations.
    if let Ok(pool) = live(handle as PoolHandle) {
        pool.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}
