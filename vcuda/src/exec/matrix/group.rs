//! What a warpgroup's four warps have issued together. A product is one operation of all of them (PTX ISA 9.7.15): it
//! begins when the last of the four issues it, and a group is complete for all four when the first wait for it passes,
//! which is where its products are computed, for the four at once.
//!
//! With [`Checks::asynchrony`](crate::exec::options::Checks) a wait passes only when no warp gets any further
//! without it; what a product reads is held until then.

use std::collections::VecDeque;
use std::ptr::null_mut;

use super::descriptor::{CHUNK, Descriptor};
use super::fragment::Fragment;
use super::product::together;
use super::wgmma::{A_NEGATED, A_TRANSPOSED, B_NEGATED, B_TRANSPOSED};
use crate::exec::check::Reading;
use crate::exec::fault::FaultKind;
use crate::exec::op::Warp;
use crate::exec::registers::LANES;

/// Warps of a warpgroup.
pub const WARPS: usize = 4;

/// A `wgmma.mma_async`, decoded: what the four warps must have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub pc: usize,
    /// Slots of D, in the kernel's lists.
    pub list: usize,
    pub registers: usize,
    pub n: usize,
    /// Types and flags as [`super::wgmma`] has them.
    pub kind: u16,
    pub flags: u16,
    pub accumulates: bool,
    /// Descriptors; A is in registers where it has none.
    pub a: Option<u64>,
    pub b: u64,
}

impl Instruction {
    /// The sign of one factor is as good as that of the other.
    pub fn is_negative(&self) -> bool {
        (self.flags & A_NEGATED != 0) != (self.flags & B_NEGATED != 0)
    }

    /// Where the chunks of A in shared memory are, those of fragment `i` of a warp.
    pub fn chunks_of_a(&self, descriptor: Descriptor, quarter: u32, i: u32) -> [u32; 8] {
        let (group, k) = (2 * quarter + i % 2, i / 2);
        let transposed = self.flags & A_TRANSPOSED != 0;
        chunks(descriptor, transposed, group, k)
    }

    /// Where the chunks of B are, of eight columns and of the first or second half of k.
    pub fn chunks_of_b(&self, descriptor: Descriptor, group: u32, k: u32) -> [u32; 8] {
        chunks(descriptor, self.flags & B_TRANSPOSED != 0, group, k)
    }

    /// Where all chunks are that it reads of shared memory, and the warp for which; B's are for all four.
    fn chunks(&self) -> impl Iterator<Item = (u32, Option<usize>)> {
        let (a, b) = (self.a.map(Descriptor::decode), Descriptor::decode(self.b));
        let of_a = a.into_iter().flat_map(move |a| {
            (0..WARPS as u32 * 4)
                .flat_map(move |i| self.chunks_of_a(a, i / 4, i % 4).map(|at| (at, Some(i as usize / 4))))
        });
        let of_b = (0..self.n as u32 / 4).flat_map(move |i| self.chunks_of_b(b, i / 2, i % 2));
        of_a.chain(of_b.map(|at| (at, None)))
    }
}

/// Eight chunks: rows `8 group` and up of chunk `k`, or for `transposed` ones rows `8 k` and up of chunk `group`.
#[inline(always)]
fn chunks(descriptor: Descriptor, transposed: bool, group: u32, k: u32) -> [u32; 8] {
    let mut out = [0; 8];
    for (out, row) in out.iter_mut().zip(0..) {
        *out = match transposed {
            true => descriptor.mn_major(group, 8 * k + row),
            false => descriptor.k_major(8 * group + row, k),
        };
    }
    out
}

/// A product that some of the four warps have issued.
pub struct Product {
    pub what: Instruction,
    /// A in registers, warp by warp.
    pub fragments: Option<Box<[[Fragment; 4]; WARPS]>>,
    /// What the race check knows of it.
    reading: Reading,
}

/// The products of a warpgroup, and how far its warps are.
pub struct Warpgroup {
    /// Those that are not complete.
    products: VecDeque<Product>,
    /// How many are, and the register files of its warps.
    complete: u64,
    regs: [*mut u32; WARPS],
    /// How many each warp has issued, and how many it waits for.
    issued: [u64; WARPS],
    awaited: [u64; WARPS],
    /// For the adversary: how many may be complete.
    landed: u64,
    /// For the race check: how many were complete when, as far as not all warps have waited for them.
    ends: VecDeque<(u64, u32)>,
    seen: [u64; WARPS],
}

impl Default for Warpgroup {
    fn default() -> Warpgroup {
        Warpgroup {
            products: VecDeque::new(),
            complete: 0,
            regs: [null_mut(); WARPS],
            issued: [0; WARPS],
            awaited: [0; WARPS],
            landed: 0,
            ends: VecDeque::new(),
            seen: [0; WARPS],
        }
    }
}

impl Warpgroup {
    /// Lets the products land that a warp waits for; false if no warp waits for any that all have issued.
    fn land(&mut self) -> bool {
        let all_issued = self.issued.iter().copied().min().unwrap_or(0);
        let wanted = self.awaited.iter().filter(|&&count| count > self.landed && count <= all_issued).min();
        self.landed = wanted.copied().unwrap_or(self.landed);
        wanted.is_some()
    }
}

