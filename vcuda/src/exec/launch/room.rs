//! Room for a group of CTAs that take turns on a host thread, and what their warps begin with.

use std::cell::{Cell, RefCell};

use typed_arena::Arena;

use super::common::Common;
use super::schedule::Schedule;
use super::stores::{Slot, Stores, UNWRITTEN};
use crate::exec::check::{Beginning, Probe, Watch};
use crate::exec::cta::{Cluster, Cta, Grid, at};
use crate::exec::fault::Fault;
use crate::exec::kernel::{Kernel, Special};
use crate::exec::matrix::warpgroup::Pending;
use crate::exec::options::Launch;
use crate::exec::profile::Counters;
use crate::exec::random::Random;
use crate::exec::ranges::Ranges;
use crate::exec::registers::{ALL, LANES, Registers};
use crate::exec::warp::Warp;

/// What the rooms of a host thread refer to.
pub struct Site<'a> {
    ranges: Ranges,
    watches: Arena<RefCell<Watch>>,
    clusters: Arena<Cluster>,
    ctas: Arena<Cta<'a>>,
}

impl Site<'_> {
    pub fn new(common: &Common) -> Self {
        let warps = (common.launch.threads() as usize).div_ceil(LANES);
        Site {
            ranges: Ranges::new(common.kernel.ops.len(), warps, common.memory),
            watches: Arena::default(),
            clusters: Arena::default(),
            ctas: Arena::default(),
        }
    }
}

/// Registers, predicates, shared and local memory of a cluster, or of all of a cooperative grid, again and again.
pub struct Room<'a> {
    common: &'a Common<'a>,
    pub watch: &'a RefCell<Watch>,
    clusters: &'a [Cluster],
    ctas: &'a [Cta<'a>],
    warps_per_cta: usize,
    stores: Stores,
    preds: Vec<u32>,
    shared_bytes: usize,
    shared_slots: usize,
    local_slots_per_warp: usize,
    /// The group that is here, and the clusters that have not exited.
    pub number: usize,
    schedules: Vec<Schedule<'a>>,
    random: Option<Random>,
}

impl<'a> Room<'a> {
    /// The room of this place on a host thread.
    pub fn new(
        common: &'a Common<'a>,
        counters: &'a RefCell<Counters>,
        site: &'a Site<'a>,
        place: usize,
    ) -> Room<'a> {
        let Grid { kernel, launch, in_turn, .. } = common.grid;
        let ctas = common.ctas_in_turn();
        let warps_per_cta = (launch.threads() as usize).div_ceil(LANES);
        let all_warps = warps_per_cta * ctas;
        // Without dynamic shared memory it ends where the last variable does, to the byte.
        let shared_bytes = match launch.dynamic_shared_bytes {
            0 => kernel.reserved_shared_bytes + kernel.static_shared_bytes,
            dynamic => kernel.dynamic_shared_offset + dynamic as usize,
        };
        let shared_slots_per_cta = shared_bytes.div_ceil(size_of::<Slot>());
        let shared_slots = shared_slots_per_cta * ctas;
        let local_slots_per_warp = (kernel.local_bytes_per_thread * LANES).div_ceil(size_of::<Slot>());
        let local_slots = all_warps * local_slots_per_warp;
        let mut stores = Stores::new([all_warps * kernel.slots, shared_slots, local_slots]);
        stores.local[..local_slots].fill(UNWRITTEN);
        let all_shared = stores.shared.as_mut_ptr();
        // SAFETY: each CTA has its own part of the array.
        let shared_of = |cta: usize| unsafe { all_shared.add(cta * shared_slots_per_cta) }.cast();

