//! The table from opcode to implementation: one entry an instruction, in the order of the PTX ISA's
//! chapters. An empty error is an opcode that is not here at all.

use super::access::{Atomic, Atomic32, Atomic64, GENERIC, GLOBAL, LOCAL, Load, SHARED32, SHARED64, Store};
use super::access::{LOCAL_WINDOW, SHARED_WINDOW};
use super::collective::*;
use super::control::*;
use super::convert::{self, Convert, Rounding};
use super::float::{self, *};
use super::integer::*;
use super::lower::{Location, Lower};
use super::op::NO_PRED;
use crate::ptx::ast::{Instruction, Operand, Type};

pub(super) type Decoded = Result<(), String>;

/// Decodes one instruction to the operations that do it.
pub fn decode(to: &mut Lower, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
    let at = Entry { parts: &parts, operands: &instruction.operands };
    let ty = at.ty();
    match (parts[0], ty) {
        ("add" | "sub" | "mul" | "mad" | "fma" | "div" | "rcp" | "sqrt", Some(Type::F32)) => {
            at.arithmetic32(to)
        }
        ("add" | "sub" | "mul" | "mad" | "fma" | "div" | "rcp" | "sqrt" | "rsqrt", Some(Type::F64)) => {
            at.arithmetic64(to)
        }
        ("min" | "max" | "abs" | "neg" | "copysign", Some(Type::F32 | Type::F64)) => at.simple_float(to),
        ("ex2" | "lg2" | "sin" | "cos" | "tanh" | "rsqrt", Some(Type::F32)) => at.approximate(to),
        ("add" | "sub" | "addc" | "subc" | "madc", _) if parts[0].ends_with('c') || at.has("cc") => {
            at.carry(to)
        }
        ("mad", _) if at.has("cc") => at.carry(to),
        ("add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "abs" | "neg", Some(ty)) => {
            at.integer(to, ty)
        }
        ("and" | "or" | "xor" | "not" | "shl" | "shr", Some(ty)) => at.logic(to, ty),
        ("popc" | "clz" | "brev" | "bfind" | "bfe" | "bfi" | "sad" | "shf" | "prmt" | "lop3", _) => {
            at.bits(to)
        }
        ("setp", Some(ty)) => at.setp(to, ty),
        ("selp", Some(ty)) => at.selp(to, ty),
        ("mov" | "cvta", _) => at.mov(to),
        ("cvt", _) => at.cvt(to),
        ("ld" | "ldu", Some(ty)) => at.load(to, ty),
        ("st", Some(ty)) => at.store(to, ty),
        ("atom" | "red", Some(ty)) => at.atomic(to, ty),
        ("shfl", _) => at.shuffle(to),
        ("vote", _) => at.vote(to),
        ("match", Some(ty)) => at.matching(to, ty),
        ("redux", Some(ty)) => at.redux(to, ty),
        ("elect", _) => at.elect(to),
        ("activemask", _) => {
            let d = to.destination(at.operand(0)?, false)?;
            done(to.emit::<ActiveMask>([d, 0, 0, 0, 0], 0))
        }
        ("bra", _) => match at.operand(0)? {
            Operand::Label(target) => done(to.emit_branch(*target)),
            _ => Err("a target that is not a label".to_string()),
        },
        ("brx", _) => at.branch_indexed(to),
        ("bar" | "barrier", _) => at.barrier(to),
        ("ret" | "exit", _) => done(to.emit::<Exit>([0; 5], 0)),
        ("trap", _) => done(to.emit::<Trap>([0; 5], 0)),
        ("__assertfail", _) => done(to.emit::<AssertFail>([0; 5], 0)),
        ("membar" | "fence" | "prefetch" | "prefetchu" | "nanosleep" | "discard", _) => {
            done(to.emit::<Nothing>([0; 5], 0))
        }
        _ => at.uncommon(to),
    }
}

fn done(_: ()) -> Decoded {
    Ok(())
}

/// An instruction being decoded.
pub(super) struct Entry<'a> {
    pub(super) parts: &'a [&'a str],
    operands: &'a [Operand],
}

/// Emits `$module::$name` of the register width that `$ty` has.
macro_rules! by_width {
    ($to:expr, $ty:expr, $name:ident, $slots:expr, $imm:expr) => {
        match $ty.size_bytes() {
            2 => $to.emit::<w16::$name>($slots, $imm),
            8 => $to.emit::<w64::$name>($slots, $imm),
            _ => $to.emit::<w32::$name>($slots, $imm),
        }
    };
}

