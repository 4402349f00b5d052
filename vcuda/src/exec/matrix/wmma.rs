//! `wmma`: matrices that a warp loads, multiplies and stores as a whole, PTX ISA 9.7.14.4. Which lane has which
//! element is left open there; here the registers are those of the `mma.sync` that would do a part of the product:
//! with `E` elements of 32 bits a register, `g = l / 4` and `t = l mod 4`, register `i` of lane `l` holds
//!
//!   A   row `16 (i / 4) + g + 8 (i mod 2)`, from k = `E t + 4 E (i mod 4 / 2)`; of 8 rows: row `g`, from `E t + 4 E i`
//!   B   column `8 (i / 2) + g`, from k = `E t + 4 E (i mod 2)`
//!   C   row `g + 8 (i mod 4 / 2)`, column `2 t + i mod 2`, of the 16 by 8 elements that four registers hold
//!
//! float16 has eight registers for A and B in every shape: where fewer would do, the rest repeats them. Sums are
//! float32 fused multiply-adds in the order of k, or a GPU's ([`Adder`]).

use super::fragment::{DEPTH, Halves, Tf32};
use super::sums::Adder;
use crate::exec::arithmetic::half::{Bf16, F16, Format};
use crate::exec::check::Kind;
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::profile::Action;
use crate::exec::registers::LANES;
use crate::exec::space::GENERIC;
use crate::exec::warp::Warp;

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Element {
    F16,
    Bf16,
    Tf32,
    F32,
}

const ELEMENTS: [Element; 4] = [Element::F16, Element::Bf16, Element::Tf32, Element::F32];

impl Element {
    pub fn bytes(self) -> usize {
        if matches!(self, Element::F16 | Element::Bf16) { 2 } else { 4 }
    }

    /// Elements of a register.
    pub fn per_register(self) -> usize {
        4 / self.bytes()
    }

    fn value(self, bits: u32) -> f32 {
        match self {
            Element::F16 => F16::widen(bits),
            Element::Bf16 => Bf16::widen(bits),
            Element::Tf32 => f32::from_bits(bits & !0x1fff),
            Element::F32 => f32::from_bits(bits),
        }
    }
}

/// Which matrix of `D = A B + C`; D lies as C does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Role {
    A,
    B,
    C,
}

const ROLES: [Role; 3] = [Role::A, Role::B, Role::C];

