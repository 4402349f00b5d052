//! Numbers side by side in a word: SIMD video instructions (PTX ISA 9.7.20) and `dp2a` (9.7.1.24).

use crate::exec::registers::{Compute, LANES, Operands, Registers};

/// What a video instruction does with the numbers at one place in `a` and `b`.
pub const NAMES: [&str; 6] = ["vadd", "vsub", "vavrg", "vabsdiff", "vmin", "vmax"];

pub const A_SIGNED: i64 = 1 << 8;
pub const B_SIGNED: i64 = 1 << 9;
pub const D_SIGNED: i64 = 1 << 10;
pub const SATURATE: i64 = 1 << 11;
/// Results are added up, with `c`.
pub const SUM: i64 = 1 << 12;

/// Number `i` of `bits` in a word.
#[inline(always)]
fn part(word: u32, i: u32, bits: u32, signed: bool) -> i32 {
    let top = word << (32 - bits * (i + 1));
    if signed { top as i32 >> (32 - bits) } else { (top >> (32 - bits)) as i32 }
}

/// `imm`: the operation's place in [`NAMES`], numbers in a word at bit 4, flags.
pub struct Video;
impl Compute for Video {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let (operation, count) = (op.imm & 15, op.imm as u32 >> 4 & 15);
        let (bits, flag) = (32 / count, |flag: i64| op.imm & flag != 0);
        let (low, high) = match flag(D_SIGNED) {
            true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            false => (0, (1 << bits) - 1),
        };
        // SAFETY: the decoder gave every operand a narrow slot.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let mut out = [0u32; LANES];
            for lane in 0..LANES {
                let mut d = if flag(SUM) { c[lane] } else { 0 };
                for i in 0..count {
                    let (x, y) =
                        (part(a[lane], i, bits, flag(A_SIGNED)), part(b[lane], i, bits, flag(B_SIGNED)));
                    let value = match operation {
                        0 => x + y,
                        1 => x - y,
                        // Halves go up from zero on, and down below it.
                        2 if x + y >= 0 => (x + y + 1) >> 1,
                        2 => (x + y) >> 1,
                        3 => (x - y).abs(),
                        4 => x.min(y),
                        _ => x.max(y),
                    };
                    let value = if flag(SATURATE) { value.clamp(low, high) } else { value };
                    d = match flag(SUM) {
                        true => d.wrapping_add(value as u32),
                        false => d | (value as u32 & ((1 << bits) - 1)) << (bits * i),
                    };
                }
                out[lane] = d;
            }
            registers.set_lanes(op.d, out);
        }
    }
}

/// `d = c` plus the products of `a`'s two numbers with two bytes of `b`, the upper ones if `imm & 1`; `imm`'s
/// flags say which are signed.
pub struct Dp2a;
impl Compute for Dp2a {
    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let (first, a_signed, b_signed) =
            (2 * (op.imm as u32 & 1), op.imm & A_SIGNED != 0, op.imm & B_SIGNED != 0);
        // SAFETY: the decoder gave every operand a narrow slot.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let mut out = c;
            for lane in 0..LANES {
                for i in 0..2 {
                    let product = part(a[lane], i, 16, a_signed) * part(b[lane], first + i, 8, b_signed);
                    out[lane] = out[lane].wrapping_add(product as u32);
                }
            }
            registers.set_lanes(op.d, out);
        }
    }
}
