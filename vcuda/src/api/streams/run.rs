//! Work is done, and a kernel's fault sticks to its context.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::event;
use super::work::{KernelLaunch, Work};
use crate::api::error::{Outcome, Status};
use crate::api::objects::module::function;
use crate::api::objects::{context, memory};
use crate::api::profile;
use crate::api::settings::settings;
use crate::exec::{FaultKind, Workspace, run_cooperative, run_counted};
use crate::order::When;

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
}

/// Whether the device has dropped out, as a GPU does that falls off its bus: after as many kernels as the settings say.
fn is_lost() -> bool {
    static KERNELS: AtomicUsize = AtomicUsize::new(0);
    settings().lost_after.is_some_and(|most| KERNELS.fetch_add(1, Ordering::Relaxed) >= most)
}

impl KernelLaunch {
    fn run(&self, when: Option<&When>) -> Outcome {
        let kernel = function(self.function)?.kernel();
        let context = context::require()?;
        if is_lost() {
            context.fail(Status::Unknown);
            return Err(Status::Unknown);
        }
        let (memory, options) = (&context.device.memory, &settings().options);
        let when = when.filter(|when| options.checks.race && when.has_company);
        let _piece = when.map(|when| memory.shadow.pieces.begin(when, format!("kernel {}", kernel.name)));
        let counted = if self.cooperative {
            let workspace = Workspace::new(memory).ok_or(Status::OutOfMemory)?;
            run_cooperative(kernel, &self.launch, &self.params, memory, options, &workspace)
        } else {
            run_counted(kernel, &self.launch, &self.params, memory, options)
        };
        counted.map(|counters| profile::record(kernel, &self.launch, &self.range, &counters)).map_err(
            |fault| {
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
            },
        )
    }
}
