//! A launch: CTAs over the host's cores, each with its registers, shared and local memory.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::common::Common;
use super::pool;
use super::queue::Queue;
use super::resident;
use super::resolve::resolve;
use super::workspace::Workspace;
use crate::exec::check::MOST_THREADS;
use crate::exec::cta::Grid;
use crate::exec::fault::{Fault, FaultKind};
use crate::exec::kernel::Kernel;
use crate::exec::options::{Launch, Options, UNSAID};
use crate::exec::output::Output;
use crate::exec::profile::Counters;
use crate::exec::random::Permutation;
use crate::exec::space::POISON;
use crate::memory::Memory;

/// Runs a kernel to its end.
///
/// # Errors
/// A grid that its clusters do not divide; the first fault of the lowest CTA that had one before the
/// launch stopped.
pub fn run(
    kernel: &Kernel,
    launch: &Launch,
    params: &[u8],
    memory: &Memory,
    options: &Options,
) -> Result<(), Fault> {
    run_counted(kernel, launch, params, memory, options).map(|_| ())
}

/// The same, and what it did; nothing is counted unless the module was loaded for it.
///
/// # Errors
/// As [`run`].
pub fn run_counted(
    kernel: &Kernel,
    launch: &Launch,
    params: &[u8],
    memory: &Memory,
    options: &Options,
) -> Result<Counters, Fault> {
    run_groups(kernel, launch, params, memory, options, 0)
}

/// A cooperative launch: all CTAs take turns on one host thread, so that they can wait for each other.
///
/// # Errors
/// As [`run`].
pub fn run_cooperative(
    kernel: &Kernel,
    launch: &Launch,
    params: &[u8],
    memory: &Memory,
    options: &Options,
    workspace: &Workspace,
) -> Result<Counters, Fault> {
    run_groups(kernel, launch, params, memory, options, workspace.address)
}

/// Runs a grid in groups of CTAs that take turns: clusters, or all where there is a workspace.
fn run_groups(
    kernel: &Kernel,
    launch: &Launch,
    params: &[u8],
    memory: &Memory,
    options: &Options,
    workspace: u64,
) -> Result<Counters, Fault> {
    let _running = memory.running();
    let mut counted = Counters::new(&kernel.marks);
    let total = Mutex::new(&mut counted);
    let is_explicit_cluster = launch.cluster != UNSAID || kernel.cluster.is_some();
    let launch =
        &resolve(kernel, launch).map_err(|message| Fault { kind: FaultKind::IllegalInstruction, message })?;
    let in_turn = if workspace == 0 { launch.cluster } else { launch.grid };
    let groups = if workspace == 0 { launch.clusters() } else { 1 };
    let order = options.is_unkind().then(|| Permutation::new(groups, options.seed));
    let aligned_params: Vec<u128> = params
        .chunks(size_of::<u128>())
        .map(|chunk| {
            let mut bytes = [POISON; size_of::<u128>()];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u128::from_ne_bytes(bytes)
        })
        .collect();
    let grid = Grid {
        kernel,
        launch,
        is_explicit_cluster,
        params,
        aligned_params: &aligned_params,
        memory,
        options,
        checks: options.checks,
        start: Instant::now(),
        output: Output::default(),
        in_turn,
        workspace,
    };
    let mut common = Common {
        grid,
        queue: Queue::new(groups, order),
        groups: AtomicUsize::new(0),
        at_work: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
    };
    let threads_in_turn = common.threads_in_turn();
    if common.checks.race && threads_in_turn > MOST_THREADS {
        say!(
            "{}: no races are looked for in a cooperative grid of {threads_in_turn} threads; \
             {MOST_THREADS} are the most",
            kernel.name
        );
        common.grid.checks.race = false;
    }
    let fault: Mutex<Option<(usize, Fault)>> = Mutex::new(None);
    let work = || {
        let counters = RefCell::new(Counters::new(&kernel.marks));
        if let Err((number, error)) = resident::run(&common, &counters) {
            let mut first = lock(&fault);
            if first.as_ref().is_none_or(|(lowest, _)| number < *lowest) {
                *first = Some((number, error));
            }
        }
        if kernel.marks.tallies > 0 {
            lock(&total).add(&counters.borrow());
        }
    };
    // One CTA after the other where races are looked for: every finding is the same in every run.
    let serial = options.checks.race.then(|| memory.shadow.serial.lock());
    let threads = if serial.is_some() { 1 } else { options.threads };
    pool::run(threads.min(groups), &work);
    common.output.flush();
    match fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, fault)) => Err(fault),
        None => Ok(counted),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
