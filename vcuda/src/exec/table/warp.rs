//! What a warp or a CTA does together.

use super::*;
use crate::exec::meeting::{Collective, Together, pack};
use crate::exec::observe::sync::Members;

/// Emits a collective, and before it what the race check asks of its member mask.
fn collective<B: Collective>(to: &mut Lower, slots: [u16; 5], mode: i64, members: &Operand) -> Decoded {
    let mask = to.source(members, false)?;
    if to.checks.race {
        to.emit::<Members>([0, mask, 0, 0, 0], 0);
    }
    let is_constant = to.is_constant(mask);
    done(to.emit::<Together<B>>(slots, pack(mode, mask, is_constant)))
}

impl Entry<'_> {
    pub(super) fn shuffle(&self, to: &mut Lower) -> Decoded {
        let (d, e) = match self.operand(0)? {
            Operand::Pair(value, valid) => (to.destination(value, false)?, to.pred_destination(valid)?),
            operand => (to.destination(operand, false)?, NO_PRED),
        };
        let mode =
            ["up", "down", "bfly", "idx"].iter().position(|mode| self.has(mode)).ok_or_else(String::new)?;
        let slots = [
            d,
            to.source(self.operand(1)?, false)?,
            to.source(self.operand(2)?, false)?,
            to.source(self.operand(3)?, false)?,
            e,
        ];
        collective::<Shuffle>(to, slots, mode as i64, self.operand(4)?)
    }

    pub(super) fn vote(&self, to: &mut Lower) -> Decoded {
        let mode =
            ["all", "any", "uni", "ballot"].iter().position(|mode| self.has(mode)).ok_or_else(String::new)?;
        let d = match mode {
            3 => to.destination(self.operand(0)?, false)?,
            _ => to.pred_destination(self.operand(0)?)?,
        };
        let slots = [d, to.pred(self.operand(1)?)?, 0, 0, 0];
        collective::<Vote>(to, slots, mode as i64, self.operand(2)?)
    }

    pub(super) fn matching(&self, to: &mut Lower, ty: Type) -> Decoded {
        let (d, e) = match self.operand(0)? {
            Operand::Pair(value, valid) => (to.destination(value, false)?, to.pred_destination(valid)?),
            operand => (to.destination(operand, false)?, NO_PRED),
        };
        let wide = ty.size_bytes() == 8;
        let slots = [d, to.source(self.operand(1)?, wide)?, 0, 0, e];
        collective::<Match>(to, slots, wide as i64 | (self.has("all") as i64) << 1, self.operand(2)?)
    }

    pub(super) fn redux(&self, to: &mut Lower, ty: Type) -> Decoded {
        let signed = ty == Type::S32;
        let operation = match () {
            () if !matches!(ty, Type::S32 | Type::U32 | Type::B32) => return Err(String::new()),
            () if self.has("add") => 0,
            () if self.has("and") => 1,
            () if self.has("or") => 2,
            () if self.has("xor") => 3,
            () if self.has("min") => 4,
            () if self.has("max") => 5,
            () => return Err(String::new()),
        };
        let d = to.destination(self.operand(0)?, false)?;
        let slots = [d, to.source(self.operand(1)?, false)?, 0, 0, 0];
        collective::<Redux>(to, slots, operation | (signed as i64) << 3, self.operand(2)?)
    }

    pub(super) fn elect(&self, to: &mut Lower) -> Decoded {
        let Operand::Pair(lane, leader) = self.operand(0)? else { return Err("no predicate".to_string()) };
        let slots = [to.destination(lane, false)?, 0, 0, 0, to.pred_destination(leader)?];
        collective::<Elect>(to, slots, 0, self.operand(1)?)
    }

    pub(super) fn branch_indexed(&self, to: &mut Lower) -> Decoded {
        let Operand::List(labels) = self.operand(1)? else { return Err("no list of targets".to_string()) };
        let label = |operand: &Operand| match operand {
            Operand::Label(target) => Ok(*target),
            _ => Err("a target that is not a label".to_string()),
        };
        let targets = labels.iter().map(label).collect::<Result<Vec<usize>, String>>()?;
        let first = to.branch_targets(&targets);
        let count = u16::try_from(targets.len()).map_err(|_| "too many targets".to_string())?;
        let slots = [0, to.source(self.operand(0)?, false)?, count, 0, 0];
        done(to.emit::<BranchIndexed>(slots, first))
    }

    pub(super) fn barrier(&self, to: &mut Lower) -> Decoded {
        if self.has("warp") {
            return collective::<WarpSync>(to, [0; 5], 0, self.operand(0)?);
        }
        let (d, c, kind, first) = match () {
            () if self.has("sync") => (0, 0, SYNC, 0),
            () if self.has("arrive") => (0, 0, ARRIVE, 0),
            () if self.has("popc") => {
                (to.destination(self.operand(0)?, false)?, self.last_pred(to)?, COUNT, 1)
            }
            () if self.has("and") => (to.pred_destination(self.operand(0)?)?, self.last_pred(to)?, AND, 1),
            () if self.has("or") => (to.pred_destination(self.operand(0)?)?, self.last_pred(to)?, OR, 1),
            () => return Err(String::new()),
        };
        let counts = self.operands.get(first..self.operands.len().saturating_sub(first)).unwrap_or(&[]);
        let a = to.source(counts.first().ok_or("no barrier")?, false)?;
        let b = match counts.get(1) {
            Some(count) => to.source(count, false)?,
            None => to.constant(0, false),
        };
        let is_aligned = self.parts[0] == "bar" || self.has("aligned");
        done(to.emit::<Barrier>([d, a, b, c, is_aligned as u16], kind))
    }

    pub(super) fn last_pred(&self, to: &mut Lower) -> Result<u16, String> {
        to.pred(self.operands.last().ok_or("no predicate")?)
    }
}
