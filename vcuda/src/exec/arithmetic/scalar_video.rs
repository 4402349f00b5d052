//! Scalar video instructions, PTX ISA 9.7.20.1: arithmetic on bytes, halves and whole words of any signs, the result
//! clamped, combined with a third operand, or put in a part of it.

use crate::exec::registers::{Compute, LANES, Operands, Registers};

pub const NAMES: [&str; 9] = ["vadd", "vsub", "vabsdiff", "vmin", "vmax", "vshl", "vshr", "vset", "vmad"];
pub const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
pub const SECONDS: [&str; 4] = ["", "add", "min", "max"];

/// One instruction, as numbers of [`Kernel::lists`](crate::exec::kernel::Kernel).
#[derive(Clone, Copy)]
pub struct Form {
    /// Places in [`NAMES`], [`COMPARISONS`] and [`SECONDS`].
    pub operation: u16,
    pub comparison: u16,
    pub second: u16,
    pub flags: u16,
    /// Of `vmad`, to the right.
    pub shift: u16,
    pub a: [u16; 2],
    pub b: [u16; 2],
    pub d: [u16; 2],
}

pub const D_SIGNED: u16 = 1;
pub const A_SIGNED: u16 = 2;
pub const B_SIGNED: u16 = 4;
pub const SATURATE: u16 = 8;
pub const WRAP: u16 = 16;
pub const PLUS_ONE: u16 = 32;
pub const PRODUCT_NEGATED: u16 = 64;
pub const C_NEGATED: u16 = 128;

impl Form {
    pub fn numbers(self) -> [u16; 11] {
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
