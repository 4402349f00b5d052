//! `mma.sync` of values that are no small integers: results against products in float64 or 64-bit integers, within
//! the rounding of each addition. Each element is put where the ISA's formula for its fragment says (9.7.14.5).

use crate::device::{Setup, Shape, fault, run};
use crate::files::{Expected, bounds};
use crate::lanes::{HEADER, Random};

/// A floating-point format as its bits of exponent and mantissa, or an integer.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Float { bits: u32, exponent: u32, mantissa: u32 },
    Signed,
    Unsigned,
    Int32,
}

pub const F16: Kind = Kind::Float { bits: 16, exponent: 5, mantissa: 10 };
pub const BF16: Kind = Kind::Float { bits: 16, exponent: 8, mantissa: 7 };
pub const TF32: Kind = Kind::Float { bits: 32, exponent: 8, mantissa: 10 };
pub const F32: Kind = Kind::Float { bits: 32, exponent: 8, mantissa: 23 };
const F64: Kind = Kind::Float { bits: 64, exponent: 11, mantissa: 52 };

/// What the matrices hold.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// Integers so small that every sum is exact.
    Integers,
    /// Values of about one, of all signs and mantissas.
    Ones,
    /// Any finite values of the format that neither overflow nor vanish: several binades.
    Wide,
}

impl Kind {
    pub fn bits(self) -> u32 {
        match self {
            Kind::Float { bits, .. } => bits,
            Kind::Int32 => 32,
            _ => 8,
        }
    }

    /// The PTX type of a sum.
    fn name(self) -> &'static str {
        match self {
            _ if self == F64 => "f64",
            _ if self == F32 => "f32",
            _ if self == F16 => "f16",
            _ => "s32",
        }
    }

    /// A value's bits and itself.
    fn draw(self, random: &mut Random, fill: Fill) -> (u64, f64) {
        let r = random.next();
        match self {
            Kind::Signed => (r & 0xff, f64::from(r as i8)),
            Kind::Unsigned => (r & 0xff, f64::from(r as u8)),
            // Now and then so large that sums leave the range.
            Kind::Int32 => {
                let value = if r & 3 == 0 {
                    i32::MAX - (r >> 33) as i32 % 9000
                } else {
                    (r >> 40) as i32 - (1 << 23)
                };
                let value = if r & 4 == 0 { value } else { -value };
                (u64::from(value as u32), f64::from(value))
            }
            Kind::Float { bits, exponent, mantissa } => {
                let bias = (1i64 << (exponent - 1)) - 1;
                let unused = bits - 1 - exponent - mantissa;
                let (sign, mut fraction) = (r >> 63, r >> 8 & ((1 << mantissa) - 1));
                let mut power = match fill {
                    Fill::Ones => -((r >> 3) as i64 & 3),
                    _ => (r >> 3) as i64 % 13 - 6,
                };
                if fill == Fill::Integers {
                    power = (r >> 3) as i64 & 1;
                    fraction &= 1 << (mantissa - 1); // 1, 1.5, 2 or 3
                }
                let value = (1.0 + fraction as f64 / 2f64.powi(mantissa as i32)) * 2f64.powi(power as i32);
                let value = if fill == Fill::Integers { 2.0 * value } else { value };
                let power = if fill == Fill::Integers { power + 1 } else { power };
                let code = sign << (bits - 1)
                    | ((power + bias) as u64) << (bits - 1 - exponent)
                    | fraction << unused;
                // What the format does not use must not count.
                let noise = if unused > 0 { random.next() & ((1 << unused) - 1) } else { 0 };
                (code | noise, if sign == 0 { value } else { -value })
            }
        }
    }
}

/// Row and column of element `i` of lane `4 g + t`.
pub type Place = fn(usize, usize, usize) -> (usize, usize);

pub struct Form {
    pub shape: &'static str,
    pub types: &'static str,
    pub m: usize,
    pub k: usize,
    pub a: (Kind, Place),
    pub b: (Kind, Place),
    pub c: (Kind, Place),
}

