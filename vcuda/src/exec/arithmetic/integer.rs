//! Integer arithmetic, PTX ISA 9.7.1, and logic and shifts, 9.7.8. 16-bit values live in 32-bit lanes,
//! zero-extended.

use super::lane::{compare, lane};
use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// One type's operations: `$s` and `$u` are its signed and unsigned Rust types, `$lane` its register.
macro_rules! integer {
    ($module:ident, $lane:ty, $u:ty, $s:ty, $bits:expr; $($more:item)*) => {
        pub mod $module {
            use super::*;
            $($more)*
            lane!(scalar MulHiU, (a: $lane, b: $lane) -> $lane { (((a as $u) as u128 * (b as $u) as u128) >> $bits) as $u as $lane });
            lane!(scalar MulHiS, (a: $lane, b: $lane) -> $lane { (((a as $s) as i128 * (b as $s) as i128) >> $bits) as $u as $lane });
            lane!(scalar MadHiU, (a: $lane, b: $lane, c: $lane) -> $lane {
                ((((a as $u) as u128 * (b as $u) as u128) >> $bits) as $u).wrapping_add(c as $u) as $lane
            });
            lane!(scalar MadHiS, (a: $lane, b: $lane, c: $lane) -> $lane {
                ((((a as $s) as i128 * (b as $s) as i128) >> $bits) as $u).wrapping_add(c as $u) as $lane
            });
            // Division by zero gives all ones here, as the hardware's own routine does.
            lane!(scalar DivU, (a: $lane, b: $lane) -> $lane { (a as $u).checked_div(b as $u).unwrap_or(<$u>::MAX) as $lane });
            lane!(scalar DivS, (a: $lane, b: $lane) -> $lane {
                if b as $u == 0 { <$u>::MAX as $lane } else { (a as $s).wrapping_div(b as $s) as $u as $lane }
            });
            lane!(scalar RemU, (a: $lane, b: $lane) -> $lane { (a as $u).checked_rem(b as $u).unwrap_or(a as $u) as $lane });
            lane!(scalar RemS, (a: $lane, b: $lane) -> $lane {
                if b as $u == 0 { a as $u as $lane } else { (a as $s).wrapping_rem(b as $s) as $u as $lane }
            });
            lane!(MinU, (a: $lane, b: $lane) -> $lane { (a as $u).min(b as $u) as $lane });
            lane!(MinS, (a: $lane, b: $lane) -> $lane { (a as $s).min(b as $s) as $u as $lane });
            lane!(MaxU, (a: $lane, b: $lane) -> $lane { (a as $u).max(b as $u) as $lane });
            lane!(MaxS, (a: $lane, b: $lane) -> $lane { (a as $s).max(b as $s) as $u as $lane });
            lane!(Abs, (a: $lane) -> $lane { (a as $s).wrapping_abs() as $u as $lane });
            lane!(Not, (a: $lane) -> $lane { !(a as $u) as $lane });
            // Shift amounts past the width shift everything out.
            lane!(Shl, (a: $lane, b: u32) -> $lane { if b < $bits { ((a as $u) << b) as $lane } else { 0 } });
            lane!(ShrU, (a: $lane, b: u32) -> $lane { if b < $bits { ((a as $u) >> b) as $lane } else { 0 } });
            lane!(ShrS, (a: $lane, b: u32) -> $lane { ((a as $s) >> b.min($bits - 1)) as $u as $lane });
            // All others are these of exchanged operands, or their negations.
            compare!(Eq, (a: $lane, b) { a as $u == b as $u });
            compare!(LtU, (a: $lane, b) { (a as $u) < b as $u });
            compare!(LtS, (a: $lane, b) { (a as $s) < b as $s });
        }
    };
}

/// Those of a register: of them 16-bit types take the low half.
macro_rules! register {
    ($lane:ty) => {
        lane!(Add, (a: $lane, b: $lane) -> $lane { a.wrapping_add(b) });
        lane!(Sub, (a: $lane, b: $lane) -> $lane { a.wrapping_sub(b) });
        lane!(MulLo, (a: $lane, b: $lane) -> $lane { a.wrapping_mul(b) });
        lane!(MadLo, (a: $lane, b: $lane, c: $lane) -> $lane { a.wrapping_mul(b).wrapping_add(c) });
        lane!(Neg, (a: $lane) -> $lane { a.wrapping_neg() });
        lane!(And, (a: $lane, b: $lane) -> $lane { a & b });
        lane!(Or, (a: $lane, b: $lane) -> $lane { a | b });
        lane!(Xor, (a: $lane, b: $lane) -> $lane { a ^ b });
    };
}

