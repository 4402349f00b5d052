//! Loads, stores and atomics: their spaces, widths and vectors.

use super::*;
use crate::exec::check::{Kind, OBSERVES, RELEASES};
use crate::exec::load::{Load, Store};
use crate::exec::space::{is_offset, packed};

/// Emits `$body::<E, N>` for an element and a count that are known only now.
macro_rules! by_element {
    ($body:ident, $to:expr, $ty:expr, $n:expr, $slots:expr, $imm:expr) => {
        match ($ty.size_bytes(), $n) {
            (1, 1) => $to.emit::<$body<u8, 1>>($slots, $imm),
            (1, 2) => $to.emit::<$body<u8, 2>>($slots, $imm),
            (1, 4) => $to.emit::<$body<u8, 4>>($slots, $imm),
            (2, 1) => $to.emit::<$body<u16, 1>>($slots, $imm),
            (2, 2) => $to.emit::<$body<u16, 2>>($slots, $imm),
            (2, 4) => $to.emit::<$body<u16, 4>>($slots, $imm),
            (4, 1) => $to.emit::<$body<u32, 1>>($slots, $imm),
            (4, 2) => $to.emit::<$body<u32, 2>>($slots, $imm),
            (4, 4) => $to.emit::<$body<u32, 4>>($slots, $imm),
            (8, 1) => $to.emit::<$body<u64, 1>>($slots, $imm),
            (8, 2) => $to.emit::<$body<u64, 2>>($slots, $imm),
            (bytes, n) if n * bytes > 16 => return Err("more than 16 bytes are not supported".to_string()),
            (_, n) => return Err(format!("a vector of {n} is not supported")),
        }
    };
}

