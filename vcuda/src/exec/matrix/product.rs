//! What a `wgmma` computes: `D = A B + D` for the four warps at once. Each has its own 16 rows of A and D; B is widened
//! once for all. A fragment of D is that of `mma` for each eight columns. Sums are float32 fused multiply-adds in the
//! order of k, rounded to float16 after each instruction where D is.

use super::descriptor::{CHUNK, Descriptor};
use super::fragment::{
    Columns, Factor, Fragment, Halves, NO_COLUMNS, NO_ROWS, NO_SUMS, Tf32, accumulate, transpose,
};
use super::group::{Product, WARPS};
use super::mma::{accumulators, set_accumulators};
use super::wgmma::{A_NEGATED, A_TRANSPOSED, B_NEGATED, B_TRANSPOSED, BFLOAT16, FLOAT16, HALF_SUMS};
use crate::exec::arithmetic::half::{Bf16, F16};
use crate::exec::fault::FaultKind;
use crate::exec::op::{LANES, Warp};

/// Columns of a panel.
const COLUMNS: usize = 8;

/// What computing a product needs, kept from one to the next.
pub type Scratch = Vec<Columns>;

impl Warp<'_> {
    /// The fragment whose rows are eight chunks of shared memory; `None` after a fault.
    #[inline(always)]
    fn gather(&mut self, chunks: [u32; 8]) -> Option<Fragment> {
        let (shared, size) = (self.cta.shared, self.cta.shared_bytes as u32);
        let mut out = [0; LANES];
        for (row, at) in out.chunks_exact_mut(4).zip(chunks) {
            if at.saturating_add(CHUNK) > size {
                let what = format!("a matrix descriptor reaches shared {at:#x}, past the {size} bytes");
                self.fail_lane(0, FaultKind::IllegalAddress, what);
                return None;
            }
            // SAFETY: inside the CTA's shared memory, and at a multiple of 16 bytes of it.
            row.copy_from_slice(unsafe { &*shared.add(at as usize).cast::<[u32; 4]>() });
        }
        Some(out)
    }

    /// A's four fragments of the rows of warp `quarter`; `None` after a fault.
    #[inline(always)]
    fn fragments_of_a(&mut self, product: &Product, quarter: usize) -> Option<[Fragment; 4]> {
        let Some(bits) = product.what.a else { return product.fragments.as_ref().map(|all| all[quarter]) };
        let mut out = [[0; LANES]; 4];
        for (fragment, i) in out.iter_mut().zip(0..) {
            let rows = self.gather(product.what.chunks_of_a(Descriptor::decode(bits), quarter as u32, i))?;
            *fragment = if product.what.flags & A_TRANSPOSED != 0 { transpose(&rows) } else { rows };
        }
        Some(out)
    }

    /// B's columns; `None` after a fault.
    #[inline(always)]
    fn panel_of_b<T: Factor>(&mut self, product: &Product, out: &mut Scratch) -> Option<()> {
        let descriptor = Descriptor::decode(product.what.b);
        out.resize(product.what.n / COLUMNS, NO_COLUMNS);
        for (columns, group) in out.iter_mut().zip(0..) {
            for k in 0..2 {
                let fragment = self.gather(product.what.chunks_of_b(descriptor, group, k))?;
                let by_rows = product.what.flags & B_TRANSPOSED != 0;
                T::columns(&fragment, by_rows, 4 * T::PER_LANE * k as usize, columns);
            }
        }
        Some(())
    }

    /// Computes a product into the registers of the four warps; `None` after a fault.
    #[inline(always)]
    pub(super) fn multiply(
        &mut self,
        product: &Product,
        regs: [*mut u32; WARPS],
        scratch: &mut Scratch,
    ) -> Option<()> {
        match product.what.kind {
            FLOAT16 if product.what.flags & HALF_SUMS != 0 => {
                self.multiply_of::<Halves<F16>, true>(product, regs, scratch)
            }
            FLOAT16 => self.multiply_of::<Halves<F16>, false>(product, regs, scratch),
            BFLOAT16 => self.multiply_of::<Halves<Bf16>, false>(product, regs, scratch),
            _ => self.multiply_of::<Tf32, false>(product, regs, scratch),
        }
    }

    #[inline(always)]
    fn multiply_of<T: Factor, const HALF: bool>(
        &mut self,
        product: &Product,
        regs: [*mut u32; WARPS],
        scratch: &mut Scratch,
    ) -> Option<()> {
        let (what, kernel) = (product.what, self.cta.kernel);
        self.panel_of_b::<T>(product, scratch)?;
        let slots = &kernel.lists[what.list..][..what.registers];
        for (quarter, regs) in regs.into_iter().enumerate() {
            let fragments = self.fragments_of_a(product, quarter)?;
            let mut rows = NO_ROWS;
            for (i, fragment) in fragments.iter().enumerate() {
                T::rows(fragment, i / 2 * 4 * T::PER_LANE, i % 2, &mut rows);
            }
            // The sign of one factor is as good as that of the other.
            if (what.flags & A_NEGATED != 0) != (what.flags & B_NEGATED != 0) {
                let all = rows.as_flattened_mut().as_flattened_mut().as_flattened_mut();
                all.iter_mut().for_each(|x| *x = -*x);
            }
            for (columns, slots) in scratch.iter().zip(slots.chunks_exact(if HALF { 2 } else { 4 })) {
                // SAFETY: the decoder gave D its slots, in each of the CTA's register files; its warps take turns on
                // this thread.
                unsafe {
                    let mut sums = match what.accumulates {
                        true => accumulators::<HALF>(regs, slots),
                        false => [NO_SUMS; 4],
                    };
                    accumulate(&mut sums, &rows, columns, 8 * T::PER_LANE);
                    set_accumulators::<HALF>(regs, slots, &sums);
                }
            }
        }
        Some(())
    }
}
