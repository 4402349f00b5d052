//! Boxes of tensors on their way into shared memory ([`super::asynchronous`]). Their rows lie far apart, where the host does
//! not look for them by itself. So a box whose copy cannot fail is moved a few rows at a time, while the host computes a
//! product over panels ([`super::matrix`]) for which it has all that it needs; what is left is moved once somebody sees
//! that the phase of its barrier is over, before which nobody may look at it.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::host::prefetch_once;

/// What a swizzle leaves together.
pub const CHUNK: usize = 16;
/// As elements of the smallest type that may be NaN.
pub type Chunk = [u16; CHUNK / 2];
/// Bytes of a row as products have them, as a rule.
const WIDE: usize = 128;
/// Rows that are asked for before they are moved: as many as hide how long the host takes to bring one.
pub const ROWS_AHEAD: usize = 12;

/// How the bytes of a box are turned, which begins at this offset in shared memory: with 1 to 3 bits of swizzle, bits 4 and
/// up of a byte's address are XORed with as many from bit 7 on.
#[derive(Clone, Copy)]
pub struct Swizzle {
    pub offset: usize,
    pub bits: u32,
}

impl Swizzle {
    /// What the place of a byte of the box is turned by, as all of its row is: swizzled rows do not cross 128 bytes.
    #[inline(always)]
    pub fn turn(self, at: usize) -> usize {
        let mask = (1 << self.bits) - 1;
        ((self.offset + at) >> 7 & mask) << 4
    }

    /// Puts a row of so many bytes into the box at each of some places, given the chunk at each byte of it.
    ///
    /// # Safety
    /// It is there.
    #[inline(always)]
    pub unsafe fn put(self, to: &[*mut u8], row: usize, bytes: usize, chunk: impl Fn(usize) -> Chunk) {
        let turn = self.turn(row);
        for &to in to {
            // SAFETY: the caller's; a row begins at a multiple of what it is turned in, and is one of chunks.
            let put =
                |at: usize| unsafe { to.add(row + (at ^ turn)).cast::<Chunk>().write_unaligned(chunk(at)) };
            match bytes {
                WIDE => (0..WIDE).step_by(CHUNK).for_each(put),
                _ => (0..bytes).step_by(CHUNK).for_each(put),
            }
        }
    }
}

/// Rows of so many bytes, equally far apart.
#[derive(Clone, Copy, Default)]
pub struct Stretch {
    pub start: u64,
    pub stride: u64,
    pub bytes: usize,
    pub rows: usize,
}

impl Stretch {
    /// Asks for the next row, if there is one more. It need not be there.
    #[inline(always)]
    pub fn ask(&mut self) {
        if let Some(at) = self.next() {
            prefetch_once(at, self.bytes);
        }
    }
}

impl Iterator for Stretch {
    type Item = *const u8;

    #[inline(always)]
    fn next(&mut self) -> Option<*const u8> {
        self.rows = self.rows.checked_sub(1)?;
        let at = self.start;
        self.start = at.wrapping_add(self.stride);
        Some(at as *const u8)
    }
}

/// What is left to do of a box.
pub struct Moving {
    /// Where it goes, at each of some places, and where the next row is in it.
    to: Vec<*mut u8>,
    swizzle: Swizzle,
    row: usize,
    /// Rows that are left, and those that have not been asked for.
    from: Stretch,
    soon: Stretch,
    /// Host addresses of the barriers that announce it.
    barriers: Vec<usize>,
}

impl Moving {
    /// A box whose rows are all there, each as wide as the box.
    pub fn new(to: Vec<*mut u8>, swizzle: Swizzle, from: Stretch, barriers: Vec<usize>) -> Moving {
        Moving { to, swizzle, row: 0, from, soon: from, barriers }
    }

    /// Asks for the first rows, or goes on with so many.
    ///
    /// # Safety
    /// The rows can be read, and the box is there.
    #[inline(always)]
    unsafe fn go_on(&mut self, rows: usize) {
        let missing = ROWS_AHEAD.saturating_sub(self.from.rows - self.soon.rows).min(self.soon.rows);
        if missing > 1 {
            (0..missing.min(2 * rows)).for_each(|_| self.soon.ask());
            return;
        }
        for _ in 0..rows {
            self.soon.ask();
            let Some(from) = self.from.next() else { return };
            // SAFETY: the caller's.
            let chunk = |at: usize| unsafe { from.add(at).cast::<Chunk>().read_unaligned() };
            // SAFETY: likewise.
            unsafe { self.swizzle.put(&self.to, self.row, self.from.bytes, chunk) };
            self.row += self.from.bytes;
        }
    }
}

/// The boxes of a cluster that are under way, in the order in which their copies were issued.
#[derive(Default)]
pub struct Underway {
    boxes: RefCell<VecDeque<Moving>>,
}

impl Underway {
    /// Nothing is under way.
    pub fn clear(&self) {
        self.boxes.borrow_mut().clear();
    }

    /// A box is under way.
    ///
    /// # Safety
    /// Until it has arrived, or nothing is under way any more, its rows can be read, and the box is there.
    pub unsafe fn begin(&self, moving: Moving) {
        self.boxes.borrow_mut().push_back(moving);
    }

    /// Goes on with so many rows, if there are any. Not in place, where it would cost a product registers.
    #[inline(never)]
    pub fn go_on(&self, rows: usize) {
        let mut boxes = self.boxes.borrow_mut();
        if let Some(first) = boxes.front_mut() {
            // SAFETY: whoever began it has seen to that.
            unsafe { first.go_on(rows) };
            if first.from.rows == 0 {
                boxes.pop_front();
            }
        }
    }

    /// Those that a barrier announces arrive, and all before them.
    #[inline(always)]
    pub fn arrive(&self, barrier: usize) {
        let boxes = self.boxes.borrow();
        if let Some(last) = boxes.iter().rposition(|moving| moving.barriers.contains(&barrier)) {
            drop(boxes);
            self.finish(last + 1);
        }
    }

    fn finish(&self, count: usize) {
        for mut moving in self.boxes.borrow_mut().drain(..count) {
            while moving.from.rows > 0 {
                // SAFETY: as above.
                unsafe { moving.go_on(ROWS_AHEAD) };
            }
        }
    }
}
