//! A collective that is executed for lanes at several instructions of its form.

use super::groups::{Group, Meeting, Role};
use super::meeting::{mask_slot, pack};
use super::op::Op;
use super::registers::{LANES, NO_PRED, Operands, lanes_of};
use super::warp::Warp;

/// Operands of a collective: `d`, `a`, `b`, `c`, `e` and the member mask.
const OPERANDS: usize = 6;
const MASK: usize = 5;

/// Two slots for each.
#[repr(align(128))]
struct Spare([u32; 2 * LANES * OPERANDS]);

fn place(operand: usize) -> u16 {
    2 * operand as u16
}

/// Copies the lanes of `mask` from a slot to another.
///
/// # Safety
/// Both register files have the slot, and the next one if the role is wide.
unsafe fn copy_lanes(from: *const u32, slot: u16, to: *mut u32, place: u16, role: Role, mask: u32) {
    let words = match role {
        Role::Unused | Role::Predicate => return,
        Role::Register => 1,
        Role::Wide => 2,
    };
    let (from, to) = (from.wrapping_add(slot as usize * LANES), to.wrapping_add(place as usize * LANES));
    for word in lanes_of(mask).flat_map(|lane| lane * words..(lane + 1) * words) {
        // SAFETY: the caller's.
        unsafe { *to.add(word) = *from.add(word) };
    }
}

impl Warp<'_> {
    /// Executes a collective for lanes at several instructions of its form: their operands are brought together in
    /// registers of its own, and the results go back.
    ///
    /// # Safety
    /// The meetings are at collectives of the same form and mode.
    pub(super) unsafe fn execute(&mut self, come: &[Meeting]) {
        let kernel = self.cta.kernel;
        let [first, ..] = come else { return };
        let roles = (first.form.roles)(first.mode);
        let (mut own, mut own_preds) = (Spare([0; 2 * LANES * OPERANDS]), [0; OPERANDS]);
        let (regs, preds) = (self.regs, self.preds);
        let own_regs = own.0.as_mut_ptr();
        for Meeting { group: Group { pc, mask }, .. } in come {
            let op = &kernel.ops[*pc];
            for (i, (slot, role)) in [op.a, op.b, op.c].into_iter().zip(&roles[1..]).enumerate() {
                // SAFETY: the decoder gave each operand what its role says; a wide one has two slots here too.
                unsafe {
                    match role {
                        Role::Predicate => own_preds[i + 1] |= self.pred(slot) & mask,
                        role => copy_lanes(regs, slot, own_regs, place(i + 1), *role, *mask),
                    }
                }
            }
            // SAFETY: as above.
            unsafe { copy_lanes(regs, mask_slot(op), own_regs, place(MASK), Role::Register, *mask) };
        }
        let [d, a, b, c, e] = std::array::from_fn(|i| match roles[i] {
            Role::Predicate => i as u16,
            _ => place(i),
        });
        let imm = pack(first.mode, place(MASK), false);
        let Op { run, operands } = kernel.ops[first.group.pc];
        let op = Op { run, operands: Operands { d, a, b, c, e, guard: 0, imm, ..operands } };
        (self.regs, self.preds) = (own_regs, own_preds.as_mut_ptr());
        self.mask = come.iter().fold(0, |mask, meeting| mask | meeting.group.mask);
        self.writable = self.mask;
        // SAFETY: the same operation, with slots of the registers that it has here.
        unsafe { (op.run)(self, &op) };
        (self.regs, self.preds) = (regs, preds);
        for Meeting { group: Group { pc, mask }, .. } in come {
            let op = &kernel.ops[*pc];
            self.mask = *mask;
            for (i, slot) in [(0, op.d), (4, op.e)] {
                // SAFETY: as above.
                unsafe {
                    match roles[i] {
                        Role::Predicate if slot == NO_PRED => {}
                        Role::Predicate => self.set_pred(slot, own_preds[i]),
                        role => copy_lanes(own_regs, place(i), regs, slot, role, *mask),
                    }
                }
            }
        }
    }
}
