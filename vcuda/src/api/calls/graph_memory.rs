//! Nodes that allocate and free memory.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::graph_node::add;
use super::pool::PoolProps;
use super::{export, put};
use crate::api::error::Status;
use crate::api::objects::device::{check, device_of};
use crate::api::objects::graph_memory::{GraphMemory, USED_BYTES, USED_HIGH_BYTES};
use crate::api::streams::graph::node;
use crate::api::streams::work::{GraphHandle, NodeHandle, Work};

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
    cuDeviceGraphMemTrim(ordinal: i32) { check(ordinal) }
    cuDeviceGetGraphMemAttribute(ordinal: i32, attribute: u32, value: *mut u64) {
        check(ordinal)?;
        if attribute >= ATTRIBUTES {
            return Err(Status::InvalidValue);
        }
        let count = if HIGH.contains(&attribute) { &USED_HIGH_BYTES } else { &USED_BYTES };
        // SAFETY: the caller's.
        unsafe { put(value, count.load(Ordering::Relaxed)) }
    }
    cuDeviceSetGraphMemAttribute(ordinal: i32, attribute: u32, value: *mut u64) {
        check(ordinal)?;
        // SAFETY: the caller's. High-water marks may only be reset.
        let zero = unsafe { value.as_ref() } == Some(&0);
        if !HIGH.contains(&attribute) || !zero {
            return Err(Status::InvalidValue);
        }
        USED_HIGH_BYTES.store(USED_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }
}
