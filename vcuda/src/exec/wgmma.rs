//! `wgmma`: `D = A B + D` by four warps, B and perhaps A in shared memory, PTX ISA 9.7.15. Each warp computes its own
//! 16 rows, from what the four share, so nothing is exchanged between them.
//!
//! A fragment of D is that of `mma` for each eight columns. Sums are float32 fused multiply-adds in the order of k,
//! rounded to float16 after each instruction where D is. Products are done when they are issued, unless
//! [`Checks::asynchrony`](super::run::Checks) asks for the adversary: then at the wait that retires their group, D
//! holding NaN until then, and an instruction that touches D before it is a fault.

use super::fault::FaultKind;
use super::half::{Bf16, F16, Format};
use super::matrix_descriptor::{CHUNK, Descriptor};
use super::op::{Body, Flow, LANES, Op, Warp, bits, floats};

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

/// Rows of a warp, and columns of a tile.
const ROWS: usize = 16;
const COLUMNS: usize = 8;
/// Sums of an instruction, of 16-bit elements; half as many of 32 bits.
const K: usize = 16;

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
    a: A,
    b: u64,
    /// Of the products that the warp has issued.
    number: u64,
    line_pc: usize,
    /// What D held when the first pending product on it was issued.
    held: Option<Vec<[u32; LANES]>>,
}

#[derive(Clone)]
enum A {
    Shared(u64),
    Registers(Box<[[u32; LANES]; 4]>),
}

/// Products of a warp that have not been waited for.
#[derive(Default)]
pub struct Pending {
    /// With the number of their group.
    products: Vec<(Product, u32)>,
    groups: u32,
    issued: u64,
    /// A fence has ordered the registers' last accesses before the next product.
    fenced: bool,
}

/// 16 rows of A: column k in every lane that needs it, lower rows and upper rows.
type Rows = [[[f32; LANES]; 2]; K];
/// Eight columns of B: row k, even columns and odd ones.
type Tile = [[[f32; 4]; 2]; K];

/// Panels that a warpgroup keeps: as many products as one warp may be ahead of another and still be of use to it.
const PANELS: usize = 16;

/// The B of one product, which the first of the four warps to come there reads for all.
#[derive(Default)]
pub struct Panel {
    key: Option<Key>,
    tiles: Vec<Tile>,
    /// The 64 rows of A in shared memory, for the adversary: what one warp has waited for, all four have read.
    a: Vec<Chunk>,
}

/// Warpgroup, product, descriptor, columns, kind and flags of B.
type Key = (u32, u64, u64, usize, u16, u16);

/// 16 bytes of a matrix: eight elements, or four of 32 bits.
type Chunk = [u16; CHUNK as usize / 2];

#[inline(always)]
fn elements<const KIND: u16>(chunk: &Chunk) -> [f32; 8] {
    let mut out = [0.0; 8];
    for i in 0..per_chunk(KIND) {
        out[i] = match KIND {
            FLOAT16 => F16::widen(chunk[i].into()),
            BFLOAT16 => Bf16::widen(chunk[i].into()),
            _ => f32::from_bits((u32::from(chunk[2 * i]) | u32::from(chunk[2 * i + 1]) << 16) & !0x1fff),
        };
    }
    out
}

fn depth(kind: u16) -> usize {
    if kind == TFLOAT32 { K / 2 } else { K }
}

fn per_chunk(kind: u16) -> usize {
    if kind == TFLOAT32 { 4 } else { 8 }
}

/// Where the chunks are of rows (or columns) `first` and up, `count` of them.
fn places(bits: u64, transposed: bool, first: usize, count: usize) -> impl Iterator<Item = u32> {
    let descriptor = Descriptor::decode(bits);
    let (outer, inner) = if transposed { (count / 8, K) } else { (count, 2) };
    (0..outer as u32).flat_map(move |mn| {
        (0..inner as u32).map(move |k| match transposed {
            true => descriptor.mn_major(first as u32 / 8 + mn, k),
            false => descriptor.k_major(first as u32 + mn, k),
        })
    })
}

/// Calls `each(mn, k, value)` for all elements of the chunks, in their order.
#[inline(always)]
fn unpack(kind: u16, transposed: bool, negated: bool, chunks: &[Chunk], each: impl FnMut(usize, usize, f32)) {
    match kind {
        FLOAT16 => unpack_kind::<FLOAT16>(transposed, negated, chunks, each),
        BFLOAT16 => unpack_kind::<BFLOAT16>(transposed, negated, chunks, each),
        _ => unpack_kind::<TFLOAT32>(transposed, negated, chunks, each),
    }
}

