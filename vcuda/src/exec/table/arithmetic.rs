//! Arithmetic and logic, on integers and floats.

use super::*;

impl Entry<'_> {
    pub(super) fn arithmetic32(&self, to: &mut Lower) -> Decoded {
        let mut slots = self.slots(to, false)?;
        if self.parts[0] == "rcp" && self.has("ftz") && self.direction() == 0 && !self.goes_astray(to) {
            return done(to.emit::<RcpFtz>(slots, 0));
        }
        if self.has("ftz") {
            for (i, slot) in slots[1..self.operands.len().min(4)].iter_mut().enumerate() {
                to.emit::<Flush32>([to.temp(i), *slot, 0, 0, 0], 0);
                *slot = to.temp(i);
            }
        }
        let operation =
            ["add", "sub", "mul", "fma", "div", "sqrt", "rcp"].iter().position(|name| *name == self.parts[0]);
        match (self.parts[0], self.direction()) {
            _ if self.goes_astray(to) => self.emit_astray::<astray::F32>(to, slots),
            ("add", 0) => to.emit::<float::Add32>(slots, 0),
            ("sub", 0) => to.emit::<Sub32>(slots, 0),
            ("mul", 0) => to.emit::<Mul32>(slots, 0),
            ("fma" | "mad", 0) => to.emit_fma([slots[0], slots[1], slots[2], slots[3]]),
            ("div", 0) if self.has("approx") => to.emit::<DivApprox32>(slots, 0),
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

    pub(super) fn arithmetic64(&self, to: &mut Lower) -> Decoded {
        let slots = self.slots(to, true)?;
        if self.direction() != 0 {
            let operation = ["add", "sub", "mul", "fma", "div", "sqrt", "rcp"]
                .iter()
                .position(|name| *name == self.parts[0]);
            let operation = operation.unwrap_or(3) as i64; // `mad` is `fma`
            return done(to.emit::<Directed64>(slots, self.direction() | operation << 2));
        }
        match self.parts[0] {
            "add" => to.emit::<Add64>(slots, 0),
            "sub" => to.emit::<Sub64>(slots, 0),
            "mul" => to.emit::<Mul64>(slots, 0),
            "fma" | "mad" => to.emit::<Fma64>(slots, 0),
            "div" => to.emit::<Div64>(slots, 0),
            "rcp" if self.has("approx") => to.emit::<RcpApprox64>(slots, 0),
            "rcp" => to.emit::<Rcp64>(slots, 0),
            "rsqrt" if self.has("ftz") => to.emit::<RsqrtApprox64>(slots, 0),
            "rsqrt" => to.emit::<Rsqrt64>(slots, 0),
            _ => to.emit::<Sqrt64>(slots, 0),
        }
        Ok(())
    }

    pub(super) fn simple_float(&self, to: &mut Lower) -> Decoded {
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
        let (d, a, b) = (slots[0], slots[1], slots[2]);
        if self.has("xorsign") {
            to.emit::<Abs32>([to.temp(2), a, 0, 0, 0], 0);
            to.emit::<Abs32>([to.temp(3), b, 0, 0, 0], 0);
            slots = [to.temp(3), to.temp(2), to.temp(3), 0, 0];
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
        if self.has("xorsign") {
            to.emit::<XorSign32>([d, to.temp(3), a, b, 0], 0);
        }
        Ok(())
    }

    pub(super) fn approximate(&self, to: &mut Lower) -> Decoded {
        let mut slots = self.slots(to, false)?;
        let d = slots[0];
        if self.parts[0] == "ex2" && self.has("ftz") && !self.goes_astray(to) {
            return done(to.emit::<Ex2<true>>(slots, 0));
        }
        if self.has("ftz") {
            to.emit::<Flush32>([to.temp(0), slots[1], 0, 0, 0], 0);
            slots[1] = to.temp(0);
        }
        match self.parts[0] {
            _ if self.goes_astray(to) => self.emit_astray::<astray::F32>(to, slots),
            "ex2" => to.emit::<Ex2<false>>(slots, 0),
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

    /// Whether it is for [`Astray`] to do the instruction.
    pub(super) fn goes_astray(&self, to: &Lower) -> bool {
        to.checks.approx && (self.has("approx") || self.has("full"))
    }

    /// The instruction with results in format `T`.
    pub(super) fn emit_astray<T: astray::Target>(&self, to: &mut Lower, slots: [u16; 5]) {
        let function = match self.parts[0] {
            "ex2" => Function::Ex2,
            "lg2" => Function::Lg2,
            "sin" => Function::Sin,
            "cos" => Function::Cos,
            "tanh" => Function::Tanh,
            "rcp" => Function::Rcp,
            "sqrt" => Function::Sqrt,
            "rsqrt" => Function::Rsqrt,
            _ if self.has("full") => Function::DivFull,
            _ => Function::Div,
        };
        to.emit::<Astray<T>>(slots, function as i64);
    }

    pub(super) fn carry(&self, to: &mut Lower) -> Decoded {
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
                return Err("the high half of a signed product with carry: not supported here".to_string());
            }
            (_, false, false) => to.emit::<MadLoCarry32>(slots, imm),
            (_, true, false) => to.emit::<MadHiCarry32>(slots, imm),
            (_, false, true) => to.emit::<MadLoCarry64>(slots, imm),
            (_, true, true) => to.emit::<MadHiCarry64>(slots, imm),
        }
        Ok(())
    }

    pub(super) fn integer(&self, to: &mut Lower, ty: Type) -> Decoded {
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
            ("add", _) => by_register!(to, ty, Add, slots, 0),
            ("sub", _) => by_register!(to, ty, Sub, slots, 0),
            ("mul", false) if self.has("hi") && ty == Type::U32 => to.emit::<MulHiU32>(slots, 0),
            ("mul", true) if self.has("hi") && ty == Type::S32 => to.emit::<MulHiS32>(slots, 0),
            ("mul", false) if self.has("hi") => by_width!(to, ty, MulHiU, slots, 0),
            ("mul", true) if self.has("hi") => by_width!(to, ty, MulHiS, slots, 0),
            ("mul", _) => by_register!(to, ty, MulLo, slots, 0),
            ("mad", false) if self.has("hi") => by_width!(to, ty, MadHiU, slots, 0),
            ("mad", true) if self.has("hi") => by_width!(to, ty, MadHiS, slots, 0),
            ("mad", _) => by_register!(to, ty, MadLo, slots, 0),
            ("div", false) => by_width!(to, ty, DivU, slots, 0),
            ("div", true) => by_width!(to, ty, DivS, slots, 0),
            ("rem", false) => by_width!(to, ty, RemU, slots, 0),
            ("rem", true) => by_width!(to, ty, RemS, slots, 0),
            ("min", false) => by_width!(to, ty, MinU, slots, 0),
            ("min", true) => by_width!(to, ty, MinS, slots, 0),
            ("max", false) => by_width!(to, ty, MaxU, slots, 0),
            ("max", true) => by_width!(to, ty, MaxS, slots, 0),
            ("abs", _) => by_width!(to, ty, Abs, slots, 0),
            _ => by_register!(to, ty, Neg, slots, 0),
        }
        if self.has("relu") {
            let zero = to.constant(0, false);
            to.emit::<w32::MaxS>([slots[0], slots[0], zero, 0, 0], 0);
        }
        if ty.size_bytes() == 2 {
            to.emit::<convert::U16>([slots[0], slots[0], 0, 0, 0], 0);
        }
        Ok(())
    }

    /// `mul.wide` and `mad.wide`: a result of twice the width.
    pub(super) fn wide(&self, to: &mut Lower, ty: Type) -> Decoded {
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

    pub(super) fn logic(&self, to: &mut Lower, ty: Type) -> Decoded {
        if ty == Type::Pred {
            let d = to.pred_destination(self.operand(0)?)?;
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
            "and" => by_register!(to, ty, And, slots, 0),
            "or" => by_register!(to, ty, Or, slots, 0),
            "xor" => by_register!(to, ty, Xor, slots, 0),
            "not" => by_width!(to, ty, Not, slots, 0),
            "shl" => by_width!(to, ty, Shl, slots, 0),
            _ if matches!(ty, Type::S16 | Type::S32 | Type::S64) => by_width!(to, ty, ShrS, slots, 0),
            _ => by_width!(to, ty, ShrU, slots, 0),
        }
        Ok(())
    }

    pub(super) fn bits(&self, to: &mut Lower) -> Decoded {
        let ty = self.ty().ok_or("no type")?;
        let wide = ty.size_bytes() == 8;
        if wide && self.parts[0] == "sad" {
            return self.uncommon(to);
        }
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
            ("bmsk", ..) if self.has("clamp") => to.emit::<BmskClamp>(slots, 0),
            ("bmsk", ..) => to.emit::<BmskWrap>(slots, 0),
            ("szext", _, false) if self.has("clamp") => to.emit::<SzextClampU>(slots, 0),
            ("szext", _, true) if self.has("clamp") => to.emit::<SzextClampS>(slots, 0),
            ("szext", _, false) => to.emit::<SzextWrapU>(slots, 0),
            ("szext", _, true) => to.emit::<SzextWrapS>(slots, 0),
            ("fns", ..) => to.emit::<Fns>(slots, 0),
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
}
