//! Tensor copies, PTX ISA 9.7.9.27: boxes of a tensor in global memory, to and from shared memory.

use super::maps::Bytes;
use super::reduce::{Kind, Reduce, decode};
use super::tile::Tile;
use crate::exec::check;
use crate::exec::engine::work::{Source, Work};
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::options::Checks;
use crate::exec::profile::Action;
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::GENERIC;
use crate::exec::underway::Moving;
use crate::exec::warp::Warp;
use crate::tensor_map::{MAP_ALIGN, MAP_BYTES, TensorMap};

/// Shared addresses of a tensor copy are multiples of this.
const SHARED_ALIGN: u64 = 128;

/// Coordinates in `Op::imm`: their place in the kernel's lists, their number, and for a store what it does
/// with its elements.
pub fn pack(list: usize, dims: usize, reduce: Reduce) -> i64 {
    list as i64 | (dims as i64) << 32 | super::reduce::encode(reduce, Kind::U8) << 40
}

/// `cp.async.bulk.tensor` into shared memory: to `a`, map `b`, barrier `d` (generic addresses), CTAs of
/// mask `e`; coordinates as [`pack`] has them.
pub struct TensorLoad;
impl Body for TensorLoad {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (to, maps, barriers): ([u64; LANES], [u64; LANES], [u64; LANES]) =
            unsafe { (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.d)) };
        for lane in lanes_of(warp.mask) {
            // SAFETY: as above.
            let (ctas, at) = unsafe { (warp.cta_mask(op.e, lane), warp.coordinates(op, lane)) };
            let Some(map) = warp.tensor_map(lane, maps[lane], op) else { return Flow::Fault };
            let (counted, bytes) = (map.box_bytes() as u32, map.shared_bytes());
            let Some(targets) =
                warp.targets(lane, to[lane], barriers[lane], ctas, counted, bytes as u64, SHARED_ALIGN)
            else {
                return Flow::Fault;
            };
            let Some(writes) = warp.claim(lane, &targets, bytes, Reduce::Store) else { return Flow::Fault };
            let work = targets.work(warp, lane, Source::Taken(Vec::new()), writes);
            let tile = Tile { map, at, offset: to[lane] as usize & 0x3ff };
            tile.count(warp, false);
            let filled = map.box_bytes() * targets.pointers.len();
            warp.count_shared_stretch(Action::Tensor, filled as u64);
            if tile.touch(warp, lane, check::Kind::Read).is_none() {
                return Flow::Fault;
            }
            let pointers = targets.pointers;
            let (cluster, memory) = (warp.cta.cluster, warp.cta.memory);
            let is_unchecked = warp.cta.options.checks == Checks::default();
            let done = match is_unchecked.then(|| tile.whole(memory)).flatten() {
                Some(rows) => {
                    let barriers = work.completes.iter().map(|(barrier, _)| barrier.host as usize).collect();
                    // SAFETY: the pointers were checked for the box, and so were the rows; memory that is freed stays
                    // readable until no kernel runs.
                    unsafe { cluster.underway.begin(Moving::new(pointers, tile.swizzle(), rows, barriers)) };
                    cluster.engine.borrow_mut().load(memory, work, |_, _| Ok(()))
                }
                None => cluster.engine.borrow_mut().load(memory, work, move |_, memory| {
                    // SAFETY: the pointers were checked for the box when the copy was issued.
                    unsafe { tile.load(&pointers, memory) }
                }),
            };
            if let Err(blame) = done {
                return warp.fail_with(blame);
            }
        }
        Flow::Next
    }
}