#[inline(always)]
fn unpack_kind<const KIND: u16>(
    transposed: bool,
    negated: bool,
    chunks: &[Chunk],
    mut each: impl FnMut(usize, usize, f32),
) {
    let sign = if negated { -1.0 } else { 1.0 };
    let width = per_chunk(KIND);
    for (c, chunk) in chunks.iter().enumerate() {
        let values = elements::<KIND>(chunk);
        for i in 0..width {
            match transposed {
                true => each(c / K * 8 + i, c % K, sign * values[i]),
                false => each(c / 2, c % 2 * width + i, sign * values[i]),
            }
        }
    }
}

impl Warp<'_> {
    /// Reads a chunk at each place; `None` after a fault.
    fn chunks(&mut self, places: impl Iterator<Item = u32>, into: &mut Vec<Chunk>) -> Option<()> {
        let (shared, size) = (self.cta.shared, self.cta.shared_bytes as u32);
        into.clear();
        for at in places {
            if at > size || size - at < CHUNK {
                let what = format!("a matrix descriptor reaches shared {at:#x}, past the {size} bytes");
                self.fail_lane(0, FaultKind::IllegalAddress, what);
                return None;
            }
            // SAFETY: inside the CTA's shared memory.
            let chunk: *const Chunk = unsafe { shared.add(at as usize).cast() };
            if self.cta.options.checks.asynchrony || self.cta.memory.is_watched() {
                self.readable(0, chunk.cast(), CHUNK as usize)?;
            }
            // SAFETY: as above.
            into.push(unsafe { *chunk });
        }
        Some(())
    }

    /// The warp's rows of A; `None` after a fault.
    #[inline(always)]
    fn rows(&mut self, product: &Product, read: Option<&[Chunk]>) -> Option<Box<Rows>> {
        let mut out: Box<Rows> = Box::new([[[0.0; LANES]; 2]; K]);
        let mut columns = [[0f32; ROWS]; K];
        let negated = product.flags & A_NEGATED != 0;
        match &product.a {
            A::Shared(bits) => {
                let transposed = product.flags & A_TRANSPOSED != 0;
                let first = ROWS * (self.index as usize % 4);
                let mut chunks = Vec::with_capacity(2 * ROWS);
                match read {
                    Some(all) => chunks.extend_from_slice(&all[2 * first..][..2 * ROWS]),
                    None => self.chunks(places(*bits, transposed, first, ROWS), &mut chunks)?,
                }
                unpack(product.kind, transposed, negated, &chunks, |m, k, value| {
                    columns[k & 15][m & 15] = value
                });
            }
            A::Registers(registers) => {
                let sign = if negated { -1.0 } else { 1.0 };
                let per_register = if product.kind == TFLOAT32 { 1 } else { 2 };
                for (r, register) in registers.iter().enumerate() {
                    for lane in 0..LANES {
                        for i in 0..per_register {
                            let word = register[lane];
                            let value = match product.kind {
                                FLOAT16 => F16::widen(word >> (16 * i) & 0xffff),
                                BFLOAT16 => Bf16::widen(word >> (16 * i) & 0xffff),
                                _ => f32::from_bits(word & !0x1fff),
                            };
                            let k = per_register * (lane % 4 + 4 * (r / 2)) + i;
                            columns[k][lane / 4 + 8 * (r % 2)] = sign * value;
                        }
                    }
                }
            }
        }
        for k in 0..K {
            for row in 0..ROWS {
                out[k][row / 8][row % 8 * 4..][..4].fill(columns[k][row]);
            }
        }
        Some(out)
    }

    /// Computes a product into the slots of D; `None` after a fault.
    #[inline(always)]
    fn multiply(&mut self, product: &Product) -> Option<()> {
        let Product { n, kind, flags, b, .. } = *product;
        let transposed = flags & B_TRANSPOSED != 0;
        let group = self.index / 4;
        let mut panels = self.cta.panels.take();
        let place = group as usize * PANELS + product.number as usize % PANELS;
        if panels.len() <= place {
            panels.resize_with(place + 1, Panel::default);
        }
        let panel = &mut panels[place];
        let key = Some((group, product.number, b, n, kind, flags & (B_TRANSPOSED | B_NEGATED)));
        let late = self.cta.options.checks.asynchrony;
        // Races are looked for in what each warp reads; the adversary's products land for all four at once.
        if panel.key != key || self.cta.memory.is_watched() && !late {
            if let (A::Shared(bits), true) = (&product.a, late) {
                self.chunks(places(*bits, flags & A_TRANSPOSED != 0, 0, 4 * ROWS), &mut panel.a)?;
            }
            let mut chunks = Vec::with_capacity(2 * n);
            self.chunks(places(b, transposed, 0, n), &mut chunks)?;
            panel.key = key;
            panel.tiles.resize(n / COLUMNS, [[[0.0; 4]; 2]; K]);
            let tiles = &mut panel.tiles;
            unpack(kind, transposed, flags & B_NEGATED != 0, &chunks, |column, k, value| {
                tiles[column / COLUMNS][k & 15][column % 2][column % COLUMNS / 2] = value;
            });
        }
        let rows = self.rows(product, late.then_some(&panel.a[..]))?;
        let list = &self.cta.kernel.lists[product.list..][..product.registers];
        for (tile, b) in panel.tiles.iter().enumerate() {
            let mut d = [[0f32; LANES]; 4];
            // SAFETY: the decoder gave D its slots.
            unsafe {
                if flags & HALF_SUMS != 0 {
                    let slots = &list[2 * tile..][..2];
                    if product.accumulates {
                        for h in 0..2 {
                            let pair: [u32; LANES] = self.lanes(slots[h]);
                            for lane in 0..LANES {
                                d[2 * h][lane] = F16::widen(pair[lane] & 0xffff);
                                d[2 * h + 1][lane] = F16::widen(pair[lane] >> 16);
                            }
                        }
                    }
                    accumulate(&mut d, &rows, b, depth(kind));
                    for h in 0..2 {
                        let mut pair = [0; LANES];
                        for lane in 0..LANES {
                            pair[lane] = F16::narrow(d[2 * h][lane]) | F16::narrow(d[2 * h + 1][lane]) << 16;
                        }
                        self.set_lanes(slots[h], pair);
                    }
                } else {
                    let slots = &list[4 * tile..][..4];
                    if product.accumulates {
                        for i in 0..4 {
                            d[i] = floats(self.lanes(slots[i]));
                        }
                    }
                    accumulate(&mut d, &rows, b, depth(kind));
                    for i in 0..4 {
                        self.set_lanes(slots[i], bits(d[i]));
                    }
                }
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

/// Four fragments of D, `d[2 h + e]`: rows `l / 4 + 8 h`, columns `2 (l mod 4) + e`.
#[inline(always)]
fn accumulate(d: &mut [[f32; LANES]; 4], rows: &Rows, tile: &Tile, depth: usize) {
    let mut sums = *d;
    for k in 0..depth {
        for e in 0..2 {
            let [x, y, z, w] = tile[k][e];
            let column = [x, y, z, w, x, y, z, w, x, y, z, w, x, y, z, w];
            for h in 0..2 {
                for lane in 0..LANES {
                    let sum = &mut sums[2 * h + e][lane];
                    *sum = rows[k][h][lane].mul_add(column[lane % 16], *sum);
                }
            }
        }
    }
    *d = sums;
}

/// `wgmma.mma_async`: D's slots and, where A is in registers, its four in the list at `imm`, `d` registers of D; `a`
/// slot of A's descriptor and `e` of B's; predicate `imm >> 32`: accumulate. `b` and `c` as above.
pub struct Wgmma;
impl Body for Wgmma {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return Flow::Fault;
        }
        let (list, registers) = (op.imm as u32 as usize, op.d as usize);
        // SAFETY: the decoder gave every operand a slot of its width, or a predicate.
        let product = unsafe {
            let a = match op.c & A_REGISTERS {
                0 => A::Shared(warp.lanes::<u64>(op.a)[0]),
                _ => A::Registers(Box::new(std::array::from_fn(|i| {
                    warp.lanes(warp.cta.kernel.lists[list + registers + i])
                }))),
            };
            let b = warp.lanes::<u64>(op.e)[0];
            let accumulates = warp.pred((op.imm >> 32) as u16) & 1 != 0;
            let n = if op.c & HALF_SUMS != 0 { 4 * registers } else { 2 * registers };
            let (kind, flags, line_pc, number) = (op.b, op.c, warp.pc, warp.products.issued);
            Product { list, registers, n, kind, flags, accumulates, a, b, number, line_pc, held: None }
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
        warp.products.fenced = true;
        Flow::Next
    }
}

/// `wgmma.commit_group`.
pub struct WgmmaCommit;
impl Body for WgmmaCommit {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, _: &Op) -> Flow {
        warp.products.groups += 1;
        Flow::Next
    }
}

/// `wgmma.wait_group` of all but the latest `imm`.
pub struct WgmmaWait;
impl Body for WgmmaWait {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
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