/// A matrix in a warp's registers.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    pub role: Role,
    pub element: Element,
    /// Of the product: 16 x 16, 8 x 32 or 32 x 8, and 16 or (tf32) 8 deep.
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Fragment {
    fn elements(self) -> usize {
        match self.role {
            Role::A => self.m * self.k,
            Role::B => self.k * self.n,
            Role::C => self.m * self.n,
        }
    }

    /// Registers that hold each element once.
    fn distinct(self) -> usize {
        self.elements() / LANES / self.element.per_register()
    }

    pub fn registers(self) -> usize {
        match (self.role, self.element) {
            (Role::A | Role::B, Element::F16) => 8,
            _ => self.distinct(),
        }
    }

    /// The stride where none is given: the matrix's rows, or columns, one after another.
    pub fn dense_stride(self, by_column: bool) -> usize {
        match (self.role, by_column) {
            (Role::A, false) | (Role::B, true) => self.k,
            (Role::B | Role::C, false) => self.n,
            (Role::A | Role::C, true) => self.m,
        }
    }

    /// Row and column of part `part` of register `i` of a lane.
    fn place(self, i: usize, lane: usize, part: usize) -> (usize, usize) {
        let (g, t, per) = (lane / 4, lane % 4, self.element.per_register());
        let i = i % self.distinct();
        match self.role {
            Role::A if self.m == 8 => (g, per * t + 4 * per * i + part),
            Role::A => (16 * (i / 4) + g + 8 * (i % 2), per * t + 4 * per * (i % 4 / 2) + part),
            Role::B => (per * t + 4 * per * (i % 2) + part, 8 * (i / 2) + g),
            Role::C => {
                let i = i * per + part;
                let column = 2 * t + i % 2;
                match self.m {
                    8 => (g, 8 * (i / 2) + column),
                    16 => (g + 8 * (i % 4 / 2), 8 * (i / 4) + column),
                    _ => (16 * (i / 4) + g + 8 * (i % 4 / 2), column),
                }
            }
        }
    }

    /// For `Op::e`: 8 (0), 16 (1) or 32 (2) rows and 8 or 16 deep.
    pub fn encode(self) -> u16 {
        let rows = (self.m / 16) as u16;
        self.role as u16 | (self.element as u16) << 2 | rows << 4 | (self.k as u16 / 16) << 6
    }

    fn decode(bits: u16) -> Fragment {
        let m = [8, 16, 32][(bits >> 4 & 3) as usize];
        Fragment {
            role: ROLES[(bits & 3) as usize],
            element: ELEMENTS[(bits >> 2 & 3) as usize],
            m,
            n: 256 / m,
            k: 8 + 8 * (bits >> 6 & 1) as usize,
        }
    }

    /// The matrix in registers, row by row of `columns`.
    ///
    /// # Safety
    /// The slots are in the register file.
    unsafe fn gather(self, warp: &Warp, slots: &[u16], columns: usize) -> [f32; 512] {
        let mut out = [0.0; 512];
        let (bits, per) = (8 * self.element.bytes(), self.element.per_register());
        for (i, &slot) in slots.iter().enumerate().take(self.distinct()) {
            // SAFETY: the caller's.
            let register: [u32; LANES] = unsafe { warp.lanes(slot) };
            for lane in 0..LANES {
                for part in 0..per {
                    let (row, column) = self.place(i, lane, part);
                    let element = register[lane] >> (bits * part) & (u32::MAX >> (32 - bits));
                    out[row * columns + column] = self.element.value(element);
                }
            }
        }
        out
    }

    /// Host pointers of a register's part in every lane: each element is `stride` elements of the other dimension
    /// from the next along one of them. `None` after a fault.
    fn pointers(
        self,
        warp: &mut Warp,
        (at, stride, by_column): (u64, u32, bool),
        (i, part): (usize, usize),
        writes: bool,
    ) -> Option<[*mut u8; LANES]> {
        let bytes = self.element.bytes();
        let mut addresses = [0; LANES];
        for lane in 0..LANES {
            let (row, column) = self.place(i, lane, part);
            let (major, minor) = if by_column { (column, row) } else { (row, column) };
            let element = (major as u64).wrapping_mul(stride.into()).wrapping_add(minor as u64);
            addresses[lane] = at.wrapping_add(element.wrapping_mul(bytes as u64));
        }
        warp.count_lanes(Action::Matrix, &addresses, bytes as u64);
        let mut out = [std::ptr::null_mut(); LANES];
        for (lane, &address) in addresses.iter().enumerate() {
            let host = warp.pointer::<GENERIC>(lane, address, bytes as u64, bytes as u64)?;
            warp.access(lane, host, bytes, if writes { Kind::Write } else { Kind::Read })?;
            out[lane] = host;
        }
        Some(out)
    }
}

/// Column-major memory, in `Op::d` of loads and stores.
pub const BY_COLUMN: u16 = 1;

/// Address and stride of a matrix in memory, which all lanes have in common.
///
/// # Safety
/// The slots are in the register file.
unsafe fn memory(warp: &Warp, op: &Op) -> (u64, u32, bool) {
    // SAFETY: the caller's.
    unsafe { (warp.lanes::<u64>(op.a)[0], warp.lanes::<u32>(op.b)[0], op.d == BY_COLUMN) }
}

