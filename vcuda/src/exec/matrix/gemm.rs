//! `D += A B` over float32 panels: a few rows by a few dozen columns of sums stay in the host's registers across k, which
//! is float32 fused multiply-adds in the order of k for each of them.
//!
//! Sums are where the kernel has them, in fragments of 16 rows and 8 columns ([`super::fragment`]): four registers, of
//! which two hold a row's even columns and its odd ones side by side. So columns of a *tile* of eight have the order 0, 2,
//! 4, 6, 1, 3, 5, 7 in the panels of B, and a row of a tile is two halves of a vector.
//!
//! A's panel is all its rows, element by element of k. B has panels of [`width`] columns; the last one may have room for
//! more than there are.

use crate::exec::op::Host;

/// Columns of a tile.
pub const TILE: usize = 8;
/// Rows of a block, which has a tile's 16 rows of sums in two halves.
pub const BLOCK: usize = 16;

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
    /// Rows of A (4, 6 or 8) and vectors of columns (up to 3) whose sums the registers have room for.
    const ROWS: usize;
    const VECTORS: usize;

    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// `a · b + c`, `a` the same for all.
    unsafe fn add_product(a: *const f32, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// A row of tiles, from where its even and its odd columns are.
    unsafe fn load_sums(tiles: &[[*mut f32; 2]; 2]) -> Self::Vector;
    unsafe fn store_sums(tiles: &[[*mut f32; 2]; 2], sums: Self::Vector);
    /// Sums of these tiles will soon be wanted.
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
    S::VECTORS * S::TILES * TILE
}

/// A product, of a multiple of 16 rows. Of D the registers of each tile, a block's tiles side by side.
pub struct Panels<'a> {
    pub rows: usize,
    pub depth: usize,
    /// Tiles side by side.
    pub tiles: usize,
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub d: &'a [[*mut f32; 4]],
    /// D begins with what is there, not zeros.
    pub accumulates: bool,
}

impl Panels<'_> {
    /// Adds the product to D, with a host's vectors.
    ///
    /// # Safety
    /// As [`Simd`]; D's registers have 32 elements each.
    #[inline(always)]
    pub unsafe fn multiply_with<S: Simd>(&self) {
        let per_panel = S::VECTORS * S::TILES;
        let panels = self.b.chunks_exact(self.depth * width::<S>());
        for (first, b) in (0..self.tiles).step_by(per_panel).zip(panels) {
            // SAFETY: the caller's; so below.
            unsafe {
                match per_panel.min(self.tiles - first).div_ceil(S::TILES) {
                    1 => self.columns::<S, 1>(first, b),
                    2 => self.columns::<S, 2>(first, b),
                    _ => self.columns::<S, 3>(first, b),
                }
            }
        }
    }

    /// Tiles from `first` on, of so many vectors, which a panel of B has.
    #[inline(always)]
    unsafe fn columns<S: Simd, const VECTORS: usize>(&self, first: usize, b: &[f32]) {
        let mut row = 0;
        unsafe {
            while row + S::ROWS <= self.rows {
                match S::ROWS {
                    8 => self.tile::<S, 8, VECTORS>(row, first, b),
                    6 => self.tile::<S, 6, VECTORS>(row, first, b),
                    _ => self.tile::<S, 4, VECTORS>(row, first, b),
                }
                row += S::ROWS;
            }
            // What is left of a multiple of 16.
            if S::ROWS == 6 && row + 4 <= self.rows {
                self.tile::<S, 4, VECTORS>(row, first, b);
                row += 4;
            }
            if S::ROWS == 6 && row + 2 <= self.rows {
                self.tile::<S, 2, VECTORS>(row, first, b);
            }
        }
    }

    /// The same of so many rows.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        row: usize,
        first: usize,
        b: &[f32],
    ) {
        let mut nowhere = [0f32; 4 * TILE];
        let mut places = [[[nowhere.as_mut_ptr(); 2]; 2]; VECTORS];
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; ROWS];
            if self.accumulates {
                for i in 0..ROWS {
                    self.places::<S, VECTORS>(row + i, first, &mut places);
                    for v in 0..VECTORS {
                        sums[i][v] = S::load_sums(&places[v]);
                    }
                }
            }
            // Those of the next rows come while these are computed; a line of the cache has four.
            for next in [row + ROWS, row + ROWS + 4] {
                if next < self.rows {
                    self.places::<S, VECTORS>(next, first, &mut places);
                    for v in 0..VECTORS {
                        S::prefetch(&places[v]);
                    }
                }
            }
            let (mut a, mut b) = (self.a.as_ptr().add(row), b.as_ptr());
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
                self.places::<S, VECTORS>(row + i, first, &mut places);
                for v in 0..VECTORS {
                    S::store_sums(&places[v], sums[i][v]);
                }
            }
        }
    }

    /// Where a row of vectors has its even and odd columns, tile by tile; what is beyond D stays as it is.
    #[inline(always)]
    unsafe fn places<S: Simd, const VECTORS: usize>(
        &self,
        row: usize,
        first: usize,
        out: &mut [[[*mut f32; 2]; 2]; VECTORS],
    ) {
        let (block, half, at) = (row / BLOCK, row / 8 % 2, row % 8 * 4);
        for v in 0..VECTORS {
            for t in 0..S::TILES {
                let tile = first + v * S::TILES + t;
                if S::TILES == 1 || tile < self.tiles {
                    unsafe {
                        let registers = self.d.get_unchecked(block * self.tiles + tile);
                        out[v][t] = [registers[2 * half].add(at), registers[2 * half + 1].add(at)];
                    }
                }
            }
        }
    }
}
