//! The table of one-instruction cases: thread `i` computes element `i` from edge values and random ones.
//!
//! A case is a few PTX statements on registers `a`, `b`, `c` and `d`, with predicates `p`, `q` and
//! temporaries `t`, `u` (`.b32`), `x`, `y` (`.b64`) and `h` (`.b16`) to use, and a function that says what
//! `d` becomes. A [`Table`] gathers the failures of many cases and shows them all when it ends.

use crate::device::{Checks, Setup, Shape, run, run_with};
use crate::files::{Expected, Ran, bounds};
use std::fmt::Debug;

/// A value that a register holds.
pub trait Lane: Copy + Debug {
    /// Its type in `ld` and `st`, and its size in bytes.
    const TYPE: &str;
    const BYTES: usize;
    fn from_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
    /// Edge cases, most important first.
    fn edges() -> Vec<Self>;
    /// Equality of results; any NaN equals any other.
    fn same(self, other: Self) -> bool {
        self.bits() == other.bits()
    }
}

macro_rules! integer_lane {
    ($($ty:ty, $unsigned:ty, $name:literal;)*) => {$(
        impl Lane for $ty {
            const TYPE: &str = $name;
            const BYTES: usize = size_of::<$ty>();
            fn from_bits(bits: u64) -> Self {
                bits as $ty
            }
            fn bits(self) -> u64 {
                self as $unsigned as u64
            }
            fn edges() -> Vec<Self> {
                let top = (1 as $unsigned) << (<$ty>::BITS - 1);
                let wide = (0x0123_4567_89ab_cdefu64 >> (64 - <$ty>::BITS)) as $ty;
                let sign = [top as $ty, (top - 1) as $ty, (top + 1) as $ty];
                let small = [0, 1, !0, 2, 7, 31, 32, 33, 100];
                small.into_iter().chain(sign).chain([wide, !wide]).collect()
            }
        }
    )*};
}

integer_lane! {
    u8, u8, "u8";
    i8, u8, "s8";
    u16, u16, "u16";
    i16, u16, "s16";
    u32, u32, "u32";
    i32, u32, "s32";
    u64, u64, "u64";
    i64, u64, "s64";
}

