//! `wgmma`: `D = A B + D` by four warps, B and perhaps A in shared memory, PTX ISA 9.7.15. Each warp computes its own
//! 16 rows, from what the four share, so nothing is exchanged between them.
//!
//! A fragment of D is that of `mma` for each eight columns. Sums are float32 fused multiply-adds in the order of k,
//! rounded to float16 after each instruction where D is. Products are done when they are issued, unless
//! [`Checks::asynchrony`](crate::exec::launch::run::Checks) asks for the adversary: then at the wait that retires their group, D
//! holding NaN until then, and an instruction that touches D before it is a fault.

use super::descriptor::{CHUNK, Descriptor};
use super::fragment::{
    Columns, Factor, Fragment, Halves, NO_COLUMNS, NO_ROWS, NO_SUMS, Tf32, accumulate, transpose,
};
use crate::exec::arithmetic::half::{Bf16, F16};
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, LANES, Op, Warp};

/// Elements of A and B, in `Op::b`.
pub const FLOAT16: u16 = 0;
pub const BFLOAT16: u16 = 1;
pub const TFLOAT32: u16 = 2;

/// Bits of `Op::c`: A and B MN-major, A and B negated, A in registers, float16 sums.
pub const A_TRANSPOSED: u16 = 1;
pub const B_TRANSPOSED: u16 = 2;
pub const A_NEGATED: u16 = 4;
pub const B_NEGATED: u16 = 8;
pub const A_REGISTERS: u16 = 16;
pub const HALF_SUMS: u16 = 32;

/// Columns of a panel.
const COLUMNS: usize = 8;

/// One instruction, as decoded and with what its registers held.
#[derive(Clone)]
pub struct Product {
    /// Slots of D, in the kernel's lists.
    list: usize,
    registers: usize,
    n: usize,
    kind: u16,
    flags: u16,
    accumulates: bool,
    /// Descriptors; A is in the fragments where it has none.
    a: Option<u64>,
    fragments: [Fragment; 4],
    b: u64,
    /// Of the products that the warp has issued.
    number: u64,
    line_pc: usize,
    /// What D held when the first pending product on it was issued.
    held: Option<Vec<[u32; LANES]>>,
}

/// Products of a warp that have not been waited for.
#[derive(Default)]
pub struct Pending {
    /// With the number of their group.
    products: Vec<(Product, u32)>,
    groups: u32,
    pub(in crate::exec) issued: u64,
    /// A fence has ordered the registers' last accesses before the next product.
    fenced: bool,
}

/// Panels that a warpgroup keeps: as many products as one warp may be ahead of another and still be of use to it.
const PANELS: usize = 16;

/// What the four warps of one product share: the first to come there reads it for all.
#[derive(Default)]
pub struct Panel {
    key: Option<Key>,
    b: Vec<Columns>,
    /// A in shared memory, for the adversary: what one warp has waited for, all four have read.
    a: [[Fragment; 4]; 4],
}

/// Warpgroup and product; descriptors, columns, kind and flags.
type Key = ((u32, u64), (Option<u64>, u64, usize, u16, u16));

