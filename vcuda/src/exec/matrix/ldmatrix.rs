//! 8x8 matrices of 16-bit elements between shared memory and a warp's registers: `ldmatrix`, `stmatrix`,
//! `movmatrix`, PTX ISA 9.7.14.5. A matrix's row is a row of a [`Fragment`].

use std::mem::transmute;

use super::fragment::{Fragment, transpose};
use super::panel::Places;
use crate::exec::access::are_inside32;
use crate::exec::check::{Kind, Span};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{ALL, LANES};
use crate::exec::space::{GENERIC, SHARED_WINDOW, SHARED32, offset, space};
use crate::exec::warp::Warp;

/// Bytes of a matrix's row.
const ROW_BYTES: u64 = 16;

impl Warp<'_> {
    /// Host pointers of the rows whose addresses the first `N` times 8 lanes have in slot `a`; `None` after a fault.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    unsafe fn matrix_rows<const N: usize>(
        &mut self,
        op: &Op,
        stores: bool,
    ) -> Option<[*mut [u32; 4]; LANES]> {
        // SAFETY: the caller's.
        let at: [u64; LANES] = unsafe {
            if space(op) == SHARED32 { self.shared_lanes(op.a, offset(op) as u32) } else { self.lanes(op.a) }
        };
        let is_checked = self.cta.options.checks.asynchrony || self.cta.memory.is_watched();
        if is_checked || at[0] >> 60 != SHARED_WINDOW >> 60 {
            return self.matrix_rows_checked::<N>(&at, stores);
        }
        let mut rows = at;
        for lane in 8 * N..LANES {
            rows[lane] = at[0];
        }
        let found = self.window(GENERIC, at[0]).pointers(&rows, ROW_BYTES);
        let Some(pointers) = found else { return self.matrix_rows_checked::<N>(&at, stores) };
        let mut out = [std::ptr::null_mut(); LANES];
        for lane in 0..LANES {
            out[lane] = pointers[lane].cast();
        }
        Some(out)
    }

    /// The same, where the checks are told, or an address is wrong.
    #[cold]
    #[inline(never)]
    fn matrix_rows_checked<const N: usize>(
        &mut self,
        at: &[u64; LANES],
        stores: bool,
    ) -> Option<[*mut [u32; 4]; LANES]> {
        let kind = if stores { Kind::Write } else { Kind::Read };
        let mut rows = [std::ptr::null_mut(); LANES];
        for lane in 0..8 * N {
            rows[lane] = self.shared_pointer(lane, at[lane], ROW_BYTES, ROW_BYTES)?;
        }
        let first = rows[0];
        rows[8 * N..].fill(first);
        self.access_shared(&Span::new(rows, ROW_BYTES, ALL >> (LANES - 8 * N)), kind)?;
        Some(rows.map(<*mut u8>::cast))
    }
}

/// `ldmatrix` of `N` matrices to `d`, `b`, `c`, `e`: lane `8 j + i` has the address, in `a`, of row `i` of matrix `j`. That is
/// generic, or in shared memory with 32 bits and an offset, as `imm` has it.
pub struct LoadMatrix<const N: usize, const TRANSPOSED: bool>;
impl<const N: usize, const TRANSPOSED: bool> Body for LoadMatrix<N, TRANSPOSED> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        // SAFETY: the decoder gave every operand a slot of its width; the rows are checked, and aligned.
        unsafe {
            let Some(rows) = warp.matrix_rows::<N>(op, false) else { return Flow::Fault };
            for (j, slot) in [op.d, op.b, op.c, op.e].into_iter().take(N).enumerate() {
                if !TRANSPOSED && warp.writable == ALL {
                    // Straight there: a host waits for what it has written in smaller pieces than it reads.
                    let register = warp.regs.add(slot as usize * LANES).cast::<[u32; 4]>();
                    for i in 0..8 {
                        *register.add(i) = *rows[8 * j + i];
                    }
                    continue;
                }
                let mut matrix = [[0; 4]; 8];
                for i in 0..8 {
                    matrix[i] = *rows[8 * j + i];
                }
                let matrix = transmute::<[[u32; 4]; 8], Fragment>(matrix);
                warp.set_lanes(slot, if TRANSPOSED { transpose(&matrix) } else { matrix });
            }
        }
        Flow::Next
    }
}

/// The same for registers that only the next product reads, of addresses with 32 bits: they get where the rows are.
pub struct PointToMatrix<const N: usize, const TRANSPOSED: bool>;
impl<const N: usize, const TRANSPOSED: bool> Body for PointToMatrix<N, TRANSPOSED> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if warp.cta.options.sums.is_some() {
            // SAFETY: as above; so below.
            return unsafe { LoadMatrix::<N, TRANSPOSED>::run(warp, op) };
        }
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        unsafe {
            let (narrow, after) = (warp.register::<u32>(op.a), offset(op) as u32);
            let mut places = [0; LANES];
            for lane in 0..LANES {
                places[lane] = narrow[lane % (8 * N)].wrapping_add(after);
            }
            let is_inside = are_inside32(&places, warp.cta.shared_bytes as u32, ROW_BYTES as u32);
            let odd = places.iter().fold(0, |odd, place| odd | place);
            let is_checked = warp.cta.options.checks.asynchrony || warp.cta.memory.is_watched();
            if is_checked || !is_inside || u64::from(odd) % ROW_BYTES != 0 {
                let Some(rows) = warp.matrix_rows::<N>(op, false) else { return Flow::Fault };
                let start = warp.cta.shared as usize;
                places = rows.map(|row| (row as usize).wrapping_sub(start) as u32);
            }
            let places: [[u32; 8]; LANES / 8] = transmute(places);
            for (j, slot) in [op.d, op.b, op.c, op.e].into_iter().enumerate() {
                if j < N {
                    *warp.regs.add(slot as usize * LANES).cast::<Places>() = places[j];
                }
            }
        }
        Flow::Next
    }
}

/// `stmatrix`, likewise, of the registers `d`, `b`, `c`, `e`.
pub struct StoreMatrix<const N: usize, const TRANSPOSED: bool>;
impl<const N: usize, const TRANSPOSED: bool> Body for StoreMatrix<N, TRANSPOSED> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        // SAFETY: as above.
        unsafe {
            let Some(rows) = warp.matrix_rows::<N>(op, true) else { return Flow::Fault };
            for (j, slot) in [op.d, op.b, op.c, op.e].into_iter().take(N).enumerate() {
                let matrix: Fragment = warp.lanes(slot);
                let matrix = if TRANSPOSED { transpose(&matrix) } else { matrix };
                let matrix = transmute::<Fragment, [[u32; 4]; 8]>(matrix);
                for i in 0..8 {
                    *rows[8 * j + i] = matrix[i];
                }
            }
        }
        Flow::Next
    }
}

/// `movmatrix`: the transpose of `a`.
pub struct MoveMatrix;
impl Body for MoveMatrix {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        // SAFETY: the decoder gave every operand a slot.
        unsafe {
            let matrix = transpose(&warp.lanes(op.a));
            warp.set_lanes(op.d, matrix);
        }
        Flow::Next
    }
}
