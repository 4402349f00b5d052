//! What a module that is loaded for counting has before its instructions.

use super::*;
use crate::exec::profile::class::{Class, classify, shape};
use crate::exec::profile::count::{Count, CountAccess, CountBranch, CountProduct};
use crate::exec::profile::counters::Action;
use crate::exec::profile::marks::Mark;

impl Entry<'_> {
    /// Emits what counts this instruction. An unguarded one is counted with the straight run that it is in,
    /// once for all of that: between its first instruction and its last no lane comes or goes.
    pub(super) fn count(&self, to: &mut Lower) -> Decoded {
        let (class, flops) = classify(self.parts);
        let guard = std::mem::replace(&mut to.guard, 0);
        let run = to.kernel.marks.open.filter(|_| !to.leader);
        let tally = match run {
            Some(run) if guard == 0 => run,
            _ => {
                let new = to.kernel.marks.tallies as u32;
                to.kernel.marks.tallies += 1;
                to.emit::<Count>([0, 0, 0, 0, guard], new.into());
                new
            }
        };
        // A guarded instruction has a tally of its own inside the run.
        let run = if guard == 0 { Some(tally) } else { run };
        to.kernel.marks.open = run.filter(|_| !class.ends_run());
        to.kernel.marks.instructions.push(Mark { class, flops, tally });
        if self.parts[0] == "brx" {
            let index = to.source(self.operand(0)?, false)?;
            to.emit::<CountBranch>([1, index, 0, 0, guard], 0);
        } else if self.parts[0] == "bra" && guard != 0 {
            to.emit::<CountBranch>([0, 0, 0, 0, guard], 0);
        }
        to.guard = guard;
        self.count_access(to, class)
    }

    fn count_access(&self, to: &mut Lower, class: Class) -> Decoded {
        let (mut lanes, mut bytes) = (32, 0);
        let (action, operand) = match (class, self.parts[0]) {
            (Class::Load, _) if self.has("const") => return Ok(()),
            (Class::Load, _) => (Action::Load, 1),
            (Class::Store, _) => (Action::Store, 0),
            (Class::Atomic, name) => (Action::Atomic, (name == "atom") as usize),
            (Class::Matrix, "wmma") => return Ok(()), // counts its elements itself
            (Class::Matrix, name) => {
                // A row of 16 bytes for each of the first lanes.
                (lanes, bytes) = (
                    if self.has("x4") {
                        32
                    } else if self.has("x2") {
                        16
                    } else {
                        8
                    },
                    16,
                );
                (Action::Matrix, (name == "ldmatrix") as usize)
            }
            (Class::Tensor, "wgmma") => return self.count_product(to),
            _ => return Ok(()),
        };
        let Operand::Address(base, _) = self.operand(operand)? else {
            return Ok(()); // the instruction itself is refused
        };
        if let Operand::Symbol(name, _) = &**base
            && let Location::Param(_) = to.locate(name)?
        {
            return Ok(());
        }
        let elements = self.operands.iter().find_map(|operand| match operand {
            Operand::Vector(all) => Some(all.len()),
            _ => None,
        });
        if bytes == 0 {
            bytes = elements.unwrap_or(1) * self.ty().map_or(0, |ty| ty.size_bytes().min(8));
        }
        let (space, a, imm) = self.address(to, self.operand(operand)?)?;
        let number = to.kernel.marks.accesses.len();
        to.kernel.marks.accesses.push(to.line);
        let what = u16::from(space) | (action as u16) << 4 | lanes << 8;
        to.emit::<CountAccess>([number as u16, a, bytes as u16, what, (number >> 16) as u16], imm);
        Ok(())
    }

    /// `wgmma` reads B, and A unless it is in registers, from shared memory, once for the four warps.
    fn count_product(&self, to: &mut Lower) -> Decoded {
        let Some([m, n, k]) = shape(self.parts) else { return Ok(()) };
        let element = if self.has("tf32") { 4 } else { 2 };
        let rows = if matches!(self.operand(1)?, Operand::Vector(_)) { n } else { m + n };
        done(to.emit::<CountProduct>([0; 5], (rows * k * element / 4) as i64))
    }
}