fn c16(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))
}
fn c8(i: usize, g: usize, t: usize) -> (usize, usize) {
    (g, t * 2 + i)
}
fn a16_k16(i: usize, g: usize, t: usize) -> (usize, usize) {
    let row = if i < 2 || (4..6).contains(&i) { g } else { g + 8 };
    (row, if i < 4 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 })
}
fn b16_k16(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i < 2 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 }, g)
}
fn a16_k8(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))
}
fn b16_k8(i: usize, g: usize, t: usize) -> (usize, usize) {
    (t * 2 + i, g)
}
fn a32_k4(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i == 0 { g } else { g + 8 }, t)
}
fn b32_k4(_: usize, g: usize, t: usize) -> (usize, usize) {
    (t, g)
}
fn a32_k8(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i == 0 || i == 2 { g } else { g + 8 }, if i < 2 { t } else { t + 4 })
}
fn b32_k8(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i == 0 { t } else { t + 4 }, g)
}
fn a8_k32(i: usize, g: usize, t: usize) -> (usize, usize) {
    let row = if i < 4 || (8..12).contains(&i) { g } else { g + 8 };
    (row, if i < 8 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 })
}
fn b8_k32(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i < 4 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 }, g)
}
fn a8_k16(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i < 4 { g } else { g + 8 }, t * 4 + (i & 3))
}
fn b8_k16(i: usize, g: usize, t: usize) -> (usize, usize) {
    (t * 4 + i, g)
}
fn a8_m8(i: usize, g: usize, t: usize) -> (usize, usize) {
    (g, t * 4 + i)
}
fn a64_m8(_: usize, g: usize, t: usize) -> (usize, usize) {
    (g, t)
}
fn a64_k16(i: usize, g: usize, t: usize) -> (usize, usize) {
    (if i & 1 == 0 { g } else { g + 8 }, i * 2 - (i % 2) * 2 + t)
}
fn b64_k16(i: usize, g: usize, t: usize) -> (usize, usize) {
    (i * 4 + t, g)
}

pub fn forms() -> Vec<Form> {
    let form = |shape, types, m, k, a, b, c| Form { shape, types, m, k, a, b, c };
    let (c_f32, c_f16, c_int): ((Kind, Place), (Kind, Place), (Kind, Place)) =
        ((F32, c16), (F16, c16), (Kind::Int32, c16));
    let mut forms = vec![
        form("m16n8k16", "f32.f16.f16.f32", 16, 16, (F16, a16_k16 as Place), (F16, b16_k16 as Place), c_f32),
        form("m16n8k16", "f16.f16.f16.f16", 16, 16, (F16, a16_k16), (F16, b16_k16), c_f16),
        form("m16n8k8", "f32.f16.f16.f32", 16, 8, (F16, a16_k8), (F16, b16_k8), c_f32),
        form("m16n8k8", "f16.f16.f16.f16", 16, 8, (F16, a16_k8), (F16, b16_k8), c_f16),
        form("m16n8k16", "f32.bf16.bf16.f32", 16, 16, (BF16, a16_k16), (BF16, b16_k16), c_f32),
        form("m16n8k8", "f32.bf16.bf16.f32", 16, 8, (BF16, a16_k8), (BF16, b16_k8), c_f32),
        form("m16n8k4", "f32.tf32.tf32.f32", 16, 4, (TF32, a32_k4), (TF32, b32_k4), c_f32),
        form("m16n8k8", "f32.tf32.tf32.f32", 16, 8, (TF32, a32_k8), (TF32, b32_k8), c_f32),
        form("m8n8k4", "f64.f64.f64.f64", 8, 4, (F64, a64_m8), (F64, b32_k4), (F64, c8)),
        form("m16n8k4", "f64.f64.f64.f64", 16, 4, (F64, a32_k4), (F64, b32_k4), (F64, c16)),
        form("m16n8k8", "f64.f64.f64.f64", 16, 8, (F64, a32_k8), (F64, b32_k8), (F64, c16)),
        form("m16n8k16", "f64.f64.f64.f64", 16, 16, (F64, a64_k16), (F64, b64_k16), (F64, c16)),
    ];
    for (name_a, a) in [("s8", Kind::Signed), ("u8", Kind::Unsigned)] {
        for (name_b, b) in [("s8", Kind::Signed), ("u8", Kind::Unsigned)] {
            for saturate in ["", "satfinite."] {
                let types: &'static str = format!("{saturate}s32.{name_a}.{name_b}.s32").leak();
                forms.push(form("m16n8k32", types, 16, 32, (a, a8_k32), (b, b8_k32), c_int));
                forms.push(form("m16n8k16", types, 16, 16, (a, a8_k16), (b, b8_k16), c_int));
                forms.push(form("m8n8k16", types, 8, 16, (a, a8_m8), (b, b8_k16), (Kind::Int32, c8)));
            }
        }
    }
    forms
}

/// Registers of a fragment of `rows × columns` elements: their number and bits.
fn registers(kind: Kind, elements: usize) -> (usize, usize) {
    let bits = kind.bits().max(32) as usize;
    (elements * kind.bits() as usize / (32 * bits), bits)
}

