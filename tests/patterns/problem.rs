//! What a pattern computes, in float64, with the bound that its arithmetic has.

use std::collections::BTreeMap;

use half::f16;
use vcuda::tensor_map::TensorMap;

/// What a source is compiled with. `TA`, `TB`, `SPAN` and `SIGNAL` are among them, see `hopper.cuh`.
pub type Defines = BTreeMap<&'static str, u32>;

#[derive(Clone, Copy, PartialEq)]
pub enum Task {
    /// D (m, n) = A · B.
    Product,
    /// D (m, 64) = softmax(A Kᵀ / 8) · V of rows of 64, K and V one after the other in B.
    Attention,
}

/// Sizes and operands; what D must be, and how far from it an element may be.
pub struct Problem {
    size: [usize; 3],
    transposed: [bool; 2],
    span: u32,
    /// Rows of a box of A, and of B, where they are not transposed.
    box_rows: [u32; 2],
    pub a: Vec<f16>,
    pub b: Vec<f16>,
    pub want: Vec<(f64, f64)>,
}

/// `CU_TENSOR_MAP_DATA_TYPE_FLOAT16` and `_FLOAT32`.
const FLOAT16: u32 = 6;
const FLOAT32: u32 = 7;

/// Numbers between -1 and 1, exact in float16.
fn random(len: usize, seed: u32) -> Vec<f16> {
    let value = |i: u32| (i.wrapping_add(seed << 16).wrapping_mul(2_654_435_761) >> 21) as f32 / 1024.0 - 1.0;
    (0..len as u32).map(|i| f16::from_f32(value(i))).collect()
}

/// A map of a row-major matrix.
fn map(ty: u32, address: u64, [rows, columns]: [usize; 2], [high, wide]: [u32; 2], span: u32) -> Vec<u8> {
    let bytes = if ty == FLOAT16 { 2 } else { 4 };
    let (dims, strides) = ([columns as u64, rows as u64], [bytes * columns as u64]);
    // `CU_TENSOR_MAP_SWIZZLE_32B`, `_64B` and `_128B` are 1, 2 and 3.
    let map = TensorMap::tiled(ty, address, &dims, &strides, &[wide, high], &[1, 1], span.ilog2() - 4, 0);
    map.unwrap_or_else(|error| panic!("{error}")).encode().to_vec()
}

impl Problem {
    /// `tiles` of 64 × 64 down and across, `steps` of the sum; `slices` that bring a block of A, and of B.
    pub fn new(task: Task, defines: &Defines, tiles: [usize; 2], steps: usize, slices: [u32; 2]) -> Problem {
        let span = defines["SPAN"];
        let [m, n, k] = [64 * tiles[0], 64 * tiles[1], steps * span as usize / 2];
        let b_rows = if task == Task::Attention { 2 * n } else { n };
        let mut problem = Problem {
            size: [m, n, k],
            transposed: ["TA", "TB"].map(|name| defines[name] == 1),
            span,
            box_rows: slices.map(|slices| 64 / slices),
            a: random(m * k, 1),
            b: random(b_rows * k, 2),
            want: Vec::new(),
        };
        problem.want = if task == Task::Product { problem.product() } else { problem.attention() };
        problem
    }