impl Entry<'_> {
    pub(super) fn has(&self, part: &str) -> bool {
        self.parts[1..].contains(&part)
    }

    /// The instruction's type: the last part that is one.
    pub(super) fn ty(&self) -> Option<Type> {
        self.parts[1..].iter().rev().find_map(|part| Type::from_name(part))
    }

    pub(super) fn operand(&self, index: usize) -> Result<&Operand, String> {
        self.operands.get(index).ok_or_else(|| format!("{} operands are too few", self.operands.len()))
    }

    /// Destination and up to three sources, all of one width.
    pub(super) fn slots(&self, to: &mut Lower, wide: bool) -> Result<[u16; 5], String> {
        let mut slots = [to.destination(self.operand(0)?, wide)?, 0, 0, 0, 0];
        for (slot, operand) in slots[1..4].iter_mut().zip(&self.operands[1..]) {
            *slot = to.source(operand, wide)?;
        }
        Ok(slots)
    }

    /// 1 toward zero, 2 down, 3 up, 0 to nearest.
    fn direction(&self) -> i64 {
        ["rz", "rm", "rp"].iter().position(|mode| self.has(mode)).map_or(0, |i| i as i64 + 1)
    }

    fn arithmetic32(&self, to: &mut Lower) -> Decoded {
        let mut slots = self.slots(to, false)?;
        if self.has("ftz") {
            for (i, slot) in slots[1..self.operands.len().min(4)].iter_mut().enumerate() {
                to.emit::<Flush32>([to.temp(i), *slot, 0, 0, 0], 0);
                *slot = to.temp(i);
            }
        }
        let operation =
            ["add", "sub", "mul", "fma", "div", "sqrt", "rcp"].iter().position(|name| *name == self.parts[0]);
        match (self.parts[0], self.direction()) {
            ("add", 0) => to.emit::<float::Add32>(slots, 0),
            ("sub", 0) => to.emit::<Sub32>(slots, 0),
            ("mul", 0) => to.emit::<Mul32>(slots, 0),
            ("fma" | "mad", 0) => to.emit_fma([slots[0], slots[1], slots[2], slots[3]]),
            ("div", 0) => to.emit::<Div32>(slots, 0),
            ("rcp", 0) => to.emit::<Rcp32>(slots, 0),
            ("sqrt", 0) => to.emit::<Sqrt32>(slots, 0),
            (_, mode) => to.emit::<Directed32>(slots, mode | (operation.unwrap_or(3) as i64) << 2),
        }
        let d = slots[0];
        if self.has("ftz") {
            to.emit::<Flush32>([d, d, 0, 0, 0], 0);
        }
        if self.has("sat") {
            to.emit::<Saturate32>([d, d, 0, 0, 0], 0);
        }
        Ok(())
    }

    fn arithmetic64(&self, to: &mut Lower) -> Decoded {
        if self.direction() != 0 {
            return Err("a directed rounding in float64 is not supported".to_string());
        }
        let slots = self.slots(to, true)?;
        match self.parts[0] {
            "add" => to.emit::<Add64>(slots, 0),
            "sub" => to.emit::<Sub64>(slots, 0),
            "mul" => to.emit::<Mul64>(slots, 0),
            "fma" | "mad" => to.emit::<Fma64>(slots, 0),
            "div" => to.emit::<Div64>(slots, 0),
            "rcp" if self.has("approx") => to.emit::<RcpApprox64>(slots, 0),
            "rcp" => to.emit::<Rcp64>(slots, 0),
            "rsqrt" => to.emit::<RsqrtApprox64>(slots, 0),
            _ => to.emit::<Sqrt64>(slots, 0),
        }
        Ok(())
    }

    fn simple_float(&self, to: &mut Lower) -> Decoded {
        let wide = self.ty() == Some(Type::F64);
        let mut slots = self.slots(to, wide)?;
        if self.operands.len() > 3 {
            return Err("three operands are not supported".to_string());
        }
        if self.has("ftz") {
            for (i, slot) in slots[1..self.operands.len()].iter_mut().enumerate() {
                to.emit::<Flush32>([to.temp(i), *slot, 0, 0, 0], 0);
                *slot = to.temp(i);
            }
        }
        match (self.parts[0], wide) {
            ("min", false) if self.has("NaN") => to.emit::<MinNan32>(slots, 0),
            ("max", false) if self.has("NaN") => to.emit::<MaxNan32>(slots, 0),
            ("min", false) => to.emit::<Min32>(slots, 0),
            ("max", false) => to.emit::<Max32>(slots, 0),
            ("abs", false) => to.emit::<Abs32>(slots, 0),
            ("neg", false) => to.emit::<Neg32>(slots, 0),
            ("copysign", false) => to.emit::<Copysign32>(slots, 0),
            ("min", true) => to.emit::<Min64>(slots, 0),
            ("max", true) => to.emit::<Max64>(slots, 0),
            ("abs", true) => to.emit::<Abs64>(slots, 0),
            ("neg", true) => to.emit::<Neg64>(slots, 0),
            _ => to.emit::<Copysign64>(slots, 0),
        }
        Ok(())
    }

    fn approximate(&self, to: &mut Lower) -> Decoded {
        let mut slots = self.slots(to, false)?;
        let d = slots[0];
        if self.has("ftz") {
            to.emit::<Flush32>([to.temp(0), slots[1], 0, 0, 0], 0);
            slots[1] = to.temp(0);
        }
        match self.parts[0] {
            "ex2" => to.emit::<Ex2>(slots, 0),
            "lg2" => to.emit::<Lg2>(slots, 0),
            "sin" => to.emit::<Sin>(slots, 0),
            "cos" => to.emit::<Cos>(slots, 0),
            "tanh" => to.emit::<Tanh>(slots, 0),
            _ => to.emit::<Rsqrt>(slots, 0),
        }
        if self.has("ftz") {
            to.emit::<Flush32>([d, d, 0, 0, 0], 0);
        }
        Ok(())
    }

    fn carry(&self, to: &mut Lower) -> Decoded {
        let ty = self.ty().ok_or("no type")?;
        let wide = ty.size_bytes() == 8;
        let slots = self.slots(to, wide)?;
        let imm = self.parts[0].ends_with('c') as i64 | (self.has("cc") as i64) << 1;
        match (self.parts[0].trim_end_matches('c'), self.has("hi"), wide) {
            ("add", _, false) => to.emit::<AddCarry32>(slots, imm),
            ("add", _, true) => to.emit::<AddCarry64>(slots, imm),
            ("sub", _, false) => to.emit::<SubCarry32>(slots, imm),
            ("sub", _, true) => to.emit::<SubCarry64>(slots, imm),
            (_, true, _) if ty == Type::S32 || ty == Type::S64 => {
                return Err("the high half of a signed product with carry is not supported".to_string());
            }
            (_, false, false) => to.emit::<MadLoCarry32>(slots, imm),
            (_, true, false) => to.emit::<MadHiCarry32>(slots, imm),
            (_, false, true) => to.emit::<MadLoCarry64>(slots, imm),
            (_, true, true) => to.emit::<MadHiCarry64>(slots, imm),
        }
        Ok(())
    }

    fn integer(&self, to: &mut Lower, ty: Type) -> Decoded {
        let signed = match ty {
            Type::S16 | Type::S32 | Type::S64 => true,
            Type::U16 | Type::U32 | Type::U64 | Type::B32 | Type::B64 => false,
            _ => return Err(String::new()),
        };
        if self.has("sat") {
            return self.uncommon(to);
        }
        if self.has("wide") {
            return self.wide(to, ty);
        }
        let slots = self.slots(to, ty.size_bytes() == 8)?;
        match (self.parts[0], signed) {
            ("add", _) => by_width!(to, ty, Add, slots, 0),
            ("sub", _) => by_width!(to, ty, Sub, slots, 0),
            ("mul", false) if self.has("hi") && ty == Type::U32 => to.emit::<MulHiU32>(slots, 0),
            ("mul", true) if self.has("hi") && ty == Type::S32 => to.emit::<MulHiS32>(slots, 0),
            ("mul", false) if self.has("hi") => by_width!(to, ty, MulHiU, slots, 0),
            ("mul", true) if self.has("hi") => by_width!(to, ty, MulHiS, slots, 0),
            ("mul", _) => by_width!(to, ty, MulLo, slots, 0),
            ("mad", false) if self.has("hi") => by_width!(to, ty, MadHiU, slots, 0),
            ("mad", true) if self.has("hi") => by_width!(to, ty, MadHiS, slots, 0),
            ("mad", _) => by_width!(to, ty, MadLo, slots, 0),
            ("div", false) => by_width!(to, ty, DivU, slots, 0),
            ("div", true) => by_width!(to, ty, DivS, slots, 0),
            ("rem", false) => by_width!(to, ty, RemU, slots, 0),
            ("rem", true) => by_width!(to, ty, RemS, slots, 0),
            ("min", false) => by_width!(to, ty, MinU, slots, 0),
            ("min", true) => by_width!(to, ty, MinS, slots, 0),
            ("max", false) => by_width!(to, ty, MaxU, slots, 0),
            ("max", true) => by_width!(to, ty, MaxS, slots, 0),
            ("abs", _) => by_width!(to, ty, Abs, slots, 0),
            _ => by_width!(to, ty, Neg, slots, 0),
        }
        if ty.size_bytes() == 2 {
            to.emit::<convert::U16>([slots[0], slots[0], 0, 0, 0], 0);
        }
        Ok(())
    }

    /// `mul.wide` and `mad.wide`: a result of twice the width.
    fn wide(&self, to: &mut Lower, ty: Type) -> Decoded {
        let wide = ty.size_bytes() == 4;
        let (a, b) = (to.source(self.operand(1)?, false)?, to.source(self.operand(2)?, false)?);
        let c = match self.operands.get(3) {
            Some(operand) => to.source(operand, wide)?,
            None => 0,
        };
        let slots = [to.destination(self.operand(0)?, wide)?, a, b, c, 0];
        match (self.parts[0], ty) {
            ("mul", Type::U16) => to.emit::<MulWideU16>(slots, 0),
            ("mul", Type::S16) => to.emit::<MulWideS16>(slots, 0),
            ("mul", Type::U32) => to.emit::<MulWideU32>(slots, 0),
            ("mul", Type::S32) => to.emit::<MulWideS32>(slots, 0),
            ("mad", Type::U16) => to.emit::<MadWideU16>(slots, 0),
            ("mad", Type::S16) => to.emit::<MadWideS16>(slots, 0),
            ("mad", Type::U32) => to.emit::<MadWideU32>(slots, 0),
            ("mad", Type::S32) => to.emit::<MadWideS32>(slots, 0),
            _ => return Err(String::new()),
        }
        Ok(())
    }

    fn logic(&self, to: &mut Lower, ty: Type) -> Decoded {
        if ty == Type::Pred {
            let d = to.pred(self.operand(0)?)?;
            let a = to.pred(self.operand(1)?)?;
            let b = if self.operands.len() > 2 { to.pred(self.operand(2)?)? } else { a };
            let operation = ["and", "or", "xor", "not"].iter().position(|name| *name == self.parts[0]);
            let operation = operation.ok_or_else(String::new)? as i64;
            return done(to.emit::<PredLogic>([d, a, b, 0, 0], operation));
        }
        let wide = ty.size_bytes() == 8;
        let shift = matches!(self.parts[0], "shl" | "shr");
        let d = to.destination(self.operand(0)?, wide)?;
        let a = to.source(self.operand(1)?, wide)?;
        let b = match self.operands.get(2) {
            Some(operand) => to.source(operand, wide && !shift)?,
            None => a,
        };
        let slots = [d, a, b, 0, 0];
        match self.parts[0] {
            "and" => by_width!(to, ty, And, slots, 0),
            "or" => by_width!(to, ty, Or, slots, 0),
            "xor" => by_width!(to, ty, Xor, slots, 0),
            "not" => by_width!(to, ty, Not, slots, 0),
            "shl" => by_width!(to, ty, Shl, slots, 0),
            _ if matches!(ty, Type::S16 | Type::S32 | Type::S64) => by_width!(to, ty, ShrS, slots, 0),
            _ => by_width!(to, ty, ShrU, slots, 0),
        }
        Ok(())
    }

    fn bits(&self, to: &mut Lower) -> Decoded {
        let ty = self.ty().ok_or("no type")?;
        let wide = ty.size_bytes() == 8;
        let narrow_result = matches!(self.parts[0], "popc" | "clz" | "bfind");
        let d = to.destination(self.operand(0)?, wide && !narrow_result)?;
        let a = to.source(self.operand(1)?, wide)?;
        // Positions and lengths are 32-bit beside a field of 64.
        let b_wide = wide && self.parts[0] == "bfi";
        let mut rest = [0; 3];
        for (i, operand) in self.operands[2.min(self.operands.len())..].iter().take(3).enumerate() {
            if self.parts[0] == "lop3" && i == 2 {
                break;
            }
            rest[i] = to.source(operand, i == 0 && b_wide)?;
        }
        let slots = [d, a, rest[0], rest[1], rest[2]];
        let signed = matches!(ty, Type::S32 | Type::S64);
        match (self.parts[0], wide, signed) {
            ("popc", false, _) => to.emit::<Popc32>(slots, 0),
            ("popc", true, _) => to.emit::<Popc64>(slots, 0),
            ("clz", false, _) => to.emit::<Clz32>(slots, 0),
            ("clz", true, _) => to.emit::<Clz64>(slots, 0),
            ("brev", false, _) => to.emit::<Brev32>(slots, 0),
            ("brev", true, _) => to.emit::<Brev64>(slots, 0),
            ("bfind", ..) if self.has("shiftamt") => return self.uncommon(to),
            ("bfind", false, false) => to.emit::<BfindU32>(slots, 0),
            ("bfind", false, true) => to.emit::<BfindS32>(slots, 0),
            ("bfind", true, false) => to.emit::<BfindU64>(slots, 0),
            ("bfind", true, true) => to.emit::<BfindS64>(slots, 0),
            ("bfe", false, false) => to.emit::<BfeU32>(slots, 0),
            ("bfe", false, true) => to.emit::<BfeS32>(slots, 0),
            ("bfe", true, false) => to.emit::<BfeU64>(slots, 0),
            ("bfe", true, true) => to.emit::<BfeS64>(slots, 0),
            ("bfi", false, _) => to.emit::<Bfi32>(slots, 0),
            ("bfi", true, _) => to.emit::<Bfi64>(slots, 0),
            ("sad", false, false) => to.emit::<Sad>(slots, 0),
            ("sad", false, true) => to.emit::<SadS>(slots, 0),
            ("shf", ..) => match (self.has("l"), self.has("wrap")) {
                (true, true) => to.emit::<ShfLWrap>(slots, 0),
                (true, false) => to.emit::<ShfLClamp>(slots, 0),
                (false, true) => to.emit::<ShfRWrap>(slots, 0),
                (false, false) => to.emit::<ShfRClamp>(slots, 0),
            },
            ("prmt", ..) if self.parts.len() == 2 => to.emit::<Prmt>(slots, 0),
            ("prmt", ..) => return self.uncommon(to),
            ("lop3", ..) => match self.operand(4)? {
                Operand::Int(table) => to.emit::<Lop3>(slots, *table),
                _ => return Err("a table that is not a number".to_string()),
            },
            _ => return Err(String::new()),
        }
        Ok(())
    }

    fn setp(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (d, e) = match self.operand(0)? {
            Operand::Pair(p, q) => (to.pred(p)?, to.pred(q)?),
            operand => (to.pred(operand)?, NO_PRED),
        };
        self.compare_operands(to, ty, d, e)
    }

    /// The comparison of operands 1 and 2, combined with predicate operand 3, to predicates `d` and `e`.
    pub(super) fn compare_operands(&self, to: &mut Lower, ty: Type, d: u16, e: u16) -> Decoded {
        let wide = ty.size_bytes() == 8;
        let (mut a, mut b) = (to.source(self.operand(1)?, wide)?, to.source(self.operand(2)?, wide)?);
        if self.has("ftz") {
            to.emit::<Flush32>([to.temp(0), a, 0, 0, 0], 0);
            to.emit::<Flush32>([to.temp(1), b, 0, 0, 0], 0);
            (a, b) = (to.temp(0), to.temp(1));
        }
        let combine = ["and", "or", "xor"].iter().position(|name| self.has(name));
        let (c, imm) = match combine {
            Some(i) => (to.pred(self.operand(3)?)?, i as i64 + 1),
            None => (0, 0),
        };
        emit_compare(to, self.parts[1], ty, [d, a, b, c, e], imm)
    }

    fn selp(&self, to: &mut Lower, ty: Type) -> Decoded {
        let wide = ty.size_bytes() == 8;
        let d = to.destination(self.operand(0)?, wide)?;
        let (a, b) = (to.source(self.operand(1)?, wide)?, to.source(self.operand(2)?, wide)?);
        let slots = [d, a, b, to.pred(self.operand(3)?)?, 0];
        done(emit_select(to, wide, slots))
    }

    /// `mov`, also of predicates and packed pairs; `cvta` moves between a space and its window.
    fn mov(&self, to: &mut Lower) -> Decoded {
        let ty = self.ty().ok_or("no type")?;
        let (d, a) = (self.operand(0)?, self.operand(1)?);
        if ty == Type::Pred {
            let d = to.pred(d)?;
            return match a {
                Operand::Int(value) => done(to.emit::<PredLogic>([d, 0, 0, 0, 0], 5 + (*value != 0) as i64)),
                _ => {
                    let a = to.pred(a)?;
                    done(to.emit::<PredLogic>([d, a, 0, 0, 0], 4))
                }
            };
        }
        let wide = ty.size_bytes() == 8;
        match (d, a) {
            (Operand::Vector(parts), _) => return self.unpack(to, parts, a, ty),
            (_, Operand::Vector(parts)) => return self.pack(to, d, parts, ty),
            (_, Operand::Special(name)) if name.starts_with("clock") || name == "globaltimer" => {
                let slots = [to.destination(d, wide)?, 0, 0, 0, 0];
                return done(if wide { to.emit::<Clock64>(slots, 0) } else { to.emit::<Clock32>(slots, 0) });
            }
            _ => {}
        }
        let slots = [to.destination(d, wide)?, to.source(a, wide)?, 0, 0, 0];
        if self.parts[0] == "cvta" && wide {
            let window = match () {
                () if self.has("shared") || self.has("shared::cta") => SHARED_WINDOW,
                () if self.has("local") => LOCAL_WINDOW,
                () => 0,
            };
            let window = to.constant(if self.has("to") { window.wrapping_neg() } else { window }, true);
            return done(to.emit::<w64::Add>([slots[0], slots[1], window, 0, 0], 0));
        }
        if wide {
            to.emit::<Copy64>(slots, 0)
        } else {
            to.emit::<Copy32>(slots, 0)
        }
        Ok(())
    }

    fn unpack(&self, to: &mut Lower, parts: &[Operand], a: &Operand, ty: Type) -> Decoded {
        let wide = ty.size_bytes() == 8;
        let a = to.source(a, wide)?;
        match (parts, ty.size_bytes()) {
            ([low, high], 8) => {
                let (d, e) = (to.destination(low, false)?, to.destination(high, false)?);
                done(to.emit::<Unpack64>([d, a, 0, 0, e], 0))
            }
            ([low, high], 4) => {
                let (d, e) = (to.destination(low, false)?, to.destination(high, false)?);
                done(to.emit::<Unpack32>([d, a, 0, 0, e], 0))
            }
            ([first, second, third, fourth], 8) => {
                to.emit::<Unpack64>([to.temp(0), a, 0, 0, to.temp(1)], 0);
                for (half, [low, high]) in [[first, second], [third, fourth]].into_iter().enumerate() {
                    let (d, e) = (to.destination(low, false)?, to.destination(high, false)?);
                    to.emit::<Unpack32>([d, to.temp(half), 0, 0, e], 0);
                }
                Ok(())
            }
            _ => {
                Err(format!("a {}-bit value in {} parts is not supported", 8 * ty.size_bytes(), parts.len()))
            }
        }
    }

    fn pack(&self, to: &mut Lower, d: &Operand, parts: &[Operand], ty: Type) -> Decoded {
        let d = to.destination(d, ty.size_bytes() == 8)?;
        match (parts, ty.size_bytes()) {
            ([low, high], 8) => {
                let (a, b) = (to.source(low, false)?, to.source(high, false)?);
                done(to.emit::<Pack64>([d, a, b, 0, 0], 0))
            }
            ([low, high], 4) => {
                let (a, b) = (to.source(low, false)?, to.source(high, false)?);
                done(to.emit::<Pack32>([d, a, b, 0, 0], 0))
            }
            ([first, second, third, fourth], 8) => {
                for (half, [low, high]) in [[first, second], [third, fourth]].into_iter().enumerate() {
                    let (a, b) = (to.source(low, false)?, to.source(high, false)?);
                    to.emit::<Pack32>([to.temp(half), a, b, 0, 0], 0);
                }
                done(to.emit::<Pack64>([d, to.temp(0), to.temp(1), 0, 0], 0))
            }
            _ => {
                Err(format!("a {}-bit value of {} parts is not supported", 8 * ty.size_bytes(), parts.len()))
            }
        }
    }

    fn cvt(&self, to: &mut Lower) -> Decoded {
        let mut types = self.parts[1..].iter().filter_map(|part| Type::from_name(part));
        let (Some(dt), Some(st)) = (types.next(), types.next()) else { return Err("no types".to_string()) };
        if self.has("satfinite") {
            return Err("satfinite is not supported".to_string());
        }
        let integral = ["rni", "rzi", "rmi", "rpi"].iter().position(|mode| self.has(mode));
        let directed = ["rn", "rz", "rm", "rp", "rna"].iter().position(|mode| self.has(mode));
        let rounding = match integral.or(directed) {
            None | Some(0) => Rounding::Nearest,
            Some(1) => Rounding::Zero,
            Some(2) => Rounding::Down,
            Some(3) => Rounding::Up,
            Some(_) => Rounding::Away,
        };
        let relu = self.has("relu");
        if let (Type::F16x2 | Type::Bf16x2, Type::F32) = (dt, st) {
            // The first source is the upper half.
            let half = if dt == Type::F16x2 { Type::F16 } else { Type::Bf16 };
            let code = convert::encode(half, st, rounding, false, false, self.has("ftz"), relu);
            for (i, operand) in [self.operand(2)?, self.operand(1)?].into_iter().enumerate() {
                let slots = [to.temp(i), to.source(operand, false)?, 0, 0, 0];
                to.emit::<Convert>(slots, code);
            }
            let d = to.destination(self.operand(0)?, false)?;
            return done(to.emit::<Pack32>([d, to.temp(0), to.temp(1), 0, 0], 0));
        }
        let (d_wide, a_wide) = (
            to.is_wide(self.operand(0)?),
            match self.operand(1)? {
                operand @ Operand::Reg(_) => to.is_wide(operand),
                _ => st.size_bytes() == 8,
            },
        );
        let d = to.destination(self.operand(0)?, d_wide)?;
        let a = to.source(self.operand(1)?, a_wide)?;
        let slots = [d, a, 0, 0, 0];
        let (saturate, flush) = (self.has("sat"), self.has("ftz"));
        let plain = !saturate && !flush && !relu;
        let truncate = rounding == Rounding::Zero;
        let nearest = rounding == Rounding::Nearest;
        match (st, dt) {
            (Type::U32 | Type::B32, Type::U64 | Type::S64 | Type::B64) if plain && d_wide && !a_wide => {
                to.emit::<convert::WidenU32>(slots, 0)
            }
            (Type::S32, Type::U64 | Type::S64) if plain && d_wide && !a_wide => {
                to.emit::<convert::WidenS32>(slots, 0)
            }
            (Type::U64 | Type::S64 | Type::B64, Type::U32 | Type::S32) if plain && !d_wide && a_wide => {
                to.emit::<convert::Narrow>(slots, 0)
            }
            (Type::U8 | Type::B8, Type::U16 | Type::U32 | Type::S32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U8>(slots, 0)
            }
            (Type::U16 | Type::B16, Type::U32 | Type::S32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U16>(slots, 0)
            }
            (Type::S8, Type::S32 | Type::U32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::S8>(slots, 0)
            }
            (Type::S16, Type::S32 | Type::U32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::S16>(slots, 0)
            }
            (Type::U32 | Type::S32 | Type::U16 | Type::S16, Type::U8) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U8>(slots, 0)
            }
            (Type::U32 | Type::S32, Type::U16) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U16>(slots, 0)
            }
            (Type::S32, Type::F32) if plain && nearest && !a_wide => to.emit::<convert::S32ToF32>(slots, 0),
            (Type::U32, Type::F32) if plain && nearest && !a_wide => to.emit::<convert::U32ToF32>(slots, 0),
            (Type::S32, Type::F64) if plain && !a_wide => to.emit::<convert::S32ToF64>(slots, 0),
            (Type::U32, Type::F64) if plain && !a_wide => to.emit::<convert::U32ToF64>(slots, 0),
            (Type::F32, Type::F64) if plain => to.emit::<convert::F32ToF64>(slots, 0),
            (Type::F64, Type::F32) if plain && nearest => to.emit::<convert::F64ToF32>(slots, 0),
            (Type::F32, Type::S32) if plain && truncate && !d_wide => {
                to.emit::<convert::F32ToS32Rz>(slots, 0)
            }
            (Type::F32, Type::U32) if plain && truncate && !d_wide => {
                to.emit::<convert::F32ToU32Rz>(slots, 0)
            }
            (Type::F64, Type::S32) if plain && truncate && !d_wide => {
                to.emit::<convert::F64ToS32Rz>(slots, 0)
            }
            (Type::F32, Type::F32) if plain && integral == Some(0) => {
                to.emit::<convert::RoundEven32>(slots, 0)
            }
            (Type::F32, Type::F32) if plain && integral == Some(2) => to.emit::<convert::Floor32>(slots, 0),
            (Type::F64, Type::F64) if plain && integral == Some(0) => {
                to.emit::<convert::RoundEven64>(slots, 0)
            }
            (Type::F64, Type::F64) if plain && integral == Some(2) => to.emit::<convert::Floor64>(slots, 0),
            (Type::F32, Type::F32) if saturate && !flush && !relu && integral.is_none() => {
                to.emit::<Saturate32>(slots, 0)
            }
            _ => {
                let widths = a_wide as u16 | (d_wide as u16) << 1;
                let code = convert::encode(dt, st, rounding, integral.is_some(), saturate, flush, relu);
                to.emit::<Convert>([d, a, 0, 0, widths], code);
            }
        }
        Ok(())
    }

    /// Space and address of a memory operand.
    fn address(&self, to: &mut Lower, operand: &Operand) -> Result<(u8, u16, i64), String> {
        let Operand::Address(base, offset) = operand else {
            return Err("an operand that is no address".to_string());
        };
        let symbol = match &**base {
            Operand::Symbol(name, addend) => Some((to.locate(name)?, *addend)),
            _ => None,
        };
        let space = match () {
            () if self.has("global") || self.has("const") => GLOBAL,
            () if self.has("shared") || self.has("shared::cta") => SHARED64,
            () if self.has("local") || self.has("param") || self.has("param::func") => LOCAL,
            () if self.has("param::entry") => LOCAL,
            () => GENERIC,
        };
        match symbol {
            Some((Location::Shared(at), addend)) => Ok((SHARED32, to.constant(at, false), addend + offset)),
            Some((Location::Local(at), addend)) => Ok((LOCAL, to.constant(at, true), addend + offset)),
            Some((Location::Global(at), addend)) => Ok((GLOBAL, to.constant(at, true), addend + offset)),
            Some((Location::Param(_), _)) => Err("a store to a kernel parameter".to_string()),
            None if to.is_wide(base) || matches!(**base, Operand::Int(_)) => {
                Ok((space, to.source(base, true)?, *offset))
            }
            None if space == SHARED64 => Ok((SHARED32, to.source(base, false)?, *offset)),
            None if space == LOCAL => {
                let slots = [to.temp(2), to.source(base, false)?, 0, 0, 0];
                to.emit::<convert::WidenU32>(slots, 0);
                Ok((space, to.temp(2), *offset))
            }
            None => Err("a 32-bit address in this space".to_string()),
        }
    }

    fn load(&self, to: &mut Lower, ty: Type) -> Decoded {
        let operands = vector(self.operand(0)?);
        if let Operand::Address(base, offset) = self.operand(1)?
            && let Operand::Symbol(name, addend) = &**base
            && let Location::Param(at) = to.locate(name)?
        {
            return self.load_param(to, ty, operands, at as i64 + addend + offset);
        }
        let (space, a, imm) = self.address(to, self.operand(1)?)?;
        let wide = ty.size_bytes() == 8;
        // A register wider than the element gets it by way of a temporary.
        let through = !wide && operands.iter().any(|operand| to.is_wide(operand));
        let mut slots = [to.temp(3); 4];
        for (slot, operand) in slots.iter_mut().zip(operands) {
            if !through {
                *slot = to.destination(operand, wide)?;
            }
        }
        if through {
            if operands.len() > 1 {
                return Err("a vector into wider registers".to_string());
            }
            slots[0] = to.temp(0);
        }
        let [d, b, c, e] = slots;
        emit_load(to, space, ty, operands.len(), [d, a, b, c, e], imm)?;
        for slot in &slots[..operands.len()] {
            match ty {
                Type::S8 => to.emit::<convert::S8>([*slot, *slot, 0, 0, 0], 0),
                Type::S16 => to.emit::<convert::S16>([*slot, *slot, 0, 0, 0], 0),
                _ => {}
            }
        }
        if through {
            let slots = [to.destination(&operands[0], true)?, slots[0], 0, 0, 0];
            match ty {
                Type::S8 | Type::S16 | Type::S32 => to.emit::<convert::WidenS32>(slots, 0),
                _ => to.emit::<convert::WidenU32>(slots, 0),
            }
        }
        Ok(())
    }

    /// Kernel parameters are slots that are filled before the kernel starts: loading one is a move.
    fn load_param(&self, to: &mut Lower, ty: Type, operands: &[Operand], at: i64) -> Decoded {
        let bytes = ty.size_bytes();
        let signed = matches!(ty, Type::S8 | Type::S16 | Type::S32);
        for (i, operand) in operands.iter().enumerate() {
            let wide = to.is_wide(operand);
            let offset =
                usize::try_from(at + (i * bytes) as i64).map_err(|_| "a negative offset".to_string())?;
            let slots = [to.destination(operand, wide)?, to.param(offset, bytes, signed, wide)?, 0, 0, 0];
            if wide { to.emit::<Copy64>(slots, 0) } else { to.emit::<Copy32>(slots, 0) }
        }
        Ok(())
    }

    fn store(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (space, a, imm) = self.address(to, self.operand(0)?)?;
        let operands = vector(self.operand(1)?);
        let wide = ty.size_bytes() == 8;
        let mut slots = [0; 4];
        for (i, (slot, operand)) in slots.iter_mut().zip(operands).enumerate() {
            *slot = if !wide && to.is_wide(operand) {
                if i > 1 {
                    return Err("a vector from wider registers".to_string());
                }
                let narrow = [to.temp(i), to.source(operand, true)?, 0, 0, 0];
                to.emit::<convert::Narrow>(narrow, 0);
                to.temp(i)
            } else {
                to.source(operand, wide)?
            };
        }
        let [d, b, c, e] = slots;
        emit_store(to, space, ty, operands.len(), [d, a, b, c, e], imm)
    }

    fn atomic(&self, to: &mut Lower, ty: Type) -> Decoded {
        let red = self.parts[0] == "red";
        let at = !red as usize;
        let (space, a, imm) = self.address(to, self.operand(at)?)?;
        let wide = ty.size_bytes() == 8;
        let d = if red { to.temp(3) } else { to.destination(self.operand(0)?, wide)? };
        let b = to.source(self.operand(at + 1)?, wide)?;
        let has_third = self.operands.len() > at + 2 && self.has("cas");
        let c = if has_third { to.source(self.operand(at + 2)?, wide)? } else { b };
        let signed = matches!(ty, Type::S32 | Type::S64);
        let float = matches!(ty, Type::F32 | Type::F64);
        let operation = match () {
            () if !matches!(ty.size_bytes(), 4 | 8) || matches!(ty, Type::F16x2 | Type::Bf16x2) => {
                return Err("an atomic of this type is not supported".to_string());
            }
            () if self.has("add") && float => Atomic::AddF,
            () if self.has("add") => Atomic::Add,
            () if self.has("and") => Atomic::And,
            () if self.has("or") => Atomic::Or,
            () if self.has("xor") => Atomic::Xor,
            () if self.has("exch") => Atomic::Exchange,
            () if self.has("cas") => Atomic::CompareExchange,
            () if float => return Err("an atomic of this type is not supported".to_string()),
            () if self.has("min") => {
                if signed {
                    Atomic::MinS
                } else {
                    Atomic::MinU
                }
            }
            () if self.has("max") => {
                if signed {
                    Atomic::MaxS
                } else {
                    Atomic::MaxU
                }
            }
            () if self.has("inc") => Atomic::Inc,
            () if self.has("dec") => Atomic::Dec,
            () => return Err(String::new()),
        };
        let slots = [d, a, b, c, operation as u16];
        match (space, wide) {
            (GLOBAL, false) => to.emit::<Atomic32<GLOBAL>>(slots, imm),
            (GLOBAL, true) => to.emit::<Atomic64<GLOBAL>>(slots, imm),
            (SHARED32, false) => to.emit::<Atomic32<SHARED32>>(slots, imm),
            (SHARED32, true) => to.emit::<Atomic64<SHARED32>>(slots, imm),
            (SHARED64, false) => to.emit::<Atomic32<SHARED64>>(slots, imm),
            (SHARED64, true) => to.emit::<Atomic64<SHARED64>>(slots, imm),
            (GENERIC, false) => to.emit::<Atomic32<GENERIC>>(slots, imm),
            (GENERIC, true) => to.emit::<Atomic64<GENERIC>>(slots, imm),
            _ => return Err("an atomic in this space".to_string()),
        }
        Ok(())
    }

    fn shuffle(&self, to: &mut Lower) -> Decoded {
        let (d, e) = match self.operand(0)? {
            Operand::Pair(value, valid) => (to.destination(value, false)?, to.pred(valid)?),
            operand => (to.destination(operand, false)?, NO_PRED),
        };
        let mode =
            ["up", "down", "bfly", "idx"].iter().position(|mode| self.has(mode)).ok_or_else(String::new)?;
        let slots = [
            d,
            to.source(self.operand(1)?, false)?,
            to.source(self.operand(2)?, false)?,
            to.source(self.operand(3)?, false)?,
            e,
        ];
        to.emit::<InTurn>([0; 5], 0);
        done(to.emit::<Shuffle>(slots, mode as i64))
    }

    fn vote(&self, to: &mut Lower) -> Decoded {
        let mode =
            ["all", "any", "uni", "ballot"].iter().position(|mode| self.has(mode)).ok_or_else(String::new)?;
        let d = match mode {
            3 => to.destination(self.operand(0)?, false)?,
            _ => to.pred(self.operand(0)?)?,
        };
        let slots = [d, to.pred(self.operand(1)?)?, to.source(self.operand(2)?, false)?, 0, 0];
        to.emit::<InTurn>([0; 5], 0);
        done(to.emit::<Vote>(slots, mode as i64))
    }

    fn matching(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (d, e) = match self.operand(0)? {
            Operand::Pair(value, valid) => (to.destination(value, false)?, to.pred(valid)?),
            operand => (to.destination(operand, false)?, NO_PRED),
        };
        let wide = ty.size_bytes() == 8;
        let slots = [d, to.source(self.operand(1)?, wide)?, to.source(self.operand(2)?, false)?, 0, e];
        to.emit::<InTurn>([0; 5], 0);
        done(to.emit::<Match>(slots, wide as i64 | (self.has("all") as i64) << 1))
    }

    fn redux(&self, to: &mut Lower, ty: Type) -> Decoded {
        let signed = ty == Type::S32;
        let operation = match () {
            () if !matches!(ty, Type::S32 | Type::U32 | Type::B32) => return Err(String::new()),
            () if self.has("add") => 0,
            () if self.has("and") => 1,
            () if self.has("or") => 2,
            () if self.has("xor") => 3,
            () if self.has("min") => 4 + 2 * signed as i64,
            () if self.has("max") => 5 + 2 * signed as i64,
            () => return Err(String::new()),
        };
        let d = to.destination(self.operand(0)?, false)?;
        let slots = [d, to.source(self.operand(1)?, false)?, to.source(self.operand(2)?, false)?, 0, 0];
        to.emit::<InTurn>([0; 5], 0);
        done(to.emit::<Redux>(slots, operation))
    }

    fn elect(&self, to: &mut Lower) -> Decoded {
        let Operand::Pair(lane, leader) = self.operand(0)? else { return Err("no predicate".to_string()) };
        let slots =
            [to.destination(lane, false)?, 0, to.source(self.operand(1)?, false)?, 0, to.pred(leader)?];
        to.emit::<InTurn>([0; 5], 0);
        done(to.emit::<Elect>(slots, 0))
    }

    fn branch_indexed(&self, to: &mut Lower) -> Decoded {
        let Operand::List(labels) = self.operand(1)? else { return Err("no list of targets".to_string()) };
        let label = |operand: &Operand| match operand {
            Operand::Label(target) => Ok(*target),
            _ => Err("a target that is not a label".to_string()),
        };
        let targets = labels.iter().map(label).collect::<Result<Vec<usize>, String>>()?;
        let first = to.branch_targets(&targets);
        let count = u16::try_from(targets.len()).map_err(|_| "too many targets".to_string())?;
        let slots = [0, to.source(self.operand(0)?, false)?, count, 0, 0];
        done(to.emit::<BranchIndexed>(slots, first))
    }

    fn barrier(&self, to: &mut Lower) -> Decoded {
        if self.has("warp") {
            return done(to.emit::<InTurn>([0; 5], 0));
        }
        let (d, c, kind, first) = match () {
            () if self.has("sync") => (0, 0, SYNC, 0),
            () if self.has("arrive") => (0, 0, ARRIVE, 0),
            () if self.has("popc") => {
                (to.destination(self.operand(0)?, false)?, self.last_pred(to)?, COUNT, 1)
            }
            () if self.has("and") => (to.pred(self.operand(0)?)?, self.last_pred(to)?, AND, 1),
            () if self.has("or") => (to.pred(self.operand(0)?)?, self.last_pred(to)?, OR, 1),
            () => return Err(String::new()),
        };
        let counts = self.operands.get(first..self.operands.len().saturating_sub(first)).unwrap_or(&[]);
        let a = to.source(counts.first().ok_or("no barrier")?, false)?;
        let b = match counts.get(1) {
            Some(count) => to.source(count, false)?,
            None => to.constant(0, false),
        };
        done(to.emit::<Barrier>([d, a, b, c, 0], kind))
    }

    fn last_pred(&self, to: &mut Lower) -> Result<u16, String> {
        to.pred(self.operands.last().ok_or("no predicate")?)
    }
}