/// A kernel that loads the fragments of A, B and C one after another from `in`, lane by lane, and stores D.
pub fn kernel(form: &Form) -> String {
    let of = |(kind, _): (Kind, Place), elements| registers(kind, elements);
    let (a, b, c) = (of(form.a, form.m * form.k), of(form.b, 8 * form.k), of(form.c, 8 * form.m));
    let mut text = format!(
        "{HEADER}.visible .entry k(.param .u64 outs, .param .u64 ins) {{ .reg .b32 lane; .reg .b64 in, out, at;
        .reg .b32 w<32>; .reg .b64 x<32>; mov.u32 lane, %laneid; ld.param.u64 in, [ins]; ld.param.u64 out, [outs];\n"
    );
    let (mut lists, mut number, mut offset) = (Vec::new(), 0, 0);
    for (count, bits) in [a, b, c] {
        let bytes = bits / 8;
        let name = |i: usize| format!("{}{i}", if bits == 64 { "x" } else { "w" });
        let list: Vec<String> = (number..number + count).map(name).collect();
        for register in &list {
            text += &format!(
                "mad.wide.u32 at, lane, {bytes}, in; ld.global.b{bits} {register}, [at+{offset}];\n"
            );
            offset += 32 * bytes;
        }
        number += count;
        lists.push(list);
    }
    let [a, b, c] = &lists[..] else { unreachable!() };
    let list = |names: &[String]| format!("{{{}}}", names.join(", "));
    text += &format!(
        "mma.sync.aligned.{}.row.col.{} {}, {}, {}, {};\n",
        form.shape,
        form.types,
        list(c),
        list(a),
        list(b),
        list(c)
    );
    let bits = registers(form.c.0, 8 * form.m).1;
    for (i, register) in c.iter().enumerate() {
        text += &format!(
            "mad.wide.u32 at, lane, {}, out; st.global.b{bits} [at+{}], {register};\n",
            bits / 8,
            i * 32 * bits / 8
        );
    }
    text + "ret; }\n"
}

/// A matrix's values, and its fragments' bytes.
fn fragments(
    (kind, place): (Kind, Place),
    rows: usize,
    columns: usize,
    random: &mut Random,
    fill: Fill,
) -> (Vec<f64>, Vec<u8>) {
    let (bits, values): (Vec<u64>, Vec<f64>) = (0..rows * columns).map(|_| kind.draw(random, fill)).unzip();
    (values, pack((kind, place), columns, &bits))
}

/// The bytes of fragments whose matrix has these bits: registers one after another, 32 lanes each.
pub fn pack((kind, place): (Kind, Place), columns: usize, bits: &[u64]) -> Vec<u8> {
    let each = kind.bits() as usize / 8;
    let mut bytes = vec![0; bits.len() * each];
    for (lane, i) in (0..32).flat_map(|lane| (0..bits.len() / 32).map(move |i| (lane, i))) {
        let (row, column) = place(i, lane / 4, lane % 4);
        let at = offset(kind, lane, i);
        bytes[at..at + each].copy_from_slice(&bits[row * columns + column].to_le_bytes()[..each]);
    }
    bytes
}

/// Where element `i` of a lane is among those bytes.
pub fn offset(kind: Kind, lane: usize, i: usize) -> usize {
    let (each, register) = (kind.bits() as usize / 8, kind.bits().max(32) as usize / 8);
    (i * each / register * 32 + lane) * register + i * each % register
}