integer!(w16, u32, u16, i16, 16;);
integer!(w32, u32, u32, i32, 32; register!(u32););
integer!(w64, u64, u64, i64, 64; register!(u64););

// Faster than through 128 bits.
lane!(MulHiU32, (a: u32, b: u32) -> u32 { ((a as u64 * b as u64) >> 32) as u32 });
lane!(MulHiS32, (a: u32, b: u32) -> u32 { ((a as i32 as i64 * b as i32 as i64) >> 32) as u32 });
lane!(MulWideU16, (a: u32, b: u32) -> u32 { (a & 0xffff) * (b & 0xffff) });
lane!(MulWideS16, (a: u32, b: u32) -> u32 { (a as i16 as i32 * b as i16 as i32) as u32 });
lane!(MulWideU32, (a: u32, b: u32) -> u64 { a as u64 * b as u64 });
lane!(MulWideS32, (a: u32, b: u32) -> u64 { (a as i32 as i64 * b as i32 as i64) as u64 });
lane!(MadWideU16, (a: u32, b: u32, c: u32) -> u32 { ((a & 0xffff) * (b & 0xffff)).wrapping_add(c) });
lane!(MadWideS16, (a: u32, b: u32, c: u32) -> u32 { ((a as i16 as i32 * b as i16 as i32) as u32).wrapping_add(c) });
lane!(MadWideU32, (a: u32, b: u32, c: u64) -> u64 { (a as u64 * b as u64).wrapping_add(c) });
lane!(MadWideS32, (a: u32, b: u32, c: u64) -> u64 { ((a as i32 as i64 * b as i32 as i64) as u64).wrapping_add(c) });

lane!(Popc32, (a: u32) -> u32 { a.count_ones() });
lane!(Popc64, (a: u64) -> u32 { a.count_ones() });
lane!(Clz32, (a: u32) -> u32 { a.leading_zeros() });
lane!(Clz64, (a: u64) -> u32 { a.leading_zeros() });
lane!(Brev32, (a: u32) -> u32 { a.reverse_bits() });
lane!(Brev64, (a: u64) -> u64 { a.reverse_bits() });
lane!(BfindU32, (a: u32) -> u32 { 31u32.wrapping_sub(a.leading_zeros()) });
lane!(BfindU64, (a: u64) -> u32 { 63u32.wrapping_sub(a.leading_zeros()) });
lane!(BfindS32, (a: u32) -> u32 { 31u32.wrapping_sub((a ^ ((a as i32 >> 31) as u32)).leading_zeros()) });
lane!(BfindS64, (a: u64) -> u32 { 63u32.wrapping_sub((a ^ ((a as i64 >> 63) as u64)).leading_zeros()) });

lane!(BfeU32, (a: u32, b: u32, c: u32) -> u32 { bfe(a as u64, b, c, 32, false) as u32 });
lane!(BfeS32, (a: u32, b: u32, c: u32) -> u32 { bfe(a as i32 as i64 as u64, b, c, 32, true) as u32 });
lane!(BfeU64, (a: u64, b: u32, c: u32) -> u64 { bfe(a, b, c, 64, false) });
lane!(BfeS64, (a: u64, b: u32, c: u32) -> u64 { bfe(a, b, c, 64, true) });

/// `bfe`: the field's bits past the register repeat the sign where signed, else are zero.
#[inline(always)]
fn bfe(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let msb = width - 1;
    let sign_at = (position + length).saturating_sub(1).min(msb);
    let sign = signed && length > 0 && a >> sign_at & 1 != 0;
    let inside = length.min(width.saturating_sub(position));
    let field = if inside < 64 { (1 << inside) - 1 } else { u64::MAX };
    let bits = if position < 64 { a >> position } else { 0 } & field;
    if sign { bits | !field } else { bits }
}

