//! Matrices of 16-byte chunks widened into the panels of [`super::gemm`]. A chunk is 8 elements of 16 bits, or 4 of 32,
//! along k or (by rows of k) along M or N; eight chunks are a fragment.

use std::marker::PhantomData;

use super::fragment::Factor;
use super::gemm::{Simd, TILE, width};

/// A chunk.
pub type Chunk = [u32; 4];

/// Writes the panels of elements of one type.
pub struct Packer<T, S>(PhantomData<(T, S)>);

impl<T: Factor, S: Simd> Packer<T, S> {
    /// Eight rows of A, from `row` on, of the elements from `k` on, into a panel of all the `rows`.
    ///
    /// # Safety
    /// As [`Simd`]; there is room for them.
    #[inline(always)]
    pub unsafe fn rows(
        chunks: &[Chunk; 8],
        by_k: bool,
        (k, row): (usize, usize),
        rows: usize,
        out: &mut [f32],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let (columns, count) = Self::turned(chunks, by_k);
            debug_assert!((k + count - 1) * rows + row + 8 <= out.len());
            let to = out.as_mut_ptr().add(k * rows + row);
            for i in 0..8 {
                if i < count {
                    S::store(to.add(i * rows), columns[i]);
                }
            }
        }
    }

    /// Eight columns of B, likewise, into a panel.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn columns(chunks: &[Chunk; 8], by_k: bool, (k, tile): (usize, usize), out: &mut [f32]) {
        let [a, b, c, d, e, f, g, h] = *chunks;
        let chunks = if by_k { *chunks } else { [a, c, e, g, b, d, f, h] };
        // SAFETY: the caller's.
        unsafe {
            let (rows, count) = Self::turned(&chunks, by_k);
            let at = k * width::<S>() + tile * TILE;
            debug_assert!(at + (count - 1) * width::<S>() + TILE <= out.len());
            let to = out.as_mut_ptr().add(at);
            for i in 0..8 {
                if i < count {
                    S::store(to.add(i * width::<S>()), if by_k { S::even_odd(rows[i]) } else { rows[i] });
                }
            }
        }
    }

    /// Widened, element by element of k, and how many of those there are.
    #[inline(always)]
    unsafe fn turned(chunks: &[Chunk; 8], by_k: bool) -> ([S::Eight; 8], usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut wide = [T::widen::<S>(chunks[0]); 8];
            for i in 1..8 {
                wide[i] = T::widen::<S>(chunks[i]);
            }
            if by_k { (wide, 8) } else { (S::transpose(wide), 4 * T::PER_LANE) }
        }
    }
}