/// `wmma.load`, or `wmma.store` if it `STORES`, of fragment `e`: between generic address `a`, stride `b`, and the
/// registers listed at `imm`.
pub struct WmmaMove<const STORES: bool>;
impl<const STORES: bool> Body for WmmaMove<STORES> {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        let fragment = Fragment::decode(op.e);
        let bytes = fragment.element.bytes();
        // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked and aligned.
        unsafe {
            let memory = memory(warp, op);
            for i in 0..fragment.registers() {
                let slot = warp.cta.kernel.lists[op.imm as usize + i];
                let mut register: [u32; LANES] = if STORES { warp.lanes(slot) } else { [0; LANES] };
                for part in 0..fragment.element.per_register() {
                    let Some(at) = fragment.pointers(warp, memory, (i, part), STORES) else {
                        return Flow::Fault;
                    };
                    for lane in 0..LANES {
                        let (register, at) = (&mut register[lane], at[lane]);
                        match (STORES, bytes) {
                            (false, 2) => *register |= u32::from(*at.cast::<u16>()) << (16 * part),
                            (false, _) => *register = *at.cast(),
                            (true, 2) => *at.cast() = (*register >> (16 * part)) as u16,
                            (true, _) => *at.cast() = *register,
                        }
                    }
                }
                if !STORES {
                    warp.set_lanes(slot, register);
                }
            }
        }
        Flow::Next
    }
}

/// `wmma.mma`: the list at `imm` has the slots of D, A, B and C, which are fragments `a`, `b`, `c` and `e`.
pub struct WmmaProduct;
impl Body for WmmaProduct {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        let [d, a, b, c] = [op.a, op.b, op.c, op.e].map(Fragment::decode);
        let Fragment { m, n, k, .. } = d;
        let core = warp.cta.options.sums;
        if core.is_some() && d.element != c.element {
            let what = "VCUDA_SUMS: nothing is known of sums whose C and D are of two types";
            return warp.fail_lane(0, FaultKind::IllegalInstruction, what.to_string());
        }
        let counts = [d, a, b, c].map(Fragment::registers);
        let list: &[u16] = &warp.cta.kernel.lists[op.imm as usize..][..counts.iter().sum()];
        let (d_slots, rest) = list.split_at(counts[0]);
        let (a_slots, rest) = rest.split_at(counts[1]);
        let (b_slots, c_slots) = rest.split_at(counts[2]);
        // SAFETY: the decoder gave every operand a slot.
        unsafe {
            let (x, y) = (a.gather(warp, a_slots, k), b.gather(warp, b_slots, n));
            let mut sums = c.gather(warp, c_slots, n);
            for (row, sums) in sums.chunks_exact_mut(n).take(m).enumerate() {
                if let Some(core) = core {
                    let adder = Adder::new(core, d.element == Element::F16);
                    for (column, sum) in sums.iter_mut().enumerate() {
                        let y: [f32; DEPTH] = std::array::from_fn(|at| y[at % k * n + column]);
                        let (x, y) = (&x[row * k..][..k], &y[..k]);
                        *sum = match a.element {
                            Element::F16 => adder.sum::<Halves<F16>>(x, y, *sum),
                            Element::Bf16 => adder.sum::<Halves<Bf16>>(x, y, *sum),
                            _ => adder.sum::<Tf32>(x, y, *sum),
                        };
                    }
                    continue;
                }
                for at in 0..k {
                    let x = x[row * k + at];
                    for (sum, y) in sums.iter_mut().zip(&y[at * n..]) {
                        *sum = x.mul_add(*y, *sum);
                    }
                }
            }
            for (i, &slot) in d_slots.iter().enumerate() {
                let mut register = [0; LANES];
                for lane in 0..LANES {
                    for part in 0..d.element.per_register() {
                        let (row, column) = d.place(i, lane, part);
                        let sum = sums[row * n + column];
                        register[lane] |= match d.element {
                            Element::F16 => F16::narrow(sum) << (16 * part),
                            _ => sum.to_bits(),
                        };
                    }
                }
                warp.set_lanes(slot, register);
            }
        }
        Flow::Next
    }
}
