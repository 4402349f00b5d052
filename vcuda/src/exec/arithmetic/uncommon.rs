//! Instructions that compilers write seldom: `set`, `slct`, `testp`, saturating and 24-bit integer
//! arithmetic, byte dot products, the special modes of `prmt`, `isspacep`.

use super::lane::{compare, lane};
use crate::exec::registers::{Compute, LANES, Operands, Registers};
use crate::exec::space::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};

lane!(AddSat, (a: u32, b: u32) -> u32 { (a as i32).saturating_add(b as i32) as u32 });
lane!(SubSat, (a: u32, b: u32) -> u32 { (a as i32).saturating_sub(b as i32) as u32 });
lane!(Cnot, (a: u32) -> u32 { (a == 0) as u32 });
lane!(scalar Cnot16, (a: u32) -> u32 { (a & 0xffff == 0) as u32 });
lane!(scalar Cnot64, (a: u64) -> u64 { (a == 0) as u64 });
lane!(scalar Sad64, (a: u64, b: u64, c: u64) -> u64 { a.abs_diff(b).wrapping_add(c) });
lane!(scalar SadS64, (a: u64, b: u64, c: u64) -> u64 { (a as i64).abs_diff(b as i64).wrapping_add(c) });

/// The sum of the upper part of a product and `c`, in 32 bits.
#[inline(always)]
fn saturated(upper: i64, c: u32) -> u32 {
    (upper + i64::from(c as i32)).clamp(i32::MIN.into(), i32::MAX.into()) as u32
}
lane!(scalar MadHiSat, (a: u32, b: u32, c: u32) -> u32 {
    saturated((i64::from(a as i32) * i64::from(b as i32)) >> 32, c)
});
lane!(scalar Mad24HiSat, (a: u32, b: u32, c: u32) -> u32 { saturated(product24s(a, b) >> 16, c) });
lane!(scalar ShiftToTopU, (a: u32) -> u32 { if a == 0 { u32::MAX } else { a.leading_zeros() } });
lane!(scalar ShiftToTopS, (a: u32) -> u32 {
    let differs = a ^ (a as i32 >> 31) as u32;
    if differs == 0 { u32::MAX } else { differs.leading_zeros() }
});

/// The product of the low 24 bits, unsigned.
#[inline(always)]
fn product24u(a: u32, b: u32) -> u64 {
    (a & 0xff_ffff) as u64 * (b & 0xff_ffff) as u64
}

/// The product of the low 24 bits, signed.
#[inline(always)]
fn product24s(a: u32, b: u32) -> i64 {
    ((a as i32) << 8 >> 8) as i64 * ((b as i32) << 8 >> 8) as i64
}

// The low half of a 24-bit product is its low 32 bits, the high half the high 32 of its 48.
lane!(scalar Mad24LoU, (a: u32, b: u32, c: u32) -> u32 { (product24u(a, b) as u32).wrapping_add(c) });
lane!(scalar Mad24LoS, (a: u32, b: u32, c: u32) -> u32 { (product24s(a, b) as u32).wrapping_add(c) });
lane!(scalar Mad24HiU, (a: u32, b: u32, c: u32) -> u32 { ((product24u(a, b) >> 16) as u32).wrapping_add(c) });
lane!(scalar Mad24HiS, (a: u32, b: u32, c: u32) -> u32 { ((product24s(a, b) >> 16) as u32).wrapping_add(c) });

/// Byte `i` of a word as the type says.
#[inline(always)]
fn byte(word: u32, i: u32, signed: bool) -> i32 {
    let byte = (word >> (8 * i)) as u8;
    if signed { (byte as i8).into() } else { byte.into() }
}

macro_rules! dot_product {
    ($name:ident, $a_signed:expr, $b_signed:expr) => {
        lane!($name, (a: u32, b: u32, c: u32) -> u32 {
            let mut sum = c;
            for i in 0..4 {
                sum = sum.wrapping_add((byte(a, i, $a_signed) * byte(b, i, $b_signed)) as u32);
            }
            sum
        });
    };
}
dot_product!(Dp4aUU, false, false);
dot_product!(Dp4aUS, false, true);
dot_product!(Dp4aSU, true, false);
dot_product!(Dp4aSS, true, true);

// The special modes of `prmt` are general selectors that the low bits of `c` choose.
macro_rules! selector {
    ($name:ident, $selectors:expr) => {
        lane!(scalar $name, (c: u32) -> u32 { const TABLE: [u32; 4] = $selectors; TABLE[(c & 3) as usize] });
    };
}
selector!(SelectF4e, [0x3210, 0x4321, 0x5432, 0x6543]);
selector!(SelectB4e, [0x5670, 0x6701, 0x7012, 0x0123]);
selector!(SelectRc8, [0x0000, 0x1111, 0x2222, 0x3333]);
selector!(SelectEcl, [0x3210, 0x3211, 0x3222, 0x3333]);
selector!(SelectEcr, [0x0000, 0x1110, 0x2210, 0x3210]);
selector!(SelectRc16, [0x1010, 0x3232, 0x1010, 0x3232]);

compare!(scalar Finite, (a: u32, _b) { f32::from_bits(a).is_finite() });
compare!(scalar Infinite, (a: u32, _b) { f32::from_bits(a).is_infinite() });
// A zero counts as normal (PTX ISA 9.7.3.1).
compare!(scalar Normal, (a: u32, _b) { f32::from_bits(a).is_normal() || f32::from_bits(a) == 0.0 });
compare!(scalar Subnormal, (a: u32, _b) { f32::from_bits(a).is_subnormal() });
compare!(scalar Finite64, (a: u64, _b) { f64::from_bits(a).is_finite() });
compare!(scalar Infinite64, (a: u64, _b) { f64::from_bits(a).is_infinite() });
compare!(scalar Normal64, (a: u64, _b) { f64::from_bits(a).is_normal() || f64::from_bits(a) == 0.0 });
compare!(scalar Subnormal64, (a: u64, _b) { f64::from_bits(a).is_subnormal() });
// Bits 24 and above of a shared address are of another CTA of the cluster.
compare!(scalar InShared, (a: u64, _b) { a >> 24 == SHARED_WINDOW >> 24 });
compare!(scalar InCluster, (a: u64, _b) { a >> 60 == SHARED_WINDOW >> 60 });
compare!(scalar InParam, (a: u64, _b) { a >> 60 == PARAM_WINDOW >> 60 });
compare!(scalar InLocal, (a: u64, _b) { a >> 60 == LOCAL_WINDOW >> 60 });

/// Whether `a` is an address in constant memory, which here is part of device memory, or (`imm` 1) in the rest
/// of it.
pub struct InConst;
impl Compute for InConst {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let ranges = registers.const_ranges;
        let is_const = |at: u64| ranges.iter().any(|&(from, to)| (from..to).contains(&at));
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let at: [u64; LANES] = registers.lanes(op.a);
            let holds = |at: u64| if op.imm == 0 { is_const(at) } else { at >> 60 == 0 && !is_const(at) };
            let bits = (0..LANES).fold(0, |bits, lane| bits | (holds(at[lane]) as u32) << lane);
            registers.set_pred(op.d, bits);
        }
    }
}
