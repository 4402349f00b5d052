//! Straight runs of `mma.sync` with float32 sums: nothing comes between them, and none reads what another writes but its own
//! sums. Where the sums are a grid, so many blocks of rows by so many tiles of columns, each the sum over the same steps of
//! k, or several, the run is as many products over panels ([`super::gemm`]), every factor widened once.

use std::marker::PhantomData;

use super::fragment::Factor;
use super::gemm::{PER_PANEL, Panels, Simd};
use super::mma::multiply;
use super::panel::{Packer, chunks_at, chunks_of};
use super::run::{self, Grid, Held};
use super::scratch::Scratch;
use super::simd::{Job, run_on};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::LANES;
use crate::exec::underway::Underway;
use crate::exec::warp::Warp;

/// The run at `imm`, of `KR` registers of B each.
pub struct MmaRun<T, const KR: usize>(PhantomData<T>);
impl<T: Factor, const KR: usize> Body for MmaRun<T, KR> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        let kernel = warp.cta.kernel;
        let run = &kernel.mma_runs[op.imm as usize];
        // SAFETY: the decoder gave every operand a slot; the host is the one that the kernel was decoded for.
        unsafe {
            match &run.grids[..] {
                grids @ [_, ..] if warp.cta.options.sums.is_none() => {
                    let scratch = &mut *warp.cta.scratch.borrow_mut();
                    let underway = &warp.cta.cluster.underway;
                    for grid in grids {
                        let (regs, shared) = (warp.regs, warp.cta.shared.cast_const());
                        let product =
                            Product::<T, KR> { grid, regs, shared, underway, scratch, of: PhantomData };
                        run_on(kernel.host, product);
                    }
                }
                _ => run.all.iter().for_each(|slots| multiply::<T, false>(warp, slots.list, KR)),
            }
        }
        Flow::Next
    }
}

/// A grid's product, as a host does it.
struct Product<'a, T, const KR: usize> {
    grid: &'a Grid,
    regs: *mut u32,
    shared: *const u8,
    underway: &'a Underway,
    scratch: &'a mut Scratch,
    of: PhantomData<T>,
}

impl<T: Factor, const KR: usize> Job for Product<'_, T, KR> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Product { grid, regs, shared, underway, scratch, .. } = self;
        let Grid { blocks, tiles, .. } = *grid;
        // Of a register, and of all.
        let part = 4 * T::PER_LANE;
        let steps = grid.b.len() / (tiles * KR);
        let depth = steps * KR * part;
        scratch.reserve(blocks, depth);
        // SAFETY: the decoder gave every operand a slot; a register is eight chunks.
        unsafe {
            let register = |slot: u16| regs.add(slot as usize * LANES);
            // The rows, or columns, of a factor, and which.
            let chunks = |factor: run::Factor| {
                let register = register(factor.slot);
                match factor.is {
                    Held::Itself => (chunks_of(register), false),
                    Held::Rows => (chunks_at(shared, &*register.cast()), false),
                    Held::Columns => (chunks_at(shared, &*register.cast()), true),
                }
            };
            for (step, factors) in grid.a.chunks_exact(blocks * 2 * KR).enumerate() {
                for (block, factors) in factors.chunks_exact(2 * KR).enumerate() {
                    for (at, &factor) in factors.iter().enumerate() {
                        let place = (block, at % 2, (step * KR + at / 2) * part);
                        let (chunks, by_k) = chunks(factor);
                        Packer::<T, S>::rows(chunks, 0, by_k, place, depth, &mut scratch.a);
                    }
                }
            }
            scratch.d.clear();
            for slots in grid.d.chunks_exact(4) {
                scratch.d.push([
                    register(slots[0]).cast(),
                    register(slots[1]).cast(),
                    register(slots[2]).cast(),
                    register(slots[3]).cast(),
                ]);
            }
            let Scratch { a, b, d, .. } = scratch;
            let panels = Panels { blocks, depth, tiles, a, d, accumulates: true, underway };
            for first in (0..tiles).step_by(PER_PANEL) {
                for (step, factors) in grid.b.chunks_exact(tiles * KR).enumerate() {
                    for tile in 0..PER_PANEL.min(tiles - first) {
                        for at in 0..KR {
                            let (chunks, by_k) = chunks(factors[(first + tile) * KR + at]);
                            let k = (step * KR + at) * part;
                            Packer::<T, S>::columns(chunks, by_k, (tile, k), depth, b);
                        }
                    }
                }
                panels.multiply::<S>(first, b);
            }
        }
    }
}
