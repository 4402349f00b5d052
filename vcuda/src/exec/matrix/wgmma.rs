//! `wgmma`: `D = A B + D` by four warps, B and perhaps A in shared memory, PTX ISA 9.7.15. What is issued is queued for
//! the warpgroup ([`super::group`]) and computed at the first wait for its group ([`super::product`]), or for one before;
//! until then D holds what it held before.
//!
//! With [`Checks::asynchrony`](crate::exec::options::Checks) an instruction that touches D before the warp's own wait
//! is a fault, and so is a product whose D has been touched with no fence since.

use super::warpgroup::{A_REGISTERS, HALF_SUMS, Instruction};
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

impl Warp<'_> {
    /// The matrix descriptor that all lanes have in a slot; `None` after a fault.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    unsafe fn descriptor(&mut self, slot: u16) -> Option<u64> {
        // SAFETY: the caller's.
        let bits: [u64; LANES] = unsafe { self.lanes(slot) };
        let differ = bits.iter().fold(0, |differ, lane| differ | (lane ^ bits[0]));
        if differ != 0 {
            let lane = bits.iter().position(|&lane| lane != bits[0]).unwrap_or(0);
            self.fail_lane(
                lane,
                FaultKind::Sync,
                "lanes have different descriptors of one matrix".to_string(),
            );
        }
        (differ == 0).then_some(bits[0])
    }

    /// The slots of a product's D.
    fn sums(&self, what: &Instruction) -> &[u16] {
        &self.cta.kernel.lists[what.list..][..what.registers]
    }

    /// For the adversary: a fence orders the registers' last accesses before the product. `None` after a fault.
    fn fenced(&mut self, what: &Instruction) -> Option<()> {
        let touched = &self.products.touched;
        if !self.products.has_fenced || self.sums(what).iter().any(|slot| touched.contains(slot)) {
            let text = "its registers have been accessed with no wgmma.fence since";
            self.fail_lane(0, FaultKind::Asynchrony, text.to_string());
            return None;
        }
        self.products.unwaited.push((self.products.issued, *what));
        Some(())
    }
}

/// `wgmma.mma_async`: D's slots and, where A is in registers, its four in the list at `imm`, `d` registers of D; `a`
/// slot of A's descriptor and `e` of B's; predicate `imm >> 32`: accumulate. `b` and `c` as above.
pub struct Wgmma;
impl Body for Wgmma {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        let (list, registers) = (op.imm as u32 as usize, op.d as usize);
        // SAFETY: the decoder gave every operand a slot of its width, or a predicate.
        let (what, fragments) = unsafe {
            let (mut a, mut fragments) = (None, None);
            if op.c & A_REGISTERS != 0 {
                let mut all = [[0; LANES]; 4];
                for (i, fragment) in all.iter_mut().enumerate() {
                    *fragment = warp.lanes(warp.cta.kernel.lists[list + registers + i]);
                }
                fragments = Some(all);
            } else {
                a = warp.descriptor(op.a);
                if a.is_none() {
                    return Flow::Fault;
                }
            }
            let Some(b) = warp.descriptor(op.e) else { return Flow::Fault };
            let accumulates = warp.pred((op.imm >> 32) as u16) & 1 != 0;
            let n = if op.c & HALF_SUMS != 0 { 4 * registers } else { 2 * registers };
            let (kind, flags, pc) = (op.b, op.c, warp.pc);
            (Instruction { pc, list, registers, n, kind, flags, accumulates, a, b }, fragments)
        };
        if warp.cta.options.checks.asynchrony && warp.fenced(&what).is_none() {
            return Flow::Fault;
        }
        warp.products.issued += 1;
        if warp.issue(what, fragments).is_some() { Flow::Next } else { Flow::Fault }
    }
}

/// `wgmma.fence`.
pub struct WgmmaFence;
impl Body for WgmmaFence {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, _: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        warp.products.has_fenced = true;
        warp.products.touched.clear();
        Flow::Next
    }
}

/// `wgmma.commit_group`.
pub struct WgmmaCommit;
impl Body for WgmmaCommit {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, _: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        warp.products.commits.push_back(warp.products.issued);
        Flow::Next
    }
}

/// `wgmma.wait_group` of all but the latest `imm`.
pub struct WgmmaWait;
impl Body for WgmmaWait {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        let but = op.imm as usize;
        match warp.complete(warp.products.count(but)) {
            None => Flow::Fault,
            Some(true) => {
                warp.products.forget(but);
                Flow::Next
            }
            Some(false) => {
                warp.pc -= 1; // comes here again
                Flow::Miss
            }
        }
    }
}

/// Before an instruction that names the `d` registers of the list at `imm`, some of them sums of products: that none
/// is of one that the warp has not waited for.
pub struct SumsAtRest;
impl Body for SumsAtRest {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        let named = &warp.cta.kernel.lists[op.imm as usize..][..op.d as usize];
        warp.products.touched.extend(named);
        let is_named = |what: &Instruction| warp.sums(what).iter().any(|slot| named.contains(slot));
        let Some((_, what)) = warp.products.unwaited.iter().find(|(_, what)| is_named(what)) else {
            return Flow::Next;
        };
        let line = warp.cta.kernel.ops[what.pc].line;
        let what =
            format!("a register that the wgmma of PTX line {line} has yet to write: its group comes first");
        warp.fail_lane(0, FaultKind::Asynchrony, what)
    }
}
