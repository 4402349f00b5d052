//! Matrices in a warp's registers, and what products make of them.
//!
//! A *fragment* is an 8x8 matrix of 16 bits (or 8x4 of 32) in one register: lane `l` has four bytes of row `l / 4`, from
//! byte `4 (l mod 4)`, so a row is 16 bytes (PTX ISA 9.7.14.5). Of `D = A B + D`, A's fragments hold rows of A, B's columns
//! of B; D's registers `2 h` and `2 h + 1` hold rows `l / 4 + 8 h`, columns `2 (l mod 4)` and the next. Products run over
//! float32 *panels*, in which each lane of D finds its factors at its own place. Products of 16-bit floats are exact in
//! float32; sums are float32 fused multiply-adds in the order of k. Hardware sums in an order and with a precision that the
//! ISA leaves open.

use std::marker::PhantomData;

use super::gemm::Simd;
use super::simd::{Job, run_on};
use crate::exec::arithmetic::half::{F16, Format};
use crate::exec::host::Host;
use crate::exec::registers::LANES;

/// A register's lanes.
pub type Fragment = [u32; LANES];

/// Rows for columns, 8x8 of 16 bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn transpose(from: &Fragment) -> Fragment {
    use std::arch::x86_64::*;
    let mut out = [0; LANES];
    // SAFETY: eight rows of 16 bytes in each; every x86-64 has SSE2.
    unsafe {
        let mut x = [_mm_setzero_si128(); 8];
        for row in 0..8 {
            x[row] = _mm_loadu_si128(from.as_ptr().cast::<__m128i>().add(row));
        }
        // Of the six bits of an element's place each step turns the first, the row's, into the last, the column's.
        for _ in 0..3 {
            let from = x;
            for i in 0..4 {
                x[2 * i] = _mm_unpacklo_epi16(from[i], from[i + 4]);
                x[2 * i + 1] = _mm_unpackhi_epi16(from[i], from[i + 4]);
            }
        }
        for row in 0..8 {
            _mm_storeu_si128(out.as_mut_ptr().cast::<__m128i>().add(row), x[row]);
        }
    }
    out
}

/// The same.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn transpose(from: &Fragment) -> Fragment {
    let mut out = [0; LANES];
    // Within blocks of 2x2, and block by block.
    for row in 0..4 {
        for column in 0..4 {
            let (upper, lower) = (from[8 * row + column], from[8 * row + 4 + column]);
            out[8 * column + row] = upper & 0xffff | lower << 16;
            out[8 * column + 4 + row] = upper >> 16 | lower & 0xffff_0000;
        }
    }
    out
}

/// k of an instruction at most.
pub const DEPTH: usize = 16;

/// Half of a register.
type Half = [f32; LANES / 2];
/// A register of D, as float32.
pub type Sums = [Half; 2];
/// 16 rows of A: `[k][h]` is element k of rows `l / 4 + 8 h`, for each lane.
pub type Rows = [[Sums; 2]; DEPTH];
/// Eight columns of B: `[e][k][j]` is element k of column `2 j + e`.
pub type Columns = [[[f32; 4]; DEPTH]; 2];

pub const NO_SUMS: Sums = [[0.0; LANES / 2]; 2];
pub const NO_ROWS: Rows = [[NO_SUMS; 2]; DEPTH];
pub const NO_COLUMNS: Columns = [[[0.0; 4]; DEPTH]; 2];

/// A register of D, lane by lane: the standard library's `as_flattened` is not always inlined.
#[inline(always)]
pub fn lanes(sums: &Sums) -> &[f32; LANES] {
    // SAFETY: as many elements; so below.
    unsafe { &*(&raw const *sums).cast() }
}

#[inline(always)]
pub fn lanes_mut(sums: &mut Sums) -> &mut [f32; LANES] {
    unsafe { &mut *(&raw mut *sums).cast() }
}

/// The elements of A and B.
pub trait Factor: 'static {
    /// Different for different types.
    const KIND: u8;
    /// Elements of a lane's register.
    const PER_LANE: usize;
    /// Of normal values.
    const LEAST_EXPONENT: i32;

    /// The sign bits of a register.
    const SIGNS: u32;

    /// Element `i` of a lane's register, exactly.
    fn element(register: u32, i: usize) -> f32;

    /// The elements of four registers, and zeros.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn widen<S: Simd>(registers: [u32; 4]) -> S::Eight;

    /// A fragment of B into a panel, from `k` on. Its rows are those of B, rather than columns, if `by_rows`: of 16-bit
    /// elements only.
    fn columns(fragment: &Fragment, by_rows: bool, k: usize, out: &mut Columns);

    /// A fragment of A, half `h` of the rows, into a panel, from `k` on.
    #[inline(always)]
    fn rows(fragment: &Fragment, k: usize, h: usize, out: &mut Rows) {
        for i in 0..Self::PER_LANE {
            let wide = widen::<Self>(fragment, i);
            for place in 0..4 {
                let row = lanes_mut(&mut out[k + Self::PER_LANE * place + i][h]);
                for lane in 0..LANES {
                    row[lane] = wide[lane & !3 | place];
                }
            }
        }
    }
}

#[inline(always)]
fn widen<T: Factor + ?Sized>(fragment: &Fragment, i: usize) -> [f32; LANES] {
    let mut wide = [0.0; LANES];
    for lane in 0..LANES {
        wide[lane] = T::element(fragment[lane], i);
    }
    wide
}

