//! Graphs made ready: an order to do their work in, which later changes to the graph leave alone.

use std::ffi::c_void;

use super::copy::Memcpy3D;
use super::event::EventHandle;
use super::graph::{GraphHandle, NodeHandle, live as live_graph, node};
use super::graph_node::{HostParams, KernelParams, MemsetParams, work_of};
use super::stream::StreamHandle;
use super::work::{Work, submit};
use super::{Outcome, Status, capture, context, export, put};

/// A node's work at its place in the order.
#[derive(Clone)]
struct Step {
    node: NodeHandle,
    work: Work,
    /// Places of the steps that it comes after.
    after: Vec<usize>,
    enabled: bool,
}

/// A `CUgraphExec`.
pub struct Exec {
    steps: Vec<Step>,
    flags: u64,
}

type Handle = *mut Exec;

const AUTO_FREE_ON_LAUNCH: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const USE_NODE_PRIORITY: u64 = 8;

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
pub struct InstantiateParams {
    flags: u64,
    upload_stream: StreamHandle,
    error_node: NodeHandle,
    result: u32,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
pub struct UpdateInfo {
    result: u32,
    error_node: NodeHandle,
    error_from_node: NodeHandle,
}

/// `CUgraphExecUpdateResult`.
const TOPOLOGY_CHANGED: u32 = 2;
const NODE_TYPE_CHANGED: u32 = 3;

fn live<'a>(exec: Handle) -> Result<&'a mut Exec, Status> {
    // SAFETY: null, or made by `instantiate` and not destroyed; clients use one on one thread at a time.
    unsafe { exec.as_mut() }.ok_or(Status::InvalidValue)
}

fn steps(graph: GraphHandle) -> Result<Vec<Step>, Status> {
    let order = live_graph(graph)?.order()?;
    let place: std::collections::HashMap<NodeHandle, usize> =
        order.iter().enumerate().map(|(i, &handle)| (handle, i)).collect();
    let step = |&handle: &NodeHandle| {
        let mut after: Vec<usize> = node(handle)?.dependencies.iter().map(|other| place[other]).collect();
        after.sort_unstable();
        Ok(Step { node: handle, work: node(handle)?.work.clone(), after, enabled: true })
    };
    order.iter().map(step).collect()
}

fn instantiate(out: *mut Handle, graph: GraphHandle, flags: u64) -> Outcome {
    context::require()?;
    let known = AUTO_FREE_ON_LAUNCH | UPLOAD | USE_NODE_PRIORITY;
    if out.is_null() || flags & DEVICE_LAUNCH != 0 && flags & AUTO_FREE_ON_LAUNCH != 0 {
        return Err(Status::InvalidValue);
    }
    if flags & DEVICE_LAUNCH != 0 {
        eprintln!("vcuda: graphs that a kernel launches are not supported");
        return Err(Status::NotSupported);
    }
    if flags & !known != 0 {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's.
    unsafe { put(out, Box::into_raw(Box::new(Exec { steps: steps(graph)?, flags }))) }
}

impl Exec {
    fn step(&mut self, node: NodeHandle) -> Result<&mut Step, Status> {
        self.steps.iter_mut().find(|step| step.node == node).ok_or(Status::InvalidValue)
    }

    /// Other work of the same kind for a node.
    fn set(&mut self, node: NodeHandle, work: Work) -> Outcome {
        let step = self.step(node)?;
        if step.work.node_type() != work.node_type() {
            return Err(Status::InvalidValue);
        }
        step.work = work;
        Ok(())
    }

    /// Takes over the work of a graph of the same shape; else says why not, and at which node.
    fn update(&mut self, graph: GraphHandle) -> Result<Option<(u32, NodeHandle)>, Status> {
        let new = steps(graph)?;
        if new.len() != self.steps.len() {
            return Ok(Some((TOPOLOGY_CHANGED, std::ptr::null_mut())));
        }
        for (old, new) in self.steps.iter().zip(&new) {
            if old.work.node_type() != new.work.node_type() {
                return Ok(Some((NODE_TYPE_CHANGED, new.node)));
            }
            if old.after != new.after {
                return Ok(Some((TOPOLOGY_CHANGED, new.node)));
            }
        }
        for (old, new) in self.steps.iter_mut().zip(new) {
            old.work = new.work;
        }
        Ok(None)
    }
}

export! {
    cuGraphInstantiateWithFlags(out: *mut Handle, graph: GraphHandle, flags: u64) { instantiate(out, graph, flags) }
    cuGraphInstantiateWithParams(out: *mut Handle, graph: GraphHandle, params: *mut InstantiateParams) {
        // SAFETY: the caller's.
        let params = unsafe { params.as_mut() }.ok_or(Status::InvalidValue)?;
        params.error_node = std::ptr::null_mut();
        let done = instantiate(out, graph, params.flags);
        params.result = u32::from(done.is_err());
        done
    }
    cuGraphExecDestroy(exec: Handle) {
        live(exec)?;
        // SAFETY: made by `instantiate`; the caller destroys it once.
        drop(unsafe { Box::from_raw(exec) });
        Ok(())
    }
    cuGraphExecGetFlags(exec: Handle, flags: *mut u64) {
        // SAFETY: the caller's.
        unsafe { put(flags, live(exec)?.flags) }
    }
    cuGraphUpload(exec: Handle, stream: StreamHandle) {
        context::require()?;
        live(exec)?;
        capture::wait_for(stream)
    }
    cuGraphLaunch(exec: Handle, stream: StreamHandle) {
        let work = live(exec)?.steps.iter().filter(|step| step.enabled).map(|step| step.work.clone()).collect();
        submit(stream, Work::Child(std::sync::Arc::new(work)))
    }
    cuGraphExecUpdate_v2(exec: Handle, graph: GraphHandle, info: *mut UpdateInfo) {
        let differs = live(exec)?.update(graph)?;
        let (result, error_node) = differs.unwrap_or((0, std::ptr::null_mut()));
        // SAFETY: the caller's.
        unsafe { put(info, UpdateInfo { result, error_node, error_from_node: std::ptr::null_mut() })? };
        if result == 0 { Ok(()) } else { Err(Status::GraphExecUpdateFailure) }
    }
    cuGraphExecKernelNodeSetParams_v2(exec: Handle, node: NodeHandle, params: *const KernelParams) {
        live(exec)?.set(node, work_of(params)?)
    }
    cuGraphExecMemcpyNodeSetParams(exec: Handle, node: NodeHandle, params: *const Memcpy3D, _context: *mut c_void) {
        live(exec)?.set(node, work_of(params)?)
    }
    cuGraphExecMemsetNodeSetParams(exec: Handle, node: NodeHandle, params: *const MemsetParams, _context: *mut c_void) {
        live(exec)?.set(node, work_of(params)?)
    }
    cuGraphExecHostNodeSetParams(exec: Handle, node: NodeHandle, params: *const HostParams) {
        live(exec)?.set(node, work_of(params)?)
    }
    cuGraphExecEventRecordNodeSetEvent(exec: Handle, node: NodeHandle, event: EventHandle) {
        live(exec)?.set(node, Work::Record(event))
    }
    cuGraphExecEventWaitNodeSetEvent(exec: Handle, node: NodeHandle, event: EventHandle) {
        live(exec)?.set(node, Work::Wait(event))
    }
    cuGraphNodeSetEnabled(exec: Handle, node: NodeHandle, enabled: u32) {
        let step = live(exec)?.step(node)?;
        // Kernels, copies and fills can be switched off.
        if step.work.node_type() > 2 {
            return Err(Status::InvalidValue);
        }
        step.enabled = enabled != 0;
        Ok(())
    }
    cuGraphNodeGetEnabled(exec: Handle, node: NodeHandle, enabled: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(enabled, u32::from(live(exec)?.step(node)?.enabled)) }
    }
}
