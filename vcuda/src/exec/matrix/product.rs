//! What `wgmma` computes: `D = A B + D` for the four warps at once, each of which has its own 16 rows of A and D. A fragment
//! of D is that of `mma` for each eight columns. Sums are float32 fused multiply-adds in the order of k: products that follow
//! one another on the same D are one that is as deep as all of them, over panels ([`super::gemm`]), and those on other D by
//! the same B are further blocks of its rows ([`super::siblings`]). Sums in float16 are rounded after each instruction, so
//! these come one by one.

use std::marker::PhantomData;

use super::descriptor::{CHUNK, Descriptor};
use super::fragment::{
    Columns, Factor, Fragment, Halves, NO_COLUMNS, NO_ROWS, NO_SUMS, Tf32, accumulate, transpose,
};
use super::gemm::{PER_PANEL, Panels, Simd, TILE};
use super::mma::{accumulators, set_accumulators};
use super::panel::{Chunk, Chunks, Packer, chunks_of};
use super::scratch::Scratch;
use super::simd::{Job, run_on};
use super::sums::Adder;
use super::warpgroup::{
    A_TRANSPOSED, B_TRANSPOSED, BFLOAT16, FLOAT16, HALF_SUMS, Instruction, Place, Places, Product,
};
use crate::exec::arithmetic::half::{Bf16, F16};
use crate::exec::fault::FaultKind;
use crate::exec::groups::WARPS;
use crate::exec::options::TensorCore;
use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

