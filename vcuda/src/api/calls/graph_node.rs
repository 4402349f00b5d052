//! Nodes of graphs by kind: added, and their parameters read and set.

use std::ffi::c_void;

use super::copy::Memcpy3D;
use super::launch::gather;
use super::{export, list, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::handles::EventHandle;
use crate::api::objects::module::{FunctionHandle, function};
use crate::api::streams::copy::Fill;
use crate::api::streams::event;
use crate::api::streams::graph::{live, node};
use crate::api::streams::work::{Child, GraphHandle, HostFunction, KernelLaunch, NodeHandle, Work};
use crate::exec::{Launch, UNSAID};

/// `CUDA_KERNEL_NODE_PARAMS` (version 2).
#[repr(C)]
pub struct KernelParams {
    function: FunctionHandle,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: *const *const c_void,
    extra: *const *const c_void,
    kernel: FunctionHandle,
    context: *mut c_void,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
pub struct MemsetParams {
    to: u64,
    pitch: usize,
    value: u32,
    element_bytes: u32,
    width: usize,
    height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
pub struct HostParams {
    function: Option<HostFunction>,
    data: *mut c_void,
}

/// Parameters as a client gives them.
pub trait Params {
    /// # Errors
    /// They would fail at the launch already.
    fn work(&self) -> Result<Work, Status>;
}

impl Params for KernelParams {
    fn work(&self) -> Result<Work, Status> {
        let handle = if self.function.is_null() { self.kernel } else { self.function };
        let launch = Launch {
            grid: self.grid,
            cluster: UNSAID,
            block: self.block,
            dynamic_shared_bytes: self.shared_bytes,
        };
        Ok(Work::Kernel(gather(handle, launch, self.params, self.extra)?))
    }
}

impl Params for Memcpy3D {
    fn work(&self) -> Result<Work, Status> {
        Ok(Work::Copy(self.resolve()?))
    }
}

impl Params for MemsetParams {
    fn work(&self) -> Result<Work, Status> {
        let MemsetParams { to, pitch, value, element_bytes, width, height } = *self;
        let row = width.checked_mul(element_bytes as usize);
        let fits = row.is_some_and(|row| height == 1 || row <= pitch) && pitch.checked_mul(height).is_some();
        if !fits || !matches!(element_bytes, 1 | 2 | 4) {
            return Err(Status::InvalidValue);
        }
        Ok(Work::Fill(Fill { to, pitch, value, element_bytes, width, height }))
    }
}

impl Params for HostParams {
    fn work(&self) -> Result<Work, Status> {
        Ok(Work::Host(self.function.ok_or(Status::InvalidValue)?, self.data))
    }
}

/// The work that a client's parameters describe.
///
/// # Errors
/// No parameters, or those of [`Params::work`].
pub fn work_of<P: Params>(params: *const P) -> Result<Work, Status> {
    // SAFETY: null, or the caller's.
    unsafe { params.as_ref() }.ok_or(Status::InvalidValue)?.work()
}

/// Adds a node of a client's.
///
/// # Errors
/// Those of [`Graph::add`](crate::api::streams::work::Graph::add), or no place for its handle.
pub fn add(
    out: *mut NodeHandle,
    graph: GraphHandle,
    dependencies: *const NodeHandle,
    count: usize,
    work: Work,
) -> Outcome {
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    let new = live(graph)?.add(work, list(dependencies, count)?)?;
    // SAFETY: the caller's.
    unsafe { put(out, new) }
}

/// A graph as a node: a clone.
///
/// # Errors
/// It allocates memory, or goes in a circle.
pub fn child_of(graph: GraphHandle) -> Result<Child, Status> {
    let graph = live(graph)?;
    if graph.has_memory() {
        return Err(Status::InvalidValue);
    }
    graph.order()?;
    Ok(Child(graph.twin()))
}

/// A kernel's launch as parameters, which point into it.
fn kernel_params(launch: &mut KernelLaunch) -> Result<KernelParams, Status> {
    let kernel = function(launch.function)?.kernel();
    launch.pointers =
        kernel.params.iter().map(|param| launch.params[param.offset..].as_ptr().cast()).collect();
    let Launch { grid, block, dynamic_shared_bytes, .. } = launch.launch;
    Ok(KernelParams {
        function: launch.function,
        grid,
        block,
        shared_bytes: dynamic_shared_bytes,
        params: launch.pointers.as_ptr(),
        extra: std::ptr::null(),
        kernel: std::ptr::null_mut(),
        context: std::ptr::null_mut(),
    })
}

export! {
    cuGraphAddEmptyNode(out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize) {
        add(out, graph, after, count, Work::Empty)
    }
    cuGraphAddKernelNode_v2(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, params: *const KernelParams,
    ) {
        add(out, graph, after, count, work_of(params)?)
    }
    cuGraphAddMemcpyNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, params: *const Memcpy3D,
        _context: *mut c_void,
    ) {
        add(out, graph, after, count, work_of(params)?)
    }
    cuGraphAddMemsetNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, params: *const MemsetParams,
        _context: *mut c_void,
    ) {
        add(out, graph, after, count, work_of(params)?)
    }
    cuGraphAddHostNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, params: *const HostParams,
    ) {
        add(out, graph, after, count, work_of(params)?)
    }
    cuGraphAddChildGraphNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, child: GraphHandle,
    ) {
        add(out, graph, after, count, Work::Child(child_of(child)?))
    }
    cuGraphChildGraphNodeGetGraph(handle: NodeHandle, out: *mut GraphHandle) {
        let Work::Child(Child(graph)) = &mut node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's. The graph stays the node's.
        unsafe { put(out, std::ptr::from_mut(&mut **graph)) }
    }
    cuGraphAddEventRecordNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, event: EventHandle,
    ) {
        event::live(event)?;
        add(out, graph, after, count, Work::Record(event))
    }
    cuGraphAddEventWaitNode(
        out: *mut NodeHandle, graph: GraphHandle, after: *const NodeHandle, count: usize, event: EventHandle,
    ) {
        event::live(event)?;
        add(out, graph, after, count, Work::Wait(event))
    }
    cuGraphKernelNodeGetParams_v2(handle: NodeHandle, out: *mut KernelParams) {
        let Work::Kernel(launch) = &mut node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's.
        unsafe { put(out, kernel_params(launch)?) }
    }
    cuGraphKernelNodeSetParams_v2(handle: NodeHandle, params: *const KernelParams) { node(handle)?.work.replace(work_of(params)?) }
    cuGraphMemcpyNodeGetParams(handle: NodeHandle, out: *mut Memcpy3D) {
        let Work::Copy(copy) = &node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's.
        unsafe { put(out, Memcpy3D::of(copy)) }
    }
    cuGraphMemcpyNodeSetParams(handle: NodeHandle, params: *const Memcpy3D) { node(handle)?.work.replace(work_of(params)?) }
    cuGraphMemsetNodeGetParams(handle: NodeHandle, out: *mut MemsetParams) {
        let Work::Fill(fill) = &node(handle)?.work else { return Err(Status::InvalidValue) };
        let Fill { to, pitch, value, element_bytes, width, height } = *fill;
        // SAFETY: the caller's.
        unsafe { put(out, MemsetParams { to, pitch, value, element_bytes, width, height }) }
    }
    cuGraphMemsetNodeSetParams(handle: NodeHandle, params: *const MemsetParams) { node(handle)?.work.replace(work_of(params)?) }
    cuGraphHostNodeGetParams(handle: NodeHandle, out: *mut HostParams) {
        let Work::Host(function, data) = node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's.
        unsafe { put(out, HostParams { function: Some(function), data }) }
    }
    cuGraphHostNodeSetParams(handle: NodeHandle, params: *const HostParams) { node(handle)?.work.replace(work_of(params)?) }
    cuGraphEventRecordNodeGetEvent(handle: NodeHandle, out: *mut EventHandle) {
        let Work::Record(event) = node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's.
        unsafe { put(out, event) }
    }
    cuGraphEventRecordNodeSetEvent(handle: NodeHandle, event: EventHandle) {
        event::live(event)?;
        node(handle)?.work.replace(Work::Record(event))
    }
    cuGraphEventWaitNodeGetEvent(handle: NodeHandle, out: *mut EventHandle) {
        let Work::Wait(event) = node(handle)?.work else { return Err(Status::InvalidValue) };
        // SAFETY: the caller's.
        unsafe { put(out, event) }
    }
    cuGraphEventWaitNodeSetEvent(handle: NodeHandle, event: EventHandle) {
        event::live(event)?;
        node(handle)?.work.replace(Work::Wait(event))
    }
}
