//! Products of `kernels/linear_wgmma.cu` in any tile, against their definition in float64.

use bytemuck::{Pod, Zeroable};
use half::f16;
use vcuda::exec::{Launch, TensorCore};

use crate::{Device, bytes, halves, random};

/// The kernel with what it includes, each once, in an order that serves.
const PARTS: [&str; 5] = [
    include_str!("../../kernels/prelude.cuh"),
    include_str!("../../kernels/element.cuh"),
    include_str!("../../kernels/linear.cuh"),
    include_str!("../../kernels/ptx.cuh"),
    include_str!("../../kernels/linear_wgmma.cu"),
];
const NAN: f16 = f16::NAN;

/// Of `kernels/linear.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Linear {
    /// A, B, their second terms, out, kept, bias, addend.
    addresses: [u64; 8],
    steps: [u64; 6],
    sizes: [i32; 4],
    /// A, B, out, kept, addend.
    pitches: [i32; 5],
    alpha: f32,
    beta: f32,
    second: f32,
    aligned: i32,
    end: i32,
    rest: u64,
    addend2: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub bm: usize,
    pub bn: usize,
    pub stages: usize,
    pub pingpong: bool,
    /// CTAs below and beside one another.
    pub cluster: [usize; 2],
}

pub const fn tile(bm: usize, bn: usize, stages: usize) -> Tile {
    Tile { bm, bn, stages, pingpong: false, cluster: [1, 1] }
}

pub const BELOW: [usize; 2] = [2, 1];
pub const BESIDE: [usize; 2] = [1, 2];
/// What second terms are times.
const SECOND: f32 = 1.0 / 4096.0;

/// What a source is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub layout: usize,
    pub act: usize,
    pub gelu: bool,
    pub out_float: bool,
    /// Of A and B.
    pub terms: [usize; 2],
    /// Whether the result, and the addend, is in two.
    pub out_terms: bool,
    pub addend_terms: bool,
    pub tile: Tile,
}

pub const ONE_TERM: [usize; 2] = [1, 1];

pub const PLAIN_KIND: Kind = Kind {
    layout: 0,
    act: 0,
    gelu: false,
    out_float: false,
    terms: ONE_TERM,
    out_terms: false,
    addend_terms: false,
    tile: tile(128, 128, 3),
};

impl Kind {
    pub fn device(&self, approx: bool) -> Device {
        let Tile { bm, bn, stages, pingpong, cluster: [below, beside] } = self.tile;
        let defines = [
            ("ELEMENT_HALF", 1),
            ("LAYOUT", self.layout),
            ("ACT", self.act),
            ("GELU", self.gelu.into()),
            ("OUT_FLOAT", self.out_float.into()),
            ("BM", bm),
            ("BN", bn),
            ("STAGES", stages),
            ("PINGPONG", pingpong.into()),
            ("CLUSTER_M", below),
            ("CLUSTER_N", beside),
            ("OUT_TERMS", self.out_terms.into()),
            ("ADDEND_TERMS", self.addend_terms.into()),
            ("A_TERMS", self.terms[0]),
            ("B_TERMS", self.terms[1]),
        ];
        let lines = PARTS.iter().flat_map(|part| part.lines());
        let source: String = lines
            .filter(|line| !line.starts_with("#include") && *line != "#pragma once")
            .flat_map(|line| [line, "\n"])
            .collect();
        Device::new("linear_wgmma", &source, &defines, ("90a", approx))
    }
}

/// A product and what it is finished with.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// M, N, K.
    pub sizes: [usize; 3],
    pub batch: usize,
    /// A, B, and bias and addend have a matrix for each of the batch.
    pub own: [bool; 3],
    pub bias: bool,
    pub addend: bool,
    /// What is written beside the result: y of an activation, or y in one term of a result in two.
    pub kept: bool,
    /// How many elements rows are further apart than they are long, at least.
    pub apart: usize,
    pub alpha: f32,
    pub beta: f32,
    /// Compared with float64, not with itself alone.
    pub against_truth: bool,
}

pub const PLAIN: Case = Case {
    sizes: [0; 3],
    batch: 1,
    own: [true; 3],
    bias: true,
    addend: false,
    kept: true,
    apart: 0,
    alpha: 1.0,
    beta: 1.0,
    against_truth: true,
};

