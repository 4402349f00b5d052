//! Graphs made ready: an order to do their work in, which later changes to the graph leave alone.

use std::ffi::c_void;
use std::sync::Arc;

use super::copy::Memcpy3D;
use super::graph_node::{HostParams, KernelParams, MemsetParams, child_of, work_of};
use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::graph_memory::GraphMemory;
use crate::api::objects::handles::{EventHandle, StreamHandle};
use crate::api::objects::{context, memory, stream};
use crate::api::settings::settings;
use crate::api::streams::graph::{live as live_graph, node};
use crate::api::streams::submit::submit;
use crate::api::streams::work::{Child, Graph, GraphHandle, NodeHandle, Work};
use crate::api::streams::{capture, event, queue};

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
    /// Held while it lives, where the graph allocates memory.
    _alone: Option<Arc<()>>,
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
const PARAMETERS_CHANGED: u32 = 5;

fn live<'a>(exec: Handle) -> Result<&'a mut Exec, Status> {
    // SAFETY: null, or made by `instantiate` and not destroyed; clients use one on one thread at a time.
    unsafe { exec.as_mut() }.ok_or(Status::InvalidValue)
}

fn steps(graph: GraphHandle) -> Result<Vec<Step>, Status> {
    ordered(live_graph(graph)?)
}

fn ordered(graph: &Graph) -> Result<Vec<Step>, Status> {
    let order = graph.order()?;
    let place: std::collections::HashMap<NodeHandle, usize> =
        order.iter().enumerate().map(|(i, &handle)| (handle, i)).collect();
    let step = |&handle: &NodeHandle| {
        let mut after: Vec<usize> = node(handle)?.dependencies.iter().map(|other| place[other]).collect();
        after.sort_unstable();
        if let Work::Child(Child(graph)) = &node(handle)?.work {
            graph.order()?;
        }
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
        say!("graphs that a kernel launches are not supported");
        return Err(Status::NotSupported);
    }
    if flags & !known != 0 {
        return Err(Status::InvalidValue);
    }
    let steps = steps(graph)?;
    let graph = live_graph(graph)?;
    let mut alone = None;
    if graph.has_memory() {
        if graph.instance.strong_count() > 0 {
            return Err(Status::InvalidValue);
        }
        let held = Arc::new(());
        graph.instance = Arc::downgrade(&held);
        alone = Some(held);
    }
    // SAFETY: the caller's.
    unsafe { put(out, Box::into_raw(Box::new(Exec { steps, flags, _alone: alone }))) }
}

impl Exec {
    fn step(&mut self, node: NodeHandle) -> Result<&mut Step, Status> {
        self.steps.iter_mut().find(|step| step.node == node).ok_or(Status::InvalidValue)
    }

    /// Takes over the work of a graph of the same shape; else says why not, and at which node.
    fn update(&mut self, graph: GraphHandle) -> Result<Option<(u32, NodeHandle)>, Status> {
        let new = steps(graph)?;
        if let Some(difference) = difference(&self.steps, &new) {
            return Ok(Some(difference));
        }
        for (old, new) in self.steps.iter_mut().zip(new) {
            old.work = new.work;
        }
        Ok(None)
    }

    /// Does its work, or becomes a node where the stream is captured.
    fn launch(&self, stream: StreamHandle) -> Outcome {
        context::require()?;
        if capture::holds(stream)? {
            return submit(stream, Work::Child(self.child()?));
        }
        let place = stream::place(stream)?;
        let allocated: Vec<_> = (self.steps.iter())
            .filter_map(|step| match &step.work {
                Work::Alloc(memory) => Some(memory),
                _ => None,
            })
            .collect();
        if !allocated.is_empty() {
            // Its last launch may have yet to free it.
            queue::wait_for_stream(&place)?;
        }
        make_way(allocated.into_iter(), self.flags & AUTO_FREE_ON_LAUNCH != 0)?;
        let work = |step: &Step| if step.enabled { step.work.clone() } else { Work::Empty };
        if settings().defers {
            for step in &self.steps {
                if let Work::Record(event) | Work::Wait(event) = &step.work {
                    event::live(*event)?;
                }
            }
            queue::push_graph(
                &place,
                self.steps.iter().map(|step| (work(step), step.after.clone())).collect(),
            );
            return Ok(());
        }
        let enabled = self.steps.iter().filter(|step| step.enabled);
        place.context.within(|| enabled.map(|step| &step.work).try_for_each(|work| work.run(None)))
    }

