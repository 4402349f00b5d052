//! `mma.sync`: `D = A B + C` by a warp, PTX ISA 9.7.14.5. Fragments follow one rule: a 32-bit register holds `E`
//! neighbouring elements along k, and register `i` of lane `l` those of
//!
//!   A   row `l / 4 + 8 (i mod 2)`, from k = `E (l mod 4) + 4 E (i / 2)`
//!   B   column `l / 4`, from k = `E (l mod 4) + 4 E i`
//!   C   row `l / 4 + 8 (i / 2)`, column `2 (l mod 4) + i mod 2`
//!
//! (a shape with 8 rows has the even registers only). Products of 16-bit floats are exact in float32; sums are
//! float32 fused multiply-adds in the order of k, then rounded to float16 where D is. Hardware sums in an order and
//! with a precision that the ISA leaves open.

use std::marker::PhantomData;

use super::half::{Bf16, F16, Format};
use super::op::{Body, Flow, LANES, Op, Warp, bits, floats};

/// The elements of A and B.
pub trait Factor: 'static {
    /// Elements of a register.
    const PER_REGISTER: usize;
    /// Element `i` of a register, exactly.
    fn element(register: u32, i: usize) -> f32;
}

pub struct Halves<F>(PhantomData<F>);
impl<F: Format> Factor for Halves<F> {
    const PER_REGISTER: usize = 2;
    #[inline(always)]
    fn element(register: u32, i: usize) -> f32 {
        F::widen(register >> (16 * i) & 0xffff)
    }
}

/// float32 of which the 13 low bits are not looked at.
pub struct Tf32;
impl Factor for Tf32 {
    const PER_REGISTER: usize = 1;
    #[inline(always)]
    fn element(register: u32, _: usize) -> f32 {
        f32::from_bits(register & !0x1fff)
    }
}

/// The elements of a register of A or B: eight rows (or columns), each of those of four lanes along k.
#[inline(always)]
fn elements<T: Factor>(register: [u32; LANES]) -> [f32; 64] {
    let mut out = [0.0; 64];
    for lane in 0..LANES {
        for i in 0..T::PER_REGISTER {
            out[lane * T::PER_REGISTER + i] = T::element(register[lane], i);
        }
    }
    out
}

/// 16 rows of A by `K` = `4 · KR · PER_REGISTER` columns, 8 columns of B; float32 or (`HALF`) float16 sums. The list
/// at `imm` has the slots of D, A, B, C.
pub struct Mma<T, const KR: usize, const HALF: bool>(PhantomData<T>);

impl<T: Factor, const KR: usize, const HALF: bool> Body for Mma<T, KR, HALF> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return Flow::Fault;
        }
        let sums = if HALF { 2 } else { 4 };
        let list: &[u16] = &warp.cta.kernel.lists[op.imm as usize..][..2 * sums + 3 * KR];
        let (d, rest) = list.split_at(sums);
        let (a_slots, rest) = rest.split_at(2 * KR);
        let (b_slots, c_slots) = rest.split_at(KR);
        // SAFETY: the decoder gave every operand a slot.
        unsafe {
            let mut acc = [[0f32; 8]; 16];
            for h in 0..2 {
                let (mut even, mut odd) = ([0f32; LANES], [0f32; LANES]);
                if HALF {
                    let c: [u32; LANES] = warp.lanes(c_slots[h]);
                    for lane in 0..LANES {
                        even[lane] = F16::widen(c[lane] & 0xffff);
                        odd[lane] = F16::widen(c[lane] >> 16);
                    }
                } else {
                    even = floats(warp.lanes(c_slots[2 * h]));
                    odd = floats(warp.lanes(c_slots[2 * h + 1]));
                }
                for lane in 0..LANES {
                    acc[8 * h + lane / 4][lane % 4 * 2] = even[lane];
                    acc[8 * h + lane / 4][lane % 4 * 2 + 1] = odd[lane];
                }
            }
            for kr in 0..KR {
                let upper = elements::<T>(warp.lanes(a_slots[2 * kr]));
                let lower = elements::<T>(warp.lanes(a_slots[2 * kr + 1]));
                let columns = elements::<T>(warp.lanes(b_slots[kr]));
                let depth = 4 * T::PER_REGISTER;
                let mut b = [[0f32; 8]; 8];
                for k in 0..depth {
                    for n in 0..8 {
                        b[k][n] = columns[n * depth + k];
                    }
                }
                // Eight rows at a time: their sums stay in registers.
                for (a, acc) in [upper, lower].iter().zip(acc.chunks_exact_mut(8)) {
                    let mut sums = [[0f32; 8]; 8];
                    sums.copy_from_slice(acc);
                    for k in 0..depth {
                        for row in 0..8 {
                            let x = a[row * depth + k];
                            for n in 0..8 {
                                sums[row][n] = x.mul_add(b[k][n], sums[row][n]);
                            }
                        }
                    }
                    acc.copy_from_slice(&sums);
                }
            }
            for h in 0..2 {
                let (mut even, mut odd) = ([0f32; LANES], [0f32; LANES]);
                for lane in 0..LANES {
                    even[lane] = acc[8 * h + lane / 4][lane % 4 * 2];
                    odd[lane] = acc[8 * h + lane / 4][lane % 4 * 2 + 1];
                }
                if HALF {
                    let mut pair = [0; LANES];
                    for lane in 0..LANES {
                        pair[lane] = F16::narrow(even[lane]) | F16::narrow(odd[lane]) << 16;
                    }
                    warp.set_lanes(d[h], pair);
                } else {
                    warp.set_lanes(d[2 * h], bits(even));
                    warp.set_lanes(d[2 * h + 1], bits(odd));
                }
            }
        }
        Flow::Next
    }
}

