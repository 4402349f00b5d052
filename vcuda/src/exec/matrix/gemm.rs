//! `D += A B` over float32 panels: some vectors of rows by a few columns of sums stay in the host's registers across k, which
//! is float32 fused multiply-adds in the order of k for each of them.
//!
//! Sums are where the kernel has them, in fragments of 16 rows and 8 columns ([`super::fragment`]): four registers, of
//! which two hold the even columns of 8 rows each and two the odd ones. A vector has 8 rows of one column, or 16: what four
//! columns have of a register is turned on the way in and out, which leaves its rows in the order 0, 2, 4, 6, 1, 3, 5, 7.
//!
//! A's panel is a block of 16 rows after the other, in this order, element by element of k. B has panels of a few *tiles*
//! of eight columns, made one after the other in the host's nearest cache: column by column, even ones before odd ones.

use crate::exec::host::{Host, prefetch};
use crate::exec::registers::LANES;
use crate::exec::underway::Underway;

/// Columns of a tile.
pub const TILE: usize = 8;
/// Rows of a block.
pub const BLOCK: usize = 16;
/// Tiles of a panel of B.
pub const PER_PANEL: usize = 4;
/// What every depth is a multiple of.
const STEPS: usize = 4;
/// Columns of which one register holds sums.
const FOUR: usize = TILE / 2;

/// Eight float32, and vectors of the host's own width, as it computes with them.
///
/// # Safety
/// The host has the instructions; pointers lead to as many elements.
pub trait Simd: Sized {
    type Eight: Copy;
    type Vector: Copy;

    const HOST: Host;

    /// Vectors of a block's rows, 1 or 2.
    const VECTORS: usize;
    /// Vectors of rows, 2 or 3, and columns, 4 or 8, whose sums the registers have room for.
    const ROWS: usize;
    const COLUMNS: usize;

    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// `a · b + c`, `b` the same for all.
    unsafe fn add_product(a: Self::Vector, b: *const f32, c: Self::Vector) -> Self::Vector;
    /// Four columns' vector `v` of a block, which has its upper rows in one register and its lower ones in the other.
    unsafe fn load_sums(registers: [*mut f32; 2], v: usize) -> [Self::Vector; FOUR];
    unsafe fn store_sums(registers: [*mut f32; 2], v: usize, sums: [Self::Vector; FOUR]);

    /// Eight float16, exactly.
    unsafe fn halves(bits: [u32; 4]) -> Self::Eight;
    unsafe fn eight(values: [f32; 8]) -> Self::Eight;
    unsafe fn store(to: *mut f32, values: Self::Eight);
    /// In the order of a vector's rows.
    unsafe fn even_odd(values: Self::Eight) -> Self::Eight;
    unsafe fn transpose(rows: [Self::Eight; 8]) -> [Self::Eight; 8];

    /// Adds the products of vectors of rows, which are a block's rows from one element of k to the next, and columns, which are
    /// `stride` elements from one to the next, to sums, in the order of k.
    #[inline(always)]
    unsafe fn add_products<const VECTORS: usize, const COLUMNS: usize>(
        a: [*const f32; VECTORS],
        (b, stride): (*const f32, usize),
        depth: usize,
        sums: &mut [[Self::Vector; VECTORS]; COLUMNS],
    ) {
        // SAFETY: the caller's.
        unsafe { add_in_order::<Self, VECTORS, COLUMNS>(a, (b, stride), depth, sums) }
    }
}

/// [`Simd::add_products`], as the compiler makes it.
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn add_in_order<S: Simd, const VECTORS: usize, const COLUMNS: usize>(
    a: [*const f32; VECTORS],
    (b, stride): (*const f32, usize),
    depth: usize,
    sums: &mut [[S::Vector; VECTORS]; COLUMNS],
) {
    for step in 0..depth / STEPS {
        for k in 0..STEPS {
            let k = step * STEPS + k;
            // SAFETY: the caller's.
            unsafe {
                let mut rows = [S::zero(); VECTORS];
                for v in 0..VECTORS {
                    rows[v] = S::load(a[v].add(k * BLOCK));
                }
                for c in 0..COLUMNS {
                    for v in 0..VECTORS {
                        sums[c][v] = S::add_product(rows[v], b.add(c * stride + k), sums[c][v]);
                    }
                }
            }
        }
    }
}

/// From one column of a panel of B to the next: the last elements of k may be written with more than there are.
pub const fn stride(depth: usize) -> usize {
    depth + 8
}

