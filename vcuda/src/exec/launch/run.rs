//! A launch: CTAs over the host's cores, each with its registers, shared and local memory.

use std::array::from_fn;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::cluster::{self, Cluster};
use super::pool;
use super::ranges::Ranges;
use super::resident::{self, Queue};
use super::room::at;
use super::workspace::Workspace;
use crate::exec::check::{MOST_THREADS, Watch};
use crate::exec::fault::{Fault, FaultKind};
use crate::exec::kernel::Kernel;
use crate::exec::matrix::fragment::Kept;
use crate::exec::matrix::scratch::Scratch;
use crate::exec::matrix::warpgroup::Warpgroup;
use crate::exec::options::{Checks, Launch, Options, UNSAID};
use crate::exec::print::Output;
use crate::exec::profile::{Counters, occupancy};
use crate::exec::random::Permutation;
use crate::exec::registers::LANES;
use crate::exec::space::POISON;
use crate::memory::Memory;

/// What the warps of a CTA share.
pub struct Cta<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a Memory,
    /// The kernel's parameters, in their window of the generic addresses.
    pub params: *mut u8,
    pub shared: *mut u8,
    pub shared_bytes: usize,
    pub launch: &'a Launch,
    pub options: &'a Options,
    /// Which CTA of the grid is in this place now.
    pub index: Cell<[u32; 3]>,
    /// Its place in its cluster.
    pub rank: u32,
    /// Its place among the CTAs of a host thread.
    pub number: u32,
    pub cluster: &'a Cluster,
    pub ranges: &'a Ranges,
    pub watch: &'a RefCell<Watch>,
    pub counters: &'a RefCell<Counters>,
    pub common: &'a Common<'a>,
    /// Matrices that products of its warps have read last, from registers, widened.
    pub kept: RefCell<Option<Box<Kept>>>,
    /// What its warpgroups have issued, and what computing that needs.
    pub warpgroups: RefCell<Vec<Warpgroup>>,
    pub scratch: RefCell<Scratch>,
}

impl Cta<'_> {
    /// The CTA of this index begins.
    pub fn begin(&self, index: [u32; 3]) {
        self.index.set(index);
        self.kept.take();
        self.warpgroups.borrow_mut().clear();
    }
}

/// What the CTAs of a launch share.
pub struct Common<'a> {
    pub kernel: &'a Kernel,
    pub launch: &'a Launch,
    /// Whether the launch, or the kernel, has said what its cluster is.
    pub is_explicit_cluster: bool,
    pub params: &'a [u8],
    /// The same, for vector loads.
    pub aligned_params: &'a [u128],
    pub memory: &'a Memory,
    pub options: &'a Options,
    /// Those of the options that this launch has.
    pub checks: Checks,
    pub start: Instant,
    pub output: Output,
    /// CTAs, along each axis, that come together: a cluster, or all of a cooperative grid.
    pub in_turn: [u32; 3],
    /// Address of a cooperative grid's, or 0.
    pub workspace: u64,
    /// Groups of CTAs that have yet to come, and those that the device has room for at once.
    pub queue: Queue,
    pub most_groups: usize,
    /// Groups that are there, on all host threads; host threads that get on; whether any has failed.
    pub groups: AtomicUsize,
    pub at_work: AtomicUsize,
    pub failed: AtomicBool,
}

impl Common<'_> {
    pub fn is_cooperative(&self) -> bool {
        self.workspace != 0
    }

    /// CTAs that come together.
    pub fn ctas_in_turn(&self) -> usize {
        self.in_turn.iter().map(|&n| n as usize).product()
    }

    /// A CTA's threads in whole warps, as the race check counts them: with one more for its warpgroups, if it has any.
    pub fn threads_per_cta(&self) -> usize {
        let warpgroups = if self.kernel.has_products { LANES } else { 0 };
        (self.launch.threads() as usize).next_multiple_of(LANES) + warpgroups
    }

    /// The same of all CTAs that come together.
    pub fn threads_in_turn(&self) -> usize {
        self.threads_per_cta() * self.ctas_in_turn()
    }

    /// Where the CTA of this number, cluster by cluster, is among those that come together.
    pub fn inside(&self, number: usize) -> [u32; 3] {
        let (cluster, ctas) = (self.launch.cluster, self.launch.ctas_per_cluster());
        let outside = at((number / ctas) as u32, from_fn(|axis| self.in_turn[axis] / cluster[axis]));
        let inside = at((number % ctas) as u32, cluster);
        from_fn(|axis| outside[axis] * cluster[axis] + inside[axis])
    }
}

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
    let total = Mutex::new(Counters::new(&kernel.marks));
    let is_explicit_cluster = launch.cluster != UNSAID || kernel.cluster.is_some();
    let launch = &cluster::resolve(kernel, launch)
        .map_err(|message| Fault { kind: FaultKind::IllegalInstruction, message })?;
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
    let mut common = Common {
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
        queue: Queue::new(groups, order),
        most_groups: occupancy::clusters(options.gpu, kernel, launch).max(1),
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
        common.checks.race = false;
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
        lock(&total).add(&counters.into_inner());
    };
    // One CTA after the other where races are looked for: every finding is the same in every run.
    let serial = options.checks.race.then(|| memory.shadow.serial.lock());
    let threads = if serial.is_some() { 1 } else { options.threads };
    pool::run(threads.min(groups), &work);
    common.output.flush();
    match fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, fault)) => Err(fault),
        None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
