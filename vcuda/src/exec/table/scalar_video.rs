//! Scalar video instructions.

use super::*;
use crate::exec::arithmetic::scalar_video::*;
use crate::ptx::ast::Part;

/// The register of an operand, and which part of it.
fn split(operand: &Operand) -> (Operand, Part) {
    match operand {
        Operand::Part(reg, part) => (Operand::Reg(*reg), *part),
        whole => (whole.clone(), Part::WHOLE),
    }
}

impl Entry<'_> {
    pub(super) fn scalar_video(&self, to: &mut Lower) -> Decoded {
        let operation = NAMES.iter().position(|name| *name == self.parts[0]).ok_or_else(String::new)?;
        let is_set = self.parts[0] == "vset";
        let is_product = self.parts[0] == "vmad";
        let (d, d_part) = split(self.operand(0)?);
        let (a, a_part) = split(self.operand(1)?);
        let (b, b_part) = split(self.operand(2)?);
        // A comparison's result is 0 or 1, of no type.
        let types = if is_set {
            [None, self.parts.get(1), self.parts.get(2)]
        } else {
            [1, 2, 3].map(|i| self.parts.get(i))
        };
        let mut flags = 0;
        for (ty, flag) in types.into_iter().zip([D_SIGNED, A_SIGNED, B_SIGNED]) {
            flags |= match ty {
                Some(&"s32") => flag,
                Some(&"u32") => 0,
                None if is_set => 0,
                _ => return Err(String::new()),
            };
        }
        let (mut comparison, mut second, mut shift, mut has_mode) = (None, 0, 0, false);
        for &part in self.parts.get(if is_set { 3 } else { 4 }..).unwrap_or_default() {
            match part {
                "sat" if !is_set => flags |= SATURATE,
                "po" if is_product => flags |= PLUS_ONE,
                "shr7" if is_product => shift = 7,
                "shr15" if is_product => shift = 15,
                "clamp" if self.parts[0].starts_with("vsh") => has_mode = true,
                "wrap" if self.parts[0].starts_with("vsh") => (has_mode, flags) = (true, flags | WRAP),
                part if is_set && COMPARISONS.contains(&part) => {
                    comparison = COMPARISONS.iter().position(|name| *name == part);
                }
                part if !is_product => match SECONDS.iter().position(|name| *name == part) {
                    Some(at) => second = at as u16,
                    None => return Err(String::new()),
                },
                _ => return Err(String::new()),
            }
        }
        let is_shift = self.parts[0].starts_with("vsh");
        let c = self.operand(3).map_or((Operand::Int(0), Part::WHOLE), split);
        let negated = [a_part.negated, b_part.negated, c.1.negated];
        let is_merged = d_part != Part::WHOLE;
        if is_set != comparison.is_some()
            || is_shift != has_mode
            || negated.contains(&true) && !is_product
            || is_merged && (second > 0 || is_product)
            || c.1.bits != 32
        {
            return Err("no such form".to_string());
        }
        flags |= if negated[0] != negated[1] { PRODUCT_NEGATED } else { 0 };
        flags |= if negated[2] { C_NEGATED } else { 0 };
        let numbers = |part: Part| [part.first.into(), part.bits.into()];
        let form = Form {
            operation: operation as u16,
            comparison: comparison.unwrap_or(0) as u16,
            second,
            flags,
            shift,
            a: numbers(a_part),
            b: numbers(b_part),
            d: numbers(d_part),
        };
        let slots = [
            to.destination(&d, false)?,
            to.source(&a, false)?,
            to.source(&b, false)?,
            to.source(&c.0, false)?,
            0,
        ];
        let list = to.list(&form.numbers()) as i64;
        to.emit::<ScalarVideo>(slots, list);
        Ok(())
    }
}
