//! A launch: CTAs over the host's cores, each with its registers, shared and local memory.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::check::{MOST_THREADS, Permutation, Watch};
use super::cluster::{self, Cluster};
use super::fault::{Fault, FaultKind};
use super::fragment::Kept;
use super::kernel::Kernel;
use super::op::LANES;
use super::pool;
use super::print::Output;
use super::profile::Counters;
use super::wgmma::Panel;
use super::worker::Worker;
use super::workspace::Workspace;
use crate::memory::Memory;

/// Grid, cluster, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub grid: [u32; 3],
    /// CTAs of a cluster along each axis, of which the grid's are multiples; `[1, 1, 1]` asks for none.
    pub cluster: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared_bytes: u32,
}

impl Launch {
    pub(super) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    fn clusters(&self) -> usize {
        (0..3).map(|axis| (self.grid[axis] / self.cluster[axis]) as usize).product()
    }

    pub fn ctas_per_cluster(&self) -> usize {
        self.cluster.iter().map(|&n| n as usize).product()
    }
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Host threads at most.
    pub threads: usize,
    /// What to look for; bounds and alignment always are.
    pub checks: Checks,
    /// Of the order of warps and CTAs, which is by number only for 0 and no [`Checks`].
    pub seed: u64,
}

impl Options {
    /// Whether warps and CTAs run in an order drawn from the seed.
    pub fn is_unkind(&self) -> bool {
        self.seed != 0 || self.checks != Checks::default()
    }
}

/// What `VCUDA_CHECK` asks for. Modules are decoded for it when they are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Reads of memory that nobody wrote.
    pub init: bool,
    /// Accesses by two threads that nothing orders.
    pub race: bool,
    /// Asynchronous copies and products land at the latest legal moment.
    pub asynchrony: bool,
}

impl Checks {
    pub const ALL: Checks = Checks { init: true, race: true, asynchrony: true };
}

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
    pub index: [u32; 3],
    /// Its place in its cluster.
    pub rank: u32,
    /// Its place among the CTAs that take turns: its rank, unless the launch is cooperative.
    pub number: u32,
    pub cluster: &'a Cluster,
    pub watch: &'a RefCell<Watch>,
    pub counters: &'a RefCell<Counters>,
    pub common: &'a Common<'a>,
    /// Matrices that products of its warps have read last, widened: from registers, and from shared memory.
    pub kept: RefCell<Option<Box<Kept>>>,
    pub panels: RefCell<Vec<Panel>>,
    /// Products that each warp has issued for later.
    pub issued: RefCell<[u64; 32]>,
}

/// What the CTAs of a launch share.
pub struct Common<'a> {
    pub memory: &'a Memory,
    pub options: &'a Options,
    pub start: Instant,
    pub output: Output,
    /// CTAs, along each axis, that take turns on a host thread: a cluster, or all of a cooperative grid.
    pub in_turn: [u32; 3],
    /// Address of a cooperative grid's, or 0.
    pub workspace: u64,
}

impl Common<'_> {
    pub fn is_cooperative(&self) -> bool {
        self.workspace != 0
    }
}

/// Memory that nobody has written holds this: NaN as a float, far out of range as an index.
pub const POISON: u8 = 0xff;

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
    let total = Mutex::new(Counters::new(kernel));
    let cluster = cluster::shape(kernel, launch)
        .map_err(|message| Fault { kind: FaultKind::IllegalInstruction, message })?;
    let launch = &Launch { cluster, ..*launch };
    let in_turn = if workspace == 0 { cluster } else { launch.grid };
    let groups = if workspace == 0 { launch.clusters() } else { 1 };
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let fault: Mutex<Option<(usize, Fault)>> = Mutex::new(None);
    let common =
        Common { memory, options, start: Instant::now(), output: Output::default(), in_turn, workspace };
    let ctas_in_turn = in_turn.iter().map(|&n| n as usize).product();
    let order = options.is_unkind().then(|| Permutation::new(groups, options.seed));
    let threads_in_turn = (launch.threads() as usize).next_multiple_of(LANES) * ctas_in_turn;
    let mut checks = options.checks;
    if checks.race && threads_in_turn > MOST_THREADS {
        say!(
            "{}: no races are looked for in a cooperative grid of {threads_in_turn} threads; \
             {MOST_THREADS} are the most",
            kernel.name
        );
        checks.race = false;
    }
    let work = || {
        let mut worker = Worker::new(kernel, launch, params, ctas_in_turn);
        let watch = RefCell::new(Watch::new(memory, checks, threads_in_turn));
        let counters = RefCell::new(Counters::new(kernel));
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= groups {
                break;
            }
            let number = order.as_ref().map_or(number, |order| order.at(number));
            if let Err(error) = worker.run_group(number, kernel, launch, (&watch, &counters), &common) {
                failed.store(true, Ordering::Relaxed);
                let mut first = fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if first.as_ref().is_none_or(|(lowest, _)| number < *lowest) {
                    *first = Some((number, error));
                }
            }
        }
        watch.borrow().end(memory);
        total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&counters.into_inner());
    };
    // One CTA after the other where races are looked for: every finding is the same in every run.
    let serial = options.checks.race.then(|| memory.shadow.serial.lock());
    let threads = if serial.is_some() { 1 } else { options.threads };
    pool::run(threads.min(groups), &work);
    common.output.flush();
    match fault.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some((_, fault)) => Err(fault),
        None => Ok(total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())),
    }
}
