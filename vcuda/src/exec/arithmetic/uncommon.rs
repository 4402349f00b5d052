//! Instructions that compilers write seldom: `set`, `slct`, `testp`, saturating and 24-bit integer
//! arithmetic, byte dot products, the special modes of `prmt`, `isspacep`.

use crate::exec::space::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};

use super::float::{Flush32, compare32};
use super::integer::{Prmt, w32};
use super::lane::{compare, lane};
use crate::exec::lower::Lower;
use crate::exec::registers::{Compute, LANES, NO_PRED, Operands, Registers};
use crate::exec::table::{Decoded, Entry, emit_compare, emit_select, is_half, is_pair};
use crate::ptx::ast::Type;

lane!(AddSat, (a: u32, b: u32) -> u32 { (a as i32).saturating_add(b as i32) as u32 });
lane!(SubSat, (a: u32, b: u32) -> u32 { (a as i32).saturating_sub(b as i32) as u32 });
lane!(Cnot, (a: u32) -> u32 { (a == 0) as u32 });
lane!(Cnot16, (a: u32) -> u32 { (a & 0xffff == 0) as u32 });
lane!(Cnot64, (a: u64) -> u64 { (a == 0) as u64 });
lane!(Sad64, (a: u64, b: u64, c: u64) -> u64 { a.abs_diff(b).wrapping_add(c) });
lane!(SadS64, (a: u64, b: u64, c: u64) -> u64 { (a as i64).abs_diff(b as i64).wrapping_add(c) });

/// The sum of the upper part of a product and `c`, in 32 bits.
#[inline(always)]
fn saturated(upper: i64, c: u32) -> u32 {
    (upper + i64::from(c as i32)).clamp(i32::MIN.into(), i32::MAX.into()) as u32
}
lane!(MadHiSat, (a: u32, b: u32, c: u32) -> u32 {
    saturated((i64::from(a as i32) * i64::from(b as i32)) >> 32, c)
});
lane!(Mad24HiSat, (a: u32, b: u32, c: u32) -> u32 { saturated(product24s(a, b) >> 16, c) });
lane!(ShiftToTopU, (a: u32) -> u32 { if a == 0 { u32::MAX } else { a.leading_zeros() } });
lane!(ShiftToTopS, (a: u32) -> u32 {
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
lane!(Mad24LoU, (a: u32, b: u32, c: u32) -> u32 { (product24u(a, b) as u32).wrapping_add(c) });
lane!(Mad24LoS, (a: u32, b: u32, c: u32) -> u32 { (product24s(a, b) as u32).wrapping_add(c) });
lane!(Mad24HiU, (a: u32, b: u32, c: u32) -> u32 { ((product24u(a, b) >> 16) as u32).wrapping_add(c) });
lane!(Mad24HiS, (a: u32, b: u32, c: u32) -> u32 { ((product24s(a, b) >> 16) as u32).wrapping_add(c) });

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
        lane!($name, (c: u32) -> u32 { const TABLE: [u32; 4] = $selectors; TABLE[(c & 3) as usize] });
    };
}
selector!(SelectF4e, [0x3210, 0x4321, 0x5432, 0x6543]);
selector!(SelectB4e, [0x5670, 0x6701, 0x7012, 0x0123]);
selector!(SelectRc8, [0x0000, 0x1111, 0x2222, 0x3333]);
selector!(SelectEcl, [0x3210, 0x3211, 0x3222, 0x3333]);
selector!(SelectEcr, [0x0000, 0x1110, 0x2210, 0x3210]);
selector!(SelectRc16, [0x1010, 0x3232, 0x1010, 0x3232]);

compare!(Finite, (a: u32, _b) { f32::from_bits(a).is_finite() });
compare!(Infinite, (a: u32, _b) { f32::from_bits(a).is_infinite() });
// A zero counts as normal (PTX ISA 9.7.3.1).
compare!(Normal, (a: u32, _b) { f32::from_bits(a).is_normal() || f32::from_bits(a) == 0.0 });
compare!(Subnormal, (a: u32, _b) { f32::from_bits(a).is_subnormal() });
compare!(Finite64, (a: u64, _b) { f64::from_bits(a).is_finite() });
compare!(Infinite64, (a: u64, _b) { f64::from_bits(a).is_infinite() });
compare!(Normal64, (a: u64, _b) { f64::from_bits(a).is_normal() || f64::from_bits(a) == 0.0 });
compare!(Subnormal64, (a: u64, _b) { f64::from_bits(a).is_subnormal() });
// Bits 24 and above of a shared address are of another CTA of the cluster.
compare!(InShared, (a: u64, _b) { a >> 24 == SHARED_WINDOW >> 24 });
compare!(InCluster, (a: u64, _b) { a >> 60 == SHARED_WINDOW >> 60 });
compare!(InParam, (a: u64, _b) { a >> 60 == PARAM_WINDOW >> 60 });
compare!(InLocal, (a: u64, _b) { a >> 60 == LOCAL_WINDOW >> 60 });

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

