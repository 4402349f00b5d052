//! The box of a tensor that a tensor copy moves, row by row.
//!
//! Shared memory has the box's rows one after another, dimension 1 fastest. With a swizzle of 128 bytes,
//! bits 4 to 6 of a byte's shared address are XORed with bits 7 to 9, with 64 bytes bits 4 and 5 with 7 and
//! 8, with 32 bytes bit 4 with bit 7.

use super::reduce::{Reduce, apply};
use crate::exec::arithmetic::half::OOB_NAN;
use crate::exec::check;
use crate::exec::options::Checks;
use crate::exec::profile::Action;
use crate::exec::underway::{CHUNK, Chunk, ROWS_AHEAD, Stretch, Swizzle};
use crate::exec::warp::Warp;
use crate::memory::Memory;
use crate::tensor_map::TensorMap;

/// A row of a box: where it begins in the tensor, if it is inside along all but dimension 0.
struct Row {
    global: Option<u64>,
    /// Offset of its first byte from the box's.
    shared: usize,
}

/// A box at its place in the tensor, and the shared offset that its bytes are swizzled by.
#[derive(Clone, Copy)]
pub struct Tile {
    pub map: TensorMap,
    pub at: [i32; 5],
    pub offset: usize,
}

/// The rows of a box, in the order of shared memory.
struct Rows<'a> {
    tile: &'a Tile,
    /// Rows that are left of this plane, the plane after it, and how many there are.
    rows: usize,
    plane: usize,
    planes: usize,
    /// Where this plane begins, if it is inside the tensor along its axes.
    start: Option<u64>,
    /// The next row along dimension 1.
    place: i64,
    shared: usize,
}

impl Rows<'_> {
    /// Goes to the next plane's first row.
    fn enter(&mut self) {
        let (map, at) = (&self.tile.map, &self.tile.at);
        let counts = map.counts();
        self.rows = counts[1] as usize;
        self.place = i64::from(at[1]);
        self.start = Some(map.address);
        let mut left = self.plane;
        self.plane += 1;
        for axis in 2..5 {
            let index = (left % counts[axis] as usize) as i64;
            left /= counts[axis] as usize;
            let place = i64::from(at[axis]) + index * i64::from(map.steps[axis]);
            let skip = (place as u64).wrapping_mul(map.strides[axis - 1]);
            self.start =
                self.start.filter(|_| (place as u64) < map.dims[axis]).map(|at| at.wrapping_add(skip));
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Row;

    #[inline(always)]
    fn next(&mut self) -> Option<Row> {
        let map = &self.tile.map;
        if self.rows == 0 {
            if self.plane == self.planes {
                return None;
            }
            self.enter();
        }
        let skip = (self.place as u64).wrapping_mul(map.strides[0]);
        let global = self.start.filter(|_| (self.place as u64) < map.dims[1]).map(|at| at.wrapping_add(skip));
        let row = Row { global, shared: self.shared };
        self.rows -= 1;
        self.place += i64::from(map.steps[1]);
        self.shared += map.row_bytes();
        Some(row)
    }
}

/// Of a box's rows the offsets in it, and where the elements inside the tensor are, if there are any.
struct Parts<'a> {
    rows: Rows<'a>,
    memory: &'a Memory,
    /// Bytes from where a row begins to those inside, and how many they are.
    skip: u64,
    bytes: u64,
    /// The allocation where the last row was.
    known: (u64, u64),
}

impl Parts<'_> {
    #[cold]
    fn error(&self, start: u64) -> String {
        let Tile { at, map, .. } = self.rows.tile;
        let (at, bytes, place) = (&at[..map.rank], self.bytes, self.memory.whereabouts(start, self.bytes));
        format!("a tensor copy at {at:?} reaches {bytes} bytes at {start:#x}, which is {place}")
    }
}

impl Iterator for Parts<'_> {
    type Item = Result<(usize, Option<*mut u8>), String>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let Row { global, shared } = self.rows.next()?;
        let Some(start) = global.filter(|_| self.bytes > 0) else { return Some(Ok((shared, None))) };
        let start = start.wrapping_add(self.skip);
        if start < self.known.0 || start >= self.known.1 {
            self.known = self.memory.range_of(start).unwrap_or_default();
        }
        if start >= self.known.1 || self.known.1 - start < self.bytes {
            return Some(Err(self.error(start)));
        }
        Some(Ok((shared, Some(start as *mut u8))))
    }
}

impl Tile {
    fn rows(&self) -> Rows<'_> {
        let planes = self.map.counts()[2..].iter().product::<u32>() as usize;
        Rows { tile: self, rows: 0, plane: 0, planes, start: None, place: 0, shared: 0 }
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

    pub fn swizzle(&self) -> Swizzle {
        Swizzle { offset: self.offset, bits: self.map.swizzle }
    }

    /// Where byte `at` of the box's shared memory is, after the swizzle.
    fn swizzled(&self, at: usize) -> usize {
        ((self.offset + at) ^ self.swizzle().turn(at)) - self.offset
    }

    /// Where the part of each row that is inside the tensor is.
    fn parts<'a>(&'a self, memory: &'a Memory) -> Parts<'a> {
        let (inside, skip) = self.inside();
        Parts { rows: self.rows(), memory, skip, bytes: inside.len() as u64, known: (0, 0) }
    }

    /// Counts the box's rows in global memory; their bytes.
    pub fn count(&self, warp: &mut Warp, writes: bool) -> u64 {
        let mut sum = 0;
        if warp.is_counted() {
            let parts = self.parts(warp.cta.memory);
            let bytes = parts.bytes;
            for at in parts.flatten().filter_map(|(_, at)| at) {
                warp.count_stretch(Action::Tensor, at as u64, bytes, writes);
                sum += bytes;
            }
        }
        sum
    }

