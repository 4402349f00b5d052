//! Memory that graphs allocate and free: its addresses are fixed when the node is made, and lead somewhere from
//! the run of the allocation's node to that of the free's, or to `cuMemFree`.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::allocation::{self, Kind};
use super::device::{Device, device_of};
use super::graph::{GraphHandle, NodeHandle, node};
use super::graph_node::add;
use super::work::Work;
use super::{Outcome, Status, export, lock, memory, put};

/// Addresses of one allocation node, reserved while any graph, instance or live allocation has them.
pub struct GraphMemory {
    pub address: u64,
    bytes: usize,
    device: &'static Device,
}

/// What is known by address.
struct Known {
    memory: Weak<GraphMemory>,
    /// While it is allocated.
    live: Option<Arc<GraphMemory>>,
}

static KNOWN: Mutex<BTreeMap<u64, Known>> = Mutex::new(BTreeMap::new());
static USED_BYTES: AtomicU64 = AtomicU64::new(0);
static USED_HIGH_BYTES: AtomicU64 = AtomicU64::new(0);

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

/// Makes way for another launch of the graph that these allocations are of.
///
/// # Errors
/// One is live, and not to be freed.
pub fn make_way<'a>(all: impl Iterator<Item = &'a Arc<GraphMemory>>, auto_free: bool) -> Outcome {
    for found in all.filter(|found| found.is_live()) {
        if !auto_free {
            let (at, bytes) = (found.address, found.bytes);
            say!("graph: the {bytes} bytes at {at:#x} that its last launch allocated are not freed");
            return Err(Status::InvalidValue);
        }
        memory::free(found.address)?;
    }
    Ok(())
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolProps {
    kind: u32,
    handles: u32,
    location: u32,
    pub ordinal: i32,
    rest: [u64; 9],
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`.
#[repr(C)]
pub struct AllocParams {
    pool: PoolProps,
    access: *const c_void,
    access_count: usize,
    bytes: usize,
    address: u64,
}

/// `CU_MEM_ALLOCATION_TYPE_PINNED`, `CU_MEM_LOCATION_TYPE_DEVICE`.
const PINNED: u32 = 1;
const DEVICE: u32 = 1;

/// `CUgraphMem_attribute`: in use and reserved, which is the same here, now and at most.
const HIGH: [u32; 2] = [1, 3];
const ATTRIBUTES: u32 = 4;

export! {
    cuGraphAddMemAllocNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, params: *mut AllocParams,
    ) {
        // SAFETY: the caller's.
        let params = unsafe { params.as_mut() }.ok_or(Status::InvalidValue)?;
        let PoolProps { kind, handles, location, ordinal, .. } = params.pool;
        if (kind, handles, location) != (PINNED, 0, DEVICE) {
            return Err(Status::InvalidValue);
        }
        let memory = GraphMemory::new(params.bytes, device_of(ordinal).map_err(|_| Status::InvalidValue)?)?;
        params.address = memory.address;
        add(out, graph, after, count, Work::Alloc(memory))
    }
    cuGraphMemAllocNodeGetParams(handle: NodeHandle, out: *mut AllocParams) {
        let Work::Alloc(memory) = &node(handle)?.work else { return Err(Status::InvalidValue) };
        let ordinal = memory.device.ordinal as i32;
        let pool = PoolProps { kind: PINNED, handles: 0, location: DEVICE, ordinal, rest: [0; 9] };
        let (access, access_count) = (std::ptr::null(), 0);
        // SAFETY: the caller's.
        unsafe { put(out, AllocParams { pool, access, access_count, bytes: memory.bytes, address: memory.address }) }
    }
    cuGraphAddMemFreeNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, address: u64,
    ) {
        add(out, graph, after, count, Work::Free(GraphMemory::at(address)?))
    }
    cuGraphMemFreeNodeGetParams(handle: NodeHandle, out: *mut u64) {
        let Work::Free(memory) = &node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's.
        unsafe { put(out, memory.address) }
    }
    cuDeviceGraphMemTrim(ordinal: i32) { super::device::check(ordinal) }
    cuDeviceGetGraphMemAttribute(ordinal: i32, attribute: u32, value: *mut u64) {
        super::device::check(ordinal)?;
        if attribute >= ATTRIBUTES {
            return Err(Status::InvalidValue);
        }
        let count = if HIGH.contains(&attribute) { &USED_HIGH_BYTES } else { &USED_BYTES };
        // SAFETY: the caller's.
        unsafe { put(value, count.load(Ordering::Relaxed)) }
    }
    cuDeviceSetGraphMemAttribute(ordinal: i32, attribute: u32, value: *mut u64) {
        super::device::check(ordinal)?;
        // SAFETY: the caller's. High-water marks may only be reset.
        let zero = unsafe { value.as_ref() } == Some(&0);
        if !HIGH.contains(&attribute) || !zero {
            return Err(Status::InvalidValue);
        }
        USED_HIGH_BYTES.store(USED_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }
}