pub struct Halves<F>(PhantomData<F>);
impl<F: Format> Factor for Halves<F> {
    const KIND: u8 = if F::INFINITY == F16::INFINITY { 1 } else { 2 };
    const PER_LANE: usize = 2;
    const LEAST_EXPONENT: i32 = if F::INFINITY == F16::INFINITY { -14 } else { -126 };
    const SIGNS: u32 = 0x8000_8000;

    #[inline(always)]
    unsafe fn widen<S: Simd>(registers: [u32; 4]) -> S::Eight {
        if F::INFINITY == F16::INFINITY {
            // SAFETY: the caller's; so below.
            return unsafe { S::halves(registers) };
        }
        let mut out = [0.0; 8];
        for i in 0..8 {
            out[i] = Self::element(registers[i / 2], i % 2);
        }
        unsafe { S::eight(out) }
    }

    #[inline(always)]
    fn element(register: u32, i: usize) -> f32 {
        F::widen(register >> (16 * i) & 0xffff)
    }

    #[inline(always)]
    fn columns(fragment: &Fragment, by_rows: bool, k: usize, out: &mut Columns) {
        let rows = if by_rows { *fragment } else { transpose(fragment) };
        for e in 0..2 {
            let wide = widen::<Self>(&rows, e);
            for lane in 0..LANES {
                out[e][k + lane / 4][lane % 4] = wide[lane];
            }
        }
    }
}

/// float32 of which the 13 low bits are not looked at.
pub struct Tf32;
impl Factor for Tf32 {
    const KIND: u8 = 3;
    const PER_LANE: usize = 1;
    const LEAST_EXPONENT: i32 = -126;
    const SIGNS: u32 = 0x8000_0000;

    #[inline(always)]
    unsafe fn widen<S: Simd>(registers: [u32; 4]) -> S::Eight {
        let mut out = [0.0; 8];
        for i in 0..4 {
            out[i] = Self::element(registers[i], 0);
        }
        // SAFETY: as above.
        unsafe { S::eight(out) }
    }

    #[inline(always)]
    fn element(register: u32, _: usize) -> f32 {
        f32::from_bits(register & !0x1fff)
    }

    #[inline(always)]
    fn columns(fragment: &Fragment, _: bool, k: usize, out: &mut Columns) {
        for (lane, &register) in fragment.iter().enumerate() {
            out[lane / 4 % 2][k + lane % 4][lane / 8] = Self::element(register, 0);
        }
    }
}

/// Adds `depth` products to each of four registers of D, `d[2 h + e]`.
///
/// # Safety
/// The host is this machine's, or less.
pub unsafe fn accumulate(host: Host, d: &mut [Sums; 4], rows: &Rows, columns: &Columns, depth: usize) {
    // SAFETY: the caller's.
    unsafe { run_on(host, Accumulate { d, rows, columns, depth }) }
}

/// The same, compiled once for each host.
struct Accumulate<'a> {
    d: &'a mut [Sums; 4],
    rows: &'a Rows,
    columns: &'a Columns,
    depth: usize,
}
impl Job for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut sums = *self.d;
        for k in 0..self.depth {
            for e in 0..2 {
                let [x, y, z, w] = self.columns[e][k];
                let column: Half = [x, y, z, w, x, y, z, w, x, y, z, w, x, y, z, w];
                for h in 0..2 {
                    for half in 0..2 {
                        let (row, sum) = (&self.rows[k][h][half], &mut sums[2 * h + e][half]);
                        for lane in 0..LANES / 2 {
                            sum[lane] = row[lane].mul_add(column[lane], sum[lane]);
                        }
                    }
                }
            }
        }
        *self.d = sums;
    }
}

/// The panels that a CTA's products have used last: of one A, and of some Bs by their first slots. Neighbouring products
/// share one or the other.
pub struct Kept {
    /// Type and registers that the panel was made of.
    a: (u8, [Fragment; 4], Rows),
    b: [(u8, [Fragment; 2], Columns); KEPT],
}

const KEPT: usize = 16;

impl Default for Kept {
    fn default() -> Kept {
        let b = std::array::from_fn(|_| (0, Default::default(), NO_COLUMNS));
        Kept { a: (0, Default::default(), NO_ROWS), b }
    }
}

impl Kept {
    /// The panels of A's fragments, upper and lower rows by turns, and of B's two, the first of which is in `slot`.
    #[inline(always)]
    pub fn panels<T: Factor>(
        &mut self,
        a: &[Fragment; 4],
        b: &[Fragment; 2],
        slot: u16,
    ) -> (&Rows, &Columns) {
        let (kind, of, rows) = &mut self.a;
        if *kind != T::KIND || !same(of.as_flattened(), a.as_flattened()) {
            (*kind, *of) = (T::KIND, *a);
            for (i, fragment) in a.iter().enumerate() {
                T::rows(fragment, i / 2 * 4 * T::PER_LANE, i % 2, rows);
            }
        }
        let (kind, of, columns) = &mut self.b[slot as usize % KEPT];
        if *kind != T::KIND || !same(of.as_flattened(), b.as_flattened()) {
            (*kind, *of) = (T::KIND, *b);
            for (i, fragment) in b.iter().enumerate() {
                T::columns(fragment, false, i * 4 * T::PER_LANE, columns);
            }
        }
        (rows, columns)
    }
}

/// Whether two slices are equal, without a branch at each element.
#[inline(always)]
fn same(a: &[u32], b: &[u32]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | a ^ b) == 0
}
