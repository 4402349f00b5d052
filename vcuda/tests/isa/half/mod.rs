//! float16, bfloat16, their pairs, and pairs of 16-bit integers, PTX ISA 9.7.1, 9.7.4 and 9.7.7: here what the cases
//! are made of, and moves.

mod arithmetic;
mod compare;
mod functions;

use crate::device::{Shape, run};
use crate::lanes::{HEADER, Lane, Table};
use crate::rounding::{BF16, F16, Format, Mode};
use std::marker::PhantomData;

/// One of the two formats.
pub trait Half: Copy + std::fmt::Debug + 'static {
    const NAME: &str;
    const FORMAT: Format;
}

#[derive(Clone, Copy, Debug)]
pub struct Float16;
impl Half for Float16 {
    const NAME: &str = "f16";
    const FORMAT: Format = F16;
}

#[derive(Clone, Copy, Debug)]
pub struct Brain;
impl Half for Brain {
    const NAME: &str = "bf16";
    const FORMAT: Format = BF16;
}

/// The value of float16 or bfloat16 bits.
pub fn decode(bits: u16, format: &Format) -> f64 {
    let fraction_bits = format.precision - 1;
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = ((bits & 0x7fff) >> fraction_bits, bits & ((1 << fraction_bits) - 1));
    let unit = (format.low as f64 - fraction_bits as f64).exp2();
    match exponent as i32 {
        0 => sign * fraction as f64 * unit,
        e if e == 2 * format.high + 1 => {
            if fraction == 0 {
                sign * f64::INFINITY
            } else {
                f64::NAN
            }
        }
        e => sign * (fraction + (1 << fraction_bits)) as f64 * unit * ((e - 1) as f64).exp2(),
    }
}

/// A value in a 16-bit register.
#[derive(Clone, Copy, Debug)]
struct One<H>(u16, PhantomData<H>);

/// A pair in a 32-bit register.
#[derive(Clone, Copy, Debug)]
struct Two<H>(u32, PhantomData<H>);

impl<H: Half> One<H> {
    fn value(self) -> f64 {
        decode(self.0, &H::FORMAT)
    }
    /// The value rounded to nearest.
    fn of(value: f64) -> Self {
        One(H::FORMAT.encode(H::FORMAT.round(value, Mode::Nearest), 16) as u16, PhantomData)
    }
    fn is_nan(self) -> bool {
        self.value().is_nan()
    }
    fn magnitude(self) -> Self {
        One(self.0 & 0x7fff, PhantomData)
    }
    fn flush(self) -> Self {
        let subnormal = self.value().abs() < (H::FORMAT.low as f64).exp2();
        if subnormal { One(self.0 & 0x8000, PhantomData) } else { self }
    }
}

impl<H: Half> Lane for One<H> {
    const TYPE: &str = "b16";
    const BYTES: usize = 2;
    fn from_bits(bits: u64) -> Self {
        One(bits as u16, PhantomData)
    }
    fn bits(self) -> u64 {
        self.0 as u64
    }
    fn edges() -> Vec<Self> {
        let unit = 1u16 << (H::FORMAT.precision - 1);
        let infinity = (2 * H::FORMAT.high + 1) as u16 * unit;
        let one = H::FORMAT.high as u16 * unit;
        let positive =
            [one, 0, infinity, 0x7fff, 3, infinity - 1, one + 1, unit, unit - 1, one + unit / 2, 1];
        let more = [infinity + 1, one - unit, one - 1, one + 4 * unit, 0x7ff7, 2, one + 12 * unit];
        positive.into_iter().chain(more).flat_map(|v| [v, v | 0x8000]).map(|v| One(v, PhantomData)).collect()
    }
    fn same(self, other: Self) -> bool {
        self.0 == other.0 || self.is_nan() && other.is_nan()
    }
}

impl<H: Half> Two<H> {
    fn halves(self) -> [One<H>; 2] {
        [One(self.0 as u16, PhantomData), One((self.0 >> 16) as u16, PhantomData)]
    }
    fn of([low, high]: [One<H>; 2]) -> Self {
        Two((high.0 as u32) << 16 | low.0 as u32, PhantomData)
    }
}

impl<H: Half> Lane for Two<H> {
    const TYPE: &str = "b32";
    const BYTES: usize = 4;
    fn from_bits(bits: u64) -> Self {
        Two(bits as u32, PhantomData)
    }
    fn bits(self) -> u64 {
        self.0 as u64
    }
    fn edges() -> Vec<Self> {
        // Each value once below and once above another one.
        let values = One::<H>::edges();
        let other = |i: usize| values[(7 * i + 3) % values.len()];
        (0..values.len()).map(|i| Two::of([values[i], other(i)])).collect()
    }
    fn same(self, other: Self) -> bool {
        self.halves().into_iter().zip(other.halves()).all(|(a, b)| a.same(b))
    }
}

/// Cases of one instruction on single values and on pairs: `{h}` in the text is the type.
fn unary<H: Half>(t: &mut Table, code: &str, expected: fn(One<H>) -> One<H>) {
    t.unary(&code.replace("{h}", H::NAME), expected);
    t.unary(&code.replace("{h}", &format!("{}x2", H::NAME)), |a: Two<H>| Two::of(a.halves().map(expected)));
}

fn binary<H: Half>(t: &mut Table, code: &str, expected: impl Fn(One<H>, One<H>) -> One<H>) {
    t.binary(&code.replace("{h}", H::NAME), &expected);
    t.binary(&code.replace("{h}", &format!("{}x2", H::NAME)), |a: Two<H>, b: Two<H>| {
        let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
        Two::of([expected(a0, b0), expected(a1, b1)])
    });
}

fn ternary<H: Half>(t: &mut Table, code: &str, expected: impl Fn(One<H>, One<H>, One<H>) -> One<H>) {
    t.ternary(&code.replace("{h}", H::NAME), &expected);
    t.ternary(&code.replace("{h}", &format!("{}x2", H::NAME)), |a: Two<H>, b: Two<H>, c: Two<H>| {
        let ([a0, a1], [b0, b1], [c0, c1]) = (a.halves(), b.halves(), c.halves());
        Two::of([expected(a0, b0, c0), expected(a1, b1, c1)])
    });
}

#[test]
fn moves_and_selections() {
    let mut t = Table::default();
    t.unary("mov.b16 h, a; mov.b16 d, h;", |a: u16| a);
    t.unary(".reg .f16 e; mov.b16 e, a; mov.b16 d, e;", |a: u16| a);
    t.unary(".reg .f16x2 e; mov.b32 e, a; mov.b32 d, e;", |a: u32| a);
    t.ternary(
        "setp.ne.u32 p, c, 0; selp.b16 d, a, b, p;",
        |a: u16, b: u16, c: u32| if c != 0 { a } else { b },
    );
    t.unary("mov.b32 {h, d}, a;", |a: u32| (a >> 16) as u16);
}

#[test]
fn forms_of_later_architectures_are_refused() {
    for code in [
        "add.rn.f32.f16 r, h, r;",
        "fma.rn.f32.bf16 r, h, h, r;",
        "cvt.rs.f16x2.f32 r, r, r, r;",
        "cvt.rn.satfinite.e2m1x2.f32 h, r, r;",
        "add.rn.f32x2 x, x, x;",
    ] {
        let ptx = format!(
            "{HEADER}.visible .entry f(.param .u64 out) {{ .reg .b16 h; .reg .b32 r; .reg .b64 x; {code} ret; }}"
        );
        let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
        assert!(run(&ptx, "f", shape, &mut [vec![0; 4]]).is_err(), "{code}");
    }
}