impl Entry<'_> {
    /// Decodes the instructions of this file; an empty error for any other.
    pub(in crate::exec) fn uncommon(&self, to: &mut Lower) -> Decoded {
        match (self.parts[0], self.ty()) {
            ("set", Some(ty)) => self.set(to, ty),
            ("slct", Some(ty)) => self.slct(to, ty),
            ("testp", Some(ty)) => self.testp(to, ty),
            ("isspacep", _) => self.isspacep(to),
            ("prmt", _) => self.prmt(to),
            ("dp4a", _) => {
                let slots = self.slots(to, false)?;
                match (*self.parts.get(1).ok_or("no type")?, self.parts.get(2)) {
                    ("u32", Some(&"u32")) => to.emit::<Dp4aUU>(slots, 0),
                    ("u32", _) => to.emit::<Dp4aUS>(slots, 0),
                    (_, Some(&"u32")) => to.emit::<Dp4aSU>(slots, 0),
                    _ => to.emit::<Dp4aSS>(slots, 0),
                }
                Ok(())
            }
            ("mad" | "mad24", Some(Type::S32)) if self.has("sat") => {
                let slots = self.slots(to, false)?;
                match self.parts[0] {
                    "mad" => to.emit::<MadHiSat>(slots, 0),
                    _ => to.emit::<Mad24HiSat>(slots, 0),
                }
                Ok(())
            }
            ("cnot", Some(Type::B64)) => {
                let slots = self.slots(to, true)?;
                to.emit::<Cnot64>(slots, 0);
                Ok(())
            }
            ("cnot", Some(Type::B16)) => {
                let slots = self.slots(to, false)?;
                to.emit::<Cnot16>(slots, 0);
                Ok(())
            }
            ("sad", Some(ty)) => {
                let slots = self.slots(to, true)?;
                match ty {
                    Type::S64 => to.emit::<SadS64>(slots, 0),
                    _ => to.emit::<Sad64>(slots, 0),
                }
                Ok(())
            }
            ("mul24" | "mad24", Some(ty)) => {
                let mut slots = self.slots(to, false)?;
                if self.parts[0] == "mul24" {
                    slots[3] = to.constant(0, false);
                }
                match (self.has("hi"), ty) {
                    (false, Type::U32) => to.emit::<Mad24LoU>(slots, 0),
                    (false, _) => to.emit::<Mad24LoS>(slots, 0),
                    (true, Type::U32) => to.emit::<Mad24HiU>(slots, 0),
                    (true, _) => to.emit::<Mad24HiS>(slots, 0),
                }
                Ok(())
            }
            ("add" | "sub" | "cnot" | "bfind", Some(ty @ (Type::S32 | Type::U32 | Type::B32))) => {
                let slots = self.slots(to, false)?;
                match (self.parts[0], ty) {
                    ("add", Type::S32) => to.emit::<AddSat>(slots, 0),
                    ("sub", Type::S32) => to.emit::<SubSat>(slots, 0),
                    ("cnot", Type::B32) => to.emit::<Cnot>(slots, 0),
                    ("bfind", Type::U32) => to.emit::<ShiftToTopU>(slots, 0),
                    ("bfind", Type::S32) => to.emit::<ShiftToTopS>(slots, 0),
                    _ => return Err(String::new()),
                }
                Ok(())
            }
            _ => Err(String::new()),
        }
    }

    /// `set`: all ones, or 1.0 in a float, where the comparison holds.
    fn set(&self, to: &mut Lower, source: Type) -> Decoded {
        let holds = match self.parts[1..].iter().find_map(|part| Type::from_name(part)) {
            Some(Type::F32) => 0x3f80_0000,
            Some(Type::F16 | Type::F16x2) => 0x3c00,
            Some(Type::Bf16 | Type::Bf16x2) => 0x3f80,
            Some(Type::U16 | Type::S16) => 0xffff,
            _ if is_pair(source) => 0xffff,
            _ => 0xffff_ffff,
        };
        if is_pair(source) {
            return self.half_set_pair(to, source, holds);
        }
        let p = to.temp_pred();
        if is_half(source) {
            self.half_compare(to, source, false, p, NO_PRED)?;
        } else {
            self.compare_operands(to, source, p, NO_PRED)?;
        }
        let holds = to.constant(holds, false);
        let slots = [to.destination(self.operand(0)?, false)?, holds, to.constant(0, false), p, 0];
        emit_select(to, false, slots);
        Ok(())
    }

    /// `slct`: `a` where `c` is not negative, else `b`.
    fn slct(&self, to: &mut Lower, sign: Type) -> Decoded {
        let wide = self.parts[1..]
            .iter()
            .find_map(|part| Type::from_name(part))
            .is_some_and(|ty| ty.size_bytes() == 8);
        let (p, mut c) = (to.temp_pred(), to.source(self.operand(3)?, false)?);
        if self.has("ftz") {
            to.emit::<Flush32>([to.temp(0), c, 0, 0, 0], 0);
            c = to.temp(0);
        }
        let compare = [p, c, to.constant(0, false), 0, NO_PRED];
        match sign {
            Type::F32 => to.emit::<compare32::Ge>(compare, 0),
            _ => to.emit::<w32::GeS>(compare, 0),
        }
        let (a, b) = (to.source(self.operand(1)?, wide)?, to.source(self.operand(2)?, wide)?);
        let d = to.destination(self.operand(0)?, wide)?;
        emit_select(to, wide, [d, a, b, p, 0]);
        Ok(())
    }

    fn testp(&self, to: &mut Lower, ty: Type) -> Decoded {
        let wide = ty == Type::F64;
        let a = to.source(self.operand(1)?, wide)?;
        let slots = [to.pred_destination(self.operand(0)?)?, a, a, 0, NO_PRED];
        match (self.parts[1], wide) {
            ("finite", false) => to.emit::<Finite>(slots, 0),
            ("infinite", false) => to.emit::<Infinite>(slots, 0),
            ("normal", false) => to.emit::<Normal>(slots, 0),
            ("subnormal", false) => to.emit::<Subnormal>(slots, 0),
            ("finite", true) => to.emit::<Finite64>(slots, 0),
            ("infinite", true) => to.emit::<Infinite64>(slots, 0),
            ("normal", true) => to.emit::<Normal64>(slots, 0),
            ("subnormal", true) => to.emit::<Subnormal64>(slots, 0),
            ("number", _) => return emit_compare(to, "num", ty, slots, 0),
            ("notanumber", _) => return emit_compare(to, "nan", ty, slots, 0),
            _ => return Err(String::new()),
        }
        Ok(())
    }

    /// `isspacep`.
    fn isspacep(&self, to: &mut Lower) -> Decoded {
        let a = to.source(self.operand(1)?, true)?;
        let slots = [to.pred_destination(self.operand(0)?)?, a, a, 0, NO_PRED];
        match *self.parts.get(1).ok_or("no state space")? {
            "shared" | "shared::cta" => to.emit::<InShared>(slots, 0),
            "shared::cluster" => to.emit::<InCluster>(slots, 0),
            "param" | "param::entry" => to.emit::<InParam>(slots, 0),
            "local" => to.emit::<InLocal>(slots, 0),
            "const" => to.emit::<InConst>(slots, 0),
            "global" => to.emit::<InConst>(slots, 1),
            _ => return Err("this state space is not told apart".to_string()),
        }
        Ok(())
    }

    /// `prmt` in one of its special modes.
    fn prmt(&self, to: &mut Lower) -> Decoded {
        let [d, a, b, c, _] = self.slots(to, false)?;
        let choose = [to.temp(0), c, 0, 0, 0];
        match self.parts.get(2) {
            Some(&"f4e") => to.emit::<SelectF4e>(choose, 0),
            Some(&"b4e") => to.emit::<SelectB4e>(choose, 0),
            Some(&"rc8") => to.emit::<SelectRc8>(choose, 0),
            Some(&"ecl") => to.emit::<SelectEcl>(choose, 0),
            Some(&"ecr") => to.emit::<SelectEcr>(choose, 0),
            Some(&"rc16") => to.emit::<SelectRc16>(choose, 0),
            _ => return Err(String::new()),
        }
        to.emit::<Prmt>([d, a, b, to.temp(0), 0], 0);
        Ok(())
    }
}
