//! Matrices of 16-byte chunks widened into the panels of [`super::gemm`]. A chunk is 8 elements of 16 bits, or 4 of 32,
//! along k or (by rows of k) along M or N; eight chunks are a fragment.

use std::marker::PhantomData;

use super::fragment::Factor;
use super::gemm::{BLOCK, Simd, TILE, stride};

/// A chunk.
pub type Chunk = [u32; 4];
/// Where eight are. They are read once, straight into the host's registers.
pub type Chunks = [*const Chunk; 8];

/// Where eight are in the CTA's shared memory: bytes from its start, or before it in that of another CTA of its cluster.
pub type Places = [u32; 8];

/// Those at eight places.
///
/// # Safety
/// The places are in the shared memory that begins there, or in its cluster's.
#[inline(always)]
pub unsafe fn chunks_at(shared: *const u8, places: &Places) -> Chunks {
    let mut out = [shared.cast::<Chunk>(); 8];
    for i in 0..8 {
        // SAFETY: the caller's.
        out[i] = unsafe { shared.offset(places[i] as i32 as isize) }.cast();
    }
    out
}

/// Those of a register.
#[inline(always)]
pub fn chunks_of(register: *const u32) -> Chunks {
    let mut out = [register.cast::<Chunk>(); 8];
    for i in 1..8 {
        out[i] = out[0].wrapping_add(i);
    }
    out
}

/// Writes the panels of elements of one type.
pub struct Packer<T, S>(PhantomData<(T, S)>);

impl<T: Factor, S: Simd> Packer<T, S> {
    /// Eight rows of A, the upper or lower `half` of a block, of the elements from `k` on, into a panel of this depth; these
    /// bits are turned over in them.
    ///
    /// # Safety
    /// As [`Simd`]; there is room for them.
    #[inline(always)]
    pub unsafe fn rows(
        chunks: Chunks,
        signs: u32,
        by_k: bool,
        (block, half, k): (usize, usize, usize),
        depth: usize,
        out: &mut [f32],
    ) {
        let [a, b, c, d, e, f, g, h] = chunks;
        let at = (block * depth + k) * BLOCK + half * (BLOCK / 2);
        // SAFETY: the caller's.
        unsafe {
            let mut rows = Self::widened(if by_k { chunks } else { [a, c, e, g, b, d, f, h] }, signs);
            let count = if by_k { 8 } else { 4 * T::PER_LANE };
            if !by_k {
                rows = S::transpose(rows);
            }
            debug_assert!(at + (count - 1) * BLOCK + 8 <= out.len());
            let to = out.as_mut_ptr().add(at);
            for i in 0..8 {
                if i < count {
                    S::store(to.add(i * BLOCK), if by_k { S::even_odd(rows[i]) } else { rows[i] });
                }
            }
        }
    }

    /// Eight columns of B, those of a tile of a panel, likewise. The elements before come first.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn columns(
        chunks: Chunks,
        by_k: bool,
        (tile, k): (usize, usize),
        depth: usize,
        out: &mut [f32],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let mut columns = Self::widened(chunks, 0);
            if by_k {
                columns = S::transpose(columns);
            }
            let at = tile * TILE * stride(depth) + k;
            debug_assert!(at + (TILE - 1) * stride(depth) + 8 <= out.len());
            let to = out.as_mut_ptr().add(at);
            for i in 0..8 {
                S::store(to.add((i % 2 * (TILE / 2) + i / 2) * stride(depth)), columns[i]);
            }
        }
    }

    #[inline(always)]
    unsafe fn widened(chunks: Chunks, signs: u32) -> [S::Eight; 8] {
        // SAFETY: the caller's.
        unsafe {
            let mut wide = [S::eight([0.0; 8]); 8];
            for i in 0..8 {
                let mut chunk = *chunks[i];
                for word in &mut chunk {
                    *word ^= signs;
                }
                wide[i] = T::widen::<S>(chunk);
            }
            wide
        }
    }
}
