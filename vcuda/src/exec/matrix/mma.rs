//! `mma.sync`: `D = A B + C` by a warp, PTX ISA 9.7.14.5. A register holds `E` neighbouring elements along k, and
//! register `i` of lane `l` those of
//!
//!   A   row `l / 4 + 8 (i mod 2)`, from k = `E (l mod 4) + 4 E (i / 2)`
//!   B   column `l / 4`, from k = `E (l mod 4) + 4 E i`
//!   C   row `l / 4 + 8 (i / 2)`, column `2 (l mod 4) + i mod 2`
//!
//! (a shape with 8 rows has the even registers only).

use std::marker::PhantomData;

use super::fragment::{Factor, Halves, NO_SUMS, Sums, accumulate, lanes, lanes_mut};
use super::gemm::Simd;
use super::simd::{Job, run_on};
use super::sums::Adder;
use crate::exec::arithmetic::half::{F16, Format};
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, Word};
use crate::exec::warp::Warp;

/// 16 rows of A by `K` = `4 · KR · PER_REGISTER` columns, 8 columns of B; float32 or (`HALF`) float16 sums. The list
/// at `imm` has the slots of D, A, B, C.
pub struct Mma<T, const KR: usize, const HALF: bool>(PhantomData<T>);

impl<T: Factor, const KR: usize, const HALF: bool> Body for Mma<T, KR, HALF> {
    // What it does is there for each host, once for all numbers of registers.
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        // SAFETY: the decoder gave every operand a slot.
        unsafe { multiply::<T, HALF>(warp, op.imm as usize, KR) };
        Flow::Next
    }
}

/// The product whose slots are in the kernel's lists, `kr` registers of B.
///
/// # Safety
/// They are in the register file.
pub unsafe fn multiply<T: Factor, const HALF: bool>(warp: &mut Warp, list: usize, kr: usize) {
    // SAFETY: the caller's; the kernel was decoded for this host.
    unsafe { run_on(warp.cta.kernel.host, Product::<T, HALF> { warp, list, kr, of: PhantomData }) }
}

/// The same, as a host does it.
struct Product<'a, 'b, T, const HALF: bool> {
    warp: &'a mut Warp<'b>,
    list: usize,
    kr: usize,
    of: PhantomData<T>,
}

impl<T: Factor, const HALF: bool> Job for Product<'_, '_, T, HALF> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Product { warp, list, kr, .. } = self;
        let sums = if HALF { 2 } else { 4 };
        let list: &[u16] = &warp.cta.kernel.lists[list..][..2 * sums + 3 * kr];
        let (d, rest) = list.split_at(sums);
        let (a_slots, rest) = rest.split_at(2 * kr);
        let (b_slots, c_slots) = rest.split_at(kr);
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
            let depth = 4 * T::PER_LANE * kr;
            match warp.cta.options.sums {
                None => accumulate(S::HOST, &mut sums, rows, columns, depth),
                Some(core) => Adder::new(core, HALF).accumulate::<T>(&mut sums, rows, columns, depth),
            }
            set_accumulators::<HALF>(warp.regs, d, &sums);
        }
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
                lanes_mut(&mut out[2 * i])[lane] = F16::widen(register[lane] & 0xffff);
                lanes_mut(&mut out[2 * i + 1])[lane] = F16::widen(register[lane] >> 16);
            } else {
                lanes_mut(&mut out[i])[lane] = f32::from_bits(register[lane]);
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
                F16::narrow(lanes(&sums[2 * i])[lane]) | F16::narrow(lanes(&sums[2 * i + 1])[lane]) << 16
            } else {
                lanes(&sums[i])[lane].to_bits()
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
    fn add(sum: Self::Sum, a: Self::Register, b: Self::Register, flags: u16) -> Self::Sum;
    fn narrow(sum: Self::Sum, flags: u16) -> Self::Register;
}

/// What is asked of a product: that results are clamped to their range, that the bytes of A, or B, have signs.
pub const CLAMPED: u16 = 1;
pub const A_SIGNED: u16 = 2;
pub const B_SIGNED: u16 = 4;

/// Four bytes a register, summed as integers.
pub struct Bytes;
impl Summed for Bytes {
    type Register = u32;
    type Sum = i64;

    #[inline(always)]
    fn widen(c: u32) -> i64 {
        (c as i32).into()
    }

    #[inline(always)]
    fn add(mut sum: i64, a: u32, b: u32, flags: u16) -> i64 {
        let [a_sign, b_sign] = [A_SIGNED, B_SIGNED].map(|flag| if flags & flag != 0 { 0x80 } else { 0 });
        for i in 0..4 {
            sum += i64::from(byte(a, i, a_sign) * byte(b, i, b_sign));
        }
        sum
    }

    #[inline(always)]
    fn narrow(sum: i64, flags: u16) -> u32 {
        let clamped = flags & CLAMPED != 0;
        if clamped { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 }
    }
}

/// A byte of a register, whose sign bit is `sign`, or none where that is 0.
#[inline(always)]
fn byte(register: u32, i: usize, sign: i32) -> i32 {
    ((register >> (8 * i) & 0xff) as i32 ^ sign) - sign
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
    fn add(sum: f64, a: u64, b: u64, _: u16) -> f64 {
        f64::from_bits(a).mul_add(f64::from_bits(b), sum)
    }

    #[inline(always)]
    fn narrow(sum: f64, _: u16) -> u64 {
        sum.to_bits()
    }
}

/// `ROWS` (8 or 16) rows of A, `KR` registers of each four lanes along k; `op.e` has the flags. The list as for
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
                                sums[lane] = T::add(sums[lane], a[4 * row + k], b[4 * column + k], op.e);
                            }
                        }
                    }
                    for lane in 0..LANES {
                        out[h][e][lane] = T::narrow(sums[lane], op.e);
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