#[test]
fn products() {
    for form in forms() {
        let ptx = kernel(&form);
        for (seed, fill) in [(1, Fill::Integers), (2, Fill::Ones), (3, Fill::Wide), (4, Fill::Wide)] {
            let mut random = Random::new(seed);
            let (m, k) = (form.m, form.k);
            let (a, mut inp) = fragments(form.a, m, k, &mut random, fill);
            let (b, bytes) = fragments(form.b, k, 8, &mut random, fill);
            inp.extend(bytes);
            let (c, bytes) = fragments(form.c, m, 8, &mut random, fill);
            inp.extend(&bytes);
            let mut buffers = [vec![0; bytes.len()], inp];
            let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
            let ran =
                run(&ptx, "k", shape, &mut buffers).unwrap_or_else(|error| panic!("{}: {error}", form.types));
            let (kind, place) = form.c;
            let mut accepted = vec![(0, 0); buffers[0].len() / (kind.bits() as usize / 8)];
            let each = kind.bits() as usize / 8;
            for lane in 0..32 {
                for i in 0..m * 8 / 32 {
                    let (row, column) = place(i, lane / 4, lane % 4);
                    let at = offset(kind, lane, i);
                    let mut word = [0; 8];
                    word[..each].copy_from_slice(&buffers[0][at..at + each]);
                    let bits = u64::from_le_bytes(word);
                    let found = value(kind, bits);
                    let terms = (0..k).map(|i| a[row * k + i] * b[i * 8 + column]);
                    let (wanted, size) =
                        terms.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
                    let (wanted, size) = (wanted + c[row * 8 + column], size + c[row * 8 + column].abs());
                    let wanted = match form.types.starts_with("satfinite") {
                        true => wanted.clamp(f64::from(i32::MIN), f64::from(i32::MAX)),
                        false if kind == Kind::Int32 => f64::from(wanted as i64 as i32),
                        false => wanted,
                    };
                    let bound = match fill {
                        Fill::Integers => 0.0,
                        _ => tolerance(kind, k, wanted, size),
                    };
                    let error = (found - wanted).abs();
                    assert!(
                        error <= bound,
                        "{} {} ({row}, {column}): {found} is {error:e} off {wanted}, and {bound:e} is allowed",
                        form.shape,
                        form.types
                    );
                    if ran.is_kept() {
                        let is_near = |bits| (value(kind, bits) - wanted).abs() <= bound;
                        accepted[at / each] = bounds(kind.name(), bits, is_near);
                    }
                }
            }
            ran.keep(&[(0, Expected::between(kind.name(), accepted.into_iter()))]);
        }
    }
}

/// How far a sum of `k` products and one more term, of which `size` is the sum of magnitudes, may be off:
/// each addition rounds once, in float32 at least, and the result once more to its format.
fn tolerance(kind: Kind, k: usize, wanted: f64, size: f64) -> f64 {
    let sums = |unit: f64| (k + 1) as f64 * unit * size;
    match kind {
        _ if kind == F64 => 2.0 * sums(2f64.powi(-53)), // the reference rounds as well
        _ if kind == F32 => sums(2f64.powi(-24)),
        _ if kind == F16 => sums(2f64.powi(-24)) + (wanted.abs() + sums(2f64.powi(-24))) * 2f64.powi(-11),
        _ => 0.0,
    }
}

/// An accumulator's value.
fn value(kind: Kind, word: u64) -> f64 {
    match kind {
        _ if kind == F64 => f64::from_bits(word),
        _ if kind == F32 => f64::from(f32::from_bits(word as u32)),
        Kind::Int32 => f64::from(word as u32 as i32),
        _ => {
            let (exponent, fraction) = ((word >> 10 & 31) as i32, (word & 1023) as f64);
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 => f64::INFINITY,
                _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
            };
            if word & 0x8000 != 0 { -magnitude } else { magnitude }
        }
    }
}

#[test]
fn others_are_refused() {
    for (code, registers) in [
        ("m8n8k4.row.col.f32.f16.f16.f32", "{w0, w1, w2, w3}, {w0, w1}, {w0, w1}, {w0, w1, w2, w3}"),
        (
            "m16n8k16.row.col.f32.f16.bf16.f32",
            "{w0, w1, w2, w3}, {w0, w1, w2, w3}, {w0, w1}, {w0, w1, w2, w3}",
        ),
        ("m16n8k32.row.col.s32.s4.s4.s32", "{w0, w1, w2, w3}, {w0, w1}, {w0}, {w0, w1, w2, w3}"),
        ("m16n8k16.row.col.f32.f16.f16.f32", "{w0, w1, w2, w3}, {w0, w1, w2}, {w0, w1}, {w0, w1, w2, w3}"),
        (
            "m16n8k16.row.row.f32.f16.f16.f32",
            "{w0, w1, w2, w3}, {w0, w1, w2, w3}, {w0, w1}, {w0, w1, w2, w3}",
        ),
    ] {
        let ptx = format!(
            "{HEADER}.visible .entry k(.param .u64 out) {{ .reg .b32 w<4>;\nmma.sync.aligned.{code} {registers};\nret; }}"
        );
        let (setup, shape) =
            (Setup { cluster: 1, ..Setup::default() }, Shape { blocks: 1, threads: 32, shared_bytes: 0 });
        if let Some(found) = fault(&ptx, "k", shape, &setup, &mut [vec![0; 16]]) {
            assert!(found.contains("line 5") && found.contains(code), "{code}: {found}");
        }
    }
}