/// A product. Of D the registers of each tile, a block's tiles side by side.
pub struct Panels<'a> {
    pub blocks: usize,
    pub depth: usize,
    /// Tiles side by side.
    pub tiles: usize,
    pub a: &'a [f32],
    pub d: &'a [[*mut f32; 4]],
    /// D begins with what is there, not zeros.
    pub accumulates: bool,
    pub underway: &'a Underway,
}

impl Panels<'_> {
    /// Adds the product of A and a panel of B, which has the tiles from `first` on, to D, with a host's vectors.
    ///
    /// # Safety
    /// As [`Simd`]; D's registers have 32 elements each.
    #[inline(always)]
    pub unsafe fn multiply_with<S: Simd>(&self, first: usize, b: &[f32]) {
        assert!(self.depth.is_multiple_of(STEPS), "a product of depth {}", self.depth);
        let tiles = PER_PANEL.min(self.tiles - first);
        let (mut vector, vectors) = (0, self.blocks * S::VECTORS);
        while vector < vectors {
            // Three at once, but not so that one is left over.
            let many = match vectors - vector {
                4 => 2,
                left => left.min(S::ROWS),
            };
            for column in (0..tiles * TILE).step_by(S::COLUMNS) {
                let place = (vector, first + column / TILE, column % TILE);
                self.underway.go_on(many);
                // The next sums come while these are computed.
                let next = column + S::COLUMNS;
                if next < tiles * TILE {
                    self.prefetch::<S>(vector, many, first + next / TILE, next % TILE);
                } else if vector + many < vectors {
                    self.prefetch::<S>(vector + many, 1, first, 0);
                }
                // SAFETY: the caller's.
                unsafe {
                    let b = b.as_ptr().add(column * stride(self.depth));
                    match (many, S::COLUMNS) {
                        (1, _) => self.sum::<S, 1, TILE>(place, b),
                        (3, FOUR) => self.sum::<S, 3, FOUR>(place, b),
                        (_, FOUR) => self.sum::<S, 2, FOUR>(place, b),
                        _ => self.sum::<S, 2, TILE>(place, b),
                    }
                }
            }
            vector += many;
        }
    }

    /// The sums of some vectors of rows, in the columns of a tile from one on, will soon be wanted.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, vector: usize, vectors: usize, tile: usize, column: usize) {
        for vector in vector..vector + vectors {
            for odd in column / FOUR..(column + S::COLUMNS) / FOUR {
                let registers = self.registers(vector / S::VECTORS, tile, odd);
                for register in &registers[vector % S::VECTORS..][..2 / S::VECTORS] {
                    prefetch(register.cast(), LANES * size_of::<f32>());
                }
            }
        }
    }

    /// So many vectors of rows, from one on, by so many columns of a tile.
    #[inline(always)]
    unsafe fn sum<S: Simd, const VECTORS: usize, const COLUMNS: usize>(
        &self,
        (vector, tile, column): (usize, usize, usize),
        b: *const f32,
    ) {
        let of_vector = BLOCK / S::VECTORS;
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; COLUMNS];
            let mut a = [self.a.as_ptr(); VECTORS];
            for v in 0..VECTORS {
                let (block, within) = ((vector + v) / S::VECTORS, (vector + v) % S::VECTORS);
                a[v] = self.a.as_ptr().add(block * self.depth * BLOCK + within * of_vector);
            }
            if self.accumulates {
                for v in 0..VECTORS {
                    for four in 0..COLUMNS / FOUR {
                        let registers = self.registers((vector + v) / S::VECTORS, tile, column / FOUR + four);
                        let columns = S::load_sums(registers, (vector + v) % S::VECTORS);
                        for c in 0..FOUR {
                            sums[four * FOUR + c][v] = columns[c];
                        }
                    }
                }
            }
            S::add_products(a, (b, stride(self.depth)), self.depth, &mut sums);
            for v in 0..VECTORS {
                for four in 0..COLUMNS / FOUR {
                    let mut columns = [S::zero(); FOUR];
                    for c in 0..FOUR {
                        columns[c] = sums[four * FOUR + c][v];
                    }
                    let registers = self.registers((vector + v) / S::VECTORS, tile, column / FOUR + four);
                    S::store_sums(registers, (vector + v) % S::VECTORS, columns);
                }
            }
        }
    }

    /// The registers of a block's sums in the even or (1) odd columns of a tile: of the upper and the lower rows.
    #[inline(always)]
    fn registers(&self, block: usize, tile: usize, odd: usize) -> [*mut f32; 2] {
        let all = &self.d[block * self.tiles + tile];
        [all[odd], all[2 + odd]]
    }
}
