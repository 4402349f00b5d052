//! Video instructions, and dot products of two.

use super::*;
use crate::exec::arithmetic::video::*;

impl Entry<'_> {
    pub(super) fn video(&self, to: &mut Lower, count: i64) -> Decoded {
        let name = self.parts[0].trim_end_matches(['2', '4']);
        let operation = NAMES.iter().position(|known| *known == name).ok_or_else(String::new)? as i64;
        let signed = |i: usize, flag: i64| if self.parts.get(i) == Some(&"s32") { flag } else { 0 };
        let mut imm =
            operation | count << 4 | signed(1, D_SIGNED) | signed(2, A_SIGNED) | signed(3, B_SIGNED);
        for &part in self.parts.get(4..).unwrap_or(&[]) {
            imm |= match part {
                "sat" => SATURATE,
                "add" => SUM,
                _ => return Err(String::new()),
            };
        }
        let slots = self.slots(to, false)?;
        to.emit::<Video>(slots, imm);
        Ok(())
    }

    pub(super) fn dp2a(&self, to: &mut Lower) -> Decoded {
        let signed = |i: usize, flag: i64| if self.parts.get(i) == Some(&"s32") { flag } else { 0 };
        let slots = self.slots(to, false)?;
        to.emit::<Dp2a>(slots, self.has("hi") as i64 | signed(2, A_SIGNED) | signed(3, B_SIGNED));
        Ok(())
    }
}