lane!(scalar BmskClamp, (a: u32, b: u32) -> u32 { if a < 32 { ((1u64 << b.min(32)) - 1) as u32 } else { 0 }.wrapping_shl(a) });
lane!(scalar BmskWrap, (a: u32, b: u32) -> u32 { ((1u32 << (b & 31)) - 1) << (a & 31) });
lane!(scalar SzextClampU, (a: u32, b: u32) -> u32 { if b < 32 { a & ((1 << b) - 1) } else { a } });
lane!(scalar SzextClampS, (a: u32, b: u32) -> u32 { if b < 32 { sign_extend(a, b) } else { a } });
lane!(scalar SzextWrapU, (a: u32, b: u32) -> u32 { a & ((1 << (b & 31)) - 1) });
lane!(scalar SzextWrapS, (a: u32, b: u32) -> u32 { sign_extend(a, b & 31) });

/// The low `bits` < 32 of `a`, as a signed number.
#[inline(always)]
fn sign_extend(a: u32, bits: u32) -> u32 {
    if bits == 0 { 0 } else { ((a << (32 - bits)) as i32 >> (32 - bits)) as u32 }
}

// The `c`th set bit of `a` from bit `b` on, downward where `c` is negative; 0 asks for bit `b` itself.
lane!(scalar Fns, (a: u32, b: u32, c: u32) -> u32 {
    let (offset, base) = (c as i32, b & 31);
    let (mut left, step) = (offset.unsigned_abs().max(1), if offset < 0 { -1 } else { 1 });
    let (mut at, mut found) = (base as i32, u32::MAX);
    while (0..32).contains(&at) && found == u32::MAX {
        left -= a >> at & 1;
        if left == 0 {
            found = at as u32;
        }
        at += step;
    }
    if offset == 0 && found != base { u32::MAX } else { found }
});

lane!(Sad, (a: u32, b: u32, c: u32) -> u32 { a.abs_diff(b).wrapping_add(c) });
lane!(SadS, (a: u32, b: u32, c: u32) -> u32 { (a as i32).abs_diff(b as i32).wrapping_add(c) });
lane!(ShfLWrap, (a: u32, b: u32, c: u32) -> u32 { ((((b as u64) << 32 | a as u64) << (c & 31)) >> 32) as u32 });
lane!(ShfLClamp, (a: u32, b: u32, c: u32) -> u32 { ((((b as u64) << 32 | a as u64) << c.min(32)) >> 32) as u32 });
lane!(ShfRWrap, (a: u32, b: u32, c: u32) -> u32 { (((b as u64) << 32 | a as u64) >> (c & 31)) as u32 });
lane!(ShfRClamp, (a: u32, b: u32, c: u32) -> u32 { (((b as u64) << 32 | a as u64) >> c.min(32)) as u32 });
lane!(Prmt, (a: u32, b: u32, c: u32) -> u32 {
    let bytes = ((b as u64) << 32 | a as u64).to_le_bytes();
    let pick = |i: u32| {
        let selector = c >> (4 * i) & 0xf;
        let byte = bytes[(selector & 7) as usize];
        if selector & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte }
    };
    u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
});

/// `bfi d, a, b, position (c), length (e)`: `a`'s low bits inserted into `b`.
macro_rules! bfi {
    ($name:ident, $lane:ty, $bits:expr) => {
        pub struct $name;
        impl Compute for $name {
            #[inline(always)]
            unsafe fn compute(registers: &mut Registers, op: &Operands) {
                // SAFETY: the decoder gave every operand a slot of its width.
                unsafe {
                    let (a, b): ([$lane; LANES], [$lane; LANES]) =
                        (registers.lanes(op.a), registers.lanes(op.b));
                    let (position, length): ([u32; LANES], [u32; LANES]) =
                        (registers.lanes(op.c), registers.lanes(op.e));
                    let mut out = [0; LANES];
                    for lane in 0..LANES {
                        let (p, n) = (position[lane] & 0xff, length[lane] & 0xff);
                        let field: $lane = if n >= $bits { <$lane>::MAX } else { ((1 as $lane) << n) - 1 };
                        let (field, value) = if p >= $bits { (0, 0) } else { (field << p, a[lane] << p) };
                        out[lane] = b[lane] & !field | value & field;
                    }
                    registers.set_lanes(op.d, out);
                }
            }
        }
    };
}
bfi!(Bfi32, u32, 32);
bfi!(Bfi64, u64, 64);