fn vector(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(all) => all,
        one => std::slice::from_ref(one),
    }
}

/// Emits `$body::<SPACE, E, N>` for a space, an element and a count that are known only now.
macro_rules! by_space {
    ($body:ident, $to:expr, $space:expr, $element:ty, $n:expr, $slots:expr, $imm:expr) => {
        match ($space, $n) {
            (GLOBAL, 1) => $to.emit::<$body<GLOBAL, $element, 1>>($slots, $imm),
            (GLOBAL, 2) => $to.emit::<$body<GLOBAL, $element, 2>>($slots, $imm),
            (GLOBAL, 4) => $to.emit::<$body<GLOBAL, $element, 4>>($slots, $imm),
            (SHARED32, 1) => $to.emit::<$body<SHARED32, $element, 1>>($slots, $imm),
            (SHARED32, 2) => $to.emit::<$body<SHARED32, $element, 2>>($slots, $imm),
            (SHARED32, 4) => $to.emit::<$body<SHARED32, $element, 4>>($slots, $imm),
            (SHARED64, 1) => $to.emit::<$body<SHARED64, $element, 1>>($slots, $imm),
            (SHARED64, 2) => $to.emit::<$body<SHARED64, $element, 2>>($slots, $imm),
            (SHARED64, 4) => $to.emit::<$body<SHARED64, $element, 4>>($slots, $imm),
            (LOCAL, 1) => $to.emit::<$body<LOCAL, $element, 1>>($slots, $imm),
            (LOCAL, 2) => $to.emit::<$body<LOCAL, $element, 2>>($slots, $imm),
            (LOCAL, 4) => $to.emit::<$body<LOCAL, $element, 4>>($slots, $imm),
            (GENERIC, 1) => $to.emit::<$body<GENERIC, $element, 1>>($slots, $imm),
            (GENERIC, 2) => $to.emit::<$body<GENERIC, $element, 2>>($slots, $imm),
            (GENERIC, 4) => $to.emit::<$body<GENERIC, $element, 4>>($slots, $imm),
            _ => return Err(format!("a vector of {} is not supported", $n)),
        }
    };
}

