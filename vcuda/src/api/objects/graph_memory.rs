//! Memory that graphs allocate and free: its addresses are fixed when the node is made, and lead somewhere from
//! the run of the allocation's node to that of the free's, or to `cuMemFree`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::allocation::{self, Kind};
use super::device::Device;
use crate::api::error::{Outcome, Status};
use crate::api::lock;

/// Addresses of one allocation node, reserved while any graph, instance or live allocation has them.
pub struct GraphMemory {
    pub address: u64,
    pub bytes: usize,
    pub device: &'static Device,
}

/// What is known by address.
struct Known {
    memory: Weak<GraphMemory>,
    /// While it is allocated.
    live: Option<Arc<GraphMemory>>,
}

static KNOWN: Mutex<BTreeMap<u64, Known>> = Mutex::new(BTreeMap::new());
/// What graphs' allocations take now, and at most.
pub static USED_BYTES: AtomicU64 = AtomicU64::new(0);
pub static USED_HIGH_BYTES: AtomicU64 = AtomicU64::new(0);

impl GraphMemory {
    /// Reserves addresses.
    ///
    /// # Errors
    /// No bytes, or no room.
    pub fn new(bytes: usize, device: &'static Device) -> Result<Arc<GraphMemory>, Status> {
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        let address = device.memory.reserve_addresses(bytes).ok_or(Status::OutOfMemory)?;
        let memory = Arc::new(GraphMemory { address, bytes, device });
        lock(&KNOWN).insert(address, Known { memory: Arc::downgrade(&memory), live: None });
        Ok(memory)
    }

    /// What an allocation node reserved at this address.
    ///
    /// # Errors
    /// None did.
    pub fn at(address: u64) -> Result<Arc<GraphMemory>, Status> {
        lock(&KNOWN).get(&address).and_then(|known| known.memory.upgrade()).ok_or(Status::InvalidValue)
    }

    pub fn is_live(&self) -> bool {
        lock(&KNOWN).get(&self.address).is_some_and(|known| known.live.is_some())
    }

    /// Allocates it.
    ///
    /// # Errors
    /// It is allocated already; out of memory.
    pub fn alloc(self: &Arc<GraphMemory>) -> Outcome {
        let mut all = lock(&KNOWN);
        let known = all.get_mut(&self.address).filter(|known| known.live.is_none());
        let known = known.ok_or(Status::InvalidValue)?;
        if !self.device.memory.alloc_at(self.address, self.bytes) {
            return Err(Status::OutOfMemory);
        }
        known.live = Some(self.clone());
        allocation::add(self.address, self.bytes, Kind::Graph, self.device);
        let used = USED_BYTES.fetch_add(self.bytes as u64, Ordering::Relaxed) + self.bytes as u64;
        USED_HIGH_BYTES.fetch_max(used, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for GraphMemory {
    fn drop(&mut self) {
        lock(&KNOWN).remove(&self.address);
        self.device.memory.release_addresses(self.address, self.bytes);
    }
}

/// Notes that the allocation at this address went back.
pub fn returned(address: u64) {
    let live = lock(&KNOWN).get_mut(&address).and_then(|known| known.live.take());
    if let Some(memory) = live {
        USED_BYTES.fetch_sub(memory.bytes as u64, Ordering::Relaxed);
    }
}
