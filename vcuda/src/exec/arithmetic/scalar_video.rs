//! Scalar video instructions, PTX ISA 9.7.20.1: arithmetic on bytes, halves and whole words of any signs, the result
//! clamped, combined with a third operand, or put in a part of it.

use crate::exec::lower::Lower;
use crate::exec::registers::{Compute, LANES, Operands, Registers};
use crate::exec::table::{Decoded, Entry};
use crate::ptx::ast::{Operand, Part};

const NAMES: [&str; 9] = ["vadd", "vsub", "vabsdiff", "vmin", "vmax", "vshl", "vshr", "vset", "vmad"];
const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
const SECONDS: [&str; 4] = ["", "add", "min", "max"];

/// One instruction, as numbers of [`Kernel::lists`](crate::exec::kernel::Kernel).
#[derive(Clone, Copy)]
struct Form {
    /// Places in [`NAMES`], [`COMPARISONS`] and [`SECONDS`].
    operation: u16,
    comparison: u16,
    second: u16,
    flags: u16,
    /// Of `vmad`, to the right.
    shift: u16,
    a: [u16; 2],
    b: [u16; 2],
    d: [u16; 2],
}

const D_SIGNED: u16 = 1;
const A_SIGNED: u16 = 2;
const B_SIGNED: u16 = 4;
const SATURATE: u16 = 8;
const WRAP: u16 = 16;
const PLUS_ONE: u16 = 32;
const PRODUCT_NEGATED: u16 = 64;
const C_NEGATED: u16 = 128;

impl Form {
    fn numbers(self) -> [u16; 11] {
        let Form { operation, comparison, second, flags, shift, a, b, d } = self;
        [operation, comparison, second, flags, shift, a[0], a[1], b[0], b[1], d[0], d[1]]
    }

    fn from_numbers(numbers: &[u16]) -> Form {
        let at = |i: usize| numbers[i];
        Form {
            operation: at(0),
            comparison: at(1),
            second: at(2),
            flags: at(3),
            shift: at(4),
            a: [at(5), at(6)],
            b: [at(7), at(8)],
            d: [at(9), at(10)],
        }
    }

    fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn result(self, a: u32, b: u32, c: u32) -> u32 {
        let (x, y) = (part(a, self.a, self.has(A_SIGNED)), part(b, self.b, self.has(B_SIGNED)));
        let by = if self.has(WRAP) { y & 31 } else { y.clamp(0, 32) };
        let value = match self.operation {
            0 => x + y,
            1 => x - y,
            2 => (x - y).abs(),
            3 => x.min(y),
            4 => x.max(y),
            5 => x << by,
            6 => x >> by,
            7 => {
                (match self.comparison {
                    0 => x == y,
                    1 => x != y,
                    2 => x < y,
                    3 => x <= y,
                    4 => x > y,
                    _ => x >= y,
                }) as i128
            }
            _ => return self.product(x * y, c),
        };
        let value = if self.has(SATURATE) { clamp(value, self.d[1], self.has(D_SIGNED)) } else { value };
        let third = part(c, [0, 32], self.has(D_SIGNED));
        match self.second {
            1 => (value + third) as u32,
            2 => value.min(third) as u32,
            3 => value.max(third) as u32,
            _ => {
                let mask = (u32::MAX >> (32 - self.d[1])) << self.d[0];
                (value as u32) << self.d[0] & mask | c & !mask
            }
        }
    }

    /// `vmad`, whose result has a sign if anything in it has.
    fn product(self, product: i128, c: u32) -> u32 {
        let signed = self.flags & (A_SIGNED | B_SIGNED | PRODUCT_NEGATED | C_NEGATED) != 0;
        let c = part(c, [0, 32], signed);
        let sum = match () {
            () if self.has(PLUS_ONE) => product + c + 1,
            () if self.has(PRODUCT_NEGATED) => c - product,
            () if self.has(C_NEGATED) => product - c,
            () => product + c,
        };
        let value = sum >> self.shift;
        if self.has(SATURATE) { clamp(value, 32, signed) as u32 } else { value as u32 }
    }
}

/// Bits `first` to `first + bits` of a word as a number.
fn part(word: u32, [first, bits]: [u16; 2], signed: bool) -> i128 {
    let top = word << (32 - first - bits);
    if signed { (top as i32 >> (32 - bits)).into() } else { (top >> (32 - bits)).into() }
}

