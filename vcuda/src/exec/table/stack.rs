//! `alloca`, `stacksave` and `stackrestore`.

use super::*;
use crate::exec::arithmetic::convert::WidenU32;
use crate::exec::kernel::Special;
use crate::exec::stack::Alloca;

/// What `alloca` aligns to at least.
const MIN_ALIGN: i64 = 8;

impl Entry<'_> {
    pub(super) fn stack(&self, to: &mut Lower) -> Decoded {
        let wide = self.ty() == Some(Type::U64);
        let (operand, end) = (self.operand(0)?, to.special_slot(Special::StackEnd));
        match self.parts[0] {
            "stackrestore" => {
                let a = to.source(operand, wide)?;
                if wide {
                    to.emit::<Unpack64>([end, a, 0, 0, to.temp(0)], 0);
                } else {
                    to.emit::<Copy32>([end, a, 0, 0, 0], 0);
                }
            }
            "stacksave" if wide => {
                let d = to.destination(operand, true)?;
                to.emit::<WidenU32>([d, end, 0, 0, 0], 0);
            }
            "stacksave" => {
                let d = to.destination(operand, false)?;
                to.emit::<Copy32>([d, end, 0, 0, 0], 0);
            }
            _ => {
                let align = match self.operand(2) {
                    Ok(&Operand::Int(align))
                        if (1..=1 << 23).contains(&align) && align & (align - 1) == 0 =>
                    {
                        align.max(MIN_ALIGN)
                    }
                    Ok(_) => return Err("an alignment that is no power of two".to_string()),
                    Err(_) => MIN_ALIGN,
                };
                let (mut size, d) = (to.source(self.operand(1)?, wide)?, to.destination(operand, wide)?);
                if !wide {
                    to.emit::<WidenU32>([to.temp(0), size, 0, 0, 0], 0);
                    size = to.temp(0);
                }
                let (frame, result) = (to.frame(), if wide { d } else { to.temp(1) });
                let imm = align | (to.frame_bytes() as i64) << 32;
                to.emit::<Alloca>([result, size, end, frame, 0], imm);
                if !wide {
                    to.emit::<Unpack64>([d, result, 0, 0, to.temp(0)], 0);
                }
            }
        }
        Ok(())
    }
}
