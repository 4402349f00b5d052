//! Tensor copies, PTX ISA 9.7.9.27: boxes of a tensor in global memory, to and from shared memory.
//!
//! Shared memory has the box's rows one after another, dimension 1 fastest. With a swizzle of 128 bytes,
//! bits 4 to 6 of a byte's shared address are XORed with bits 7 to 9, with 64 bytes bits 4 and 5 with 7 and
//! 8, with 32 bytes bit 4 with bit 7.

use super::reduce::{Kind, Reduce, apply, decode};
use crate::exec::arithmetic::half::OOB_NAN;
use crate::exec::check;
use crate::exec::engine::work::{Source, Work};
use crate::exec::fault::FaultKind;
use crate::exec::host::prefetch;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::options::Checks;
use crate::exec::profile::Action;
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::GENERIC;
use crate::exec::warp::Warp;
use crate::memory::Memory;
use crate::tensor_map::{MAP_ALIGN, MAP_BYTES, TensorMap};

/// Shared addresses of a tensor copy are multiples of this.
const SHARED_ALIGN: u64 = 128;
const CHUNK: usize = 16;
/// How far ahead of a load its rows are asked for. They lie far apart, so the host does not expect them.
const ROWS_AHEAD: usize = 16;

/// A row of a box: where it begins in the tensor, if it is inside along all but dimension 0.
struct Row {
    global: Option<u64>,
    /// Offset of its first byte from the box's.
    shared: usize,
}

/// Host pointer and bytes.
type Part = (*mut u8, usize);

/// A box at its place in the tensor, and the shared offset that its bytes are swizzled by.
#[derive(Clone, Copy)]
struct Tile {
    map: TensorMap,
    at: [i32; 5],
    offset: usize,
}

impl Tile {
    fn rows(&self) -> impl Iterator<Item = Row> {
        let tile = *self;
        let [_, rows, counts @ ..] = tile.map.counts().map(|n| n as usize);
        (0..counts.iter().product()).flat_map(move |plane| {
            let (mut left, mut start) = (plane, Some(tile.map.address));
            for (axis, count) in (2..5).zip(counts) {
                start = tile.step(start, axis, left % count);
                left /= count;
            }
            (0..rows).map(move |row| Row {
                global: tile.step(start, 1, row),
                shared: (plane * rows + row) * tile.map.row_bytes(),
            })
        })
    }

    /// The address of the box's slice `index` along an axis, if it is inside there too.
    fn step(&self, start: Option<u64>, axis: usize, index: usize) -> Option<u64> {
        let map = &self.map;
        let place = i64::from(self.at[axis]) + (index as u32 * map.steps[axis].max(1)) as i64;
        let inside = place >= 0 && (place as u64) < map.dims[axis];
        let stride = if axis < map.rank { map.strides[axis - 1] } else { 0 };
        start.filter(|_| inside).map(|start| start.wrapping_add((place as u64).wrapping_mul(stride)))
    }

    /// The elements of a row that are inside the tensor, as bytes of the row, and the tensor's byte offset
    /// of the first of them.
    fn inside(&self) -> (std::ops::Range<usize>, u64) {
        let size = self.map.ty.kind.bytes() as i64;
        let (first, count) = (i64::from(self.at[0]), i64::from(self.map.extents[0]));
        let start = (-first).clamp(0, count);
        let end = (self.map.dims[0] as i64 - first).clamp(start, count);
        ((start * size) as usize..(end * size) as usize, ((first + start).max(0) * size) as u64)
    }

    /// Where byte `at` of the box's shared memory is, after the swizzle.
    fn swizzled(&self, at: usize) -> usize {
        self.swizzled_in(at, 0)
    }

    /// The same of a byte so far into the row at `row`. Swizzled rows do not cross 128 bytes, so all of it is turned alike.
    #[inline(always)]
    fn swizzled_in(&self, row: usize, at: usize) -> usize {
        let address = self.offset + row;
        let mask = (1 << self.map.swizzle) - 1;
        ((address + at) ^ (address >> 7 & mask) << 4) - self.offset
    }

