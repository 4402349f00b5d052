//! `wmma.load`, `wmma.mma` and `wmma.store`.

use super::*;
use crate::exec::matrix::wmma::{BY_COLUMN, Element, Fragment, Role, WmmaMove, WmmaProduct};

impl Entry<'_> {
    pub(super) fn wmma(&self, to: &mut Lower) -> Decoded {
        let (m, n, k) = match self.shape()? {
            [16, 16, 16] => (16, 16, 16),
            [8, 32, 16] => (8, 32, 16),
            [32, 8, 16] => (32, 8, 16),
            [16, 16, 8] => (16, 16, 8),
            _ => return Err("this shape is not supported".to_string()),
        };
        let types: Vec<Element> = self.parts[1..].iter().filter_map(|part| element(part)).collect();
        let fragment = |role, element| Fragment { role, element, m, n, k };
        let by_column = if self.has("col") { BY_COLUMN } else { 0 };
        match (self.parts.get(1).copied().unwrap_or_default(), &types[..]) {
            ("mma", types) => {
                let (a, [d, c]) = match *types {
                    [d, c] => (Element::F16, [d, c]),
                    [d, a, b, c] if a == b && a != Element::F16 => (a, [d, c]),
                    _ => return Err("this combination of types is not supported".to_string()),
                };
                let all =
                    [fragment(Role::C, d), fragment(Role::A, a), fragment(Role::B, a), fragment(Role::C, c)];
                let mut list = Vec::new();
                for (i, &fragment) in all.iter().enumerate() {
                    list.extend(self.registers(to, i, fragment)?);
                }
                let [d, a, b, c] = all.map(Fragment::encode);
                let list = to.list(&list) as i64;
                done(to.emit::<WmmaProduct>([0, d, a, b, c], list))
            }
            (name @ ("load" | "store"), &[element]) => {
                let role = match self.parts.get(2) {
                    Some(&"a") => Role::A,
                    Some(&"b") => Role::B,
                    _ => Role::C,
                };
                let (fragment, is_store) = (fragment(role, element), name == "store");
                let list = self.registers(to, is_store as usize, fragment)?;
                let at = self.operand(!is_store as usize)?;
                let a = self.generic(to, at, self.names_shared(), 0)?;
                let b = match self.operands.get(2) {
                    Some(stride) => to.source(stride, false)?,
                    None => to.constant(fragment.dense_stride(by_column == BY_COLUMN) as u64, false),
                };
                let (slots, list) = ([by_column, a, b, 0, fragment.encode()], to.list(&list) as i64);
                done(if is_store {
                    to.emit::<WmmaMove<true>>(slots, list)
                } else {
                    to.emit::<WmmaMove<false>>(slots, list)
                })
            }
            _ => Err("this combination of types is not supported".to_string()),
        }
    }

    /// The slots of a fragment's registers, of which there must be as many as it has.
    fn registers(&self, to: &mut Lower, index: usize, fragment: Fragment) -> Result<Vec<u16>, String> {
        let is_sum = matches!(fragment.element, Element::F16 | Element::F32);
        let is_factor = match fragment.element {
            Element::Tf32 => fragment.k == 8,
            Element::F32 => false,
            _ => fragment.k == 16,
        };
        if !(if fragment.role == Role::C { is_sum } else { is_factor }) {
            return Err("this combination of shape and type is not supported".to_string());
        }
        let slots = self.vector_slots(to, index, false)?;
        match fragment.registers() {
            count if slots.len() == count => Ok(slots),
            count => Err(format!("{} registers; {count} are expected", slots.len())),
        }
    }
}

fn element(part: &str) -> Option<Element> {
    match part {
        "f16" => Some(Element::F16),
        "bf16" => Some(Element::Bf16),
        "tf32" => Some(Element::Tf32),
        "f32" => Some(Element::F32),
        _ => None,
    }
}
