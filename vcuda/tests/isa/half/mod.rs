//! float16, bfloat16, their pairs, and pairs of 16-bit integers, PTX ISA 9.7.1, 9.7.4 and 9.7.7.

use crate::device::{Shape, run};
use crate::lanes::{HEADER, Lane, Table, require_same};
use crate::rounding::{BF16, F16, Format, Mode, odd, two_sum};
use std::cmp::Ordering::{self, Equal, Greater, Less};
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

// Sums: float64 holds them for float16, and rounds them to odd for bfloat16. Products are exact in it.
fn add<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    let (sum, error) = two_sum(a.value(), b.value());
    One::of(odd(sum, error))
}

fn sub<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    add(a, One(b.0 ^ 0x8000, PhantomData))
}

fn mul<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    One::of(a.value() * b.value())
}

fn fma<H: Half>(a: One<H>, b: One<H>, c: One<H>) -> One<H> {
    let (sum, error) = two_sum(a.value() * b.value(), c.value());
    One::of(odd(sum, error))
}

fn saturate<H: Half>(a: One<H>) -> One<H> {
    let value = a.value();
    One::of(if value > 0.0 { value.min(1.0) } else { 0.0 })
}

fn relu<H: Half>(a: One<H>) -> One<H> {
    if a.is_nan() || a.value() > 0.0 { a } else { One::of(0.0) }
}

fn arithmetic<H: Half>(t: &mut Table) {
    for rounding in ["", ".rn"] {
        binary::<H>(t, &format!("add{rounding}.{{h}} d, a, b;"), add);
        binary::<H>(t, &format!("sub{rounding}.{{h}} d, a, b;"), sub);
        binary::<H>(t, &format!("mul{rounding}.{{h}} d, a, b;"), mul);
    }
    ternary::<H>(t, "fma.rn.{h} d, a, b, c;", fma);
    ternary::<H>(t, "fma.rn.relu.{h} d, a, b, c;", |a, b, c| relu(fma(a, b, c)));
    // A factor that is what a tensor copy fills in outside the tensor makes the result zero.
    let outside = |value: One<H>| value.0 & 0x7fff == 0x7ff7;
    ternary::<H>(t, "fma.rn.oob.{h} d, a, b, c;", |a, b, c| {
        if outside(a) || outside(b) { One::of(0.0) } else { fma(a, b, c) }
    });
    ternary::<H>(t, "fma.rn.oob.relu.{h} d, a, b, c;", |a, b, c| {
        if outside(a) || outside(b) { One::of(0.0) } else { relu(fma(a, b, c)) }
    });
    unary::<H>(t, "neg.{h} d, a;", |a| One(a.0 ^ 0x8000, PhantomData));
    unary::<H>(t, "abs.{h} d, a;", One::magnitude);
}

#[test]
fn sums_and_products() {
    let mut t = Table::default();
    arithmetic::<Float16>(&mut t);
    arithmetic::<Brain>(&mut t);
}

/// Products that lie halfway between two values, such as (1 + ulp) · 1.5, and an addend that only tips them.
fn tipped<H: Half>(t: &mut Table) {
    for tip in [1u16, 0x8001, 0x0100, 0x8100] {
        let pair = (tip as u32) << 16 | tip as u32;
        let code = format!("mov.b32 t, {pair}; mov.b32 {{h, _}}, t; ");
        let tip = One::<H>(tip, PhantomData);
        t.binary(&format!("{code} fma.rn.{} d, a, b, h;", H::NAME), |a, b| fma(a, b, tip));
        t.binary(&format!("{code} fma.rn.{}x2 d, a, b, t;", H::NAME), |a: Two<H>, b: Two<H>| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            Two::of([fma(a0, b0, tip), fma(a1, b1, tip)])
        });
    }
}

#[test]
fn fused_sums_round_once() {
    let mut t = Table::default();
    tipped::<Float16>(&mut t);
    tipped::<Brain>(&mut t);
}

