//! Comparisons, selections and moves.

use super::*;

impl Entry<'_> {
    pub(super) fn setp(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (d, e) = match self.operand(0)? {
            Operand::Pair(p, q) => (to.pred_destination(p)?, to.pred_destination(q)?),
            operand => (to.pred_destination(operand)?, NO_PRED),
        };
        if is_half(ty) { self.half_setp(to, ty, d, e) } else { self.compare_operands(to, ty, d, e) }
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
        let (c, imm) = self.combination(to)?;
        emit_compare(to, self.parts[1], ty, [d, a, b, c, e], imm)
    }

    /// The predicate that a comparison is combined with, and how, as `compare!` has it.
    pub(super) fn combination(&self, to: &mut Lower) -> Result<(u16, i64), String> {
        match ["and", "or", "xor"].iter().position(|name| self.has(name)) {
            Some(i) => Ok((to.pred(self.operand(3)?)?, i as i64 + 1)),
            None => Ok((0, 0)),
        }
    }

    pub(super) fn selp(&self, to: &mut Lower, ty: Type) -> Decoded {
        let wide = ty.size_bytes() == 8;
        let d = to.destination(self.operand(0)?, wide)?;
        let (a, b) = (to.source(self.operand(1)?, wide)?, to.source(self.operand(2)?, wide)?);
        let slots = [d, a, b, to.pred(self.operand(3)?)?, 0];
        done(emit_select(to, wide, slots))
    }

    /// `mov`, also of predicates and packed pairs; `cvta` moves between a space and its window.
    pub(super) fn mov(&self, to: &mut Lower) -> Decoded {
        let ty = self.ty().ok_or("no type")?;
        let (d, a) = (self.operand(0)?.alone(), self.operand(1)?.alone());
        if ty == Type::Pred {
            let d = to.pred_destination(d)?;
            return match a {
                Operand::Special(_) => {
                    let slots = [d, to.source(a, false)?, to.constant(0, false), 0, NO_PRED];
                    emit_compare(to, "ne", Type::U32, slots, 0)
                }
                _ => {
                    let a = to.pred(a)?;
                    done(to.emit::<PredLogic>([d, a, 0, 0, 0], 4))
                }
            };
        }
        let wide = ty.size_bytes() == 8;
        match (d, a) {
            _ if ty == Type::B128 => return self.mov128(to, d, a),
            (Operand::Vector(parts), _) => return self.unpack(to, parts, a, ty),
            (_, Operand::Vector(parts)) => return self.pack(to, d, parts, ty),
            (_, Operand::Special(name)) if name.starts_with("clock") || name.starts_with("globaltimer") => {
                let slots = [to.destination(d, wide)?, 0, 0, 0, 0];
                if name.ends_with("_hi") {
                    let [low, high] = [to.temp(0), slots[0]];
                    to.emit::<Clock64>([low, 0, 0, 0, 0], 0);
                    return done(to.emit::<Unpack64>([to.temp(1), low, 0, 0, high], 0));
                }
                return done(if wide { to.emit::<Clock64>(slots, 0) } else { to.emit::<Clock32>(slots, 0) });
            }
            _ => {}
        }
        let slots = [to.destination(d, wide)?, to.source(a, wide)?, 0, 0, 0];
        if to.is_steady(d) {
            return Ok(());
        }
        if self.parts[0] == "cvta" && wide {
            let window = match () {
                () if self.parts.iter().any(|part| part.starts_with("shared")) => SHARED_WINDOW,
                () if self.has("local") => LOCAL_WINDOW,
                () if self.parts.iter().any(|part| part.starts_with("param")) => PARAM_WINDOW,
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

    /// `mov.b128`, between pairs of 64 bits.
    fn mov128(&self, to: &mut Lower, d: &Operand, a: &Operand) -> Decoded {
        let (Operand::Vector(d), Operand::Vector(a)) = (d, a) else {
            return Err("no pair of 64-bit registers".to_string());
        };
        let ([d, e], [a, b]) = (&d[..], &a[..]) else { return Err("no pair of registers".to_string()) };
        let (d, e) = (to.destination(d, true)?, to.destination(e, true)?);
        // The halves may change places.
        for (i, half) in [a, b].into_iter().enumerate() {
            let half = to.source(half, true)?;
            to.emit::<Copy64>([to.temp(i), half, 0, 0, 0], 0);
        }
        to.emit::<Copy64>([d, to.temp(0), 0, 0, 0], 0);
        done(to.emit::<Copy64>([e, to.temp(1), 0, 0, 0], 0))
    }

    pub(super) fn unpack(&self, to: &mut Lower, parts: &[Operand], a: &Operand, ty: Type) -> Decoded {
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

    pub(super) fn pack(&self, to: &mut Lower, d: &Operand, parts: &[Operand], ty: Type) -> Decoded {
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
}

pub(super) fn emit_select(to: &mut Lower, wide: bool, slots: [u16; 5]) {
    if wide { to.emit::<Select64>(slots, 0) } else { to.emit::<Select32>(slots, 0) }
}

/// The comparison `name` of slots `a` and `b` to predicates `d` and `e`, combined with predicate `c` as `imm` says: one
/// of a few, of exchanged operands where `name` is its mirror image, and negated where it is its opposite.
pub(super) fn emit_compare(
    to: &mut Lower,
    name: &str,
    ty: Type,
    [d, a, b, c, e]: [u16; 5],
    imm: i64,
) -> Decoded {
    let is_float = matches!(ty, Type::F32 | Type::F64);
    let signed = matches!(ty, Type::S16 | Type::S32 | Type::S64);
    let (name, exchanged, negated) = match (name, is_float) {
        ("gt", _) => ("lt", true, false),
        ("ge", true) => ("le", true, false),
        // What is unordered makes these hold.
        ("neu", true) => ("eq", false, true),
        ("equ", true) => ("ne", false, true),
        ("geu", true) => ("lt", false, true),
        ("leu", true) => ("lt", true, true),
        ("gtu", true) => ("le", false, true),
        ("ltu", true) => ("le", true, true),
        ("num", true) => ("nan", false, true),
        // Of integers nothing is.
        ("ne", false) => ("eq", false, true),
        ("ge", false) => ("lt", false, true),
        ("le", false) => ("lt", true, true),
        ("lo", false) if !signed => ("lt", false, false),
        ("hi", false) if !signed => ("lt", true, false),
        ("hs", false) if !signed => ("lt", false, true),
        ("ls", false) if !signed => ("lt", true, true),
        (name, _) => (name, false, false),
    };
    let (a, b) = if exchanged { (b, a) } else { (a, b) };
    let (slots, imm) = ([d, a, b, c, e], imm | if negated { NEGATED } else { 0 });
    match (name, ty) {
        ("eq", Type::F32) => to.emit::<compare32::Eq>(slots, imm),
        ("ne", Type::F32) => to.emit::<compare32::Ne>(slots, imm),
        ("lt", Type::F32) => to.emit::<compare32::Lt>(slots, imm),
        ("le", Type::F32) => to.emit::<compare32::Le>(slots, imm),
        ("nan", Type::F32) => to.emit::<compare32::Nan>(slots, imm),
        ("eq", Type::F64) => to.emit::<compare64::Eq>(slots, imm),
        ("ne", Type::F64) => to.emit::<compare64::Ne>(slots, imm),
        ("lt", Type::F64) => to.emit::<compare64::Lt>(slots, imm),
        ("le", Type::F64) => to.emit::<compare64::Le>(slots, imm),
        ("nan", Type::F64) => to.emit::<compare64::Nan>(slots, imm),
        ("eq", _) => by_width!(to, ty, Eq, slots, imm),
        ("lt", _) if signed => by_width!(to, ty, LtS, slots, imm),
        ("lt", _) => by_width!(to, ty, LtU, slots, imm),
        _ => return Err(String::new()),
    }
    Ok(())
}