    /// The rows of the first plane, as a rule the only one, as far as they are inside the tensor along dimension 0; none if the
    /// first is not inside along the others.
    fn stretch(&self) -> Stretch {
        let (inside, skip) = self.inside();
        let stride = self.map.strides[0] * u64::from(self.map.steps[1]);
        let mut rows = self.rows();
        let Some(Row { global: Some(start), .. }) = rows.next() else { return Stretch::default() };
        Stretch { start: start.wrapping_add(skip), stride, bytes: inside.len(), rows: rows.rows + 1 }
    }

    /// Where the rows of the box are, if its copy can be no more than that of whole rows that are all there.
    pub fn whole(&self, memory: &Memory) -> Option<Stretch> {
        let map = &self.map;
        let (rows, counts) = (self.stretch(), map.counts());
        let last = i64::from(self.at[1]) + i64::from(map.steps[1]) * (i64::from(counts[1]) - 1);
        let is_inside = rows.rows == counts[1] as usize && last < map.dims[1] as i64;
        let is_one = counts[2..].iter().all(|&count| count == 1);
        if !is_inside || !is_one || rows.bytes != map.row_bytes() || map.ty.is_tf32 {
            return None;
        }
        let bytes = rows.stride.checked_mul(rows.rows as u64 - 1)?.checked_add(rows.bytes as u64)?;
        let end = memory.range_of(rows.start)?.1;
        (bytes <= end - rows.start).then_some(rows)
    }

    /// Tells the checks of the part of the box that is inside the tensor; `None` after a finding.
    pub fn touch(&self, warp: &mut Warp, lane: usize, access: check::Kind) -> Option<()> {
        if !warp.cta.memory.is_watched() {
            return Some(());
        }
        let parts = self.parts(warp.cta.memory);
        let bytes = parts.bytes as usize;
        parts.flatten().filter_map(|(_, at)| at).try_for_each(|at| warp.touch(lane, at, bytes, access))
    }

    /// Whether all of the box is inside the tensor.
    pub fn is_whole(&self) -> bool {
        self.inside().0 == (0..self.map.row_bytes()) && self.rows().all(|row| row.global.is_some())
    }

    /// Whether the async proxy may read the part of the box at `from` that a store moves: what is inside the
    /// tensor. `None` after a finding.
    pub fn readable(&self, warp: &mut Warp, lane: usize, from: *const u8) -> Option<()> {
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

    /// Fills the box's shared memory at each of `to`.
    ///
    /// # Safety
    /// Each has [`TensorMap::shared_bytes`].
    pub unsafe fn load(&self, to: &[*mut u8], memory: &Memory) -> Result<(), String> {
        let ty = self.map.ty;
        let row_bytes = self.map.extents[0] as usize * ty.kind.bytes();
        let outside: Chunk = [if self.map.fills_nan { OOB_NAN as u16 } else { 0 }; CHUNK / 2];
        let (parts, swizzle) = (self.parts(memory), self.swizzle());
        let inside = self.inside().0;
        // Of a row of which a part is outside, that part is the same in all of them.
        let mut made = match inside.len() < row_bytes || ty.is_tf32 {
            true => vec![outside; row_bytes / CHUNK],
            false => Vec::new(),
        };
        let mut soon = self.stretch();
        for _ in 0..ROWS_AHEAD {
            soon.ask();
        }
        for row in parts {
            soon.ask();
            let (at, from) = row?;
            // SAFETY: the caller's; what is inside of a row is checked for as many bytes, which are part of the row.
            unsafe {
                let Some(from) = from.map(|from| from.cast_const()) else {
                    swizzle.put(to, at, row_bytes, |_| outside);
                    continue;
                };
                if made.is_empty() {
                    swizzle.put(to, at, row_bytes, |at| from.add(at).cast::<Chunk>().read_unaligned());
                    continue;
                }
                let part = made.as_mut_ptr().cast::<u8>().add(inside.start);
                std::ptr::copy_nonoverlapping(from, part, inside.len());
                if ty.is_tf32 {
                    let part = std::slice::from_raw_parts_mut(part, inside.len());
                    part.chunks_exact_mut(4).for_each(round_to_tf32);
                }
                swizzle.put(to, at, row_bytes, |at| made[at / CHUNK]);
            }
        }
        Ok(())
    }

    /// Writes or reduces what is inside the tensor from the box's shared memory.
    ///
    /// # Safety
    /// As [`Tile::load`]; see [`apply`].
    pub unsafe fn store(&self, from: *const u8, reduce: Reduce, memory: &Memory) -> Result<(), String> {
        let (inside, _) = self.inside();
        let row_bytes = self.map.extents[0] as usize * self.map.ty.kind.bytes();
        let mut bytes = vec![0; row_bytes];
        for row in self.parts(memory) {
            let (at, Some(to)) = row? else { continue };
            let turn = self.swizzle().turn(at);
            for (i, chunk) in bytes.chunks_exact_mut(CHUNK).enumerate() {
                let at = at + ((i * CHUNK) ^ turn);
                // SAFETY: the caller's.
                unsafe { std::ptr::copy_nonoverlapping(from.add(at), chunk.as_mut_ptr(), CHUNK) };
            }
            memory.mark_written(to as u64, inside.len());
            // SAFETY: `to` is checked for as many bytes.
            unsafe { apply(reduce, self.map.ty.kind, to, bytes[inside.start..].as_ptr(), inside.len()) };
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