/// The adversary lets products land, of the first warpgroup whose warps wait for some; whether there is one.
pub fn land_one(warps: &[Warp]) -> bool {
    warps.iter().step_by(WARPS).any(|warp| {
        let group = warp.index as usize / WARPS;
        warp.cta.warpgroups.borrow_mut().get_mut(group).is_some_and(Warpgroup::land)
    })
}

impl Warp<'_> {
    /// Issues a product, with A's fragments where they are in registers; `None` after a fault.
    pub fn issue(&mut self, what: Instruction, fragments: Option<[Fragment; 4]>) -> Option<()> {
        let cta = self.cta;
        let (group, quarter) = (self.index as usize / WARPS, self.index as usize % WARPS);
        let mut groups = cta.warpgroups.borrow_mut();
        if groups.len() <= group {
            let warps = (cta.launch.threads() as usize).div_ceil(LANES) - group * WARPS;
            if warps < WARPS {
                let text = format!("a product of a warpgroup of {warps} warps, which has {WARPS}");
                self.fail_lane(0, FaultKind::Sync, text);
                return None;
            }
            groups.resize_with(group + 1, Warpgroup::default);
        }
        let group = &mut groups[group];
        group.regs[quarter] = self.regs;
        let place = (group.issued[quarter] - group.complete) as usize;
        group.issued[quarter] += 1;
        if group.products.len() == place {
            group.products.push_back(Product { what, fragments: None, reading: Reading::default() });
        }
        let product = &mut group.products[place];
        if product.what != what {
            let mut text =
                "the four warps of a warpgroup have different products, or descriptors of one".to_string();
            if product.what.pc != what.pc {
                text += &format!(": another is at PTX line {}", cta.kernel.ops[product.what.pc].line);
            }
            self.fail_lane(0, FaultKind::Sync, text);
            return None;
        }
        if let Some(fragments) = fragments {
            product.fragments.get_or_insert_default()[quarter] = fragments;
        }
        if cta.options.checks.asynchrony || cta.memory.is_watched() {
            self.learn(&mut product.reading);
            if group.issued.iter().all(|&issued| issued > group.complete + place as u64) {
                self.begin_reading(&mut product.reading);
                let reading = &product.reading;
                what.chunks().try_for_each(|(at, by)| self.begin_chunk(reading, by, at, CHUNK as usize))?;
            }
        }
        Some(())
    }

    /// Waits until the first `count` products of its warpgroup are complete: `Some(false)` if they are not yet, `None`
    /// after a fault.
    #[inline(always)]
    pub fn complete(&mut self, count: u64) -> Option<bool> {
        let cta = self.cta;
        let quarter = self.index as usize % WARPS;
        let mut groups = cta.warpgroups.borrow_mut();
        let Some(group) = groups.get_mut(self.index as usize / WARPS) else { return Some(true) };
        group.awaited[quarter] = count;
        if group.complete < count {
            let is_late = cta.options.checks.asynchrony && group.landed < count;
            if is_late || group.issued.iter().any(|&issued| issued < count) {
                return Some(false);
            }
            let pc = self.pc;
            let mut scratch = cta.scratch.borrow_mut();
            while group.complete < count {
                let many = together(&group.products).min((count - group.complete) as usize);
                let products = &group.products.make_contiguous()[..many];
                self.multiply(products, group.regs, &mut scratch)?;
                if cta.options.checks.asynchrony || cta.memory.is_watched() {
                    for Product { what, reading, .. } in products {
                        self.pc = what.pc;
                        what.chunks().try_for_each(|(at, _)| self.end_chunk(reading, at, CHUNK as usize))?;
                    }
                }
                group.products.drain(..many);
                group.complete += many as u64;
            }
            self.pc = pc;
            if let Some(stamp) = self.end_reading() {
                group.ends.push_back((group.complete, stamp));
            }
        }
        group.seen[quarter] = group.seen[quarter].max(count);
        if let Some(&(_, stamp)) = group.ends.iter().find(|(end, _)| *end >= count) {
            self.see_products(stamp);
            let all_seen = group.seen.iter().copied().min().unwrap_or(0);
            while group.ends.front().is_some_and(|&(end, _)| end <= all_seen) {
                group.ends.pop_front();
            }
        }
        Some(true)
    }

    /// What the warp waits for in vain, in words, if that is products of its warpgroup.
    #[cold]
    pub fn missing_products(&self) -> Option<String> {
        let kernel = self.cta.kernel;
        let groups = self.cta.warpgroups.borrow();
        let group = groups.get(self.index as usize / WARPS)?;
        let count = group.awaited[self.index as usize % WARPS];
        if group.complete >= count {
            return None;
        }
        let first = self.index as usize / WARPS * WARPS;
        let late =
            (0..WARPS).filter(|&warp| group.issued[warp] < count).map(|warp| (first + warp).to_string());
        let late: Vec<String> = late.collect();
        let late = match &late[..] {
            [] => return None,
            [warp] => format!("which warp {warp} of its warpgroup has not issued"),
            warps => format!("which warps {} of its warpgroup have not issued", warps.join(", ")),
        };
        let product = &group.products[(count - 1 - group.complete) as usize];
        let line = kernel.line(kernel.ops[product.what.pc].line);
        let own = kernel.line(kernel.ops[self.pc].line);
        Some(format!("for the wgmma of {line}, {late}, {own}"))
    }
}
