//! `mma.sync`: `D = A B + C` by a warp, PTX ISA 9.7.14.5. A register holds `E` neighbouring elements along k, and
//! register `i` of lane `l` those of
//!
//!   A   row `l / 4 + 8 (i mod 2)`, from k = `E (l mod 4) + 4 E (i / 2)`
//!   B   column `l / 4`, from k = `E (l mod 4) + 4 E i`
//!   C   row `l / 4 + 8 (i / 2)`, column `2 (l mod 4) + i mod 2`
//!
//! (a shape with 8 rows has the even registers only).

use std::marker::PhantomData;

use super::fragment::{Factor, Halves, NO_SUMS, Sums, accumulate};
use super::sums::Adder;
use crate::exec::arithmetic::half::{F16, Format};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, Word};
use crate::exec::warp::Warp;

/// 16 rows of A by `K` = `4 · KR · PER_REGISTER` columns, 8 columns of B; float32 or (`HALF`) float16 sums. The list
/// at `imm` has the slots of D, A, B, C.
pub struct Mma<T, const KR: usize, const HALF: bool>(PhantomData<T>);

impl<T: Factor, const KR: usize, const HALF: bool> Body for Mma<T, KR, HALF> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        // SAFETY: the decoder gave every operand a slot.
        unsafe { multiply::<T, KR, HALF>(warp, op.imm as usize) };
        Flow::Next
    }
}

/// The product whose slots are in the kernel's lists.
///
/// # Safety
/// They are in the register file.
#[inline(always)]
pub unsafe fn multiply<T: Factor, const KR: usize, const HALF: bool>(warp: &mut Warp, list: usize) {
    let sums = if HALF { 2 } else { 4 };
    let list: &[u16] = &warp.cta.kernel.lists[list..][..2 * sums + 3 * KR];
    let (d, rest) = list.split_at(sums);
    let (a_slots, rest) = rest.split_at(2 * KR);
    let (b_slots, c_slots) = rest.split_at(KR);
    let mut kept = warp.cta.kept.borrow_mut();
    let (mut a, mut b) = ([[0; LANES]; 4], [[0; LANES]; 2]);
    // SAFETY: the caller's.
    unsafe {
        for (fragment, slot) in a.iter_mut().zip(a_slots) {
            *fragment = warp.lanes(*slot);
        }
        for (fragment, slot) in b.iter_mut().zip(b_slots) {
            *fragment = warp.lanes(*slot);
        }
        let (rows, columns) = kept.get_or_insert_default().panels::<T>(&a, &b, b_slots[0]);
        let mut sums = accumulators::<HALF>(warp.regs, c_slots);
        let depth = 4 * T::PER_LANE * KR;
        match warp.cta.options.sums {
            None => accumulate(&mut sums, rows, columns, depth),
            Some(core) => Adder::new(core, HALF).accumulate::<T>(&mut sums, rows, columns, depth),
        }
        set_accumulators::<HALF>(warp.regs, d, &sums);
    }
}

/// Four registers of D, or (`HALF`) two with pairs of float16, of the register file at `regs`.
///
/// # Safety
/// The slots are in the register file.
#[inline(always)]
pub unsafe fn accumulators<const HALF: bool>(regs: *const u32, slots: &[u16]) -> [Sums; 4] {
    let mut out = [NO_SUMS; 4];
    for (i, &slot) in slots.iter().enumerate() {
        // SAFETY: the caller's; slots are 128-byte aligned.
        let register = unsafe { &*regs.add(slot as usize * LANES).cast::<[u32; LANES]>() };
        for lane in 0..LANES {
            if HALF {
                out[2 * i].as_flattened_mut()[lane] = F16::widen(register[lane] & 0xffff);
                out[2 * i + 1].as_flattened_mut()[lane] = F16::widen(register[lane] >> 16);
            } else {
                out[i].as_flattened_mut()[lane] = f32::from_bits(register[lane]);
            }
        }
    }
    out
}

