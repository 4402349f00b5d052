//! What a stream is asked to do: done at once or queued, or kept in a graph and done at its launch.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use super::copy::{Copy, Fill};
use super::event::{self, EventHandle};
use super::graph::Graph;
use super::graph_memory::GraphMemory;
use super::module::{FunctionHandle, function};
use super::queue::{self, Task};
use super::stream::{self, StreamHandle};
use super::{Outcome, Status, capture, context, memory, profile, settings};
use crate::exec::{FaultKind, Launch, Workspace, run_cooperative, run_counted};
use crate::order::When;

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
    /// Attributes of a graph's node that change nothing here, with their values.
    pub hints: BTreeMap<u32, AttributeValue>,
    /// Pointers to the parameters, where `cuGraphKernelNodeGetParams` handed them out.
    pub pointers: Vec<*const c_void>,
}

/// Does a stream's work, or keeps it where the stream is being captured.
///
/// # Errors
/// Those of the work, or of the capture.
pub fn submit(stream: StreamHandle, work: Work) -> Outcome {
    let (context, place) = (context::require()?, stream::place(stream)?);
    let is_own = std::ptr::eq(context, place.context);
    if let Work::Kernel(_) = work
        && !is_own
    {
        say!("handle: {stream:?} is a stream of another context than the kernel's that is launched in it");
        return Err(Status::InvalidHandle);
    }
    if capture::any() && capture::keep(stream, &work)? {
        return Ok(());
    }
    if !settings().defers {
        return if is_own { work.run(None) } else { place.context.within(|| work.run(None)) };
    }
    match work {
        Work::Copy(copy) => copy.queue(&place),
        Work::Fill(fill) => fill.queue(&place),
        Work::Child(_) | Work::Record(_) | Work::Wait(_) => {
            queue::push_graph(&place, vec![(work, Vec::new())]);
            Ok(())
        }
        work => {
            queue::push(&place, Task::Work(work), &[]);
            Ok(())
        }
    }
}

impl Work {
    /// Does it, to its end; `when`, if it was queued.
    ///
    /// # Errors
    /// A bad range, or a kernel's fault.
    pub fn run(&self, when: Option<&When>) -> Outcome {
        match self {
            Work::Empty | Work::Wait(_) => Ok(()),
            Work::Kernel(launch) => launch.run(when),
            Work::Copy(copy) => copy.run(when),
            Work::Fill(fill) => fill.run(when),
            Work::Host(function, data) => {
                // SAFETY: the client's function and data; all that was queued before it is done.
                unsafe { function(*data) };
                Ok(())
            }
            Work::Record(event) => event::record_now(*event),
            Work::Child(child) => child.steps()?.into_iter().try_for_each(|(work, _)| work.run(when)),
            Work::Alloc(memory) => memory.alloc(),
            Work::Free(memory) => memory::free(memory.address),
        }
    }

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

impl KernelLaunch {
    fn run(&self, when: Option<&When>) -> Outcome {
        let kernel = function(self.function)?.kernel();
        let context = context::require()?;
        let (memory, options) = (&context.device.memory, &settings().options);
        let when = when.filter(|when| options.checks.race && when.has_company);
        let _piece = when.map(|when| memory.shadow.pieces.begin(when, format!("kernel {}", kernel.name)));
        let counted = if self.cooperative {
            let workspace = Workspace::new(memory).ok_or(Status::OutOfMemory)?;
            run_cooperative(kernel, &self.launch, &self.params, memory, options, &workspace)
        } else {
            run_counted(kernel, &self.launch, &self.params, memory, options)
        };
        counted.map(|counters| profile::record(kernel, &self.launch, &counters)).map_err(|fault| {
            say!("{}: {fault}", fault.kind.check());
            let status = match fault.kind {
                FaultKind::IllegalAddress => Status::IllegalAddress,
                FaultKind::MisalignedAddress => Status::MisalignedAddress,
                FaultKind::IllegalInstruction => Status::IllegalInstruction,
                FaultKind::Assert => Status::Assert,
                FaultKind::Deadlock => Status::LaunchTimeout,
                FaultKind::Uninitialised | FaultKind::Race | FaultKind::Sync | FaultKind::Asynchrony => {
                    Status::LaunchFailed
                }
            };
            context.fail(status);
            status
        })
    }
}
