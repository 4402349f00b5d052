//! 8x8 matrices of 16-bit elements between shared memory and a warp's registers: `ldmatrix`, `stmatrix`,
//! `movmatrix`, PTX ISA 9.7.14.5. Lane `l` holds columns `2 (l mod 4)` and the next of row `l / 4`.

use super::check::Kind;
use super::fault::FaultKind;
use super::op::{ALL, Body, Flow, LANES, Op, Warp};
use super::proxy::{LOAD, STORE};

/// Bytes of a matrix's row.
const ROW_BYTES: u64 = 16;

/// A matrix of 16-bit elements, row by row.
type Matrix = [[u16; 8]; 8];

#[inline(always)]
fn fragment(matrix: &Matrix, transposed: bool) -> [u32; LANES] {
    let mut out = [0; LANES];
    for row in 0..8 {
        for four in 0..4 {
            let (low, high) = match transposed {
                false => (matrix[row][2 * four], matrix[row][2 * four + 1]),
                true => (matrix[2 * four][row], matrix[2 * four + 1][row]),
            };
            out[4 * row + four] = u32::from(low) | u32::from(high) << 16;
        }
    }
    out
}

#[inline(always)]
fn matrix(fragment: &[u32; LANES], transposed: bool) -> Matrix {
    let mut matrix = [[0; 8]; 8];
    for (lane, pair) in fragment.iter().enumerate() {
        for (i, half) in [*pair as u16, (pair >> 16) as u16].into_iter().enumerate() {
            let (row, column) = (lane / 4, lane % 4 * 2 + i);
            match transposed {
                false => matrix[row][column] = half,
                true => matrix[column][row] = half,
            }
        }
    }
    matrix
}

impl Warp<'_> {
    /// Whether every lane that has not exited is here, as `.sync.aligned` asks; a fault otherwise.
    pub fn all_here(&mut self) -> bool {
        if self.mask | self.dead == ALL {
            return true;
        }
        let lane = self.mask.trailing_zeros() as usize & 31;
        let what = format!("an instruction of the whole warp, executed by lanes {:#010x} of it", self.mask);
        self.fail_lane(lane, FaultKind::Sync, what);
        false
    }
}

/// `ldmatrix` of `N` matrices to `d`, `b`, `c`, `e`: lane `8 j + i` has the generic address, in `a`, of row `i` of
/// matrix `j`.
pub struct LoadMatrix<const N: usize, const TRANSPOSED: bool>;
impl<const N: usize, const TRANSPOSED: bool> Body for LoadMatrix<N, TRANSPOSED> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return Flow::Fault;
        }
        // SAFETY: the decoder gave the address a slot of its width.
        let at: [u64; LANES] = unsafe { warp.lanes(op.a) };
        for (j, slot) in [op.d, op.b, op.c, op.e].into_iter().take(N).enumerate() {
            let mut rows: Matrix = [[0; 8]; 8];
            for (i, row) in rows.iter_mut().enumerate() {
                let lane = 8 * j + i;
                let Some(from) = warp.shared_pointer(lane, at[lane], ROW_BYTES, ROW_BYTES) else {
                    return Flow::Fault;
                };
                let bytes = ROW_BYTES as usize;
                if warp.reach(lane, from, bytes, LOAD).is_none()
                    || warp.touch(lane, from, bytes, Kind::Read).is_none()
                {
                    return Flow::Fault;
                }
                // SAFETY: checked for as many bytes, and aligned.
                *row = unsafe { *from.cast() };
            }
            // SAFETY: the decoder gave every result a slot.
            unsafe { warp.set_lanes(slot, fragment(&rows, TRANSPOSED)) };
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
            return Flow::Fault;
        }
        // SAFETY: the decoder gave the address a slot of its width.
        let at: [u64; LANES] = unsafe { warp.lanes(op.a) };
        for (j, slot) in [op.d, op.b, op.c, op.e].into_iter().take(N).enumerate() {
            // SAFETY: the decoder gave every source a slot.
            let rows = matrix(&unsafe { warp.lanes(slot) }, TRANSPOSED);
            for (i, row) in rows.iter().enumerate() {
                let lane = 8 * j + i;
                let Some(to) = warp.shared_pointer(lane, at[lane], ROW_BYTES, ROW_BYTES) else {
                    return Flow::Fault;
                };
                let bytes = ROW_BYTES as usize;
                if warp.reach(lane, to, bytes, STORE).is_none()
                    || warp.touch(lane, to, bytes, Kind::Write).is_none()
                {
                    return Flow::Fault;
                }
                // SAFETY: checked for as many bytes, and aligned.
                unsafe { *to.cast() = *row };
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
            return Flow::Fault;
        }
        // SAFETY: the decoder gave every operand a slot.
        unsafe {
            let rows = matrix(&warp.lanes(op.a), false);
            warp.set_lanes(op.d, fragment(&rows, true));
        }
        Flow::Next
    }
}
