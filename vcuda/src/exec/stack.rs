//! `alloca`, `stacksave` and `stackrestore` (PTX ISA, "Stack Manipulation Instructions"): what a function takes of its
//! thread's stack while it runs, from the end of local memory down; calls take theirs from below, and give back what
//! the callee took.

use super::arithmetic::convert::WidenU32;
use super::arithmetic::integer::{Copy32, Unpack64};
use super::fault::FaultKind;
use super::kernel::Special;
use super::lower::Lower;
use super::op::{Body, Flow, Op};
use super::registers::{LANES, lanes_of};
use super::table::{Decoded, Entry};
use super::warp::Warp;
use crate::ptx::ast::{Operand, Type};

/// What `alloca` aligns to at least.
const MIN_ALIGN: i64 = 8;

/// `alloca` of `a` bytes, 64 bits, to `d`, an address in local memory; `b`: where the lane's stack ends, `c`: where its
/// frame begins. `imm`: the alignment, and from bit 32 on the bytes of the frame.
pub struct Alloca;
impl Body for Alloca {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (sizes, mut ends, frames): ([u64; LANES], [u32; LANES], [u32; LANES]) =
            unsafe { (warp.lanes(op.a), warp.lanes(op.b), warp.lanes(op.c)) };
        let (align, frame_bytes) = (op.imm as u32, (op.imm >> 32) as u64);
        let local_bytes = warp.cta.kernel.local_bytes_per_thread;
        for lane in lanes_of(warp.mask) {
            let (end, bottom) = (u64::from(ends[lane]), u64::from(frames[lane]) + frame_bytes);
            let start = end.checked_sub(sizes[lane]).map(|start| start & !u64::from(align - 1));
            let Some(start) = start.filter(|&start| start >= bottom && end <= local_bytes as u64) else {
                let message =
                    format!("alloca of {} bytes: {} are left", sizes[lane], end.saturating_sub(bottom));
                return warp.fail_lane(lane, FaultKind::IllegalAddress, message);
            };
            // SAFETY: inside the lane's part of the warp's local memory.
            let at = unsafe { warp.local.add(lane * local_bytes + start as usize) };
            warp.cta.watch.borrow_mut().renew(at, (end - start) as usize);
            ends[lane] = start as u32;
        }
        // SAFETY: as above.
        unsafe {
            warp.set_lanes(op.b, ends);
            warp.set_lanes(op.d, ends.map(u64::from));
        }
        Flow::Next
    }
}

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