impl Warp<'_> {
    /// Eight chunks of shared memory, so far after these places; `None` after a fault.
    #[inline(always)]
    fn gather(&mut self, places: &Places, after: u32) -> Option<Chunks> {
        let size = self.cta.shared_bytes as u64;
        let last = u64::from(places.last) + u64::from(after);
        if last + u64::from(CHUNK) > size {
            let what = format!("a matrix descriptor reaches shared {last:#x}, past the {size} bytes");
            self.fail_lane(0, FaultKind::IllegalAddress, what);
            return None;
        }
        let mut out = [std::ptr::null(); 8];
        for i in 0..8 {
            // Inside the CTA's shared memory, and at multiples of 16 bytes of it.
            out[i] = self.cta.shared.wrapping_add(after as usize + places.at[i] as usize).cast();
        }
        Some(out)
    }

    /// A's four fragments of the rows of warp `quarter`; `None` after a fault.
    #[inline(always)]
    fn fragments_of_a(&mut self, product: &Product, quarter: usize) -> Option<[Fragment; 4]> {
        let Some(bits) = product.what.a else { return product.fragments.as_ref().map(|all| all[quarter]) };
        let mut out = [[0; LANES]; 4];
        for (fragment, i) in out.iter_mut().zip(0..) {
            let chunks =
                self.gather(&product.what.chunks_of_a(Descriptor::decode(bits), quarter as u32, i), 0)?;
            *fragment = registers(&chunks);
            if product.what.flags & A_TRANSPOSED != 0 {
                *fragment = transpose(fragment);
            }
        }
        Some(out)
    }

    /// B's columns; `None` after a fault.
    #[inline(always)]
    fn columns_of_b<T: Factor>(&mut self, product: &Product, out: &mut Vec<Columns>) -> Option<()> {
        let descriptor = Descriptor::decode(product.what.b);
        out.resize(product.what.n / TILE, NO_COLUMNS);
        for (columns, group) in out.iter_mut().zip(0..) {
            for k in 0..2 {
                let fragment = registers(&self.gather(&product.what.chunks_of_b(descriptor, group, k), 0)?);
                let by_rows = product.what.flags & B_TRANSPOSED != 0;
                T::columns(&fragment, by_rows, 4 * T::PER_LANE * k as usize, columns);
            }
        }
        Some(())
    }

    /// Computes products that are one, on as many D as there are places of them; `None` after a fault.
    #[inline(always)]
    pub(super) fn multiply(
        &mut self,
        products: &[Product],
        places: &[Place],
        scratch: &mut Scratch,
    ) -> Option<()> {
        let ([product, ..], [Place { regs, .. }, ..]) = (products, places) else { return Some(()) };
        match product.what.kind {
            _ if self.cta.options.sums.is_some() => self.multiply_summed(products, *regs, scratch),
            FLOAT16 if product.what.flags & HALF_SUMS != 0 => {
                self.multiply_alone::<Halves<F16>, true>(product, *regs, scratch)
            }
            FLOAT16 => self.multiply_all::<Halves<F16>>(products, places, scratch),
            BFLOAT16 => self.multiply_all::<Halves<Bf16>>(products, places, scratch),
            _ => self.multiply_all::<Tf32>(products, places, scratch),
        }
    }

    /// One after another, with the sums of a GPU.
    #[cold]
    #[inline(never)]
    fn multiply_summed(
        &mut self,
        products: &[Product],
        regs: [*mut u32; WARPS],
        scratch: &mut Scratch,
    ) -> Option<()> {
        if self.cta.options.sums == Some(TensorCore::A100) {
            self.pc = products[0].what.pc;
            let what = "VCUDA_SUMS: an A100, whose sums are asked for, has no wgmma";
            self.fail_lane(0, FaultKind::IllegalInstruction, what.to_string());
            return None;
        }
        products.iter().try_for_each(|product| match product.what.kind {
            FLOAT16 if product.what.flags & HALF_SUMS != 0 => {
                self.multiply_alone::<Halves<F16>, true>(product, regs, scratch)
            }
            FLOAT16 => self.multiply_alone::<Halves<F16>, false>(product, regs, scratch),
            BFLOAT16 => self.multiply_alone::<Halves<Bf16>, false>(product, regs, scratch),
            _ => self.multiply_alone::<Tf32, false>(product, regs, scratch),
        })
    }

    /// One product, tile by tile.
    #[inline(always)]
    fn multiply_alone<T: Factor, const HALF: bool>(
        &mut self,
        product: &Product,
        regs: [*mut u32; WARPS],
        scratch: &mut Scratch,
    ) -> Option<()> {
        let (what, kernel) = (product.what, self.cta.kernel);
        self.pc = what.pc;
        self.columns_of_b::<T>(product, &mut scratch.columns)?;
        let slots = &kernel.lists[what.list..][..what.registers];
        for (quarter, regs) in regs.into_iter().enumerate() {
            let fragments = self.fragments_of_a(product, quarter)?;
            let mut rows = NO_ROWS;
            for (i, fragment) in fragments.iter().enumerate() {
                T::rows(fragment, i / 2 * 4 * T::PER_LANE, i % 2, &mut rows);
            }
            if what.is_negative() {
                let all = rows.as_flattened_mut().as_flattened_mut().as_flattened_mut();
                all.iter_mut().for_each(|x| *x = -*x);
            }
            for (columns, slots) in scratch.columns.iter().zip(slots.chunks_exact(if HALF { 2 } else { 4 })) {
                // SAFETY: the decoder gave D its slots, in each of the CTA's register files; its warps take turns on
                // this thread.
                unsafe {
                    let mut sums = match what.accumulates {
                        true => accumulators::<HALF>(regs, slots),
                        false => [NO_SUMS; 4],
                    };
                    let depth = 8 * T::PER_LANE;
                    match self.cta.options.sums {
                        None => accumulate(kernel.host, &mut sums, &rows, columns, depth),
                        Some(_) => Adder::wgmma(HALF).accumulate::<T>(&mut sums, &rows, columns, depth),
                    }
                    set_accumulators::<HALF>(regs, slots, &sums);
                }
            }
        }
        Some(())
    }

    #[inline(always)]
    fn multiply_all<T: Factor>(
        &mut self,
        products: &[Product],
        places: &[Place],
        scratch: &mut Scratch,
    ) -> Option<()> {
        let host = self.cta.kernel.host;
        // SAFETY: the kernel was decoded for this host.
        unsafe { run_on(host, All::<T> { warp: self, products, places, scratch, of: PhantomData }) }
    }
}

#[inline(always)]
fn registers(chunks: &Chunks) -> Fragment {
    let mut out = [[0; 4]; 8];
    for i in 0..8 {
        // SAFETY: they were checked.
        out[i] = unsafe { *chunks[i] };
    }
    // SAFETY: the same 32 words.
    unsafe { std::mem::transmute::<[Chunk; 8], Fragment>(out) }
}

