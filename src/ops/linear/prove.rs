//! Backends prove themselves before they are used: a card that nobody tried must never give wrong numbers.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use half::f16;

use super::backend::{self, Backend};
use super::{Layout, Linear, Matrix, Output, activation_reference};
use crate::clip::{Activation, TowerConfig};
use crate::gpu::{Stream, Tensor, is_out_of_memory};
use crate::ops::{Element, Param};

/// Of [`super::Params`]: everything is.
const ALIGNED: i32 = 7;
/// Of the product: more than a tile each way, none of them whole, more steps along K than any backend has stages, rows that
/// are multiples of 16 bytes.
const BATCH: usize = 2;
const M: usize = 136;
const N: usize = 152;
const K: usize = 392;
/// Fewer columns, for which a backend may have another tile.
const NARROW: usize = 56;
/// Fewer terms, for what is only told apart by its end.
const SHORT: usize = 72;
/// Of the sums, so that activations bend them.
const ALPHA: f32 = 1.0 / 256.0;

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Epilogue {
    Float,
    /// The same of operands in two terms: of A alone, or of both.
    Terms([usize; 2]),
    /// float16, for which a backend may have another tile, as in all that follow.
    Half,
    /// Two terms of float16, whose sum is told.
    Split,
    /// The activation's value, and the product beside it.
    Value,
    /// Times the activation's slope at what was kept.
    Slope,
}

/// A product's layout, its columns and terms, and its epilogue.
type Proof = (Layout, [usize; 2], Epilogue);

/// What the backend proves that most products go by; of those behind it, which serve where it cannot, the first four. Layers
/// with an activation have `mlp` columns, which may be too few for the tile that N has.
fn proofs(mlp: usize) -> [Proof; 9] {
    let mlp = N.min(mlp / 8 * 8).max(8);
    [
        (Layout::Nt, [N, K], Epilogue::Float),
        (Layout::Nn, [N, K], Epilogue::Float),
        (Layout::Tn, [N, K], Epilogue::Split),
        (Layout::Nt, [N, K], Epilogue::Half),
        (Layout::Nt, [N, K], Epilogue::Terms([2, 1])),
        (Layout::Nt, [N, K], Epilogue::Terms([2, 2])),
        (Layout::Nt, [NARROW, SHORT], Epilogue::Half),
        (Layout::Nt, [mlp, SHORT], Epilogue::Value),
        (Layout::Nn, [mlp, SHORT], Epilogue::Slope),
    ]
}

/// Devices whose backends have proved themselves, by their numbers, whether with GELU, and of how many columns.
static PROVED: Mutex<BTreeSet<(usize, bool, usize)>> = Mutex::new(BTreeSet::new());

/// Has every backend of float16 that runs on this device compute products in each layout, stored as float32 and float16, and
/// with this tower's activation, and holds them against the plain kernel's in float32. One that cannot, or is wrong, is not used from
/// here on, in the whole process; that is said once, on stderr. Returns whether there is one more of these. Once a process,
/// device and kind of tower: a second call does nothing.
///
/// # Errors
/// The plain kernel's own; out of device memory; a backend after which the device answers no more.
pub fn prove(stream: &Stream, tower: &TowerConfig) -> Result<bool> {
    let mut proved = PROVED.lock().unwrap_or_else(PoisonError::into_inner);
    let proof = (stream.gpu().ordinal(), tower.activation == Activation::Gelu, tower.mlp.min(N));
    if proved.contains(&proof) {
        return Ok(false);
    }
    let refused = refuse_wrong(stream, tower)?;
    if !stream.is_rehearsal() {
        proved.insert(proof);
    }
    let architecture = stream.architecture();
    let serves = serving(architecture).kernel();
    for (backend, found) in &refused {
        crate::notice!(
            "note: {} does not work on this device (sm_{architecture}): {found}; {serves} serves in its place",
            backend.kernel()
        );
    }
    Ok(!refused.is_empty())
}