/// `cp.async.bulk.tensor` and `cp.reduce.async.bulk.tensor` from shared `b`, map `a` (generic addresses);
/// coordinates as [`pack`] has them.
pub struct TensorStore;
impl Body for TensorStore {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (maps, from): ([u64; LANES], [u64; LANES]) = unsafe { (warp.lanes(op.a), warp.lanes(op.b)) };
        let mut stores = [None; LANES];
        for lane in lanes_of(warp.mask) {
            // SAFETY: as above.
            let at = unsafe { warp.coordinates(op, lane) };
            let Some(map) = warp.tensor_map(lane, maps[lane], op) else { return Flow::Fault };
            let (reduce, _) = decode(op.imm >> 40);
            if let Err(what) = allowed(reduce, map.ty.kind) {
                return warp.fail_lane(lane, FaultKind::IllegalInstruction, what);
            }
            let bytes = map.shared_bytes();
            let Some(pointer) = warp.shared_pointer(lane, from[lane], bytes as u64, SHARED_ALIGN) else {
                return Flow::Fault;
            };
            let tile = Tile { map, at, offset: from[lane] as usize & 0x3ff };
            if tile.readable(warp, lane, pointer).is_none() {
                return Flow::Fault;
            }
            let checks = warp.cta.options.checks;
            let work = Work {
                reads_all: checks.asynchrony && tile.is_whole(),
                ..warp.store_work(lane, pointer, bytes)
            };
            let moved = tile.count(warp, true);
            warp.count_shared_stretch(Action::Tensor, moved);
            let access = if reduce == Reduce::Store { check::Kind::Write } else { check::Kind::Atomic };
            // Lanes that store the same to the same place do no harm.
            let store = Some((maps[lane], at, pointer));
            let is_first = !stores.contains(&store);
            stores[lane] = store;
            if (is_first || reduce != Reduce::Store) && tile.touch(warp, lane, access).is_none() {
                return Flow::Fault;
            }
            let done =
                warp.cta.cluster.engine.borrow_mut().store(warp.cta.memory, work, move |from, memory| {
                    // SAFETY: the box was checked when the copy was issued.
                    unsafe { tile.store(from, reduce, memory) }
                });
            if let Err(blame) = done {
                return warp.fail_with(blame);
            }
        }
        Flow::Next
    }
}

/// Which reductions there are of which elements.
pub fn allowed(reduce: Reduce, kind: Kind) -> Result<(), String> {
    let half = matches!(kind, Kind::F16 | Kind::Bf16);
    let integer = matches!(kind, Kind::U32 | Kind::S32 | Kind::U64 | Kind::S64);
    let ok = match reduce {
        Reduce::Store => true,
        Reduce::Add => half || integer || matches!(kind, Kind::F32 | Kind::F64),
        Reduce::Min | Reduce::Max => half || integer,
        Reduce::Inc | Reduce::Dec => kind == Kind::U32,
        Reduce::And | Reduce::Or | Reduce::Xor => integer,
    };
    if ok { Ok(()) } else { Err(format!("a tensor reduction {reduce:?} of elements {kind:?}")) }
}

impl Warp<'_> {
    /// A lane's coordinates, dimension 0 first.
    ///
    /// # Safety
    /// The operation has a list of slots.
    unsafe fn coordinates(&self, op: &Op, lane: usize) -> [i32; 5] {
        let (list, dims) = (op.imm as u32 as usize, (op.imm >> 32) as usize & 7);
        let mut at = [0; 5];
        for (axis, &slot) in self.cta.kernel.lists[list..][..dims].iter().enumerate() {
            // SAFETY: the caller's.
            at[axis] = unsafe { self.lanes::<u32>(slot)[lane] as i32 };
        }
        at
    }

    /// The map at a generic address, which must have as many dimensions as the instruction; `None` after a
    /// fault.
    fn tensor_map(&mut self, lane: usize, address: u64, op: &Op) -> Option<TensorMap> {
        let from = self.pointer::<GENERIC>(lane, address, MAP_BYTES as u64, MAP_ALIGN)?;
        // SAFETY: checked for as many bytes.
        let bytes: Bytes = unsafe { *from.cast() };
        let dims = (op.imm >> 32) as usize & 7;
        let wrong = match self.cta.ranges.maps.decode(address, &bytes) {
            Ok(map) if map.rank == dims => return Some(map),
            Ok(map) => format!("{dims} coordinates for a tensor map of rank {}", map.rank),
            Err(what) => what,
        };
        self.fail_lane(lane, FaultKind::IllegalInstruction, wrong);
        None
    }
}