    /// The enabled steps as a graph.
    fn child(&self) -> Result<Child, Status> {
        let mut graph = Box::<Graph>::default();
        let mut nodes = Vec::with_capacity(self.steps.len());
        for Step { work, after, enabled, .. } in &self.steps {
            let after: Vec<NodeHandle> = after.iter().map(|&i| nodes[i]).collect();
            nodes.push(graph.add(if *enabled { work.clone() } else { Work::Empty }, &after)?);
        }
        if graph.has_memory() { Err(Status::InvalidValue) } else { Ok(Child(graph)) }
    }
}

/// Makes way for another launch of the graph that these allocations are of.
///
/// # Errors
/// One is live, and not to be freed.
fn make_way<'a>(all: impl Iterator<Item = &'a Arc<GraphMemory>>, auto_free: bool) -> Outcome {
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

/// What an update cannot take over, and at which of the new nodes.
fn difference(old: &[Step], new: &[Step]) -> Option<(u32, NodeHandle)> {
    if new.len() != old.len() {
        return Some((TOPOLOGY_CHANGED, std::ptr::null_mut()));
    }
    old.iter().zip(new).find_map(|(old, new)| {
        let what = match (&old.work, &new.work) {
            (a, b) if a.node_type() != b.node_type() => NODE_TYPE_CHANGED,
            _ if old.after != new.after => TOPOLOGY_CHANGED,
            (Work::Alloc(a), Work::Alloc(b)) | (Work::Free(a), Work::Free(b)) if !Arc::ptr_eq(a, b) => {
                PARAMETERS_CHANGED
            }
            (Work::Child(Child(a)), Work::Child(Child(b))) if !same_shape(a, b) => TOPOLOGY_CHANGED,
            _ => return None,
        };
        Some((what, new.node))
    })
}

/// Whether two graphs have the same kinds of nodes and edges.
fn same_shape(a: &Graph, b: &Graph) -> bool {
    match (ordered(a), ordered(b)) {
        (Ok(a), Ok(b)) => difference(&a, &b).is_none(),
        _ => false,
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
        live(exec)?.launch(stream)
    }
    cuGraphExecUpdate_v2(exec: Handle, graph: GraphHandle, info: *mut UpdateInfo) {
        let differs = live(exec)?.update(graph)?;
        let (result, error_node) = differs.unwrap_or((0, std::ptr::null_mut()));
        // SAFETY: the caller's.
        unsafe { put(info, UpdateInfo { result, error_node, error_from_node: std::ptr::null_mut() })? };
        if result == 0 { Ok(()) } else { Err(Status::GraphExecUpdateFailure) }
    }
    cuGraphExecKernelNodeSetParams_v2(exec: Handle, node: NodeHandle, params: *const KernelParams) {
        live(exec)?.step(node)?.work.replace(work_of(params)?)
    }
    cuGraphExecMemcpyNodeSetParams(exec: Handle, node: NodeHandle, params: *const Memcpy3D, _context: *mut c_void) {
        live(exec)?.step(node)?.work.replace(work_of(params)?)
    }
    cuGraphExecMemsetNodeSetParams(exec: Handle, node: NodeHandle, params: *const MemsetParams, _context: *mut c_void) {
        live(exec)?.step(node)?.work.replace(work_of(params)?)
    }
    cuGraphExecHostNodeSetParams(exec: Handle, node: NodeHandle, params: *const HostParams) {
        live(exec)?.step(node)?.work.replace(work_of(params)?)
    }
    cuGraphExecChildGraphNodeSetParams(exec: Handle, node: NodeHandle, child: GraphHandle) {
        let new = child_of(child)?;
        let step = live(exec)?.step(node)?;
        let Work::Child(Child(old)) = &step.work else { return Err(Status::InvalidValue) };
        if !same_shape(old, &new.0) {
            return Err(Status::InvalidValue);
        }
        step.work = Work::Child(new);
        Ok(())
    }
    cuGraphExecEventRecordNodeSetEvent(exec: Handle, node: NodeHandle, event: EventHandle) {
        live(exec)?.step(node)?.work.replace(Work::Record(event))
    }
    cuGraphExecEventWaitNodeSetEvent(exec: Handle, node: NodeHandle, event: EventHandle) {
        live(exec)?.step(node)?.work.replace(Work::Wait(event))
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