fn emit_load(to: &mut Lower, space: u8, ty: Type, n: usize, slots: [u16; 5], imm: i64) -> Decoded {
    match ty.size_bytes() {
        _ if n * ty.size_bytes() > 16 => return Err("more than 16 bytes are not supported".to_string()),
        1 => by_space!(Load, to, space, u8, n, slots, imm),
        2 => by_space!(Load, to, space, u16, n, slots, imm),
        4 => by_space!(Load, to, space, u32, n, slots, imm),
        _ => by_space!(Load, to, space, u64, n, slots, imm),
    }
    Ok(())
}

fn emit_store(to: &mut Lower, space: u8, ty: Type, n: usize, slots: [u16; 5], imm: i64) -> Decoded {
    match ty.size_bytes() {
        _ if n * ty.size_bytes() > 16 => return Err("more than 16 bytes are not supported".to_string()),
        1 => by_space!(Store, to, space, u8, n, slots, imm),
        2 => by_space!(Store, to, space, u16, n, slots, imm),
        4 => by_space!(Store, to, space, u32, n, slots, imm),
        _ => by_space!(Store, to, space, u64, n, slots, imm),
    }
    Ok(())
}

pub(super) fn emit_select(to: &mut Lower, wide: bool, slots: [u16; 5]) {
    if wide { to.emit::<Select64>(slots, 0) } else { to.emit::<Select32>(slots, 0) }
}

