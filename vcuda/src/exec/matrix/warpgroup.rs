//! What warps and warpgroups have under way of `wgmma`.

use std::collections::{HashSet, VecDeque};
use std::ptr::null_mut;

use super::descriptor::Descriptor;
use super::fragment::Fragment;
use crate::exec::check::Reading;
use crate::exec::groups::WARPS;

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

/// A `wgmma.mma_async`, decoded: what the four warps must have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub pc: usize,
    /// Slots of D, in the kernel's lists.
    pub list: usize,
    pub registers: usize,
    pub n: usize,
    /// Types and flags as above.
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
    #[inline(always)]
    pub fn chunks_of_a(&self, descriptor: Descriptor, quarter: u32, i: u32) -> Places {
        let (group, k) = (2 * quarter + i % 2, i / 2);
        let transposed = self.flags & A_TRANSPOSED != 0;
        chunks(descriptor, transposed, group, k)
    }

    /// Where the chunks of B are, of eight columns and of the first or second half of k.
    #[inline(always)]
    pub fn chunks_of_b(&self, descriptor: Descriptor, group: u32, k: u32) -> Places {
        chunks(descriptor, self.flags & B_TRANSPOSED != 0, group, k)
    }

    /// Where all chunks are that it reads of shared memory, and the warp for which; B's are for all four.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u32, Option<usize>)> {
        let (a, b) = (self.a.map(Descriptor::decode), Descriptor::decode(self.b));
        let of_a = a.into_iter().flat_map(move |a| {
            (0..WARPS as u32 * 4)
                .flat_map(move |i| self.chunks_of_a(a, i / 4, i % 4).at.map(|at| (at, Some(i as usize / 4))))
        });
        let of_b = (0..self.n as u32 / 4).flat_map(move |i| self.chunks_of_b(b, i / 2, i % 2).at);
        of_a.chain(of_b.map(|at| (at, None)))
    }
}

/// Where eight chunks are, and the last of them.
#[derive(Clone, Copy)]
pub struct Places {
    pub at: [u32; 8],
    pub last: u32,
}

/// Rows `8 group` and up of chunk `k`, or for `transposed` ones rows `8 k` and up of chunk `group`.
#[inline(always)]
fn chunks(descriptor: Descriptor, transposed: bool, group: u32, k: u32) -> Places {
    let (mut at, mut last) = ([0; 8], 0);
    for (at, row) in at.iter_mut().zip(0..) {
        *at = match transposed {
            true => descriptor.mn_major(group, 8 * k + row),
            false => descriptor.k_major(8 * group + row, k),
        };
        last = last.max(*at);
    }
    Places { at, last }
}

/// A product that some of the four warps have issued.
pub struct Product {
    pub what: Instruction,
    /// A in registers, warp by warp.
    pub fragments: Option<Box<[[Fragment; 4]; WARPS]>>,
    /// What the race check knows of it.
    pub(super) reading: Reading,
}

/// Where a D is: the register files of four warps, and the warp that is blamed for it.
#[derive(Clone, Copy)]
pub struct Place {
    pub regs: [*mut u32; WARPS],
    pub warp: u32,
}

/// The products of a warpgroup, and how far its warps are.
pub struct Warpgroup {
    /// Those that are not complete.
    pub(super) products: VecDeque<Product>,
    /// How many are, and the register files of its warps.
    pub(super) complete: u64,
    pub(super) regs: [*mut u32; WARPS],
    /// How many each warp has issued, and how many it waits for.
    pub(super) issued: [u64; WARPS],
    pub(super) awaited: [u64; WARPS],
    /// For the adversary: how many may be complete.
    pub(super) landed: u64,
    /// For the race check: how many were complete when, as far as not all warps have waited for them.
    pub(super) ends: VecDeque<(u64, u32)>,
    pub(super) seen: [u64; WARPS],
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
    /// How many products all of its warps have issued.
    pub(super) fn all_issued(&self) -> u64 {
        self.issued.into_iter().min().unwrap_or(0)
    }

    /// Its first products are complete.
    pub(super) fn finish(&mut self, many: usize) -> Vec<Product> {
        self.complete += many as u64;
        self.products.drain(..many).collect()
    }

    /// Lets the products land that a warp waits for; false if no warp waits for any that all have issued.
    pub(super) fn land(&mut self) -> bool {
        let all_issued = self.all_issued();
        let wanted = self.awaited.iter().filter(|&&count| count > self.landed && count <= all_issued).min();
        self.landed = wanted.copied().unwrap_or(self.landed);
        wanted.is_some()
    }
}

/// What a warp has issued, and what it has waited for.
#[derive(Default)]
pub struct Pending {
    pub issued: u64,
    /// How many it had issued at each of its commits since the last wait that covered them.
    pub(super) commits: VecDeque<u64>,
    /// For the adversary: products that it has not waited for, by number; whether there has been a fence; and the slots
    /// of sums that it has accessed since the last one.
    pub(super) unwaited: Vec<(u64, Instruction)>,
    pub(super) has_fenced: bool,
    pub(super) touched: HashSet<u16>,
}

impl Pending {
    /// How many products all but the latest `but` groups have.
    pub(super) fn count(&self, but: usize) -> u64 {
        let waited = self.commits.len().saturating_sub(but);
        waited.checked_sub(1).map_or(0, |last| self.commits[last])
    }

    /// Those groups are complete.
    pub(super) fn forget(&mut self, but: usize) {
        let count = self.count(but);
        self.unwaited.retain(|&(number, _)| number >= count);
        self.commits.drain(..self.commits.len().saturating_sub(but));
    }
}