impl Lane for f32 {
    const TYPE: &str = "f32";
    const BYTES: usize = 4;
    fn from_bits(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
    fn bits(self) -> u64 {
        self.to_bits() as u64
    }
    fn edges() -> Vec<Self> {
        let subnormal = f32::from_bits(0x0000_0003);
        let large_subnormal = f32::from_bits(0x007f_ffff);
        let positive = [1.0, 0.0, f32::NAN, f32::INFINITY, 1.5, 3.0, 0.1, 16_777_217.0, subnormal, 2.5];
        let more =
            [f32::MAX, f32::MIN_POSITIVE, large_subnormal, 1.0 + f32::EPSILON, 0.5, 2147483648.0, 1e-20];
        positive.into_iter().chain(more).flat_map(|v| [v, -v]).collect()
    }
    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

impl Lane for f64 {
    const TYPE: &str = "f64";
    const BYTES: usize = 8;
    fn from_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn edges() -> Vec<Self> {
        let positive = [1.0, 0.0, f64::NAN, f64::INFINITY, 1.5, 3.0, 0.1, 16_777_217.0, 65_520.0, 2.5];
        let more = [f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e-40, 1.0 + f64::EPSILON, 0.5, 4294967296.5, 1e300];
        positive.into_iter().chain(more).flat_map(|v| [v, -v]).collect()
    }
    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

/// Random bits from Marsaglia's 64-bit xorshift.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(0x9e37_79b9_7f4a_7c15 ^ seed)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn lane<T: Lane>(&mut self) -> T {
        T::from_bits(self.next() >> (64 - 8 * T::BYTES))
    }
}

pub const HEADER: &str = ".version 8.6\n.target sm_90a\n.address_size 64\n";

/// What a thread of [`Table::kernel`] reads or writes.
pub type Words = [u32; 4];

/// What an operation makes of two words.
pub type Combine = fn(u32, u32) -> u32;

/// Threads in a block and in the grid of [`Table::kernel`].
pub const BLOCK: usize = 128;
pub const GRID: usize = 256;

const KERNEL_START: &str =
    ".visible .entry instruction(.param .u64 outs, .param .u64 ins, .param .align 16 .b8 value[16])
{
.reg .pred p, q;
.reg .b32 a, b, c, d, s, t, u, v, tid, lane, i;
.reg .b64 in, out, x, y, at;
mov.u32 tid, %tid.x;
mov.u32 lane, %laneid;
mov.u32 i, %ctaid.x;
mad.lo.u32 i, i, 128, tid;
ld.param.u64 in, [ins];
ld.param.u64 out, [outs];
cvta.to.global.u64 in, in;
cvta.to.global.u64 out, out;
mad.wide.u32 in, i, 16, in;
mad.wide.u32 out, i, 16, out;
ld.global.v4.u32 {a, b, c, d}, [in];
";

/// What an operation of one, two or three operands must give, and whether a result is right.
type Of1<'a, A, D> = &'a dyn Fn(A) -> D;
type Of2<'a, A, B, D> = &'a dyn Fn(A, B) -> D;
type Of3<'a, A, B, C, D> = &'a dyn Fn(A, B, C) -> D;
type Verdict = Result<(), String>;

/// Cases of one test; dropping it is the verdict. There are some thousand: what is made for each of them alone is as
/// little as can be, and the rest is there once for a type, or for all.
#[derive(Default)]
pub struct Table {
    pub checks: Checks,
    pub seed: u64,
    failures: Vec<String>,
    case_count: usize,
}

impl Table {
    /// `d` from `a`.
    pub fn unary<A: Lane, D: Lane>(&mut self, code: &str, expected: impl Fn(A) -> D) {
        self.unary_same(code, &expected);
    }

    /// `d` from `a`, `b`.
    pub fn binary<A: Lane, B: Lane, D: Lane>(&mut self, code: &str, expected: impl Fn(A, B) -> D) {
        self.binary_same(code, &expected);
    }

    /// `d` from `a`, `b`, `c`.
    pub fn ternary<A: Lane, B: Lane, C: Lane, D: Lane>(
        &mut self,
        code: &str,
        expected: impl Fn(A, B, C) -> D,
    ) {
        self.ternary_same(code, &expected);
    }

    /// As [`Table::unary`], with a verdict on each result in place of an exact expectation.
    pub fn unary_by<A: Lane, D: Lane>(&mut self, code: &str, verdict: impl Fn(A, D) -> Verdict) {
        self.unary_judged(code, &verdict);
    }

    /// As [`Table::binary`], with a verdict on each result in place of an exact expectation.
    pub fn binary_by<A: Lane, B: Lane, D: Lane>(&mut self, code: &str, verdict: impl Fn(A, B, D) -> Verdict) {
        self.binary_judged(code, &verdict);
    }

    fn unary_same<A: Lane, D: Lane>(&mut self, code: &str, expected: Of1<A, D>) {
        self.unary_judged(code, &|a, d: D| require_same(d, expected(a)));
    }

    fn binary_same<A: Lane, B: Lane, D: Lane>(&mut self, code: &str, expected: Of2<A, B, D>) {
        self.binary_judged(code, &|a, b, d: D| require_same(d, expected(a, b)));
    }

    fn ternary_same<A: Lane, B: Lane, C: Lane, D: Lane>(&mut self, code: &str, expected: Of3<A, B, C, D>) {
        let mut random = Random::new(3);
        let few = |i: usize| i < 10;
        let mut inputs = Vec::new();
        for (_, a) in A::edges().into_iter().enumerate().filter(|e| few(e.0)) {
            for (_, b) in B::edges().into_iter().enumerate().filter(|e| few(e.0)) {
                for (_, c) in C::edges().into_iter().enumerate().filter(|e| few(e.0)) {
                    inputs.push([a.bits(), b.bits(), c.bits()]);
                }
            }
        }
        inputs.extend(
            (0..500)
                .map(|_| [random.lane::<A>().bits(), random.lane::<B>().bits(), random.lane::<C>().bits()]),
        );
        let types = [Kind::of::<A>(), Kind::of::<B>(), Kind::of::<C>()];
        self.case(code, &types, Kind::of::<D>(), &rows(&inputs), &|i, d| {
            let [a, b, c] = inputs[i];
            let (a, b, c) = (A::from_bits(a), B::from_bits(b), C::from_bits(c));
            require_same(D::from_bits(d), expected(a, b, c))
                .map_err(|e| format!("a = {a:?}, b = {b:?}, c = {c:?}: {e}"))
        });
    }

    fn unary_judged<A: Lane, D: Lane>(&mut self, code: &str, verdict: Of2<A, D, Verdict>) {
        let inputs: Vec<[u64; 1]> = unary_inputs::<A>().iter().map(|a| [a.bits()]).collect();
        self.case(code, &[Kind::of::<A>()], Kind::of::<D>(), &rows(&inputs), &|i, d| {
            let a = A::from_bits(inputs[i][0]);
            verdict(a, D::from_bits(d)).map_err(|e| format!("a = {a:?} ({:#x}): {e}", a.bits()))
        });
    }

    fn binary_judged<A: Lane, B: Lane, D: Lane>(&mut self, code: &str, verdict: Of3<A, B, D, Verdict>) {
        let mut random = Random::new(2);
        let mut inputs = Vec::new();
        for a in A::edges() {
            inputs.extend(B::edges().into_iter().map(|b| [a.bits(), b.bits()]));
        }
        inputs.extend((0..1000).map(|_| [random.lane::<A>().bits(), random.lane::<B>().bits()]));
        let types = [Kind::of::<A>(), Kind::of::<B>()];
        self.case(code, &types, Kind::of::<D>(), &rows(&inputs), &|i, d| {
            let (a, b) = (A::from_bits(inputs[i][0]), B::from_bits(inputs[i][1]));
            verdict(a, b, D::from_bits(d))
                .map_err(|e| format!("a = {a:?} ({:#x}), b = {b:?} ({:#x}): {e}", a.bits(), b.bits()))
        });
    }

    /// A whole kernel: 2 blocks of 128 threads, of which thread `i` may read `inp[i]` and write `out[i]`, both
    /// `.v4.u32`, at the addresses `in` and `out` (`.b64`). On entry `a`, `b`, `c`, `d` hold `inp[i]`, and
    /// `tid`, `lane` and `i` the thread's place in its block, its warp and the grid. `module` stands before
    /// the kernel; what is not written to `out` stays 0.
    pub fn kernel(&mut self, module: &str, body: &str, expected: impl Fn(usize, &[Words]) -> Words) {
        self.kernel_same(module, body, &expected);
    }

    fn kernel_same(&mut self, module: &str, body: &str, expected: &dyn Fn(usize, &[Words]) -> Words) {
        self.case_count += 1;
        let mut random = Random::new(4);
        let inp: Vec<Words> = (0..GRID).map(|_| [(); 4].map(|()| random.next() as u32)).collect();
        let bytes = inp.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let mut buffers = vec![vec![0; 16 * GRID], bytes];
        let ptx = format!("{HEADER}{module}\n{KERNEL_START}{body}\n}}\n");
        let shape = Shape { blocks: (GRID / BLOCK) as u32, threads: BLOCK as u32, shared_bytes: 0 };
        let ran = match run(&ptx, "instruction", shape, &mut buffers) {
            Ok(ran) => ran,
            Err(error) => return self.failures.push(format!("{body}\n    {error}")),
        };
        let wrong: Vec<String> = (0..GRID)
            .filter_map(|i| {
                let found = [0, 1, 2, 3].map(|word| {
                    let at = 16 * i + 4 * word;
                    u32::from_le_bytes(buffers[0][at..at + 4].try_into().expect("four bytes"))
                });
                let wanted = expected(i, &inp);
                (found != wanted).then(|| format!("thread {i}: got {found:x?}, expected {wanted:x?}"))
            })
            .collect();
        if let Some(first) = wrong.first() {
            return self
                .failures
                .push(format!("{body}\n    {} of {GRID} wrong, such as {first}", wrong.len()));
        }
        ran.keep_exactly(&[(0, &buffers[0])]);
    }

    /// Bits of what a statement makes of the operands of [`Table::unary`].
    pub fn results(&self, code: &str) -> Vec<u32> {
        let inputs: Vec<[u64; 1]> = unary_inputs::<u32>().iter().map(|a| [a.bits()]).collect();
        let done = self.run_case(code, &[Kind::of::<u32>()], Kind::of::<u32>(), &rows(&inputs));
        let (_, bits) = done.unwrap_or_else(|error| panic!("{code}: {error}"));
        bits.into_iter().map(|bits| bits as u32).collect()
    }

    /// Runs one case: `inputs[i]` are the bits that thread `i` reads.
    fn case(
        &mut self,
        code: &str,
        types: &[Kind],
        output: Kind,
        inputs: &[&[u64]],
        verdict: &dyn Fn(usize, u64) -> Verdict,
    ) {
        self.case_count += 1;
        let (ran, results) = match self.run_case(code, types, output, inputs) {
            Ok(done) => done,
            Err(error) => return self.failures.push(format!("{code}\n    {error}")),
        };
        let wrong: Vec<String> =
            results.iter().enumerate().filter_map(|(i, &d)| verdict(i, d).err()).collect();
        if let Some(first) = wrong.first() {
            let (wrong, all) = (wrong.len(), inputs.len());
            return self.failures.push(format!("{code}\n    {wrong} of {all} wrong, such as {first}"));
        }
        // A verdict that takes all bits turned around, and the upper ones, takes anything.
        let free = results.iter().enumerate().find(|&(i, d)| {
            let turned = |mask: u64| verdict(i, d ^ mask).is_ok();
            let all = u64::MAX >> (64 - 8 * output.bytes);
            turned(all) && turned(all & !(all >> 4))
        });
        if let Some((i, d)) = free {
            let why = format!("{d:#x} is right for {:x?}, and so is anything", inputs[i]);
            return self.failures.push(format!("{code}\n    {why}"));
        }
        if ran.is_kept() {
            let accepted = (results.iter().enumerate())
                .map(|(i, &d)| bounds(output.name, d, |bits| verdict(i, bits).is_ok()));
            ran.keep(&[(0, Expected::between(output.name, accepted))]);
        }
    }

    /// Bits of what each thread makes of its inputs.
    fn run_case(
        &self,
        code: &str,
        types: &[Kind],
        output: Kind,
        inputs: &[&[u64]],
    ) -> Result<(Ran, Vec<u64>), String> {
        let ptx = kernel(code, types, output);
        // Whole blocks, so that warps are full; the surplus threads repeat the last input.
        let count = inputs.len().next_multiple_of(BLOCK);
        let mut buffers = vec![vec![0xcc; count * output.bytes]];
        for (operand, kind) in types.iter().enumerate() {
            let value = |i: usize| inputs[i.min(inputs.len() - 1)][operand].to_le_bytes();
            buffers.push((0..count).flat_map(|i| value(i)[..kind.bytes].to_vec()).collect());
        }
        let shape = Shape { blocks: (count / BLOCK) as u32, threads: BLOCK as u32, shared_bytes: 0 };
        let setup = Setup { cluster: 1, checks: self.checks, seed: self.seed, ..Setup::default() };
        let ran = run_with(&ptx, "instruction", shape, &setup, &mut buffers)?;
        let results = (buffers[0].chunks_exact(output.bytes).take(inputs.len())).map(|bytes| {
            let mut bits = [0; 8];
            bits[..output.bytes].copy_from_slice(bytes);
            u64::from_le_bytes(bits)
        });
        Ok((ran, results.collect()))
    }
}

/// A type in `ld` and `st`, and its size.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    bytes: usize,
}

impl Kind {
    fn of<T: Lane>() -> Kind {
        Kind { name: T::TYPE, bytes: T::BYTES }
    }
}

/// Operands, thread by thread.
fn rows<const N: usize>(inputs: &[[u64; N]]) -> Vec<&[u64]> {
    inputs.iter().map(|row| &row[..]).collect()
}

/// Edge cases and random values.
fn unary_inputs<A: Lane>() -> Vec<A> {
    let mut random = Random::new(1);
    A::edges().into_iter().chain((0..1000).map(|_| random.lane())).collect()
}

/// A table for cases as they are, and some with approximate results as far off as may be, for as many seeds.
pub fn approximate_tables() -> impl Iterator<Item = Table> {
    let astray = Checks { approx: true, ..Checks::default() };
    let astray = (0..4).map(move |seed| Table { checks: astray, seed, failures: Vec::new(), case_count: 0 });
    std::iter::once(Table::default()).chain(astray)
}

impl Drop for Table {
    fn drop(&mut self) {
        if !self.failures.is_empty() && !std::thread::panicking() {
            panic!(
                "{} of {} cases fail:\n{}",
                self.failures.len(),
                self.case_count,
                self.failures.join("\n")
            );
        }
    }
}

pub fn require_same<D: Lane>(found: D, expected: D) -> Result<(), String> {
    if found.same(expected) {
        return Ok(());
    }
    Err(format!("got {found:?} ({:#x}), expected {expected:?} ({:#x})", found.bits(), expected.bits()))
}

/// A kernel around one case: `(d, a[, b[, c]])`, each an array with one element per thread.
fn kernel(code: &str, inputs: &[Kind], output: Kind) -> String {
    let register = |bytes: usize| 8 * bytes.max(2);
    let operands: Vec<_> = ["a", "b", "c"].into_iter().zip(inputs).collect();
    let mut text = format!("{HEADER}.visible .entry instruction(.param .u64 d_array");
    for (name, _) in &operands {
        text += &format!(", .param .u64 {name}_array");
    }
    text +=
        ")\n{\n.reg .pred p, q;\n.reg .b16 h;\n.reg .b32 t, u, thread, block;\n.reg .b64 x, y, index, at;\n";
    text += &format!(".reg .b{} d;\n", register(output.bytes));
    text += "mov.u32 thread, %tid.x;\nmov.u32 block, %ctaid.x;\nmad.lo.u32 thread, block, 128, thread;\n";
    text += "cvt.u64.u32 index, thread;\n";
    for (name, &Kind { name: ty, bytes }) in operands {
        text += &format!(".reg .b{} {name};\nld.param.u64 at, [{name}_array];\n", register(bytes));
        text += &format!("mad.lo.u64 at, index, {bytes}, at;\nld.global.{ty} {name}, [at];\n");
    }
    let Kind { name: ty, bytes } = output;
    text += &format!("{code}\nld.param.u64 at, [d_array];\nmad.lo.u64 at, index, {bytes}, at;\n");
    text + &format!("st.global.{ty} [at], d;\nret;\n}}\n")
}