/// Notes in a rehearsal what the proofs need, also where they have been done already.
///
/// # Errors
/// Sizes that no kernel takes.
pub fn rehearse_proofs(stream: &Stream, tower: &TowerConfig) -> Result<()> {
    ensure!(stream.is_rehearsal(), "proofs: to be rehearsed on a stream that computes");
    refuse_wrong(stream, tower).map(|_| ())
}

/// Refuses the backends that are wrong; which they are, and how.
fn refuse_wrong(stream: &Stream, tower: &TowerConfig) -> Result<Vec<(Backend, String)>> {
    let proofs = proofs(tower.mlp);
    let operands = Operands::new(stream, tower.activation)?;
    let truth = operands.truth(stream)?;
    let architecture = stream.architecture();
    let mut refused = Vec::new();
    for backend in Backend::FASTER.into_iter().filter(|backend| backend.runs_on(architecture)) {
        let proofs = if backend == serving(architecture) { &proofs[..] } else { &proofs[..4] };
        if let Some(found) = operands.first_wrong(stream, backend, proofs, &truth)?
            && backend::refuse(backend)
        {
            refused.push((backend, found));
        }
    }
    Ok(refused)
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
    kept: Tensor<f16>,   // (M, N)
    activation: Activation,
    /// At the elements of `kept`.
    slopes: Vec<f32>,
}