        let first_thread = place * common.threads_in_turn();
        let watch = Watch::new(common.memory, common.checks, first_thread, common.threads_in_turn());
        let watch = &*site.watches.alloc(RefCell::new(watch));
        let ctas_per_cluster = launch.ctas_per_cluster();
        let first = (place * ctas) as u32;
        let stride_bytes = shared_slots_per_cta * size_of::<Slot>();
        let clusters =
            &*site.clusters.alloc_extend((0..ctas / ctas_per_cluster).map(|n| {
                Cluster::new(launch, first + n as u32, shared_of(n * ctas_per_cluster), stride_bytes)
            }));
        let ctas = &*site.ctas.alloc_extend((0..ctas).map(|n| {
            let rank = (n % ctas_per_cluster) as u32;
            let [x, y, z] = common.inside(n);
            Cta {
                kernel,
                memory: common.memory,
                params: common.aligned_params.as_ptr().cast_mut().cast(),
                shared: shared_of(n),
                shared_bytes,
                launch,
                options: common.options,
                index: Cell::default(),
                rank,
                number: first + x + in_turn[0] * (y + in_turn[1] * z),
                cluster: &clusters[n / ctas_per_cluster],
                ranges: &site.ranges,
                watch,
                counters,
                grid: &common.grid,
                kept: RefCell::default(),
                warpgroups: RefCell::default(),
                scratch: RefCell::default(),
            }
        }));
        let mut room = Room {
            common,
            watch,
            clusters,
            ctas,
            warps_per_cta,
            stores,
            preds: vec![0; all_warps * kernel.preds],
            shared_bytes,
            shared_slots,
            local_slots_per_warp,
            number: 0,
            schedules: Vec::new(),
            random: None,
        };
        for warp in 0..all_warps {
            for &slot in &kernel.unwritten {
                room.stores.regs[warp * kernel.slots + slot as usize] = UNWRITTEN;
            }
            for constant in &kernel.constants {
                room.fill(kernel, warp, constant.slot, constant.wide, |_| constant.value);
            }
            for param in &kernel.param_slots {
                let mut bytes = [0; 8];
                bytes[..param.bytes].copy_from_slice(&common.params[param.offset..][..param.bytes]);
                let shift = 64 - 8 * param.bytes as u32;
                let value = u64::from_le_bytes(bytes) << shift;
                let value = if param.signed { (value as i64 >> shift) as u64 } else { value >> shift };
                room.fill(kernel, warp, param.slot, param.wide, |_| value);
            }
        }
        for (place, cta) in ctas.iter().enumerate() {
            room.specials(kernel, cta, place, true);
        }
        room
    }

    fn fill(&mut self, kernel: &Kernel, warp: usize, slot: u16, wide: bool, value: impl Fn(usize) -> u64) {
        let first = &mut self.stores.regs[warp * kernel.slots + slot as usize..];
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

    /// The group of this number comes in. `has_company`: the host thread has others under way.
    pub fn begin(&mut self, number: usize, has_company: bool) {
        let Grid { kernel, launch, options, in_turn, .. } = self.common.grid;
        self.number = number;
        self.stores.shared[..self.shared_slots].fill(UNWRITTEN);
        let seed = options.seed.wrapping_add(number as u64);
        let place = at(number as u32, std::array::from_fn(|axis| launch.grid[axis] / in_turn[axis]));
        let first = self.ctas[0].number as usize;
        let local_slots = self.ctas.len() * self.warps_per_cta * self.local_slots_per_warp;
        self.watch.borrow_mut().begin(Beginning {
            seed,
            place,
            ctas: first..first + self.ctas.len(),
            shared: (self.stores.shared.as_ptr() as usize, self.shared_slots * size_of::<Slot>()),
            local: (self.stores.local.as_ptr() as usize, local_slots * size_of::<Slot>()),
            granule_bytes: kernel.granule_bytes,
            has_company,
        });
        let order = options.is_unkind().then_some(seed);
        self.random = order.filter(|_| self.clusters.len() > 1).map(Random::new);
        let ctas_per_cluster = launch.ctas_per_cluster();
        let clusters = self.clusters;
        self.schedules = clusters
            .iter()
            .enumerate()
            .map(|(n, cluster)| {
                let seed = seed.wrapping_add(n as u64);
                cluster.begin(seed, options.checks.asynchrony);
                let mut warps = Vec::with_capacity(ctas_per_cluster * self.warps_per_cta);
                for cta in n * ctas_per_cluster..(n + 1) * ctas_per_cluster {
                    self.add_warps(cta, place, &mut warps);
                }
                Schedule::new(warps, cluster, launch.threads(), order.map(|_| seed))
            })
            .collect();
    }

    /// Adds the warps of a CTA by its place in the arrays, at their beginning.
    #[inline]
    fn add_warps(&mut self, place: usize, group: [u32; 3], warps: &mut Vec<Warp<'a>>) {
        let Grid { kernel, options, in_turn, .. } = self.common.grid;
        let cta = &self.ctas[place];
        let inside = self.common.inside(place);
        cta.begin(std::array::from_fn(|axis| group[axis] * in_turn[axis] + inside[axis]));
        self.specials(kernel, cta, place, false);
        self.watch.borrow_mut().reserve(cta.shared as usize, kernel.reserved_shared_bytes);
        let threads = cta.launch.threads() as usize;
        for index in 0..self.warps_per_cta {
            let live = (threads - index * LANES).min(LANES);
            let active = if live == LANES { ALL } else { (1 << live) - 1 };
            let warp = place * self.warps_per_cta + index;
            let registers = Registers {
                // SAFETY: each warp has its own part of each array, of the kernel's size; so below.
                regs: unsafe { self.stores.regs.as_mut_ptr().add(warp * kernel.slots) }.cast(),
                preds: unsafe { self.preds.as_mut_ptr().add(warp * kernel.preds) },
                carry: 0,
                mask: active,
                writable: ALL,
                lists: &kernel.lists,
                runs: &kernel.runs,
                const_ranges: &kernel.const_ranges,
                seed: options.seed,
            };
            let mut warp = Warp {
                registers,
                local: unsafe { self.stores.local.as_mut_ptr().add(warp * self.local_slots_per_warp) }.cast(),
                pc: 0,
                active,
                waiting: Vec::new(),
                merge_pc: usize::MAX,
                spent: Vec::new(),
                meetings: Vec::new(),
                blocked: Vec::new(),
                dead: !active,
                index: index as u32,
                wait: (0, 0),
                cluster_arrived: 0,
                cluster_owed: 0,
                missed: None,
                misses: false,
                polled: None,
                budget: 0,
                polls: false,
                calls: Vec::new(),
                cta,
                fault: None,
                products: Pending::default(),
            };
            warp.renew_budget(false);
            warps.push(warp);
        }
    }

    /// Whether all of its clusters may wait for others.
    #[inline]
    pub fn lingers(&self) -> bool {
        self.schedules.iter().all(Schedule::lingers)
    }

    /// Begins to ask anew whether its warps go round for ever, or asks no more.
    pub fn watch_laps(&mut self, wanted: bool) {
        self.watch.borrow_mut().probe = wanted.then(Probe::default);
        self.schedules.iter_mut().for_each(|schedule| schedule.watch_laps(wanted));
    }

    /// Whether they do.
    pub fn is_stuck(&self) -> bool {
        self.schedules.iter().all(Schedule::is_stuck)
    }

    /// Changes of memory, and of what asynchronous work waits for, while that is asked.
    pub fn changes(&self) -> u64 {
        let mut watch = self.watch.borrow_mut();
        let changes = watch.probe.as_mut().map_or(0, Probe::changes);
        changes + self.schedules.iter().map(Schedule::changes).sum::<u64>()
    }

    /// Where its warps are.
    pub fn describe(&self) -> Vec<String> {
        self.schedules.iter().flat_map(Schedule::describe).collect()
    }

    /// A turn of each warp; whether all have exited.
    ///
    /// # Errors
    /// The first fault.
    #[inline]
    pub fn round(&mut self) -> Result<bool, Fault> {
        self.ctas[0].ranges.renew(self.common.memory);
        if let Some(random) = &mut self.random {
            random.shuffle(&mut self.schedules);
        }
        let mut i = 0;
        while i < self.schedules.len() {
            match self.schedules[i].round()? {
                true => drop(self.schedules.remove(i)),
                false => i += 1,
            }
        }
        Ok(self.schedules.is_empty())
    }

    /// The special registers of the CTA at this place in the arrays: those that every CTA there has alike, or the others.
    fn specials(&mut self, kernel: &Kernel, cta: &Cta, place: usize, alike: bool) {
        let (launch, index) = (cta.launch, cta.index.get());
        let [bx, by, _] = launch.block;
        let all_shared_bytes = self.shared_bytes as u64;
        let shared_bytes = all_shared_bytes - kernel.reserved_shared_bytes as u64;
        let cluster = launch.cluster;
        let is_explicit = cta.grid.is_explicit_cluster;
        for warp in 0..self.warps_per_cta {
            for &(special, slot) in kernel.specials.iter().filter(|(special, _)| special.is_alike() == alike)
            {
                let thread = |lane: usize| (warp * LANES + lane) as u32;
                self.fill(kernel, place * self.warps_per_cta + warp, slot, false, |lane| {
                    let below = (1u64 << lane) - 1;
                    match special {
                        Special::Tid(0) => (thread(lane) % bx).into(),
                        Special::Tid(1) => (thread(lane) / bx % by).into(),
                        Special::Tid(_) => (thread(lane) / bx / by).into(),
                        Special::Ntid(axis) => launch.block[axis].into(),
                        Special::Ctaid(axis) => index[axis].into(),
                        Special::Nctaid(axis) => launch.grid[axis].into(),
                        Special::ClusterCtaid(axis) => (index[axis] % cluster[axis]).into(),
                        Special::ClusterNctaid(axis) => cluster[axis].into(),
                        Special::ClusterId(axis) => (index[axis] / cluster[axis]).into(),
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
                        Special::Workspace(shift) => cta.grid.workspace >> shift & 0xffff_ffff,
                        Special::StackEnd => kernel.local_bytes_per_thread as u64,
                        Special::Frame => 0,
                    }
                });
            }
        }
    }
}

fn self_warps(launch: &Launch) -> u64 {
    u64::from(launch.threads()).div_ceil(LANES as u64)
}
