//! Backends prove themselves before they are used: a card that nobody tried must never give wrong numbers.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use half::f16;

use super::backend::{self, Backend};
use super::{Layout, Linear, Output};
use crate::gpu::{Stream, Tensor, is_out_of_memory};
use crate::ops::Element;

/// Of [`super::Params`]: everything is.
const ALIGNED: i32 = 7;
/// Of the product: more than a tile each way, none of them whole, more steps along K than any backend has stages, rows that
/// are multiples of 16 bytes.
const BATCH: usize = 2;
const M: usize = 136;
const N: usize = 152;
const K: usize = 392;
/// How far a result may be off, of itself, that is stored as float32, or as float16, for which a backend may have another tile:
/// sums are exact whichever way tensor cores add, and sums in float16 would not be.
const ROUNDED: [f32; 2] = [0.0, 1.0 / 2048.0];
/// Layouts, each in float32, and one in float16.
const PROOF: [(Layout, bool); 4] =
    [(Layout::Nt, false), (Layout::Nn, false), (Layout::Tn, false), (Layout::Nt, true)];

/// Devices whose backends have proved themselves, by their numbers.
static PROVED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Has every backend of float16 that runs on this device compute a product in each layout, and one that is stored as
/// float16, and holds them against the plain kernel's in float32. One that cannot, or is wrong, is not used from here on, in
/// the whole process; that is said once, on stderr. Returns whether there is one more of these. Once a process and device: a
/// second call does nothing.
///
/// # Errors
/// The plain kernel's own; out of device memory; a backend after which the device answers no more.
pub fn prove(stream: &Stream) -> Result<bool> {
    let mut proved = PROVED.lock().unwrap_or_else(PoisonError::into_inner);
    if proved.contains(&stream.gpu().ordinal()) {
        return Ok(false);
    }
    let operands = Operands::new(stream)?;
    let truth = operands.truth(stream)?;
    let architecture = stream.gpu().architecture();
    let mut refused = Vec::new();
    for backend in Backend::FASTER.into_iter().filter(|backend| backend.runs_on(architecture)) {
        if let Some(found) = operands.first_wrong(stream, backend, &truth)?
            && backend::refuse(backend)
        {
            refused.push((backend, found));
        }
    }
    if !stream.is_rehearsal() {
        proved.insert(stream.gpu().ordinal());
    }
    let serves = serving(architecture).kernel();
    for (backend, found) in &refused {
        eprintln!(
            "note: {} does not work on this device (sm_{architecture}): {found}; {serves} serves in its place",
            backend.kernel()
        );
    }
    Ok(!refused.is_empty())
}

/// The backend of products in float16 on such a device, the fastest that has not failed its proof.
pub fn serving(architecture: &str) -> Backend {
    backend::choose::<f16>(architecture, ALIGNED)
}

/// What is multiplied and added, the same in every layout.
struct Operands {
    a: [Tensor<f16>; 2], // (batch, M, K), (batch, K, M)
    b: [Tensor<f16>; 2], // (N, K), (K, N)
    bias: Tensor<f32>,   // (batch, N)
    addend: Tensor<f32>, // (M, N)
}