    /// The rows' offsets in the box, and of each the elements inside the tensor, as host pointer and bytes, if there
    /// are any.
    fn global_rows(&self, memory: &Memory) -> impl Iterator<Item = Result<(usize, Option<Part>), String>> {
        let (tile, (inside, skip)) = (*self, self.inside());
        let (bytes, mut known) = (inside.len() as u64, (0, 0));
        self.rows().map(move |row| {
            let Some(start) = row.global.filter(|_| bytes > 0) else { return Ok((row.shared, None)) };
            let start = start.wrapping_add(skip);
            if start < known.0 || start >= known.1 {
                known = memory.range_of(start).unwrap_or_default();
            }
            if start < known.1 && known.1 - start >= bytes {
                return Ok((row.shared, Some((start as *mut u8, bytes as usize))));
            }
            let (at, place) = (&tile.at[..tile.map.rank], memory.whereabouts(start, bytes));
            Err(format!("a tensor copy at {at:?} reaches {bytes} bytes at {start:#x}, which is {place}"))
        })
    }

    /// Counts the box's rows in global memory; their bytes.
    fn count(&self, warp: &mut Warp, writes: bool) -> u64 {
        let mut sum = 0;
        if warp.is_counted() {
            for (_, part) in self.global_rows(warp.cta.memory).flatten() {
                let Some((at, bytes)) = part else { continue };
                warp.count_stretch(Action::Tensor, at as u64, bytes as u64, writes);
                sum += bytes as u64;
            }
        }
        sum
    }

    /// Tells the checks of the part of the box that is inside the tensor; `None` after a finding.
    fn touch(&self, warp: &mut Warp, lane: usize, access: check::Kind) -> Option<()> {
        if !warp.cta.memory.is_watched() {
            return Some(());
        }
        for (_, part) in self.global_rows(warp.cta.memory).flatten() {
            let Some((at, bytes)) = part else { continue };
            warp.touch(lane, at, bytes, access)?;
        }
        Some(())
    }

    /// Whether all of the box is inside the tensor.
    fn is_whole(&self) -> bool {
        self.inside().0 == (0..self.map.row_bytes()) && self.rows().all(|row| row.global.is_some())
    }

    /// Whether the async proxy may read the part of the box at `from` that a store moves: what is inside the
    /// tensor. `None` after a finding.
    fn readable(&self, warp: &mut Warp, lane: usize, from: *const u8) -> Option<()> {
        if warp.cta.options.checks == Checks::default() {
            return Some(());
        }
        let (inside, _) = self.inside();
        // Bytes that lie together: a swizzle leaves whole chunks.
        let together = if self.map.swizzle == 0 { usize::MAX } else { CHUNK };
        for row in self.rows().filter(|row| row.global.is_some()) {
            let mut at = inside.start;
            while at < inside.end {
                let bytes = (inside.end - at).min(together - at % together);
                warp.readable(lane, from.wrapping_add(self.swizzled(row.shared + at)), bytes)?;
                at += bytes;
            }
        }
        Some(())
    }