fn clamp(value: i128, bits: u16, signed: bool) -> i128 {
    match signed {
        true => value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        false => value.clamp(0, (1 << bits) - 1),
    }
}

/// The [`Form`] at `imm` of the kernel's lists.
pub struct ScalarVideo;
impl Compute for ScalarVideo {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn compute(registers: &mut Registers, op: &Operands) {
        let form = Form::from_numbers(&registers.lists[op.imm as usize..][..11]);
        // SAFETY: the decoder gave every operand a narrow slot.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (registers.lanes(op.a), registers.lanes(op.b), registers.lanes(op.c));
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = form.result(a[lane], b[lane], c[lane]);
            }
            registers.set_lanes(op.d, out);
        }
    }
}

/// The register of an operand, and which part of it.
fn split(operand: &Operand) -> (Operand, Part) {
    match operand {
        Operand::Part(reg, part) => (Operand::Reg(*reg), *part),
        whole => (whole.clone(), Part::WHOLE),
    }
}

impl Entry<'_> {
    pub(in crate::exec) fn scalar_video(&self, to: &mut Lower) -> Decoded {
        let operation = NAMES.iter().position(|name| *name == self.parts[0]).ok_or_else(String::new)?;
        let is_set = self.parts[0] == "vset";
        let is_product = self.parts[0] == "vmad";
        let (d, d_part) = split(self.operand(0)?);
        let (a, a_part) = split(self.operand(1)?);
        let (b, b_part) = split(self.operand(2)?);
        // A comparison's result is 0 or 1, of no type.
        let types = if is_set {
            [None, self.parts.get(1), self.parts.get(2)]
        } else {
            [1, 2, 3].map(|i| self.parts.get(i))
        };
        let mut flags = 0;
        for (ty, flag) in types.into_iter().zip([D_SIGNED, A_SIGNED, B_SIGNED]) {
            flags |= match ty {
                Some(&"s32") => flag,
                Some(&"u32") => 0,
                None if is_set => 0,
                _ => return Err(String::new()),
            };
        }
        let (mut comparison, mut second, mut shift, mut has_mode) = (None, 0, 0, false);
        for &part in self.parts.get(if is_set { 3 } else { 4 }..).unwrap_or_default() {
            match part {
                "sat" if !is_set => flags |= SATURATE,
                "po" if is_product => flags |= PLUS_ONE,
                "shr7" if is_product => shift = 7,
                "shr15" if is_product => shift = 15,
                "clamp" if self.parts[0].starts_with("vsh") => has_mode = true,
                "wrap" if self.parts[0].starts_with("vsh") => (has_mode, flags) = (true, flags | WRAP),
                part if is_set && COMPARISONS.contains(&part) => {
                    comparison = COMPARISONS.iter().position(|name| *name == part);
                }
                part if !is_product => match SECONDS.iter().position(|name| *name == part) {
                    Some(at) => second = at as u16,
                    None => return Err(String::new()),
                },
                _ => return Err(String::new()),
            }
        }
        let is_shift = self.parts[0].starts_with("vsh");
        let c = self.operand(3).map_or((Operand::Int(0), Part::WHOLE), split);
        let negated = [a_part.negated, b_part.negated, c.1.negated];
        let is_merged = d_part != Part::WHOLE;
        if is_set != comparison.is_some()
            || is_shift != has_mode
            || negated.contains(&true) && !is_product
            || is_merged && (second > 0 || is_product)
            || c.1.bits != 32
        {
            return Err("no such form".to_string());
        }
        flags |= if negated[0] != negated[1] { PRODUCT_NEGATED } else { 0 };
        flags |= if negated[2] { C_NEGATED } else { 0 };
        let numbers = |part: Part| [part.first.into(), part.bits.into()];
        let form = Form {
            operation: operation as u16,
            comparison: comparison.unwrap_or(0) as u16,
            second,
            flags,
            shift,
            a: numbers(a_part),
            b: numbers(b_part),
            d: numbers(d_part),
        };
        let slots = [
            to.destination(&d, false)?,
            to.source(&a, false)?,
            to.source(&b, false)?,
            to.source(&c.0, false)?,
            0,
        ];
        let list = to.list(&form.numbers()) as i64;
        to.emit::<ScalarVideo>(slots, list);
        Ok(())
    }
}