/// Bytes, summed as integers: `ROWS` 8 or 16, `16 KR` deep, signed or not; clamped where `op.e` is 1.
pub struct MmaInteger<const ROWS: usize, const KR: usize, const A_SIGNED: bool, const B_SIGNED: bool>;

#[inline(always)]
fn byte(register: u32, i: usize, signed: bool) -> i32 {
    let byte = (register >> (8 * i)) as u8;
    if signed { (byte as i8).into() } else { byte.into() }
}

impl<const ROWS: usize, const KR: usize, const A_SIGNED: bool, const B_SIGNED: bool> Body
    for MmaInteger<ROWS, KR, A_SIGNED, B_SIGNED>
{
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return Flow::Fault;
        }
        let halves = ROWS / 8;
        let list: &[u16] = &warp.cta.kernel.lists[op.imm as usize..][..4 * halves + halves * KR + KR];
        let (d, rest) = list.split_at(2 * halves);
        let (a_slots, rest) = rest.split_at(halves * KR);
        let (b_slots, c_slots) = rest.split_at(KR);
        // SAFETY: the decoder gave every operand a slot.
        unsafe {
            let mut out = [[[0u32; LANES]; 2]; 2];
            for h in 0..halves {
                for e in 0..2 {
                    let c: [u32; LANES] = warp.lanes(c_slots[2 * h + e]);
                    let mut sum: [i64; LANES] = c.map(|c| i64::from(c as i32));
                    for kr in 0..KR {
                        let (a, b): ([u32; LANES], [u32; LANES]) =
                            (warp.lanes(a_slots[halves * kr + h]), warp.lanes(b_slots[kr]));
                        for lane in 0..LANES {
                            let (row, column) = (lane / 4, lane % 4 * 2 + e);
                            for at in 0..4 {
                                for i in 0..4 {
                                    let x = byte(a[4 * row + at], i, A_SIGNED);
                                    sum[lane] += i64::from(x * byte(b[4 * column + at], i, B_SIGNED));
                                }
                            }
                        }
                    }
                    let clamped = |sum: i64| sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32;
                    out[h][e] = sum.map(|sum| if op.e != 0 { clamped(sum) } else { sum as u32 });
                }
            }
            // Only now: a result may take the place of an operand.
            for h in 0..halves {
                for e in 0..2 {
                    warp.set_lanes(d[2 * h + e], out[h][e]);
                }
            }
        }
        Flow::Next
    }
}

/// Rows of float64: `ROWS` 8 or 16, `4 KR` deep.
pub struct MmaDouble<const ROWS: usize, const KR: usize>;
impl<const ROWS: usize, const KR: usize> Body for MmaDouble<ROWS, KR> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return Flow::Fault;
        }
        let halves = ROWS / 8;
        let list: &[u16] = &warp.cta.kernel.lists[op.imm as usize..][..4 * halves + halves * KR + KR];
        let (d, rest) = list.split_at(2 * halves);
        let (a_slots, rest) = rest.split_at(halves * KR);
        let (b_slots, c_slots) = rest.split_at(KR);
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let mut out = [[[0u64; LANES]; 2]; 2];
            for h in 0..halves {
                for e in 0..2 {
                    let mut sum = warp.lanes::<u64>(c_slots[2 * h + e]).map(f64::from_bits);
                    for kr in 0..KR {
                        let a = warp.lanes::<u64>(a_slots[halves * kr + h]).map(f64::from_bits);
                        let b = warp.lanes::<u64>(b_slots[kr]).map(f64::from_bits);
                        for lane in 0..LANES {
                            let (row, column) = (lane / 4, lane % 4 * 2 + e);
                            for k in 0..4 {
                                sum[lane] = a[4 * row + k].mul_add(b[4 * column + k], sum[lane]);
                            }
                        }
                    }
                    out[h][e] = sum.map(f64::to_bits);
                }
            }
            for h in 0..halves {
                for e in 0..2 {
                    warp.set_lanes(d[2 * h + e], out[h][e]);
                }
            }
        }
        Flow::Next
    }
}

pub type F16Mma<const KR: usize, const HALF: bool> = Mma<Halves<F16>, KR, HALF>;
pub type Bf16Mma<const KR: usize> = Mma<Halves<Bf16>, KR, false>;
pub type Tf32Mma<const KR: usize> = Mma<Tf32, KR, false>;