#[test]
fn the_reference_is_exact_for_float16() {
    // Products and sums of float16 are integers in units of 2^-48, and fit 80 bits.
    let fixed = |value: f64, places: i32| (value * f64::from(places).exp2()) as i128;
    let mut random = crate::lanes::Random::new(11);
    for _ in 0..200_000 {
        let bits = random.next();
        let [a, b, c] = [0, 16, 32].map(|shift| One::<Float16>((bits >> shift) as u16, PhantomData));
        if [a, b, c].iter().any(|x| !x.value().is_finite()) {
            continue;
        }
        let exact = fixed(a.value(), 24) * fixed(b.value(), 24) + fixed(c.value(), 48);
        let found = fma(a, b, c);
        if !found.value().is_finite() {
            assert!(exact.unsigned_abs() >= fixed(65_520.0, 48) as u128);
            continue;
        }
        let error = (exact - fixed(found.value(), 48)).unsigned_abs();
        for neighbour in [found.0.wrapping_sub(1), found.0 + 1].map(|bits| One::<Float16>(bits, PhantomData))
        {
            if neighbour.value().is_finite() && found.magnitude().0 > 0 {
                let other = (exact - fixed(neighbour.value(), 48)).unsigned_abs();
                assert!(error < other || error == other && found.0 & 1 == 0, "{a:?} {b:?} {c:?}: {found:?}");
            }
        }
    }
}

#[test]
fn flushing_and_saturating() {
    let mut t = Table::default();
    type H = Float16;
    binary::<H>(&mut t, "add.ftz.{h} d, a, b;", |a, b| add(a.flush(), b.flush()).flush());
    binary::<H>(&mut t, "sub.rn.ftz.{h} d, a, b;", |a, b| sub(a.flush(), b.flush()).flush());
    binary::<H>(&mut t, "mul.ftz.{h} d, a, b;", |a, b| mul(a.flush(), b.flush()).flush());
    ternary::<H>(&mut t, "fma.rn.ftz.{h} d, a, b, c;", |a, b, c| {
        fma(a.flush(), b.flush(), c.flush()).flush()
    });
    ternary::<H>(&mut t, "fma.rn.ftz.relu.{h} d, a, b, c;", |a, b, c| {
        relu(fma(a.flush(), b.flush(), c.flush()).flush())
    });
    binary::<H>(&mut t, "add.sat.{h} d, a, b;", |a, b| saturate(add(a, b)));
    binary::<H>(&mut t, "sub.rn.sat.{h} d, a, b;", |a, b| saturate(sub(a, b)));
    binary::<H>(&mut t, "mul.rn.ftz.sat.{h} d, a, b;", |a, b| saturate(mul(a.flush(), b.flush()).flush()));
    ternary::<H>(&mut t, "fma.rn.sat.{h} d, a, b, c;", |a, b, c| saturate(fma(a, b, c)));
    ternary::<H>(&mut t, "fma.rn.ftz.sat.{h} d, a, b, c;", |a, b, c| {
        saturate(fma(a.flush(), b.flush(), c.flush()).flush())
    });
    unary::<H>(&mut t, "neg.ftz.{h} d, a;", |a| One(a.flush().0 ^ 0x8000, PhantomData));
    unary::<H>(&mut t, "abs.ftz.{h} d, a;", |a| a.flush().magnitude());
}

/// The lesser of two, as the ISA's pseudocode has it; -0 is less than +0.
fn least<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    match (a.value(), b.value()) {
        (_, y) if y.is_nan() => a,
        (x, _) if x.is_nan() => b,
        (x, y) if x == y => One(a.0 | b.0, PhantomData),
        (x, y) => {
            if x < y {
                a
            } else {
                b
            }
        }
    }
}

fn negate<H: Half>(a: One<H>) -> One<H> {
    One(a.0 ^ 0x8000, PhantomData)
}

