//! A host thread's room for the CTAs that take turns on it, and what a CTA's warps begin with.

use std::cell::RefCell;

use super::check::Watch;
use super::cluster::Cluster;
use super::control::BUDGET;
use super::fault::Fault;
use super::kernel::{Kernel, Special};
use super::op::{ALL, LANES, Warp};
use super::profile::Counters;
use super::run::{Common, Cta, Launch, POISON};
use super::schedule::{SPINS, Schedule, run_in_turn};
use super::wgmma::Pending;

/// One 128-byte slot: a register of 32 lanes.
#[derive(Clone, Copy)]
#[repr(align(128))]
struct Slot(#[allow(dead_code)] [u32; LANES]);

/// A host thread's room for the CTAs that take turns: registers, predicates, shared and local memory.
pub struct Worker {
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
    pub fn new(kernel: &Kernel, launch: &Launch, params: &[u8], ctas: usize) -> Worker {
        let warps = (launch.threads() as usize).div_ceil(LANES);
        let all_warps = warps * ctas;
        // Without dynamic shared memory it ends where the last variable does, to the byte.
        let shared_bytes = match launch.dynamic_shared_bytes {
            0 => kernel.reserved_shared_bytes + kernel.static_shared_bytes,
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
    pub fn run_group(
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
            watch.borrow_mut().reserve(cta.shared as usize, kernel.reserved_shared_bytes);
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
        let all_shared_bytes = self.shared_bytes as u64;
        let shared_bytes = all_shared_bytes - kernel.reserved_shared_bytes as u64;
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
                        Special::AllSharedBytes => all_shared_bytes,
                        Special::SharedBytes => shared_bytes,
                        Special::Workspace(shift) => cta.common.workspace >> shift & 0xffff_ffff,
                        Special::StackEnd => kernel.local_bytes_per_thread as u64,
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
