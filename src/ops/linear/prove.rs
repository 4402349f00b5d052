//! Backends prove themselves before they are used: a card that nobody tried must never give wrong numbers.

use anyhow::Result;
use half::f16;

use super::backend::{Backend, refuse};
use super::{Layout, Linear, Output};
use crate::gpu::Stream;
use crate::ops::Element;

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn]; // as `Layout` numbers them
/// Of the product: more than a tile each way, none of them whole, more steps along K than any backend has stages, rows that
/// are multiples of 16 bytes.
const BATCH: usize = 2;
const M: usize = 136;
const N: usize = 152;
const K: usize = 520;
/// How far a result may be off, of itself, that is stored as float32, or as float16, for which a backend may have another tile:
/// sums are exact whichever way tensor cores add, and sums in float16 would not be.
const ROUNDED: [f32; 2] = [0.0, 1.0 / 2048.0];
/// Layouts, each in float32, and one in float16.
const PROOF: [(Layout, bool); 4] =
    [(Layout::Nt, false), (Layout::Nn, false), (Layout::Tn, false), (Layout::Nt, true)];

/// Has every backend of float16 that runs on this device compute a product in each layout, and one that is stored as
/// float16, and holds them against the plain kernel's in float32. One that cannot, or is wrong, is not used from here on, in
/// the whole process; that is said once, on stderr.
///
/// # Errors
/// The plain kernel's own.
pub fn prove(stream: &Stream) -> Result<()> {
    let truth = truth(stream)?;
    let architecture = stream.gpu().architecture();
    for backend in Backend::FASTER.into_iter().filter(|backend| backend.runs_on(architecture)) {
        let found = PROOF.into_iter().find_map(|kind| wrong(stream, kind, backend, &truth));
        if let Some(found) = found
            && refuse(backend)
        {
            eprintln!(
                "{} does not work on this device (sm_{architecture}): {found}; another kernel takes its place",
                backend.kernel()
            );
        }
    }
    Ok(())
}

/// By the plain kernel, in each layout.
fn truth(stream: &Stream) -> Result<Vec<Vec<f32>>> {
    LAYOUTS.iter().map(|&layout| product::<f32>(stream, layout, Backend::Simt)).collect()
}

/// What is wrong with a backend's product.
fn wrong(
    stream: &Stream,
    (layout, is_half): (Layout, bool),
    backend: Backend,
    truth: &[Vec<f32>],
) -> Option<String> {
    let product = if is_half { product::<f16> } else { product::<f32> };
    match product(stream, layout, backend) {
        Ok(out) => difference(&out, &truth[layout as usize], ROUNDED[usize::from(is_half)])
            .map(|off| format!("in {layout:?}, {off}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// One product of each kind of operand: `out = A · B + bias + addend`.
fn product<O: Element + Output<f16>>(stream: &Stream, layout: Layout, backend: Backend) -> Result<Vec<f32>> {
    // Multiples of 1/64 between -2 and 2: no sum of 522 products exceeds 2088, all are multiples of 2^-12, so float32 has them, and
    // so do the 24 bits from the greatest term down that an A100 aligns.
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0xff) as f32 / 64.0 - 2.0;
    let halves = |len: usize, from: usize| -> Vec<f16> {
        (from..from + len).map(|i| f16::from_f32(value(i))).collect()
    };
    let floats = |len: usize, from: usize| -> Vec<f32> { (from..from + len).map(value).collect() };
    let a_shape = if layout == Layout::Tn { [BATCH, K, M] } else { [BATCH, M, K] };
    let b_shape = if layout == Layout::Nt { [N, K] } else { [K, N] };
    let a = stream.upload(a_shape, &halves(BATCH * M * K, 1))?;
    let b = stream.upload(b_shape, &halves(N * K, 1 << 20))?;
    let bias = stream.upload([BATCH, N], &floats(BATCH * N, 1 << 21))?;
    let addend = stream.upload([M, N], &floats(M * N, 1 << 22))?;
    let out = stream.alloc::<O>([BATCH, M, N])?;
    stream.fill_bytes(&out, 0xff)?; // NaN, where nobody writes
    Linear::new(layout, &a, &b, &out).bias(&bias).addend(&addend).backend(backend).run(stream)?;
    Ok(stream.read(&out)?.into_iter().map(|x| x.widen() as f32).collect())
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
        prove(&stream)?;
        let truth = truth(&stream)?;
        for backend in Backend::FASTER.into_iter().filter(|b| b.runs_on(stream.gpu().architecture())) {
            for kind in PROOF {
                assert_eq!(wrong(&stream, kind, backend, &truth), None, "{backend:?} {kind:?}");
            }
        }
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