fn greatest<H: Half>(a: One<H>, b: One<H>) -> One<H> {
    negate(least(negate(a), negate(b)))
}

fn extremes<H: Half>(t: &mut Table) {
    type Pick<H> = fn(One<H>, One<H>) -> One<H>;
    let nan = || One::<H>(0x7fff, PhantomData);
    for (name, pick) in [("min", least as Pick<H>), ("max", greatest)] {
        let strict = move |a: One<H>, b: One<H>| if a.is_nan() || b.is_nan() { nan() } else { pick(a, b) };
        let signed = |a: One<H>, b: One<H>, value: One<H>| {
            if value.is_nan() { value } else { One(value.0 & 0x7fff | (a.0 ^ b.0) & 0x8000, PhantomData) }
        };
        binary::<H>(t, &format!("{name}.{{h}} d, a, b;"), pick);
        binary::<H>(t, &format!("{name}.NaN.{{h}} d, a, b;"), strict);
        binary::<H>(t, &format!("{name}.xorsign.abs.{{h}} d, a, b;"), |a, b| {
            signed(a, b, pick(a.magnitude(), b.magnitude()))
        });
        binary::<H>(t, &format!("{name}.NaN.xorsign.abs.{{h}} d, a, b;"), |a, b| {
            signed(a, b, strict(a.magnitude(), b.magnitude()))
        });
    }
}

#[test]
fn minimum_and_maximum() {
    let mut t = Table::default();
    extremes::<Float16>(&mut t);
    extremes::<Brain>(&mut t);
    binary::<Float16>(&mut t, "min.ftz.{h} d, a, b;", |a, b| least(a.flush(), b.flush()));
    binary::<Float16>(&mut t, "max.ftz.{h} d, a, b;", |a, b| greatest(a.flush(), b.flush()));
    // The canonical NaN, seen as an integer.
    t.unary("mov.b16 h, 0x7e01; max.NaN.f16 d, a, h;", |_: u16| 0x7fffu16);
    t.unary("mov.b32 t, 0xff81ff81; min.bf16x2 d, t, t;", |_: u32| 0x7fff_7fffu32);
}