/// Matrices of `rows` by `columns` values, one after another, their rows `pitch` apart, NaN between.
struct Matrices {
    values: Vec<f16>,
    rows: usize,
    columns: usize,
    pitch: usize,
    step: usize,
}

impl Matrices {
    fn new(count: usize, own: bool, [rows, columns]: [usize; 2], pitch: usize, seed: u32) -> Matrices {
        let (count, step) = if own { (count, rows * pitch) } else { (1, 0) };
        let mut values = random(count * rows * pitch, seed);
        for row in values.chunks_mut(pitch) {
            row[columns..].fill(NAN);
        }
        Matrices { values, rows, columns, pitch, step }
    }

    fn at(&self, batch: usize, row: usize, column: usize) -> f64 {
        self.values[batch * self.step + row * self.pitch + column].into()
    }

    fn map(&self, device: &Device, address: u64, box_rows: usize) -> Vec<u8> {
        let count = self.values.len() / (self.rows * self.pitch);
        let dims = [self.columns as u64, self.rows as u64, count as u64];
        let strides = [2 * self.pitch as u64, 2 * (self.pitch * self.rows) as u64];
        device.map(address, &dims, &strides, &[64, box_rows as u32, 1])
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function by its series, and past 5 by its limit.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn activation(gelu: bool, x: f64) -> f64 {
    x * if gelu { 0.5 * (1.0 + erf(x / 2f64.sqrt())) } else { sigmoid(1.702 * x) }
}

fn slope(gelu: bool, x: f64) -> f64 {
    if gelu {
        0.5 * (1.0 + erf(x / 2f64.sqrt())) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    } else {
        let s = sigmoid(1.702 * x);
        s + 1.702 * x * s * (1.0 - s)
    }
}

/// A result and how far from it one may be, before it is rounded.
struct Truth {
    value: f64,
    most: f64,
}

/// Runs a case; compares with float64, and returns the bytes of what has been written.
pub fn check(
    device: &Device,
    kind: Kind,
    case: Case,
    (seed, sums): (u64, Option<TensorCore>),
) -> [Vec<u8>; 2] {
    let Kind { layout, act, gelu, out_float, terms, out_terms, addend_terms, tile } = kind;
    let ([m, n, k], batch) = (case.sizes, case.batch);
    let pitch = |columns: usize| (columns + case.apart).next_multiple_of(8);
    let transposed = [layout == 2, layout != 0];
    let matrices = |i: usize, rows: usize, seed: u32| {
        let shape = if transposed[i] { [k, rows] } else { [rows, k] };
        Matrices::new(batch, case.own[i], shape, pitch(shape[1]), seed)
    };
    let operands = [matrices(0, m, 1), matrices(1, n, 2), matrices(0, m, 6), matrices(1, n, 7)];
    let [out_pitch, kept_pitch, addend_pitch] = [n + case.apart, n + 2 * case.apart, n + 3 * case.apart];
    let floats =
        |len: usize, seed: u32| -> Vec<f32> { random(len, seed).iter().map(|x| 4.0 * x.to_f32()).collect() };
    let bytes_of = |values: &[f32]| bytemuck::cast_slice::<f32, u8>(values).to_vec();
    let count = if case.own[2] { batch } else { 1 };
    let (bias, addend) = (floats(count * n, 3), floats(count * m * addend_pitch, 4));
    let mut kept: Vec<f16> =
        random(batch * m * kept_pitch, 5).iter().map(|x| f16::from_f32(x.to_f32() * 4.0)).collect();
    if act == 1 || out_terms {
        kept.fill(NAN);
    }
    let size = if out_float { 4 } else { 2 };
    let out_bytes = vec![0xff; batch * m * out_pitch * size];
    let (has_bias, has_addend, has_kept) =
        (case.bias, case.addend, act == 2 || out_terms || act == 1 && case.kept);
    // An addend in two terms, and what both come to.
    let addend2 = random(addend.len(), 8);
    let of_addend = match addend_terms {
        true => bytes(&addend.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
        false => bytes_of(&addend),
    };
    // Of a result in two terms: whether it is there in one, too.
    let has_out = !out_terms || case.kept;
    let rest = vec![NAN; kept.len()];
    let at: Vec<u64> = operands
        .iter()
        .map(|x| bytes(&x.values))
        .chain([out_bytes.clone(), bytes(&kept), bytes_of(&bias), of_addend, bytes(&rest), bytes(&addend2)])
        .map(|bytes| device.upload(&bytes))
        .collect();
    let given = [true, true, terms[0] > 1, terms[1] > 1, has_out, has_kept, has_bias, has_addend];
    let shared = |step: usize| if case.own[2] { step as u64 } else { 0 };
    let aligned = [out_pitch * size, kept_pitch * 2, addend_pitch * 4, n * 4].iter().all(|x| x % 16 == 0);
    let params = Linear {
        addresses: std::array::from_fn(|i| if given[i] { at[i] } else { 0 }),
        steps: [
            operands[0].step as u64,
            operands[1].step as u64,
            (m * out_pitch) as u64,
            (m * kept_pitch) as u64,
            shared(n),
            shared(m * addend_pitch),
        ],
        sizes: [m, n, k, batch].map(|x| x as i32),
        pitches: [operands[0].pitch, operands[1].pitch, out_pitch, kept_pitch, addend_pitch]
            .map(|x| x as i32),
        alpha: case.alpha,
        beta: case.beta,
        second: SECOND,
        end: 0,
        rest: if out_terms { at[8] } else { 0 },
        addend2: if addend_terms { at[9] } else { 0 },
        aligned: 3 | i32::from(aligned) << 2,
    };
    let [below, beside] = tile.cluster;
    let rows = [tile.bm / beside, tile.bn / below];
    let map = |term: usize, i: usize| {
        let at_once = if transposed[i] { 64 } else { rows[i] };
        operands[2 * term + i].map(device, at[2 * term + i], at_once)
    };
    let maps = (0..2).flat_map(|i| (0..terms[i]).flat_map(move |term| map(term, i))).collect();
    let (cluster, rows) = ((below * beside) as u32, terms[0] * tile.bm + terms[1] * tile.bn);
    let launch = Launch {
        grid: [4, 1, 1],
        cluster: [cluster, 1, 1],
        block: [384, 1, 1],
        dynamic_shared_bytes: (tile.stages * (128 * rows + 16) + 32_768 + 16) as u32,
    };
    let args = [maps, bytemuck::bytes_of(&params).to_vec()];
    device.launch("linear_wgmma", launch, &args, (seed, sums));

    let what = format!("{kind:?} {case:?} seed {seed} sums {sums:?}");
    let out_read = device.read(&what, at[4], out_bytes.len());
    let kept_read = device.read(&what, at[5], 2 * kept.len());
    let rest_read = device.read(&what, at[8], 2 * rest.len());
    // Rows of the sums' factors, whatever the layout, of first and second terms.
    let factors = |i: usize, b: usize, rows: usize| -> Vec<[f64; 2]> {
        let at = |term: usize, row, h| {
            let of = &operands[2 * term + i];
            if transposed[i] { of.at(b, h, row) } else { of.at(b, row, h) }
        };
        let second = |row, h| if terms[i] > 1 { f64::from(SECOND) * at(1, row, h) } else { 0.0 };
        (0..rows * k).map(|x| [at(0, x / k, x % k), second(x / k, x % k)]).collect()
    };
    let unit = 2f64.powi(-24);
    let float = |bytes: &[u8], i: usize| -> f64 {
        let at = &bytes[i * 4..][..4];
        f32::from_le_bytes(at.try_into().expect("four bytes")).into()
    };
    let short =
        |bytes: &[u8], i: usize| -> f64 { f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).into() };
    let compare = |name: &str, i: [usize; 3], got: f64, truth: Truth, ulp: f64, least: f64| {
        let most = truth.most + (truth.value.abs() * ulp).max(least);
        let error = (got - truth.value).abs();
        assert!(error <= most, "{what}: {name} {i:?} is {got}, not {} within {most:e}", truth.value);
    };
    for b in 0..if case.against_truth { batch } else { 0 } {
        let factors = [factors(0, b, m), factors(1, b, n)];
        for row in 0..m {
            for column in 0..n {
                let (mut sum, mut greatest) = (0f64, 1f64);
                for (x, y) in factors[0][row * k..][..k].iter().zip(&factors[1][column * k..][..k]) {
                    sum += x[0] * y[0] + x[1] * y[0] + x[0] * y[1];
                    greatest = greatest.max(sum.abs());
                }
                // As `crate::sum_error` has it.
                let error = k.div_ceil(8) as f64 * 11.0 * unit * greatest;
                let (alpha, beta) = (f64::from(case.alpha), f64::from(case.beta));
                let of_bias = f64::from(bias[if case.own[2] { b * n } else { 0 } + column]) * beta;
                let addend_at =
                    if case.own[2] { b * m * addend_pitch } else { 0 } + row * addend_pitch + column;
                let of_second =
                    if addend_terms { f64::from(SECOND) * f64::from(addend2[addend_at]) } else { 0.0 };
                let of_addend = f64::from(addend[addend_at]) + of_second;
                let terms = [
                    alpha * sum,
                    if has_bias { of_bias } else { 0.0 },
                    if has_addend { of_addend } else { 0.0 },
                ];
                let x: f64 = terms.iter().sum();
                let most = alpha.abs() * error + 3.0 * unit * terms.iter().map(|x| x.abs()).sum::<f64>();
                let place = [b, row, column];
                let kept_at = (b * m + row) * kept_pitch + column;
                // Of the factor that x is multiplied with: exponentials are off by 2 units and by the rounding of their
                // arguments, sums and quotients by a few more.
                let truth = match act {
                    0 if out_terms => {
                        let [first, second] = [&kept_read, &rest_read].map(|bytes| short(bytes, kept_at));
                        let truth = || Truth { value: x, most };
                        compare("first term", place, first, truth(), 2f64.powi(-11), 2f64.powi(-25));
                        let both = first + f64::from(SECOND) * second;
                        compare("both terms", place, both, truth(), 2f64.powi(-22), 2f64.powi(-36));
                        truth()
                    }
                    0 => Truth { value: x, most },
                    1 => {
                        if has_kept {
                            let truth = Truth { value: x, most };
                            compare(
                                "kept",
                                place,
                                short(&kept_read, kept_at),
                                truth,
                                2f64.powi(-11),
                                2f64.powi(-25),
                            );
                        }
                        let of_factor = (8.0 + 4.0 * x.abs()) * unit;
                        Truth { value: activation(gelu, x), most: 1.2 * most + x.abs() * of_factor }
                    }
                    _ => {
                        let from = f64::from(kept[kept_at]);
                        let of_factor = (8.0 + 8.0 * from.abs()) * (1.0 + from.abs()) * unit;
                        let factor = slope(gelu, from);
                        Truth { value: x * factor, most: 1.2 * most + x.abs() * of_factor }
                    }
                };
                let out_at = (b * m + row) * out_pitch + column;
                if !has_out {
                    continue;
                }
                if out_terms {
                    // What rounding the one leaves is the other, to the bit.
                    let y = float(&out_read, out_at);
                    let first = f16::from_f64(y);
                    let second = f16::from_f64((y - f64::from(first)) / f64::from(SECOND));
                    let terms = [&kept_read, &rest_read].map(|bytes| short(bytes, kept_at));
                    assert_eq!(terms, [first, second].map(f64::from), "{what}: terms of {place:?}, {y}");
                }
                match out_float {
                    true => compare("out", place, float(&out_read, out_at), truth, unit, 0.0),
                    false => {
                        compare("out", place, short(&out_read, out_at), truth, 2f64.powi(-11), 2f64.powi(-25))
                    }
                }
            }
        }
    }
    // Nothing between rows has been written, and nothing that is not asked for.
    let columns = if has_out { n } else { 0 };
    for (row, bytes) in out_read.chunks(out_pitch * size).enumerate() {
        assert!(bytes[columns * size..].iter().all(|&x| x == 0xff), "{what}: row {row} of out is too long");
    }
    if !out_terms {
        assert_eq!(rest_read, self::bytes(&rest), "{what}: a second term");
    }
    match act {
        _ if out_terms => {
            for term in [&kept_read, &rest_read] {
                let mut rows = term.chunks(2 * kept_pitch);
                assert!(
                    rows.all(|row| halves(&row[2 * n..]).iter().all(|x| x.is_nan())),
                    "{what}: beside a term"
                );
            }
        }
        1 if has_kept => {}
        _ => assert_eq!(kept_read, self::bytes(&kept), "{what}: kept"),
    }
    at.into_iter().for_each(|address| device.free(address));
    [out_read, kept_read]
}
