//! Instructions that compilers write seldom.

use super::moves::{emit_compare, emit_select};
use super::*;
use crate::exec::arithmetic::uncommon::*;

impl Entry<'_> {
    /// Decodes the instructions of this file; an empty error for any other.
    pub(super) fn uncommon(&self, to: &mut Lower) -> Decoded {
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
        emit_compare(to, "ge", sign, compare, 0)?;
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