#[test]
fn pairs_of_integers() {
    let mut t = Table::default();
    fn each(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
        (f((a >> 16) as u16, (b >> 16) as u16) as u32) << 16 | f(a as u16, b as u16) as u32
    }
    let signed = |f: fn(i16, i16) -> i16| move |x: u16, y: u16| f(x as i16, y as i16) as u16;
    t.binary("add.u16x2 d, a, b;", |a: u32, b: u32| each(a, b, u16::wrapping_add));
    t.binary("add.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, u16::wrapping_add));
    t.binary("min.u16x2 d, a, b;", |a: u32, b: u32| each(a, b, std::cmp::min));
    t.binary("max.u16x2 d, a, b;", |a: u32, b: u32| each(a, b, std::cmp::max));
    t.binary("min.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, signed(std::cmp::min)));
    t.binary("max.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, signed(std::cmp::max)));
    t.binary("min.relu.s16x2 d, a, b;", |a: u32, b: u32| each(a, b, signed(|x, y| x.min(y).max(0))));
    t.binary("max.s16x2.relu d, a, b;", |a: u32, b: u32| each(a, b, signed(|x, y| x.max(y).max(0))));
}

const ORDERED: [(&str, &[Ordering]); 6] = [
    ("eq", &[Equal]),
    ("ne", &[Less, Greater]),
    ("lt", &[Less]),
    ("le", &[Less, Equal]),
    ("gt", &[Greater]),
    ("ge", &[Greater, Equal]),
];

/// Every operator, with what it says of an order and of no order.
fn operators() -> impl Iterator<Item = (String, &'static [Ordering], bool)> {
    let ordered = ORDERED
        .into_iter()
        .flat_map(|(name, orders)| [(name.to_string(), orders, false), (format!("{name}u"), orders, true)]);
    ordered.chain([("num".to_string(), &[Less, Equal, Greater][..], false), ("nan".to_string(), &[], true)])
}

fn holds<H: Half>(a: One<H>, b: One<H>, orders: &[Ordering], unordered: bool) -> bool {
    a.value().partial_cmp(&b.value()).map_or(unordered, |order| orders.contains(&order))
}

/// `set`'s type with `setp`'s: predicates, masks and ones.
fn comparisons<H: Half>(t: &mut Table, ftz: &str) {
    let name = H::NAME;
    let prepare = |a: One<H>| if ftz.is_empty() { a } else { a.flush() };
    let one = One::<H>::of(1.0).0;
    for (operator, orders, unordered) in operators() {
        let holds = |a: One<H>, b: One<H>| holds(prepare(a), prepare(b), orders, unordered);
        let on_pairs = |a: Two<H>, b: Two<H>| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            [holds(a0, b0), holds(a1, b1)]
        };
        let fill = |[low, high]: [bool; 2], value: u32| (low as u32 + ((high as u32) << 16)) * value;
        let show = "selp.u32 t, 1, 0, p; selp.u32 u, 2, 0, q; or.b32 d, t, u;";
        t.binary(&format!("setp.{operator}{ftz}.{name} p, a, b; selp.u32 d, 1, 0, p;"), |a, b| {
            holds(a, b) as u32
        });
        t.binary(&format!("setp.{operator}{ftz}.{name}x2 p|q, a, b; {show}"), |a, b| {
            let [low, high] = on_pairs(a, b);
            low as u32 + 2 * high as u32
        });
        t.binary(
            &format!("set.{operator}{ftz}.u32.{name} d, a, b;"),
            |a, b| {
                if holds(a, b) { u32::MAX } else { 0 }
            },
        );
        t.binary(
            &format!("set.{operator}{ftz}.{name}.{name} d, a, b;"),
            |a, b| {
                if holds(a, b) { one } else { 0 }
            },
        );
        t.binary(&format!("set.{operator}{ftz}.{name}x2.{name}x2 d, a, b;"), |a, b| {
            fill(on_pairs(a, b), one.into())
        });
        t.binary(&format!("set.{operator}{ftz}.u32.{name}x2 d, a, b;"), |a, b| fill(on_pairs(a, b), 0xffff));
    }
}

#[test]
fn every_comparison() {
    let mut t = Table::default();
    comparisons::<Float16>(&mut t, "");
    comparisons::<Float16>(&mut t, ".ftz");
    comparisons::<Brain>(&mut t, "");
}

fn combined_comparisons<H: Half>(t: &mut Table) {
    let name = H::NAME;
    for (op, combine) in
        [("and", (|x, c| x && c) as fn(bool, bool) -> bool), ("or", |x, c| x || c), ("xor", |x, c| x != c)]
    {
        // The predicate is also the destination of the lower halves.
        let code = format!(
            "setp.ne.u32 p, c, 2; setp.lt.{op}.{name}x2 p|q, a, b, p;
             selp.u32 t, 1, 0, p; selp.u32 u, 2, 0, q; or.b32 d, t, u;"
        );
        t.ternary(&code, |a: Two<H>, b: Two<H>, c: u32| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            let less = |a, b| combine(holds::<H>(a, b, &[Less], false), c != 2);
            less(a0, b0) as u32 + 2 * less(a1, b1) as u32
        });
        let code = format!("setp.ne.u32 p, c, 2; set.geu.{op}.u32.{name}x2 d, a, b, !p;");
        t.ternary(&code, |a: Two<H>, b: Two<H>, c: u32| {
            let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
            let at_least = |a, b| combine(holds::<H>(a, b, &[Greater, Equal], true), c == 2);
            at_least(a0, b0) as u32 * 0xffff + at_least(a1, b1) as u32 * 0xffff_0000
        });
        let code = format!("setp.ne.u32 p, c, 2; setp.gt.{op}.{name} p, a, b, p; selp.u32 d, 1, 0, p;");
        t.ternary(&code, |a: One<H>, b: One<H>, c: u32| {
            combine(holds(a, b, &[Greater], false), c != 2) as u32
        });
    }
}

#[test]
fn comparisons_with_a_predicate() {
    let mut t = Table::default();
    combined_comparisons::<Float16>(&mut t);
    combined_comparisons::<Brain>(&mut t);
    t.binary("set.lt.f16.f32 d, a, b;", |a: f32, b: f32| if a < b { 0x3c00u16 } else { 0 });
    t.binary("set.ge.bf16.s32 d, a, b;", |a: i32, b: i32| if a >= b { 0x3f80u16 } else { 0 });
    t.binary("set.eq.f16.u64 d, a, b;", |a: u64, b: u64| if a == b { 0x3c00u16 } else { 0 });
    t.binary(
        "set.ne.s32.bf16 d, a, b;",
        |a: One<Brain>, b: One<Brain>| {
            if holds(a, b, &[Less, Greater], false) { -1i32 } else { 0 }
        },
    );
    t.binary(
        "set.leu.u16.f16 d, a, b;",
        |a: One<Float16>, b: One<Float16>| {
            if holds(a, b, &[Less, Equal], true) { 0xffffu16 } else { 0 }
        },
    );
}

/// Within `relative` of the exact value, or of its neighbours in the format.
fn near<H: Half>(found: One<H>, exact: f64, relative: f64, absolute: f64) -> Result<(), String> {
    let nearest = One::<H>::of(exact);
    let smallest = (H::FORMAT.low as f64 - H::FORMAT.precision as f64 + 1.0).exp2();
    let allowed = (relative * exact.abs()).max(absolute).max(smallest);
    if !nearest.value().is_finite() || !found.value().is_finite() || nearest.value() == 0.0 {
        return require_same(found, nearest);
    }
    let error = (found.value() - exact).abs();
    if error <= allowed {
        return Ok(());
    }
    Err(format!("got {}, expected {exact}: error {error:e} of {allowed:e} allowed", found.value()))
}

fn approximations<H: Half>(t: &mut Table, ex2: &str, ex2_relative: f64, tanh_absolute: f64) {
    let ftz = ex2.contains("ftz");
    let ex2_near = |a: One<H>, d: One<H>| {
        let (a, d) = if ftz { (a.flush(), d) } else { (a, d) };
        let exact = a.value().exp2();
        let tiny = ftz && exact < (H::FORMAT.low as f64).exp2();
        if tiny { require_same(d, One::of(0.0)) } else { near(d, exact, ex2_relative, 0.0) }
    };
    // The result has the format's own rounding on top of the function's error.
    let tanh_near = |a: One<H>, d: One<H>| near(d, a.value().tanh(), 0.0, tanh_absolute);
    let both = |a: Two<H>, d: Two<H>, verdict: &dyn Fn(One<H>, One<H>) -> Result<(), String>| {
        a.halves().into_iter().zip(d.halves()).try_for_each(|(a, d)| verdict(a, d))
    };
    let name = H::NAME;
    t.unary_by(&format!("{ex2}.{name} d, a;"), ex2_near);
    t.unary_by(&format!("{ex2}.{name}x2 d, a;"), |a, d| both(a, d, &ex2_near));
    t.unary_by(&format!("tanh.approx.{name} d, a;"), tanh_near);
    t.unary_by(&format!("tanh.approx.{name}x2 d, a;"), |a, d| both(a, d, &tanh_near));
}

#[test]
fn exponentials_and_tangents() {
    let mut t = Table::default();
    // The ISA's bounds: 9.7.4.9 and 9.7.4.10.
    approximations::<Float16>(&mut t, "ex2.approx", 2f64.powf(-9.9), 2f64.powf(-10.987));
    approximations::<Brain>(&mut t, "ex2.approx.ftz", 2f64.powi(-7), 2f64.powi(-8));
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