impl Operands {
    fn new(stream: &Stream) -> Result<Operands> {
        // Multiples of 1/64 between -2 and 2: no sum of 394 products exceeds 1576, all are multiples of 2^-12, so float32 has
        // them, and so do the 24 bits from the greatest term down that an A100 aligns.
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0xff) as f32 / 64.0 - 2.0;
        let floats = |from: usize, len: usize| -> Vec<f32> { (from..from + len).map(value).collect() };
        let halves = |from: usize, len: usize| -> Vec<f16> {
            (from..from + len).map(|i| f16::from_f32(value(i))).collect()
        };
        let (a, b) = (halves(1, BATCH * M * K), halves(1 << 20, N * K));
        let a_transposed: Vec<f16> = a.chunks(M * K).flat_map(|a| transposed(a, K)).collect();
        Ok(Operands {
            a: [stream.upload([BATCH, M, K], &a)?, stream.upload([BATCH, K, M], &a_transposed)?],
            b: [stream.upload([N, K], &b)?, stream.upload([K, N], &transposed(&b, K))?],
            bias: stream.upload([BATCH, N], &floats(1 << 21, BATCH * N))?,
            addend: stream.upload([M, N], &floats(1 << 22, M * N))?,
        })
    }

    /// `out = A · B + bias + addend`, `(batch, M, N)`
    fn product<O: Element + Output<f16>>(
        &self,
        stream: &Stream,
        layout: Layout,
        backend: Backend,
    ) -> Result<Vec<f32>> {
        let a = &self.a[usize::from(layout == Layout::Tn)];
        let b = &self.b[usize::from(layout != Layout::Nt)];
        let out = stream.alloc::<O>([BATCH, M, N])?;
        stream.fill_bytes(&out, 0xff)?; // NaN, where nobody writes
        let product = Linear::new(layout, a, b, &out).bias(&self.bias).addend(&self.addend);
        product.backend(backend).run(stream)?;
        Ok(stream.read(&out)?.into_iter().map(|x| x.widen() as f32).collect())
    }

    /// By the plain kernel.
    fn truth(&self, stream: &Stream) -> Result<Vec<f32>> {
        self.product::<f32>(stream, Layout::Nt, Backend::Simt)
    }

    /// The first thing that is wrong with any of a backend's products, in words.
    fn first_wrong(&self, stream: &Stream, backend: Backend, truth: &[f32]) -> Result<Option<String>> {
        for (layout, is_half) in PROOF {
            let product = if is_half { Operands::product::<f16> } else { Operands::product::<f32> };
            let found = match product(self, stream, layout, backend) {
                Ok(out) => difference(&out, truth, ROUNDED[usize::from(is_half)])
                    .map(|off| format!("of a product ({layout:?}) {off}")),
                // No fault of the backend's; and after a fault in a kernel nothing else would work in this process.
                Err(error) if is_out_of_memory(&error) || stream.synchronize().is_err() => {
                    let without = format!("trying {}, which --precision fp32 does without", backend.kernel());
                    return Err(error.context(without));
                }
                Err(error) => Some(format!("{error:#}")),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Of a matrix with so many columns.
fn transposed(matrix: &[f16], columns: usize) -> Vec<f16> {
    (0..columns).flat_map(|column| matrix[column..].iter().step_by(columns).copied()).collect()
}

/// The first element that is wrong, where right ones may be off by so much of themselves too.
fn difference(got: &[f32], want: &[f32], rounded: f32) -> Option<String> {
    let is_off = |(&got, &want): (&f32, &f32)| got.is_nan() || (got - want).abs() > rounded * want.abs();
    let at = got.iter().zip(want).position(is_off)?;
    let [batch, m, n] = [at / (M * N), at / N % M, at % N];
    Some(format!("out[{batch}][{m}][{n}] is {}, not {}", got[at], want[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;

    device_test!(every_backend_of_this_device_proves_itself, |stream| {
        assert!(!prove(&stream)?);
        assert!(stream.gpu().rehearse(prove)?.is_empty(), "once is enough");
        let operands = Operands::new(&stream)?;
        let truth = operands.truth(&stream)?;
        for backend in Backend::FASTER.into_iter().filter(|b| b.runs_on(stream.gpu().architecture())) {
            assert_eq!(operands.first_wrong(&stream, backend, &truth)?, None, "{backend:?}");
        }
        let mut other = truth.clone();
        other[7] += 1.0;
        let found = operands.first_wrong(&stream, Backend::Simt, &other)?;
        assert!(found.is_some_and(|found| found.contains("[0][0][7]")));
    });

    #[test]
    fn one_wrong_element_is_found() {
        let want: Vec<f32> = (0..BATCH * M * N).map(|i| i as f32 / 1000.0).collect();
        assert_eq!(difference(&want, &want, 0.0), None);
        for (wrong, place) in [(want[M * N + 3 * N + 5] + 0.01, "[1][3][5]"), (f32::NAN, "[1][3][5]")] {
            let mut got = want.clone();
            got[M * N + 3 * N + 5] = wrong;
            assert!(difference(&got, &want, 0.0).is_some_and(|text| text.contains(place)));
        }
    }
}
