//! `D += A B` over float32 panels: a few rows by a few dozen columns of sums stay in the host's registers across k, which
//! is float32 fused multiply-adds in the order of k for each of them.
//!
//! Sums are where the kernel has them, in fragments of 16 rows and 8 columns ([`super::fragment`]): four registers, of
//! which two hold a row's even columns and its odd ones side by side. So columns of a *tile* of eight have the order 0, 2,
//! 4, 6, 1, 3, 5, 7 in the panels of B, and a row of a tile is two halves of a vector.
//!
//! A's panel is all its rows, element by element of k; B has panels of [`width`] columns, of which the last may have room
//! for more than there are. They are made one after the other, and stay in the host's nearest cache.

use crate::exec::host::Host;

/// Columns of a tile.
pub const TILE: usize = 8;
/// Rows of a block, which has a tile's 16 rows of sums in two halves.
pub const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

/// Eight float32, and vectors of the host's own width, as it computes with them.
///
/// # Safety
/// The host has the instructions; pointers lead to as many elements.
pub trait Simd {
    type Eight: Copy;
    type Vector: Copy;

    const HOST: Host;

    /// Tiles of a vector, 1 or 2.
    const TILES: usize;
    /// Rows of A (4 or 8, so that they are in one half of a tile) and vectors of columns (up to 3) whose sums the
    /// registers have room for.
    const ROWS: usize;
    const VECTORS: usize;

    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// `a · b + c`, `a` the same for all.
    unsafe fn add_product(a: *const f32, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// A row of tiles, so many after the one whose even and odd columns are there.
    unsafe fn load_sums(tiles: &[[*mut f32; 2]; 2], row: usize) -> Self::Vector;
    unsafe fn store_sums(tiles: &[[*mut f32; 2]; 2], row: usize, sums: Self::Vector);
    /// The sums of eight rows, two lines of the cache in each register, will soon be wanted.
    unsafe fn prefetch(tiles: &[[*mut f32; 2]; 2]);

    /// Eight float16, exactly.
    unsafe fn halves(bits: [u32; 4]) -> Self::Eight;
    unsafe fn eight(values: [f32; 8]) -> Self::Eight;
    unsafe fn store(to: *mut f32, values: Self::Eight);
    /// In the order of a tile's columns.
    unsafe fn even_odd(values: Self::Eight) -> Self::Eight;
    unsafe fn transpose(rows: [Self::Eight; 8]) -> [Self::Eight; 8];
}

/// Columns of a panel of B.
pub const fn width<S: Simd>() -> usize {
    per_panel::<S>() * TILE
}

/// Tiles of a panel of B.
pub const fn per_panel<S: Simd>() -> usize {
    S::VECTORS * S::TILES
}

/// A product, of a multiple of 16 rows. Of D the registers of each tile, a block's tiles side by side.
pub struct Panels<'a> {
    pub rows: usize,
    pub depth: usize,
    /// Tiles side by side.
    pub tiles: usize,
    pub a: &'a [f32],
    pub d: &'a [[*mut f32; 4]],
    /// D begins with what is there, not zeros.
    pub accumulates: bool,
}

impl Panels<'_> {
    /// Adds the product of A and a panel of B, which has the tiles from `first` on, to D, with a host's vectors.
    ///
    /// # Safety
    /// As [`Simd`]; D's registers have 32 elements each.
    #[inline(always)]
    pub unsafe fn multiply_with<S: Simd>(&self, first: usize, b: &[f32]) {
        // SAFETY: the caller's.
        unsafe {
            match per_panel::<S>().min(self.tiles - first).div_ceil(S::TILES) {
                1 => self.columns::<S, 1>(first, b),
                2 => self.columns::<S, 2>(first, b),
                _ => self.columns::<S, 3>(first, b),
            }
        }
    }

    /// Tiles from `first` on, of so many vectors, which a panel of B has.
    #[inline(always)]
    unsafe fn columns<S: Simd, const VECTORS: usize>(&self, first: usize, b: &[f32]) {
        let mut nowhere = [0f32; 4 * TILE];
        let nowhere = [[[nowhere.as_mut_ptr(); 2]; 2]; VECTORS];
        // SAFETY: the caller's; so below.
        unsafe {
            let mut places = self.places::<S, VECTORS>(0, first, nowhere);
            for row in (0..self.rows).step_by(HALF) {
                // The next sums come while these are computed.
                let is_last = row + HALF == self.rows;
                let next =
                    if is_last { places } else { self.places::<S, VECTORS>(row + HALF, first, nowhere) };
                for v in 0..VECTORS {
                    S::prefetch(&next[v]);
                }
                for i in (0..HALF).step_by(S::ROWS) {
                    match S::ROWS {
                        HALF => self.tile::<S, HALF, VECTORS>(row, i, &places, b),
                        _ => self.tile::<S, 4, VECTORS>(row, i, &places, b),
                    }
                }
                places = next;
            }
        }
    }

    /// The same of so many rows, from row `i` of a half on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        row: usize,
        first: usize,
        places: &[[[*mut f32; 2]; 2]; VECTORS],
        b: &[f32],
    ) {
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; ROWS];
            if self.accumulates {
                for i in 0..ROWS {
                    for v in 0..VECTORS {
                        sums[i][v] = S::load_sums(&places[v], first + i);
                    }
                }
            }
            let (mut a, mut b) = (self.a.as_ptr().add(row + first), b.as_ptr());
            for _ in 0..self.depth {
                let mut columns = [S::zero(); VECTORS];
                for v in 0..VECTORS {
                    columns[v] = S::load(b.add(v * S::TILES * TILE));
                }
                for i in 0..ROWS {
                    for v in 0..VECTORS {
                        sums[i][v] = S::add_product(a.add(i), columns[v], sums[i][v]);
                    }
                }
                (a, b) = (a.add(self.rows), b.add(width::<S>()));
            }
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    S::store_sums(&places[v], first + i, sums[i][v]);
                }
            }
        }
    }

    /// Where a half of vectors has its even and odd columns, tile by tile; `nowhere` is what is beyond D.
    #[inline(always)]
    unsafe fn places<S: Simd, const VECTORS: usize>(
        &self,
        row: usize,
        first: usize,
        nowhere: [[[*mut f32; 2]; 2]; VECTORS],
    ) -> [[[*mut f32; 2]; 2]; VECTORS] {
        let (block, half, mut out) = (row / BLOCK, row / HALF % 2, nowhere);
        for v in 0..VECTORS {
            for t in 0..S::TILES {
                let tile = first + v * S::TILES + t;
                if S::TILES == 1 || tile < self.tiles {
                    unsafe {
                        let registers = self.d.get_unchecked(block * self.tiles + tile);
                        out[v][t] = [registers[2 * half], registers[2 * half + 1]];
                    }
                }
            }
        }
        out
    }
}