/// The reverse of [`accumulators`], in every lane.
///
/// # Safety
/// As there; and no lane that is not here has yet to run.
#[inline(always)]
pub unsafe fn set_accumulators<const HALF: bool>(regs: *mut u32, slots: &[u16], sums: &[Sums; 4]) {
    for (i, &slot) in slots.iter().enumerate() {
        // SAFETY: as above.
        let out = unsafe { &mut *regs.add(slot as usize * LANES).cast::<[u32; LANES]>() };
        for lane in 0..LANES {
            out[lane] = if HALF {
                let [even, odd] = [0, 1].map(|e| sums[2 * i + e].as_flattened()[lane]);
                F16::narrow(even) | F16::narrow(odd) << 16
            } else {
                sums[i].as_flattened()[lane].to_bits()
            };
        }
    }
}

/// Elements whose sums are of another type than float32, and in registers of their width.
pub trait Summed: 'static {
    type Register: Word + Default;
    type Sum: Copy + Default;

    fn widen(c: Self::Register) -> Self::Sum;
    /// Adds the products of two registers' elements.
    fn add(sum: Self::Sum, a: Self::Register, b: Self::Register) -> Self::Sum;
    /// A result, `clamped` to its range if that is asked for.
    fn narrow(sum: Self::Sum, clamped: bool) -> Self::Register;
}

/// Four bytes a register, signed or not, summed as integers.
pub struct Bytes<const A_SIGNED: bool, const B_SIGNED: bool>;
impl<const A_SIGNED: bool, const B_SIGNED: bool> Summed for Bytes<A_SIGNED, B_SIGNED> {
    type Register = u32;
    type Sum = i64;

    #[inline(always)]
    fn widen(c: u32) -> i64 {
        (c as i32).into()
    }

    #[inline(always)]
    fn add(mut sum: i64, a: u32, b: u32) -> i64 {
        for i in 0..4 {
            sum += i64::from(byte(a, i, A_SIGNED) * byte(b, i, B_SIGNED));
        }
        sum
    }

    #[inline(always)]
    fn narrow(sum: i64, clamped: bool) -> u32 {
        if clamped { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 }
    }
}

#[inline(always)]
fn byte(register: u32, i: usize, signed: bool) -> i32 {
    let byte = (register >> (8 * i)) as u8;
    if signed { (byte as i8).into() } else { byte.into() }
}

/// float64.
pub struct Double;
impl Summed for Double {
    type Register = u64;
    type Sum = f64;

    #[inline(always)]
    fn widen(c: u64) -> f64 {
        f64::from_bits(c)
    }

    #[inline(always)]
    fn add(sum: f64, a: u64, b: u64) -> f64 {
        f64::from_bits(a).mul_add(f64::from_bits(b), sum)
    }

    #[inline(always)]
    fn narrow(sum: f64, _: bool) -> u64 {
        sum.to_bits()
    }
}

/// `ROWS` (8 or 16) rows of A, `KR` registers of each four lanes along k; clamped where `op.e` is 1. The list as for
/// [`Mma`], with half as many registers for 8 rows.
pub struct MmaSummed<T, const ROWS: usize, const KR: usize>(PhantomData<T>);

impl<T: Summed, const ROWS: usize, const KR: usize> Body for MmaSummed<T, ROWS, KR> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        let halves = ROWS / 8;
        let list: &[u16] = &warp.cta.kernel.lists[op.imm as usize..][..4 * halves + halves * KR + KR];
        let (d, rest) = list.split_at(2 * halves);
        let (a_slots, rest) = rest.split_at(halves * KR);
        let (b_slots, c_slots) = rest.split_at(KR);
        let mut out = [[[T::Register::default(); LANES]; 2]; 2];
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            for h in 0..halves {
                for e in 0..2 {
                    let c: [T::Register; LANES] = warp.lanes(c_slots[2 * h + e]);
                    let mut sums = [T::Sum::default(); LANES];
                    for lane in 0..LANES {
                        sums[lane] = T::widen(c[lane]);
                    }
                    for kr in 0..KR {
                        let a: [T::Register; LANES] = warp.lanes(a_slots[halves * kr + h]);
                        let b: [T::Register; LANES] = warp.lanes(b_slots[kr]);
                        for lane in 0..LANES {
                            let (row, column) = (lane / 4, lane % 4 * 2 + e);
                            for k in 0..4 {
                                sums[lane] = T::add(sums[lane], a[4 * row + k], b[4 * column + k]);
                            }
                        }
                    }
                    for lane in 0..LANES {
                        out[h][e][lane] = T::narrow(sums[lane], op.e != 0);
                    }
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

pub type HalfMma<const KR: usize> = Mma<Halves<F16>, KR, true>;