    /// Fills the box's shared memory at each of `to`; the next box may be so many bytes further.
    ///
    /// # Safety
    /// Each has [`TensorMap::shared_bytes`].
    unsafe fn load(&self, to: &[*mut u8], memory: &Memory, step: u64) -> Result<(), String> {
        let ty = self.map.ty;
        let outside = if self.map.fills_nan { OOB_NAN as u16 } else { 0 };
        let start = self.inside().0.start;
        let mut bytes = vec![0; self.map.extents[0] as usize * ty.kind.bytes()];
        let ahead = ROWS_AHEAD * (self.map.strides[0] * u64::from(self.map.steps[1])) as usize;
        self.global_rows(memory).try_for_each(|row| {
            let (at, part) = row?;
            let from = match part {
                Some((from, count)) if count == bytes.len() && !ty.is_tf32 => {
                    prefetch(from.wrapping_add(ahead), count);
                    prefetch(from.wrapping_add(step as usize), count);
                    from.cast_const()
                }
                part => {
                    bytes.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&outside.to_le_bytes()));
                    if let Some((from, count)) = part {
                        let inside = &mut bytes[start..start + count];
                        // SAFETY: `from` is checked for as many bytes, which are part of a row.
                        unsafe { std::ptr::copy_nonoverlapping(from, inside.as_mut_ptr(), count) };
                        if ty.is_tf32 {
                            inside.chunks_exact_mut(4).for_each(round_to_tf32);
                        }
                    }
                    bytes.as_ptr()
                }
            };
            for to in to {
                for chunk in (0..bytes.len()).step_by(CHUNK) {
                    // SAFETY: the caller's; a swizzle stays inside the row, which is a multiple of a chunk.
                    unsafe {
                        let to = to.add(self.swizzled_in(at, chunk));
                        std::ptr::copy_nonoverlapping(from.add(chunk), to, CHUNK);
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes or reduces what is inside the tensor from the box's shared memory.
    ///
    /// # Safety
    /// As [`Tile::load`]; see [`apply`].
    unsafe fn store(&self, from: *const u8, reduce: Reduce, memory: &Memory) -> Result<(), String> {
        let (inside, _) = self.inside();
        let row_bytes = self.map.extents[0] as usize * self.map.ty.kind.bytes();
        let mut bytes = vec![0; row_bytes];
        for row in self.global_rows(memory) {
            let (at, Some((to, count))) = row? else { continue };
            for (i, chunk) in bytes.chunks_exact_mut(CHUNK).enumerate() {
                let at = self.swizzled_in(at, i * CHUNK);
                // SAFETY: the caller's.
                unsafe { std::ptr::copy_nonoverlapping(from.add(at), chunk.as_mut_ptr(), CHUNK) };
            }
            memory.mark_written(to as u64, count);
            // SAFETY: `to` is checked for as many bytes.
            unsafe { apply(reduce, self.map.ty.kind, to, bytes[inside.start..].as_ptr(), count) };
        }
        Ok(())
    }
}

/// A float32 to one of 10 bits of mantissa, to nearest even; NaN is that of tf32. That loads round is all that
/// NVIDIA says; the mode and the NaN are those of a public simulator that says it was checked on hardware.
fn round_to_tf32(element: &mut [u8]) {
    let bits = u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
    let rounded = match bits & 0x7fff_ffff > 0x7f80_0000 {
        true => 0x7fff_e000,
        false => (bits + 0xfff + (bits >> 13 & 1)) & !0x1fff,
    };
    element.copy_from_slice(&rounded.to_le_bytes());
}

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
            let start = tile.rows().next().and_then(|row| row.global).unwrap_or_default();
            let step = warp.cta.ranges.step(warp.pc, start);
            let done = warp.cta.cluster.engine.borrow_mut().load(warp.cta.memory, work, move |_, memory| {
                // SAFETY: the pointers were checked for the box when the copy was issued.
                unsafe { tile.load(&pointers, memory, step) }
            });
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
        let bytes = unsafe { *from.cast::<[u8; MAP_BYTES]>() };
        let dims = (op.imm >> 32) as usize & 7;
        let wrong = match TensorMap::decode(&bytes) {
            Some(map) if !map.is_blank() => match map.validate() {
                Ok(()) if map.rank == dims => return Some(map.trimmed()),
                Ok(()) => format!("{dims} coordinates for a tensor map of rank {}", map.rank),
                Err(what) => format!("the tensor map at {address:#x}: {what}"),
            },
            _ => format!("there is no tensor map at {address:#x}"),
        };
        self.fail_lane(lane, FaultKind::IllegalInstruction, wrong);
        None
    }
}