    /// Products of float16 are exact in float32, and k of them, summed in any order, are off by k roundings at most of no
    /// more than the sum of their magnitudes. An H100 cuts seventeen terms to 25 bits below the greatest and their sum to 23,
    /// for sixteen products: 10.5 of these roundings.
    fn product(&self) -> Vec<(f64, f64)> {
        let [m, n, k] = self.size;
        let [ta, tb] = self.transposed;
        let a = |row, i| f64::from(self.a[if ta { i * m + row } else { row * k + i }]);
        let b = |column, i| f64::from(self.b[if tb { i * n + column } else { column * k + i }]);
        let element = |row, column| {
            let terms = (0..k).map(|i| a(row, i) * b(column, i));
            let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, all), x| (sum + x, all + x.abs()));
            (sum, k as f64 * 2f64.powi(-24) * magnitude)
        };
        (0..m * n).map(|i| element(i / n, i % n)).collect()
    }

    /// A weight is off by 2^-11 of itself, half a unit of float16, or 2^-25 where that is subnormal; by what the score's
    /// error makes of it; and by 2^-21 for each block's power of two and scaling. Their total is off by less.
    fn attention(&self) -> Vec<(f64, f64)> {
        let [m, n, k] = self.size;
        let (unit, scale) = (2f64.powi(-24), 1.0 / 8.0);
        let row = |x: &[f16], i: usize| x[i * k..][..k].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let values: Vec<Vec<f64>> = (n..2 * n).map(|i| row(&self.b, i)).collect();
        let mut want = Vec::with_capacity(m * k);
        for query in (0..m).map(|i| row(&self.a, i)) {
            let score = |key: usize| {
                let terms = row(&self.b, key).into_iter().zip(&query).map(|(x, y)| x * y).collect::<Vec<_>>();
                let magnitude: f64 = terms.iter().map(|x| x.abs()).sum();
                (scale * terms.iter().sum::<f64>(), scale * (k as f64 + 4.0) * unit * magnitude)
            };
            let scores: Vec<(f64, f64)> = (0..n).map(score).collect();
            let most = scores.iter().fold(f64::MIN, |most, score| most.max(score.0));
            let weights: Vec<f64> = scores.iter().map(|score| (score.0 - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            let off = scores.iter().fold(0.0, |off: f64, score| off.max(score.1))
                + (n / 64) as f64 * 2f64.powi(-21)
                + n as f64 * unit;
            for c in 0..k {
                let column = || weights.iter().zip(&values).map(|(weight, row)| (weight, row[c]));
                let element: f64 = column().map(|(weight, value)| weight * value).sum::<f64>() / total;
                let magnitude: f64 =
                    column().map(|(weight, value)| weight * value.abs()).sum::<f64>() / total;
                let subnormal: f64 = column().map(|(_, value)| value.abs()).sum::<f64>() / total * unit / 2.0;
                want.push((element, magnitude * (2f64.powi(-11) + 2.0 * off) * 1.001 + subnormal));
            }
        }
        want
    }

    /// The bytes of a `Problem` as `hopper.cuh` has it: A, B, D, partial sums and flags are at these addresses.
    pub fn params(&self, [a, b, d, partial, flags]: [u64; 5], stages: u32) -> Vec<u8> {
        let [m, n, k] = self.size;
        let (span, wide) = (self.span, self.span / 2);
        let operand = |address, rows: usize, transposed: bool, high: u32| {
            if transposed {
                map(FLOAT16, address, [k, rows], [wide, wide], span)
            } else {
                map(FLOAT16, address, [rows, k], [high, wide], span)
            }
        };
        let mut bytes = operand(a, m, self.transposed[0], self.box_rows[0]);
        bytes.extend(operand(b, self.b.len() / k, self.transposed[1], self.box_rows[1]));
        bytes.extend(map(FLOAT32, d, [m, self.want.len() / m], [64, 32], 128));
        bytes.extend([a, b, d, partial, flags].iter().flat_map(|address| address.to_le_bytes()));
        bytes.extend([m as u32, n as u32, k as u32, stages].iter().flat_map(|x| x.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        bytes
    }

    /// What is wrong with a result, if anything.
    pub fn amiss(&self, got: &[f32]) -> Option<String> {
        let is_near = |(got, (want, most)): (&f32, &(f64, f64))| (f64::from(*got) - want).abs() <= *most;
        let off = |pair| !is_near(pair);
        let wrong = got.iter().zip(&self.want).filter(|pair| off(*pair)).count();
        let i = got.iter().zip(&self.want).position(off)?;
        let ((want, most), got) = (self.want[i], got[i]);
        Some(format!(
            "{wrong} elements are wrong, the first is number {i}: {got}, not {want} within {most:e}"
        ))
    }
}