impl Warp<'_> {
    /// The matrix descriptor that all lanes have in a slot; `None` after a fault.
    ///
    /// # Safety
    /// The slot is in the register file.
    unsafe fn descriptor(&mut self, slot: u16) -> Option<u64> {
        // SAFETY: the caller's.
        let bits: [u64; LANES] = unsafe { self.lanes(slot) };
        let odd = bits.iter().position(|&lane| lane != bits[0]);
        if let Some(lane) = odd {
            self.fail_lane(
                lane,
                FaultKind::Sync,
                "lanes have different descriptors of one matrix".to_string(),
            );
        }
        odd.is_none().then_some(bits[0])
    }

    /// The fragment whose rows are the eight chunks at these places of shared memory; `None` after a fault.
    #[inline(always)]
    fn fragment(&mut self, place: impl Fn(u32) -> u32) -> Option<Fragment> {
        let (shared, size) = (self.cta.shared, self.cta.shared_bytes as u32);
        let watched = self.cta.options.checks.asynchrony || self.cta.memory.is_watched();
        let mut out = [[0u32; 4]; 8];
        for (row, i) in out.iter_mut().zip(0..) {
            let at = place(i);
            if at.saturating_add(CHUNK) > size {
                let what = format!("a matrix descriptor reaches shared {at:#x}, past the {size} bytes");
                self.fail_lane(0, FaultKind::IllegalAddress, what);
                return None;
            }
            // SAFETY: inside the CTA's shared memory, and at a multiple of 16 bytes of it.
            let chunk: *const [u32; 4] = unsafe { shared.add(at as usize).cast() };
            if watched {
                self.readable(0, chunk.cast(), CHUNK as usize)?;
            }
            // SAFETY: as above.
            *row = unsafe { *chunk };
        }
        // SAFETY: the same 32 words.
        Some(unsafe { std::mem::transmute::<[[u32; 4]; 8], Fragment>(out) })
    }

    /// A's four fragments of the rows of warp `quarter`; `None` after a fault.
    #[inline(always)]
    fn fragments_of_a(&mut self, bits: u64, transposed: bool, quarter: u32) -> Option<[Fragment; 4]> {
        let descriptor = Descriptor::decode(bits);
        let mut out = [[0; LANES]; 4];
        for (fragment, i) in out.iter_mut().zip(0..) {
            let (group, k) = (2 * quarter + i % 2, i / 2);
            *fragment = match transposed {
                true => transpose(&self.fragment(|row| descriptor.mn_major(group, 8 * k + row))?),
                false => self.fragment(|row| descriptor.k_major(8 * group + row, k))?,
            };
        }
        Some(out)
    }

    /// B's columns; `None` after a fault.
    #[inline(always)]
    fn panel_of_b<T: Factor>(&mut self, product: &Product, out: &mut Vec<Columns>) -> Option<()> {
        let descriptor = Descriptor::decode(product.b);
        let transposed = product.flags & B_TRANSPOSED != 0;
        out.resize(product.n / COLUMNS, NO_COLUMNS);
        for (columns, group) in out.iter_mut().zip(0..) {
            for k in 0..2 {
                let fragment = match transposed {
                    true => self.fragment(|row| descriptor.mn_major(group, 8 * k + row))?,
                    false => self.fragment(|row| descriptor.k_major(8 * group + row, k))?,
                };
                T::columns(&fragment, transposed, 4 * T::PER_LANE * k as usize, columns);
            }
        }
        Some(())
    }

    /// Computes a product into the slots of D; `None` after a fault.
    #[inline(always)]
    fn multiply(&mut self, product: &Product) -> Option<()> {
        match product.kind {
            FLOAT16 if product.flags & HALF_SUMS != 0 => self.multiply_of::<Halves<F16>, true>(product),
            FLOAT16 => self.multiply_of::<Halves<F16>, false>(product),
            BFLOAT16 => self.multiply_of::<Halves<Bf16>, false>(product),
            _ => self.multiply_of::<Tf32, false>(product),
        }
    }

    #[inline(always)]
    fn multiply_of<T: Factor, const HALF: bool>(&mut self, product: &Product) -> Option<()> {
        let Product { n, kind, flags, a, b, .. } = *product;
        let a_transposed = flags & A_TRANSPOSED != 0;
        let group = self.index / 4;
        let mut panels = self.cta.panels.take();
        let place = group as usize * PANELS + product.number as usize % PANELS;
        if panels.len() <= place {
            panels.resize_with(place + 1, Panel::default);
        }
        let panel = &mut panels[place];
        let key = ((group, product.number), (a, b, n, kind, flags));
        let late = self.cta.options.checks.asynchrony;
        if let Some((which, what)) = panel.key
            && which == key.0
            && what != key.1
        {
            let what = "the four warps of a warpgroup have different products, or descriptors of one";
            self.fail_lane(0, FaultKind::Sync, what.to_string());
            return None;
        }
        // Races are looked for in what each warp reads; the adversary's products land for all four at once.
        if panel.key != Some(key) || self.cta.memory.is_watched() && !late {
            if let (Some(bits), true) = (a, late) {
                for quarter in 0..4 {
                    panel.a[quarter as usize] = self.fragments_of_a(bits, a_transposed, quarter)?;
                }
            }
            self.panel_of_b::<T>(product, &mut panel.b)?;
            panel.key = Some(key);
        }
        let quarter = self.index % 4;
        let fragments = match a {
            None => product.fragments,
            Some(_) if late => panel.a[quarter as usize],
            Some(bits) => self.fragments_of_a(bits, a_transposed, quarter)?,
        };
        let mut rows = NO_ROWS;
        for (i, fragment) in fragments.iter().enumerate() {
            T::rows(fragment, i / 2 * 4 * T::PER_LANE, i % 2, &mut rows);
        }
        // The sign of one factor is as good as that of the other.
        if (flags & A_NEGATED != 0) != (flags & B_NEGATED != 0) {
            rows.as_flattened_mut().as_flattened_mut().as_flattened_mut().iter_mut().for_each(|x| *x = -*x);
        }
        let registers = if HALF { 2 } else { 4 };
        let slots = &self.cta.kernel.lists[product.list..][..product.registers];
        for (columns, slots) in panel.b.iter().zip(slots.chunks_exact(registers)) {
            // SAFETY: the decoder gave D its slots.
            unsafe {
                let mut sums = match product.accumulates {
                    true => self.accumulators::<HALF>(slots),
                    false => [NO_SUMS; 4],
                };
                accumulate(&mut sums, &rows, columns, 8 * T::PER_LANE);
                self.set_accumulators::<HALF>(slots, &sums);
            }
        }
        self.cta.panels.replace(panels);
        Some(())
    }

    /// The slots of a product's D.
    fn sums(&self, product: &Product) -> &[u16] {
        &self.cta.kernel.lists[product.list..][..product.registers]
    }

    /// Issues a product that lands when its group is waited for.
    fn defer(&mut self, mut product: Product) -> Flow {
        if !self.products.fenced {
            let what = "its registers have been accessed with no wgmma.fence since";
            return self.fail_lane(0, FaultKind::Asynchrony, what.to_string());
        }
        let slots = self.sums(&product).to_vec();
        let is_first = !self.products.products.iter().any(|(other, _)| self.sums(other) == slots);
        if is_first {
            // SAFETY: the decoder gave D its slots.
            product.held = Some(slots.iter().map(|&slot| unsafe { self.lanes(slot) }).collect());
        }
        self.poison_sums(&slots);
        self.cta.issued.borrow_mut()[self.index as usize] = product.number + 1;
        let group = self.products.groups;
        self.products.products.push((product, group));
        Flow::Next
    }

    fn poison_sums(&mut self, slots: &[u16]) {
        // SAFETY: the decoder gave D its slots.
        slots.iter().for_each(|&slot| unsafe { self.set_lanes(slot, [u32::MAX; LANES]) });
    }

    /// Whether a product that a wait would land has yet to be issued by another of the four warps: it is theirs too.
    fn waits_for_others(&self, but: u32) -> bool {
        let waited = |group: u32| group.saturating_add(but) < self.products.groups;
        let last = self.products.products.iter().rfind(|(_, group)| waited(*group));
        let Some((last, _)) = last else { return false };
        let first = self.index as usize / 4 * 4;
        self.cta.issued.borrow()[first..first + 4].iter().any(|&issued| issued <= last.number)
    }

    /// Lands the products of all groups but the latest `but`; `None` after a fault.
    fn retire(&mut self, but: u32) -> Option<()> {
        while let Some((_, group)) = self.products.products.first() {
            if group.saturating_add(but) >= self.products.groups {
                break;
            }
            let (product, _) = self.products.products.remove(0);
            let slots = self.sums(&product).to_vec();
            for (&slot, held) in slots.iter().zip(product.held.iter().flatten()) {
                // SAFETY: the decoder gave D its slots.
                unsafe { self.set_lanes(slot, *held) };
            }
            let pc = std::mem::replace(&mut self.pc, product.line_pc);
            self.multiply(&product)?;
            self.pc = pc;
            // A later product on the same sums is still under way, and so are they.
            let later =
                (0..self.products.products.len()).find(|&i| self.sums(&self.products.products[i].0) == slots);
            if let Some(i) = later {
                // SAFETY: as above.
                let held = slots.iter().map(|&slot| unsafe { self.lanes(slot) }).collect();
                self.products.products[i].0.held = Some(held);
                self.poison_sums(&slots);
            }
        }
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
        let product = unsafe {
            let (mut a, mut fragments) = (None, [[0; LANES]; 4]);
            if op.c & A_REGISTERS != 0 {
                for (i, fragment) in fragments.iter_mut().enumerate() {
                    *fragment = warp.lanes(warp.cta.kernel.lists[list + registers + i]);
                }
            } else {
                a = warp.descriptor(op.a);
                if a.is_none() {
                    return Flow::Fault;
                }
            }
            let Some(b) = warp.descriptor(op.e) else { return Flow::Fault };
            let accumulates = warp.pred((op.imm >> 32) as u16) & 1 != 0;
            let n = if op.c & HALF_SUMS != 0 { 4 * registers } else { 2 * registers };
            let (kind, flags, line_pc, number) = (op.b, op.c, warp.pc, warp.products.issued);
            Product {
                list,
                registers,
                n,
                kind,
                flags,
                accumulates,
                a,
                fragments,
                b,
                number,
                line_pc,
                held: None,
            }
        };
        warp.products.issued += 1;
        if warp.cta.options.checks.asynchrony {
            return warp.defer(product);
        }
        if warp.multiply(&product).is_some() { Flow::Next } else { Flow::Fault }
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
        warp.products.fenced = true;
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
        warp.products.groups += 1;
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
        if warp.waits_for_others(op.imm as u32) {
            warp.pc -= 1; // comes here again
            return Flow::Miss;
        }
        if warp.retire(op.imm as u32).is_some() { Flow::Next } else { Flow::Fault }
    }
}

/// Before an instruction that names the `d` registers of the list at `imm`, some of them sums of products: that none
/// is of one under way.
pub struct SumsAtRest;
impl Body for SumsAtRest {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        warp.products.fenced = false;
        let named = &warp.cta.kernel.lists[op.imm as usize..][..op.d as usize];
        let is_named = |product: &Product| warp.sums(product).iter().any(|slot| named.contains(slot));
        let Some((product, _)) = warp.products.products.iter().find(|(product, _)| is_named(product)) else {
            return Flow::Next;
        };
        let line = warp.cta.kernel.ops[product.line_pc].line;
        let what =
            format!("a register that the wgmma of PTX line {line} has yet to write: its group comes first");
        warp.fail_lane(0, FaultKind::Asynchrony, what)
    }
}