pub(super) fn emit_compare(to: &mut Lower, name: &str, ty: Type, slots: [u16; 5], imm: i64) -> Decoded {
    macro_rules! floats {
        ($($text:literal => $variant:ident),*) => {
            match (name, ty) {
                $(($text, Type::F32) => return done(to.emit::<compare32::$variant>(slots, imm)),
                  ($text, Type::F64) => return done(to.emit::<compare64::$variant>(slots, imm)),)*
                _ => {}
            }
        };
    }
    floats!("eq" => Eq, "ne" => Ne, "lt" => Lt, "le" => Le, "gt" => Gt, "ge" => Ge, "equ" => Equ, "neu" => Neu,
            "ltu" => Ltu, "leu" => Leu, "gtu" => Gtu, "geu" => Geu, "num" => Num, "nan" => Nan);
    let signed = matches!(ty, Type::S16 | Type::S32 | Type::S64);
    match (name, signed) {
        _ if convert::is_float(ty) => return Err(String::new()),
        ("eq", _) => by_width!(to, ty, Eq, slots, imm),
        ("ne", _) => by_width!(to, ty, Ne, slots, imm),
        ("lt", true) => by_width!(to, ty, LtS, slots, imm),
        ("le", true) => by_width!(to, ty, LeS, slots, imm),
        ("gt", true) => by_width!(to, ty, GtS, slots, imm),
        ("ge", true) => by_width!(to, ty, GeS, slots, imm),
        ("lt" | "lo", false) => by_width!(to, ty, LtU, slots, imm),
        ("le" | "ls", false) => by_width!(to, ty, LeU, slots, imm),
        ("gt" | "hi", false) => by_width!(to, ty, GtU, slots, imm),
        ("ge" | "hs", false) => by_width!(to, ty, GeU, slots, imm),
        _ => return Err(String::new()),
    }
    Ok(())
}