/// Products that are one, as a host computes them: those on one D after those on another.
struct All<'w, 'a, T> {
    warp: &'w mut Warp<'a>,
    products: &'w [Product],
    places: &'w [Place],
    scratch: &'w mut Scratch,
    of: PhantomData<T>,
}

impl<T: Factor> Job for All<'_, '_, T> {
    type Output = Option<()>;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Option<()> {
        let All { warp, products, places, scratch, .. } = self;
        let Instruction { n, registers, accumulates, .. } = products[0].what;
        let (steps, own) = (products.len() / places.len(), warp.index);
        // Of a chunk, and of all.
        let part = 4 * T::PER_LANE;
        // A warp has a block of rows of each D.
        let (blocks, tiles, depth) = (places.len() * WARPS, n / TILE, 2 * part * steps);
        scratch.reserve(blocks, depth);
        // SAFETY: the panels have room; the decoder gave D its slots, in each of the CTA's register files, whose warps
        // take turns on this thread.
        unsafe {
            for (number, product) in products.iter().enumerate() {
                let (sibling, step) = (number / steps, number % steps);
                let what = &product.what;
                (warp.pc, warp.index) = (what.pc, places[sibling].warp);
                let sign = if what.is_negative() { T::SIGNS } else { 0 };
                // In each warp's rows chunks are where they are in the first one's, as a rule.
                let descriptor = Descriptor::decode(what.a.unwrap_or_default());
                let is_linear = what.flags & A_TRANSPOSED == 0 && descriptor.is_linear();
                let mut first = [what.chunks_of_a(descriptor, 0, 0); 4];
                for i in 1..4 {
                    first[i] = what.chunks_of_a(descriptor, 0, i as u32);
                }
                for i in 0..4 * WARPS as u32 {
                    let (quarter, i) = (i / 4, i % 4);
                    let (chunks, by_k) = if what.a.is_none() {
                        let fragment = &product.fragments.as_ref()?[quarter as usize][i as usize];
                        (chunks_of(fragment.as_ptr()), false)
                    } else if is_linear {
                        (warp.gather(&first[i as usize], 2 * quarter * descriptor.stride)?, false)
                    } else {
                        let places = what.chunks_of_a(descriptor, quarter, i);
                        (warp.gather(&places, 0)?, what.flags & A_TRANSPOSED != 0)
                    };
                    let block = sibling * WARPS + quarter as usize;
                    let place = (block, i as usize % 2, (2 * step + i as usize / 2) * part);
                    Packer::<T, S>::rows(chunks, sign, by_k, place, depth, &mut scratch.a);
                }
            }
            warp.index = own;
            scratch.d.clear();
            for (product, place) in products.iter().step_by(steps).zip(places) {
                let slots = &warp.cta.kernel.lists[product.what.list..][..registers];
                for regs in place.regs {
                    for tile in slots.chunks_exact(4) {
                        let register = |i: usize| regs.add(tile[i] as usize * LANES).cast();
                        scratch.d.push([register(0), register(1), register(2), register(3)]);
                    }
                }
            }
            let Scratch { a, b, d, .. } = scratch;
            let underway = &warp.cta.cluster.underway;
            let panels = Panels { blocks, depth, tiles, a, d, accumulates, underway };
            for first in (0..tiles).step_by(PER_PANEL) {
                for (step, product) in products[..steps].iter().enumerate() {
                    let what = &product.what;
                    warp.pc = what.pc;
                    let (descriptor, by_k) = (Descriptor::decode(what.b), what.flags & B_TRANSPOSED != 0);
                    for half in 0..2 {
                        let mut places = what.chunks_of_b(descriptor, first as u32, half as u32);
                        for tile in 0..PER_PANEL.min(tiles - first) {
                            let mut after = tile as u32 * descriptor.stride;
                            if by_k || !descriptor.is_linear() {
                                places = what.chunks_of_b(descriptor, (first + tile) as u32, half as u32);
                                after = 0;
                            }
                            let chunks = warp.gather(&places, after)?;
                            let place = (tile, (2 * step + half) * part);
                            Packer::<T, S>::columns(chunks, by_k, place, depth, b);
                        }
                    }
                }
                panels.multiply::<S>(first, b);
            }
        }
        Some(())
    }
}