/// `lop3`: the truth table is in `imm`.
pub struct Lop3;
impl Compute for Lop3 {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        // SAFETY: the decoder gave every operand a slot of its width.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let mut out = [0u32; LANES];
            for term in (0..8).filter(|term| op.imm >> term & 1 != 0) {
                let (fa, fb, fc) = (flip(term & 4), flip(term & 2), flip(term & 1));
                for lane in 0..LANES {
                    out[lane] |= (a[lane] ^ fa) & (b[lane] ^ fb) & (c[lane] ^ fc);
                }
            }
            registers.set_lanes(op.d, out);
        }
    }
}

fn flip(wanted: u32) -> u32 {
    if wanted == 0 { u32::MAX } else { 0 }
}

/// Extended precision, PTX ISA 9.7.2: `d = a ± b ± carry`, or a half of `a · b` in `a`'s place plus `c`.
/// `imm` bit 0: take the carry flag; bit 1: set it.
macro_rules! carry {
    ($name:ident, $lane:ty, |$a:ident, $b:ident, $c:ident, $carry:ident| $value:expr) => {
        pub struct $name;
        impl Compute for $name {
            #[inline(always)]
            unsafe fn compute(registers: &mut Registers, op: &Operands) {
                // SAFETY: the decoder gave every operand a slot of its width.
                unsafe {
                    let (a, b, c): ([$lane; LANES], [$lane; LANES], [$lane; LANES]) =
                        (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
                    let (mut out, mut flags) = ([0; LANES], 0u32);
                    for lane in 0..LANES {
                        let ($a, $b, $c) = (a[lane], b[lane], c[lane]);
                        let $carry = op.imm & 1 != 0 && registers.carry >> lane & 1 != 0;
                        let (value, flag): ($lane, bool) = $value;
                        out[lane] = value;
                        flags |= (flag as u32) << lane;
                    }
                    if op.imm & 2 != 0 {
                        registers.carry = registers.carry & !registers.mask | flags & registers.mask;
                    }
                    registers.set_lanes(op.d, out);
                }
            }
        }
    };
}
carry!(AddCarry32, u32, |a, b, _c, carry| a.carrying_add(b, carry));
carry!(AddCarry64, u64, |a, b, _c, carry| a.carrying_add(b, carry));
carry!(SubCarry32, u32, |a, b, _c, carry| a.borrowing_sub(b, carry));
carry!(SubCarry64, u64, |a, b, _c, carry| a.borrowing_sub(b, carry));
carry!(MadLoCarry32, u32, |a, b, c, carry| a.wrapping_mul(b).carrying_add(c, carry));
carry!(MadHiCarry32, u32, |a, b, c, carry| (((a as u64 * b as u64) >> 32) as u32).carrying_add(c, carry));
carry!(MadLoCarry64, u64, |a, b, c, carry| a.wrapping_mul(b).carrying_add(c, carry));
carry!(MadHiCarry64, u64, |a, b, c, carry| (((a as u128 * b as u128) >> 64) as u64).carrying_add(c, carry));

lane!(Copy32, (a: u32) -> u32 { a });
lane!(Copy64, (a: u64) -> u64 { a });
lane!(Pack32, (a: u32, b: u32) -> u32 { a & 0xffff | b << 16 });
lane!(Pack64, (a: u32, b: u32) -> u64 { a as u64 | (b as u64) << 32 });

macro_rules! unpack {
    ($name:ident, $lane:ty, $shift:expr, $mask:expr) => {
        /// The halves of `a` to `d` and `e`.
        pub struct $name;
        impl Compute for $name {
            #[inline(always)]
            unsafe fn compute(registers: &mut Registers, op: &Operands) {
                // SAFETY: the decoder gave every operand a slot of its width.
                unsafe {
                    let a: [$lane; LANES] = registers.lanes(op.a);
                    let (mut low, mut high) = ([0; LANES], [0; LANES]);
                    for lane in 0..LANES {
                        low[lane] = (a[lane] & $mask) as u32;
                        high[lane] = (a[lane] >> $shift) as u32;
                    }
                    registers.set_lanes(op.d, low);
                    registers.set_lanes(op.e, high);
                }
            }
        }
    };
}
unpack!(Unpack32, u32, 16, 0xffff);
unpack!(Unpack64, u64, 32, 0xffff_ffff);
