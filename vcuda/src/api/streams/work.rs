//! What a stream is asked to do: done at once or queued, or kept in a graph and done at its launch.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use super::copy::{Copy, Fill};
use super::graph;
use crate::api::error::{Outcome, Status};
use crate::api::objects::graph_memory::GraphMemory;
use crate::api::objects::handles::EventHandle;
use crate::api::objects::module::FunctionHandle;
use crate::exec::Launch;

/// A `CUlaunchAttributeValue`.
pub type AttributeValue = [u32; 16];

/// A `CUhostFn`.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// One piece of work, with all that it needs.
#[derive(Clone)]
pub enum Work {
    Empty,
    Kernel(KernelLaunch),
    Copy(Copy),
    Fill(Fill),
    Host(HostFunction, *mut c_void),
    Record(EventHandle),
    Wait(EventHandle),
    Child(Child),
    Alloc(Arc<GraphMemory>),
    Free(Arc<GraphMemory>),
}

// SAFETY: handles and pointers of the client's, who keeps them alive and may use them on any thread.
unsafe impl Send for Work {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Work {}

pub type Graph = graph::Graph<Work>;
pub type GraphHandle = *mut Graph;
pub type NodeHandle = *mut graph::Node<Work>;

impl Graph {
    /// Adds work after others of this graph.
    ///
    /// # Errors
    /// Dependencies of another graph, or one twice; memory that is freed twice.
    pub fn add(&mut self, work: Work, dependencies: &[NodeHandle]) -> Result<NodeHandle, Status> {
        if let Work::Free(memory) = &work
            && self.works().any(|other| matches!(other, Work::Free(freed) if Arc::ptr_eq(freed, memory)))
        {
            return Err(Status::InvalidValue);
        }
        self.push(work, dependencies)
    }

    /// Whether it allocates or frees memory: it may not be cloned or cut then, or be part of another.
    pub fn has_memory(&self) -> bool {
        self.works().any(|work| matches!(work, Work::Alloc(_) | Work::Free(_)))
    }
}

/// A graph as a node of another one, which is the node's own.
pub struct Child(pub Box<Graph>);

impl Child {
    /// Its work in order, and what each comes after.
    ///
    /// # Errors
    /// It goes in a circle.
    pub fn steps(&self) -> Result<Vec<(Work, Vec<usize>)>, Status> {
        self.0.steps()
    }
}

impl Clone for Child {
    fn clone(&self) -> Child {
        Child(self.0.twin())
    }
}

/// A kernel with its parameters' bytes.
#[derive(Clone)]
pub struct KernelLaunch {
    pub function: FunctionHandle,
    pub launch: Launch,
    pub params: Vec<u8>,
    /// All CTAs run together, and may wait for each other.
    pub cooperative: bool,
    /// The path of NVTX's ranges that the thread was in.
    pub range: String,
    /// Attributes of a graph's node that change nothing here, with their values.
    pub hints: BTreeMap<u32, AttributeValue>,
    /// Pointers to the parameters, where `cuGraphKernelNodeGetParams` handed them out.
    pub pointers: Vec<*const c_void>,
}

impl Work {
    /// Whether it may write to the host's memory there.
    pub fn may_write(&self, start: u64, bytes: usize) -> bool {
        match self {
            Work::Host(..) | Work::Child(_) => true,
            Work::Copy(copy) => copy.to.overlaps(copy, start, bytes),
            _ => false,
        }
    }

    /// Other work of the same kind in its place; a kernel's attributes stay.
    ///
    /// # Errors
    /// Work of another kind.
    pub fn replace(&mut self, mut new: Work) -> Outcome {
        if self.node_type() != new.node_type() {
            return Err(Status::InvalidValue);
        }
        if let (Work::Kernel(old), Work::Kernel(new)) = (&*self, &mut new) {
            (new.launch.cluster, new.cooperative) = (old.launch.cluster, old.cooperative);
            new.hints = old.hints.clone();
        }
        *self = new;
        Ok(())
    }

    /// `CUgraphNodeType`.
    pub fn node_type(&self) -> u32 {
        match self {
            Work::Kernel(_) => 0,
            Work::Copy(_) => 1,
            Work::Fill(_) => 2,
            Work::Host(..) => 3,
            Work::Child(_) => 4,
            Work::Empty => 5,
            Work::Wait(_) => 6,
            Work::Record(_) => 7,
            Work::Alloc(_) => 10,
            Work::Free(_) => 11,
        }
    }
}
