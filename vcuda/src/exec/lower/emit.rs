//! Operations appended to the kernel: under the instruction's guard, with their checks before them, and multiply-adds
//! and matrix products joined to runs.

use super::Lower;
use super::products::narrow_slots;
use crate::exec::arithmetic::float::{Fma32, FmaRun, SLOT_BYTES};
use crate::exec::check::Kind;
use crate::exec::control::Branch;
use crate::exec::matrix::fragment::Factor;
use crate::exec::matrix::grid::MmaRun;
use crate::exec::matrix::mma::Mma;
use crate::exec::matrix::run::{Run, Slots};
use crate::exec::matrix::wgmma::SumsAtRest;
use crate::exec::observe::Check;
use crate::exec::op::{Body, Op};
use crate::exec::registers::Operands;
use crate::exec::space;
use crate::ptx::ast::Instruction;

impl Lower<'_> {
    /// Appends an operation under the instruction's guard; `operands` are d, a, b, c, e.
    pub fn emit<B: Body>(&mut self, [d, a, b, c, e]: [u16; 5], imm: i64) {
        let run = self.host.version::<B>();
        self.leader = false;
        let operands = Operands { d, a, b, c, e, guard: self.guard, line: self.line, imm };
        self.kernel.ops.push(Op { run, operands });
    }

    /// Whether reads of what nobody wrote, or races, are looked for.
    pub fn is_watched(&self) -> bool {
        self.checks.init || self.checks.race
    }

    /// Before an access of `bytes` at slot `a` plus `imm`: its check, if there are any. `flags` and `elements`
    /// as [`Check`] has them.
    pub fn emit_check(&mut self, kind: Kind, at: (u8, u16, i64), bytes: usize, flags: u16, elements: u16) {
        let (space, a, imm) = at;
        self.kernel.polls |= matches!(kind, Kind::StrongRead | Kind::Atomic);
        let meets_copies = self.kernel.is_asynchronous && !matches!(space, space::GLOBAL | space::LOCAL);
        if !self.is_watched() && !meets_copies {
            return;
        }
        if kind.writes() {
            self.kernel.granule_bytes = self.kernel.granule_bytes.min(bytes);
        }
        let slots = [0, a, bytes as u16, kind as u16 | flags, elements];
        self.emit::<Check>(slots, space::packed(space, imm));
    }

    /// `fma.rn.f32`, joined to a run of them where nothing may come between.
    pub fn emit_fma(&mut self, slots: [u16; 4]) {
        let next = self.kernel.ops.len();
        match self.kernel.ops.last_mut() {
            _ if self.guard != 0 => {
                let [d, a, b, c] = slots;
                return self.emit::<Fma32>([d, a, b, c, 0], 0);
            }
            Some(Op { operands: Operands { a: count, .. }, .. })
                if !self.leader && self.last_run == Some(next - 1) && *count < u16::MAX =>
            {
                *count += 1;
            }
            _ => {
                self.last_run = Some(next);
                self.emit::<FmaRun>([0, 1, 0, 0, 0], self.kernel.runs.len() as i64);
            }
        }
        self.kernel.runs.push(slots.map(|slot| u32::from(slot) * SLOT_BYTES));
    }

    /// `mma` with float32 sums and these slots of D, A, B and C, which are the list, joined to a run of them likewise.
    pub fn emit_mma<T: Factor, const KR: usize>(&mut self, list: usize, slots: &[u16]) {
        let (d, rest) = slots.split_at(4);
        let (a, rest) = rest.split_at(2 * KR);
        let (b, c) = rest.split_at(KR);
        let slots = Slots { d: d.to_vec(), a: a.to_vec(), b: b.to_vec(), list };
        let (next, runs) = (self.kernel.ops.len(), self.kernel.mma_runs.len());
        if self.guard != 0 || d != c {
            return self.emit::<Mma<T, KR, false>>([0; 5], list as i64);
        }
        match self.kernel.mma_runs.last_mut() {
            Some(run)
                if !self.leader && self.last_mma == Some((next - 1, T::KIND, KR)) && run.takes(&slots) =>
            {
                run.push(slots);
            }
            _ => {
                self.last_mma = Some((next, T::KIND, KR));
                self.emit::<MmaRun<T, KR>>([0; 5], runs as i64);
                let mut run = Run::new(T::PER_LANE);
                run.push(slots);
                self.kernel.mma_runs.push(run);
            }
        }
        self.is_in_run();
    }

    /// A branch to an instruction, which becomes its operation in the end.
    pub fn emit_branch(&mut self, target: usize) {
        self.branches.push(self.kernel.ops.len());
        self.emit::<Branch>([0; 5], target as i64);
    }

    /// A table of branch targets; its place.
    pub fn branch_targets(&mut self, targets: &[usize]) -> i64 {
        self.kernel.targets.extend_from_slice(targets);
        (self.kernel.targets.len() - targets.len()) as i64
    }

    /// A list of slots for an operation that has more than five; its place in the kernel's lists.
    pub fn list(&mut self, slots: &[u16]) -> usize {
        self.kernel.lists.extend_from_slice(slots);
        self.kernel.lists.len() - slots.len()
    }

    /// Lets an instruction that names sums of matrix products make sure that they are done, if they are watched.
    pub(super) fn guard_sums(&mut self, instruction: &Instruction) {
        if self.sums.is_empty() || instruction.opcode[0] == "wgmma" {
            return;
        }
        let named = narrow_slots(&instruction.operands, &self.allocation);
        if named.iter().any(|slot| self.sums.contains(slot)) {
            let (count, list) = (named.len() as u16, self.list(&named));
            self.emit::<SumsAtRest>([count, 0, 0, 0, 0], list as i64);
        }
    }
}
