//! A launch: CTAs over the host's cores, each with its registers, shared and local memory.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::check::{MOST_THREADS, Permutation, Watch};
use super::cluster::{self, Cluster};
use super::control::BUDGET;
use super::fault::{Fault, FaultKind};
use super::fragment::Kept;
use super::kernel::{Kernel, Special};
use super::op::{ALL, LANES, Warp};
use super::pool;
use super::print::Output;
use super::profile::Counters;
use super::schedule::{SPINS, Schedule, run_in_turn};
use super::wgmma::{Panel, Pending};
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

    fn ctas_per_cluster(&self) -> usize {
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
    memory: &'a Memory,
    options: &'a Options,
    pub start: Instant,
    pub output: Output,
    /// CTAs, along each axis, that take turns on a host thread: a cluster, or all of a cooperative grid.
    pub in_turn: [u32; 3],
    /// Address of a cooperative grid's, or 0.
    workspace: u64,
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

/// One 128-byte slot: a register of 32 lanes.
#[derive(Clone, Copy)]
#[repr(align(128))]
struct Slot(#[allow(dead_code)] [u32; LANES]);

/// A host thread's room for the CTAs that take turns: registers, predicates, shared and local memory.
struct Worker {
    /// Of one CTA; those of the next follow.
    warps: usize,
    regs: Vec<Slot>,
    preds: Vec<u32>,
    params: Vec<Slot>,
    shared: Vec<Slot>,
    shared_bytes: usize,
    shared_slots_per_cta: usize,
    local: Vec<Slot>,
    local_slots_per_warp: usize,
}

impl Worker {
    fn new(kernel: &Kernel, launch: &Launch, params: &[u8], ctas: usize) -> Worker {
        let warps = (launch.threads() as usize).div_ceil(LANES);
        let all_warps = warps * ctas;
        // Without dynamic shared memory it ends where the last variable does, to the byte.
        let shared_bytes = match launch.dynamic_shared_bytes {
            0 => kernel.static_shared_bytes,
            dynamic => kernel.dynamic_shared_offset + dynamic as usize,
        };
        let shared_slots_per_cta = shared_bytes.div_ceil(size_of::<Slot>());
        let poison = Slot([u32::from_ne_bytes([POISON; 4]); LANES]);
        let local_slots_per_warp = (kernel.local_bytes_per_thread * LANES).div_ceil(size_of::<Slot>());
        let mut worker = Worker {
            warps,
            regs: vec![poison; all_warps * kernel.slots],
            preds: vec![0; all_warps * kernel.preds],
            params: vec![poison; params.len().div_ceil(size_of::<Slot>())],
            shared: vec![poison; shared_slots_per_cta * ctas],
            shared_bytes,
            shared_slots_per_cta,
            local: vec![poison; all_warps * local_slots_per_warp],
            local_slots_per_warp,
        };
        // SAFETY: slots for as many bytes were made just now.
        unsafe {
            std::ptr::copy_nonoverlapping(params.as_ptr(), worker.params.as_mut_ptr().cast(), params.len())
        };
        for warp in 0..all_warps {
            for constant in &kernel.constants {
                worker.fill(kernel, warp, constant.slot, constant.wide, |_| constant.value);
            }
            for param in &kernel.param_slots {
                let mut bytes = [0; 8];
                bytes[..param.bytes].copy_from_slice(&params[param.offset..][..param.bytes]);
                let shift = 64 - 8 * param.bytes as u32;
                let value = u64::from_le_bytes(bytes) << shift;
                let value = if param.signed { (value as i64 >> shift) as u64 } else { value >> shift };
                worker.fill(kernel, warp, param.slot, param.wide, |_| value);
            }
        }
        worker
    }

    fn fill(&mut self, kernel: &Kernel, warp: usize, slot: u16, wide: bool, value: impl Fn(usize) -> u64) {
        let first = &mut self.regs[warp * kernel.slots + slot as usize..];
        let lanes = first.as_mut_ptr();
        assert!(first.len() > wide as usize, "the slot and its upper half are in the file");
        for lane in 0..LANES {
            // SAFETY: a slot holds 32 words of 4 bytes, and two neighbours, checked above, 32 of 8.
            unsafe {
                match wide {
                    true => *lanes.cast::<u64>().add(lane) = value(lane),
                    false => *lanes.cast::<u32>().add(lane) = value(lane) as u32,
                }
            }
        }
    }

    /// Runs the CTAs that take turns, which are the group of this number.
    fn run_group(
        &mut self,
        number: usize,
        kernel: &Kernel,
        launch: &Launch,
        (watch, counters): (&RefCell<Watch>, &RefCell<Counters>),
        common: &Common,
    ) -> Result<(), Fault> {
        let Common { memory, options, in_turn, .. } = *common;
        self.shared.fill(Slot([u32::from_ne_bytes([POISON; 4]); LANES]));
        let stride_bytes = self.shared_slots_per_cta * size_of::<Slot>();
        let seed = options.seed.wrapping_add(number as u64);
        let local = (self.local.as_ptr() as usize, self.local.len() * size_of::<Slot>());
        let shared = (self.shared.as_ptr() as usize, self.shared.len() * size_of::<Slot>());
        let groups: [u32; 3] = std::array::from_fn(|axis| launch.grid[axis] / in_turn[axis]);
        let group = at(number as u32, groups);
        watch.borrow_mut().begin(seed, group, shared, local, kernel.granule_bytes);
        let (all_shared, slots) = (self.shared.as_mut_ptr(), self.shared_slots_per_cta);
        // SAFETY: each CTA has its own part of the array.
        let shared_of = |place: usize| unsafe { all_shared.add(place * slots) }.cast();
        let clusters_in_turn: [u32; 3] = std::array::from_fn(|axis| in_turn[axis] / launch.cluster[axis]);
        let ctas_per_cluster = launch.ctas_per_cluster();
        let clusters: Vec<Cluster> = (0..clusters_in_turn.iter().product())
            .map(|number| {
                let shared = shared_of(number as usize * ctas_per_cluster);
                Cluster::new(launch, number, seed.wrapping_add(number.into()), shared, stride_bytes)
            })
            .collect();
        let ctas: Vec<Cta> = (0..clusters.len() * ctas_per_cluster)
            .map(|place| {
                let cluster = &clusters[place / ctas_per_cluster];
                let rank = (place % ctas_per_cluster) as u32;
                let (outside, inside) = (at(cluster.number, clusters_in_turn), at(rank, launch.cluster));
                let [x, y, z] =
                    std::array::from_fn(|axis| outside[axis] * launch.cluster[axis] + inside[axis]);
                Cta {
                    kernel,
                    memory,
                    params: self.params.as_mut_ptr().cast(),
                    shared: shared_of(place),
                    shared_bytes: self.shared_bytes,
                    launch,
                    options,
                    index: [x + group[0] * in_turn[0], y + group[1] * in_turn[1], z + group[2] * in_turn[2]],
                    rank,
                    number: x + in_turn[0] * (y + in_turn[1] * z),
                    cluster,
                    watch,
                    counters,
                    common,
                    kept: RefCell::default(),
                    panels: RefCell::default(),
                    issued: RefCell::default(),
                }
            })
            .collect();
        let threads = launch.threads() as usize;
        let mut warps = Vec::with_capacity(ctas.len() * self.warps);
        for (place, cta) in ctas.iter().enumerate() {
            self.specials(kernel, cta, place);
            for index in 0..self.warps {
                let live = (threads - index * LANES).min(LANES);
                let active = if live == LANES { ALL } else { (1 << live) - 1 };
                let warp = warps.len();
                warps.push(Warp {
                    // SAFETY: each warp has its own part of each array, of the kernel's size.
                    regs: unsafe { self.regs.as_mut_ptr().add(warp * kernel.slots) }.cast(),
                    preds: unsafe { self.preds.as_mut_ptr().add(warp * kernel.preds) },
                    local: unsafe { self.local.as_mut_ptr().add(warp * self.local_slots_per_warp) }.cast(),
                    carry: 0,
                    mask: active,
                    writable: ALL,
                    pc: 0,
                    active,
                    waiting: Vec::new(),
                    merge_pc: usize::MAX,
                    ahead: false,
                    turn: 0,
                    blocked: Vec::new(),
                    dead: !active,
                    index: index as u32,
                    wait: (0, 0),
                    cluster_arrived: 0,
                    cluster_owed: 0,
                    missed: None,
                    budget: if common.is_cooperative() { SPINS } else { BUDGET },
                    range: (1, 1),
                    calls: Vec::new(),
                    cta,
                    fault: None,
                    products: Pending::default(),
                });
            }
        }
        let order = options.is_unkind().then_some(seed);
        let schedules =
            warps.chunks_mut(ctas_per_cluster * self.warps).zip(&clusters).map(|(warps, cluster)| {
                let order = order.map(|seed| seed.wrapping_add(cluster.number.into()));
                Schedule::new(warps, cluster, threads as u32, order)
            });
        run_in_turn(schedules.collect(), order)
    }

    /// The registers that differ from warp to warp or from CTA to CTA, of the CTA at this place in the arrays.
    fn specials(&mut self, kernel: &Kernel, cta: &Cta, place: usize) {
        let launch = cta.launch;
        let [bx, by, _] = launch.block;
        let shared_bytes = self.shared_bytes as u64;
        let cluster = launch.cluster;
        let is_explicit = cluster != [1; 3] || kernel.cluster.is_some();
        for warp in 0..self.warps {
            for &(special, slot) in &kernel.specials {
                let thread = |lane: usize| (warp * LANES + lane) as u32;
                self.fill(kernel, place * self.warps + warp, slot, false, |lane| {
                    let below = (1u64 << lane) - 1;
                    match special {
                        Special::Tid(0) => (thread(lane) % bx).into(),
                        Special::Tid(1) => (thread(lane) / bx % by).into(),
                        Special::Tid(_) => (thread(lane) / bx / by).into(),
                        Special::Ntid(axis) => launch.block[axis].into(),
                        Special::Ctaid(axis) => cta.index[axis].into(),
                        Special::Nctaid(axis) => launch.grid[axis].into(),
                        Special::ClusterCtaid(axis) => (cta.index[axis] % cluster[axis]).into(),
                        Special::ClusterNctaid(axis) => cluster[axis].into(),
                        Special::ClusterId(axis) => (cta.index[axis] / cluster[axis]).into(),
                        Special::Nclusterid(axis) => (launch.grid[axis] / cluster[axis]).into(),
                        Special::ClusterCtarank => cta.rank.into(),
                        Special::ClusterNctarank => cluster.iter().map(|&n| u64::from(n)).product(),
                        Special::IsExplicitCluster => is_explicit.into(),
                        Special::LaneId => lane as u64,
                        Special::WarpId => warp as u64,
                        Special::WarpCount => self_warps(launch),
                        Special::LaneMaskEq => 1 << lane,
                        Special::LaneMaskLt => below,
                        Special::LaneMaskLe => below | 1 << lane,
                        Special::LaneMaskGt => !(below | 1 << lane),
                        Special::LaneMaskGe => !below,
                        Special::DynamicSharedBytes => launch.dynamic_shared_bytes.into(),
                        Special::SharedBytes => shared_bytes,
                        Special::Workspace(shift) => cta.common.workspace >> shift & 0xffff_ffff,
                        Special::Frame => 0,
                    }
                });
            }
        }
    }
}

/// The place of number `n` in a box, the first axis fastest.
fn at(n: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [n % x, n / x % y, n / x / y]
}

fn self_warps(launch: &Launch) -> u64 {
    u64::from(launch.threads()).div_ceil(LANES as u64)
}