impl Operands {
    fn new(stream: &Stream, activation: Activation) -> Result<Operands> {
        // Multiples of 1/64 between -2 and 2: no sum of 392 products exceeds 1568, all are multiples of 2^-12, so float32 has
        // them, sums of second terms too, which are a quarter of that in fact, and so do the 24 bits from the greatest term down that an A100 aligns; with ALPHA, bias and addend too.
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0xff) as f32 / 64.0 - 2.0;
        let floats = |from: usize, len: usize| -> Vec<f32> { (from..from + len).map(value).collect() };
        let halves = |from: usize, len: usize| -> Vec<f16> {
            (from..from + len).map(|i| f16::from_f32(value(i))).collect()
        };
        let (a, b, kept) = (halves(1, BATCH * M * K), halves(1 << 20, N * K), halves(1 << 23, M * N));
        let a_transposed: Vec<f16> = a.chunks(M * K).flat_map(|a| transposed(a, K)).collect();
        Ok(Operands {
            a: [stream.upload([BATCH, M, K], &a)?, stream.upload([BATCH, K, M], &a_transposed)?],
            b: [stream.upload([N, K], &b)?, stream.upload([K, N], &transposed(&b, K))?],
            bias: stream.upload([BATCH, N], &floats(1 << 21, BATCH * N))?,
            addend: stream.upload([M, N], &floats(1 << 22, M * N))?,
            slopes: kept.iter().map(|x| activation_reference(x.to_f64(), activation).1 as f32).collect(),
            kept: stream.upload([M, N], &kept)?,
            activation,
        })
    }

    /// `y = ALPHA A · B + bias + addend`, `(batch, M, n)`, and what becomes of it; of an activation's value y behind it.
    fn product(
        &self,
        stream: &Stream,
        backend: Backend,
        (layout, [n, k], epilogue): Proof,
    ) -> Result<Vec<f32>> {
        if let Epilogue::Float | Epilogue::Terms(_) = epilogue {
            let out =
                self.with(stream, backend, layout, [n, k], |product: Linear<f16, f32>| match epilogue {
                    // As second terms the first ones again, so much smaller that with them the sums are twice as great.
                    Epilogue::Terms(terms) => {
                        let second =
                            |i: usize, x: &Tensor<f16>| (terms[i] > 1).then(|| Matrix::columns(x, 0..k));
                        let (a, b) = (second(0, &self.a[0]), second(1, &self.b[0].rows(0..n)));
                        let scale = 1.0 / (terms[0] + terms[1] - 2) as f32;
                        product.scale(ALPHA / 2.0, 1.0).second_terms(a, b, scale)
                    }
                    _ => product,
                })?;
            return read(stream, &out);
        }
        if epilogue == Epilogue::Split {
            let terms: [Tensor<f16>; 2] = [stream.alloc([BATCH, M, n])?, stream.alloc([BATCH, M, n])?];
            terms.iter().try_for_each(|term| stream.fill_bytes(term, 0xff))?;
            self.with(stream, backend, layout, [n, k], |product: Linear<f16, f32>| {
                product.in_terms(terms.each_ref().map(Matrix::from), false)
            })?;
            let [first, second] = [read(stream, &terms[0])?, read(stream, &terms[1])?];
            return Ok(first.iter().zip(second).map(|(x, y)| x + f16::SECOND_TERM * y).collect());
        }
        let y = stream.alloc::<f16>([BATCH, M, n])?;
        stream.fill_bytes(&y, 0xff)?;
        let out = self.with(stream, backend, layout, [n, k], |product: Linear<f16, f16>| match epilogue {
            Epilogue::Value => product.keeping(self.activation, &y),
            Epilogue::Slope => product.backward(self.activation, Matrix::columns(&self.kept, 0..n)),
            _ => product,
        })?;
        let mut out = read(stream, &out)?;
        if epilogue == Epilogue::Value {
            out.extend(read(stream, &y)?);
        }
        Ok(out)
    }

    fn with<O: Element + Output<f16>>(
        &self,
        stream: &Stream,
        backend: Backend,
        layout: Layout,
        [n, k]: [usize; 2],
        epilogue: impl FnOnce(Linear<f16, O>) -> Linear<f16, O>,
    ) -> Result<Tensor<O>> {
        let a: Matrix<f16> = match layout {
            Layout::Nt | Layout::Nn => Matrix::columns(&self.a[0], 0..k),
            Layout::Tn => (&self.a[1]).into(),
        };
        let b = match layout {
            Layout::Nt => Matrix::columns(&self.b[0].rows(0..n), 0..k),
            Layout::Nn | Layout::Tn => Matrix::columns(&self.b[1].rows(0..k), 0..n),
        };
        let out = stream.alloc::<O>([BATCH, M, n])?;
        stream.fill_bytes(&out, 0xff)?; // NaN, where nobody writes
        let product = Linear::new(layout, a, b, &out).scale(ALPHA, 1.0).bias(Param::each(&self.bias, 0..n));
        let product = epilogue(product.addend(Matrix::columns(&self.addend, 0..n)));
        product.backend(backend).run(stream)?;
        Ok(out)
    }

    /// y by the plain kernel, of all columns, and of all and of few terms.
    fn truth(&self, stream: &Stream) -> Result<[Vec<f32>; 2]> {
        let of = |k: usize| self.product(stream, Backend::Simt, (Layout::Nt, [N, k], Epilogue::Float));
        Ok([of(K)?, of(SHORT)?])
    }

    /// What a product has to be, where that is y: [`Operands::product`].
    fn expected(&self, y: &[f32], n: usize, epilogue: Epilogue) -> Vec<f32> {
        let value = |y: &f32| activation_reference(f64::from(*y), self.activation).0 as f32;
        match epilogue {
            Epilogue::Float | Epilogue::Terms(_) | Epilogue::Half | Epilogue::Split => {
                columns(y, n).copied().collect()
            }
            Epilogue::Value => columns(y, n).map(value).chain(columns(y, n).copied()).collect(),
            Epilogue::Slope => {
                columns(y, n).zip(columns(&self.slopes, n).cycle()).map(|(y, slope)| y * slope).collect()
            }
        }
    }

    /// The first thing that is wrong with any of a backend's products, in words.
    fn first_wrong(
        &self,
        stream: &Stream,
        backend: Backend,
        proofs: &[Proof],
        truth: &[Vec<f32>; 2],
    ) -> Result<Option<String>> {
        for &(layout, [n, k], epilogue) in proofs {
            let y = &truth[usize::from(k < K)];
            let found = match self.product(stream, backend, (layout, [n, k], epilogue)) {
                Ok(out) => difference(&out, &self.expected(y, n, epilogue), n, epilogue)
                    .map(|off| format!("of a product ({layout:?}, {epilogue:?}) {off}")),
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

fn read<O: Element>(stream: &Stream, tensor: &Tensor<O>) -> Result<Vec<f32>> {
    Ok(stream.read(tensor)?.into_iter().map(|x| x.widen() as f32).collect())
}

/// The first columns of rows of N.
fn columns(rows: &[f32], n: usize) -> impl Iterator<Item = &f32> + Clone {
    rows.chunks(N).flat_map(move |row| &row[..n])
}

/// Of a matrix with so many columns.
fn transposed(matrix: &[f16], columns: usize) -> Vec<f16> {
    (0..columns).flat_map(|column| matrix[column..].iter().step_by(columns).copied()).collect()
}

/// The first element that is wrong. Sums are exact whichever way tensor cores add, and sums in float16 would not be; a result
/// may be off by what float16 rounds away, and an activation of y, which is up to 10, by y times what float32 has of numbers
/// up to one.
fn difference(got: &[f32], want: &[f32], n: usize, epilogue: Epilogue) -> Option<String> {
    let (relative, absolute) = match epilogue {
        Epilogue::Float | Epilogue::Terms(_) => (0.0, 0.0),
        Epilogue::Half => (1.0 / 2048.0, 0.0),
        Epilogue::Split => (1.0 / 2_097_152.0, 0.0),
        Epilogue::Value | Epilogue::Slope => (1.0 / 2040.0, 10.0 * f32::EPSILON),
    };
    let is_off =
        |(&got, &want): (&f32, &f32)| got.is_nan() || (got - want).abs() > relative * want.abs() + absolute;
    let at = got.iter().zip(want).position(is_off)?;
    let [batch, row, column] = [at / (M * n), at / n % M, at % n];
    let what = if batch < BATCH { "out" } else { "kept" };
    Some(format!("{what}[{}][{row}][{column}] is {}, not {}", batch % BATCH, got[at], want[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::ClipConfig;
    use crate::device_test;

    device_test!(every_backend_of_this_device_proves_itself, |stream| {
        let kinds = [(Activation::QuickGelu, 3072), (Activation::Gelu, 100), (Activation::QuickGelu, 100)];
        for (activation, mlp) in kinds {
            let tower = TowerConfig { activation, mlp, ..ClipConfig::vit_b_32().vision };
            assert!(!prove(&stream, &tower)?);
            let again = stream.gpu().rehearse(|stream| prove(stream, &tower))?;
            assert!(again.modules.is_empty(), "once is enough");
            let operands = Operands::new(&stream, activation)?;
            let truth = operands.truth(&stream)?;
            let architecture = stream.gpu().architecture();
            for backend in Backend::FASTER.into_iter().filter(|b| b.runs_on(architecture)) {
                let found = operands.first_wrong(&stream, backend, &proofs(mlp), &truth)?;
                assert_eq!(found, None, "{backend:?}");
                for (i, proof) in proofs(mlp).into_iter().enumerate() {
                    let mut other = truth.clone();
                    other.iter_mut().for_each(|y| y[7] += 1.0);
                    let found = operands.first_wrong(&stream, backend, &[proof], &other)?;
                    assert!(found.is_some_and(|found| found.contains("out[0][0][7]")), "proof {i}");
                }
            }
        }
    });

    #[test]
    fn one_wrong_element_is_found() {
        let want: Vec<f32> = (0..2 * BATCH * M * N).map(|i| i as f32 / 1000.0).collect();
        assert_eq!(difference(&want, &want, N, Epilogue::Float), None);
        let at = M * N + 3 * N + 5;
        for (wrong, at, place) in [
            (want[at] + 0.01, at, "out[1][3][5]"),
            (f32::NAN, at, "out[1][3][5]"),
            (f32::NAN, at + 2 * M * N, "kept[1][3][5]"),
        ] {
            let mut got = want.clone();
            got[at] = wrong;
            let found = difference(&got, &want, N, Epilogue::Float);
            assert!(found.is_some_and(|text| text.contains(place)));
        }
    }
}