impl Entry<'_> {
    /// Space and address of a memory operand.
    pub(super) fn address(&self, to: &mut Lower, operand: &Operand) -> Result<(u8, u16, i64), String> {
        let Operand::Address(base, offset) = operand else {
            return Err("an operand that is no address".to_string());
        };
        let symbol = match &**base {
            Operand::Symbol(name, addend) => Some((to.locate(name)?, addend.wrapping_add(*offset))),
            _ => None,
        };
        if !is_offset(symbol.map_or(*offset, |(_, offset)| offset)) {
            return Err("an offset beyond all addresses".to_string());
        }
        let space = match () {
            () if self.has("global") || self.has("const") => GLOBAL,
            () if self.has("shared") || self.has("shared::cta") => SHARED64,
            () if self.has("local") || self.has("param") || self.has("param::func") => LOCAL,
            () if self.has("param::entry") => LOCAL,
            () => GENERIC,
        };
        if self.has("shared::cluster") {
            let window = to.constant(SHARED_WINDOW, true);
            let a = to.temp(2);
            if to.is_wide(base) {
                let base = to.source(base, true)?;
                to.emit::<w64::Add>([a, base, window, 0, 0], 0);
            } else {
                let base = to.source(base, false)?;
                to.emit::<convert::WidenU32>([a, base, 0, 0, 0], 0);
                to.emit::<w64::Add>([a, a, window, 0, 0], 0);
            }
            return Ok((GENERIC, a, *offset));
        }
        match symbol {
            Some((Location::Shared(at), offset)) => Ok((SHARED32, to.constant(at, false), offset)),
            Some((Location::Frame(at), offset)) => Ok((LOCAL, to.frame_address(at, 2, true), offset)),
            Some((Location::Local(at), offset)) => Ok((LOCAL, to.constant(at, true), offset)),
            Some((Location::Global(at), offset)) => Ok((GLOBAL, to.constant(at, true), offset)),
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

    pub(super) fn load(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (operands, ty) = (vector(self.operand(0)?), halves(ty));
        if let Operand::Address(base, offset) = self.operand(1)?
            && let Operand::Symbol(name, addend) = &**base
            && let Location::Param(at) = to.locate(name)?
        {
            let at = (at as i64).wrapping_add(*addend).wrapping_add(*offset);
            return self.load_param(to, ty, operands, at);
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
                return Err("a vector into wider registers: not supported here".to_string());
            }
            slots[0] = to.temp(0);
        }
        let [d, b, c, e] = slots;
        let kind = if self.is_strong() { Kind::StrongRead } else { Kind::Read };
        to.emit_check(kind, (space, a, imm), ty.size_bytes() * operands.len(), OBSERVES, 0);
        by_element!(Load, to, ty, operands.len(), [d, a, b, c, e], packed(space, imm));
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

    /// An access that is no race with other strong ones.
    fn is_strong(&self) -> bool {
        ["volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"].iter().any(|part| self.has(part))
    }

    fn releases(&self) -> u16 {
        if self.has("release") || self.has("acq_rel") { RELEASES } else { 0 }
    }

    fn strong_store(&self) -> (Kind, u16) {
        (if self.is_strong() { Kind::StrongWrite } else { Kind::Write }, self.releases())
    }

    /// Kernel parameters are slots that are filled before the kernel starts: loading one is a move.
    pub(super) fn load_param(&self, to: &mut Lower, ty: Type, operands: &[Operand], at: i64) -> Decoded {
        let bytes = ty.size_bytes();
        let signed = matches!(ty, Type::S8 | Type::S16 | Type::S32);
        for (i, operand) in operands.iter().enumerate() {
            let wide = to.is_wide(operand);
            let offset =
                usize::try_from(at.wrapping_add((i * bytes) as i64)).map_err(|_| "a negative offset")?;
            let slots = [to.destination(operand, wide)?, to.param(offset, bytes, signed, wide)?, 0, 0, 0];
            if to.is_steady(operand) {
                continue;
            }
            if wide { to.emit::<Copy64>(slots, 0) } else { to.emit::<Copy32>(slots, 0) }
        }
        Ok(())
    }

    pub(super) fn store(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (space, a, imm) = self.address(to, self.operand(0)?)?;
        let (operands, ty) = (vector(self.operand(1)?), halves(ty));
        let wide = ty.size_bytes() == 8;
        let mut slots = [0; 4];
        for (i, (slot, operand)) in slots.iter_mut().zip(operands).enumerate() {
            *slot = if !wide && to.is_wide(operand) {
                if i > 1 {
                    return Err("a vector from wider registers: not supported here".to_string());
                }
                let narrow = [to.temp(i), to.source(operand, true)?, 0, 0, 0];
                to.emit::<convert::Narrow>(narrow, 0);
                to.temp(i)
            } else {
                to.source(operand, wide)?
            };
        }
        let [d, b, c, e] = slots;
        let (kind, releases) = self.strong_store();
        let elements = operands.len() as u16 | (wide as u16) << 8;
        // Right before the store, at which it looks.
        to.emit_check(kind, (space, a, imm), ty.size_bytes() * operands.len(), releases, elements);
        by_element!(Store, to, ty, operands.len(), [d, a, b, c, e], packed(space, imm));
        Ok(())
    }

    pub(super) fn atomic(&self, to: &mut Lower, ty: Type) -> Decoded {
        let red = self.parts[0] == "red";
        let at = !red as usize;
        if ty == Type::B128 {
            return self.atomic128(to);
        }
        if is_half(ty) || ty.size_bytes() == 2 || matches!(self.operand(at + 1)?, Operand::Vector(_)) {
            return self.atomic_vector(to, ty, at);
        }
        let (space, a, imm) = self.address(to, self.operand(at)?)?;
        let wide = ty.size_bytes() == 8;
        let d = if red { to.temp(3) } else { to.destination(self.operand(0)?, wide)? };
        let b = to.source(self.operand(at + 1)?, wide)?;
        let has_third = self.operands.len() > at + 2 && self.has("cas");
        let c = if has_third { to.source(self.operand(at + 2)?, wide)? } else { b };
        let signed = matches!(ty, Type::S32 | Type::S64);
        let float = matches!(ty, Type::F32 | Type::F64);
        let operation = match () {
            () if !matches!(ty.size_bytes(), 4 | 8) => {
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
        let observes = if red { 0 } else { OBSERVES };
        to.emit_check(Kind::Atomic, (space, a, imm), ty.size_bytes(), observes | self.releases(), 0);
        let place = packed(atomic_space(space)?, imm);
        done(if wide { to.emit::<Atomic64>(slots, place) } else { to.emit::<Atomic32>(slots, place) })
    }

    /// `atom.exch.b128` and `atom.cas.b128`.
    fn atomic128(&self, to: &mut Lower) -> Decoded {
        let is_cas = self.has("cas");
        if !is_cas && !self.has("exch") {
            return Err(String::new());
        }
        if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
            return Err("this host has no compare-and-swap of 128 bits".to_string());
        }
        let (space, a, offset) = self.address(to, self.operand(1)?)?;
        to.emit_check(Kind::Atomic, (space, a, offset), 16, OBSERVES | self.releases(), 0);
        let mut list = vec![self.folded(to, space, a, offset)];
        for (i, operand) in
            self.operands.iter().take(3 + is_cas as usize).enumerate().filter(|(i, _)| *i != 1)
        {
            let Operand::Vector(pair) = operand else { return Err("no 128-bit register".to_string()) };
            let [low, high] = &pair[..] else { return Err("no 128-bit register".to_string()) };
            for half in [low, high] {
                list.push(if i == 0 { to.destination(half, true)? } else { to.source(half, true)? });
            }
        }
        let first = to.list(&list) as i64;
        let slots = [0, is_cas as u16, 0, 0, atomic_space(space)?.into()];
        done(to.emit::<Atomic128>(slots, first))
    }

    /// A temporary with a 64-bit address and its offset added up.
    fn folded(&self, to: &mut Lower, space: u8, a: u16, offset: i64) -> u16 {
        let address = to.temp(2);
        if space == SHARED32 {
            to.emit::<convert::WidenU32>([address, a, 0, 0, 0], 0);
        }
        let offset = to.constant(offset as u64, true);
        to.emit::<w64::Add>([address, if space == SHARED32 { address } else { a }, offset, 0, 0], 0);
        address
    }

    /// Atomics on halves, pairs of them, 16-bit integers and vectors; operand `at` is the address.
    fn atomic_vector(&self, to: &mut Lower, ty: Type, at: usize) -> Decoded {
        let element = match ty {
            Type::B16 => Element::B16,
            Type::F16 => Element::F16,
            Type::F16x2 => Element::F16x2,
            Type::Bf16 => Element::Bf16,
            Type::Bf16x2 => Element::Bf16x2,
            Type::F32 => Element::F32,
            _ => return Err("an atomic of this type is not supported".to_string()),
        };
        let update = match () {
            () if self.has("cas") && element == Element::B16 => Update::CompareExchange,
            () if element == Element::B16 => return Err(String::new()),
            () if self.has("add") => Update::Add,
            () if self.has("min") && element != Element::F32 => Update::Min,
            () if self.has("max") && element != Element::F32 => Update::Max,
            () => return Err(String::new()),
        };
        let operands = vector(self.operand(at + 1)?);
        let count = operands.len();
        if !matches!(count, 1 | 2 | 4 | 8) {
            return Err(format!("a vector of {count} is not supported"));
        }
        let (space, a, offset) = self.address(to, self.operand(at)?)?;
        let flags = self.releases() | if at > 0 { OBSERVES } else { 0 };
        to.emit_check(Kind::Atomic, (space, a, offset), count * ty.size_bytes(), flags, 0);
        let mut list = vec![self.folded(to, space, a, offset)];
        for i in 0..count {
            list.push(match (at, vector(self.operand(0)?).get(i)) {
                (0, _) | (_, Some(Operand::Sink)) => to.temp(3),
                _ if *self.operand(0)? == Operand::Sink => to.temp(3),
                (_, Some(d)) => to.destination(d, false)?,
                (_, None) => return Err("fewer destinations than operands".to_string()),
            });
        }
        for operand in operands {
            list.push(to.source(operand, false)?);
        }
        let c = if update == Update::CompareExchange {
            to.source(self.operand(at + 2)?, false)?
        } else {
            to.constant(0, false)
        };
        let first = to.list(&list) as i64;
        let element = element as u16 | (update as u16) << 4;
        let slots = [0, count as u16, element, c, atomic_space(space)?.into()];
        done(to.emit::<AtomicVector>(slots, first))
    }
}

/// The space of an atomic, which cannot be in every one.
fn atomic_space(space: u8) -> Result<u8, String> {
    match space {
        GLOBAL | SHARED32 | SHARED64 | GENERIC => Ok(space),
        _ => Err("an atomic in this space".to_string()),
    }
}

/// The type of an access's elements: 128 bits are two.
fn halves(ty: Type) -> Type {
    if ty == Type::B128 { Type::B64 } else { ty }
}

fn vector(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(all) => all,
        one => std::slice::from_ref(one),
    }
}
