//! Backends prove themselves before they are used: a card that nobody tried must never give wrong numbers.

use anyhow::Result;
use half::f16;

use super::backend::{Backend, refuse};
use super::{Layout, Linear};
use crate::gpu::Stream;

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];
/// Of the product: more than a tile each way, none of them whole, rows that are multiples of 16 bytes.
const BATCH: usize = 2;
const M: usize = 136;
const N: usize = 152;
const K: usize = 72;
/// How far two float32 sums of 72 products of factors up to one, and as many again beside them, may be apart, whichever way
/// tensor cores add: by 11 · 2^-24 of the greatest sum, at most 74, for each eight products comes to 4.4e-4. A wrong
/// element is off by far more than that.
const MOST: f32 = 5e-4;

/// Has every backend of float16 that runs on this device compute a product in each layout, and holds it against the plain
/// kernel. One that cannot, or is wrong, is not used from here on, in the whole process; that is said once, on stderr.
///
/// # Errors
/// The plain kernel's own.
pub fn prove(stream: &Stream) -> Result<()> {
    let truth: Vec<Vec<f32>> =
        LAYOUTS.iter().map(|&layout| product(stream, layout, Backend::Simt)).collect::<Result<_>>()?;
    let architecture = stream.gpu().architecture();
    for backend in Backend::FASTER.into_iter().filter(|backend| backend.runs_on(architecture)) {
        let found =
            LAYOUTS.iter().zip(&truth).find_map(|(&layout, truth)| match product(stream, layout, backend) {
                Ok(out) => difference(&out, truth).map(|off| format!("in {layout:?}, {off}")),
                Err(error) => Some(format!("{error:#}")),
            });
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

/// One product of each kind of operand: `out = A · B + bias + addend`, float32.
fn product(stream: &Stream, layout: Layout, backend: Backend) -> Result<Vec<f32>> {
    // Any numbers between -1 and 1 that float16 has.
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0x7ff) as f32 / 1024.0 - 1.0;
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
    let out = stream.alloc([BATCH, M, N])?;
    stream.fill_bytes(&out, 0xff)?; // NaN, where nobody writes
    Linear::new(layout, &a, &b, &out).bias(&bias).addend(&addend).backend(backend).run(stream)?;
    stream.read(&out)
}

/// The first element that is wrong.
fn difference(got: &[f32], want: &[f32]) -> Option<String> {
    let is_off = |(&got, &want): (&f32, &f32)| got.is_nan() || (got - want).abs() > MOST;
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
        for backend in Backend::FASTER.into_iter().filter(|b| b.runs_on(stream.gpu().architecture())) {
            for layout in LAYOUTS {
                let (got, want) =
                    (product(&stream, layout, backend)?, product(&stream, layout, Backend::Simt)?);
                assert_eq!(difference(&got, &want), None, "{backend:?} {layout:?}");
            }
        }
    });

    #[test]
    fn one_wrong_element_is_found() {
        let want: Vec<f32> = (0..BATCH * M * N).map(|i| i as f32 / 1000.0).collect();
        assert_eq!(difference(&want, &want), None);
        for (wrong, place) in [(want[M * N + 3 * N + 5] + 0.01, "[1][3][5]"), (f32::NAN, "[1][3][5]")] {
            let mut got = want.clone();
            got[M * N + 3 * N + 5] = wrong;
            assert!(difference(&got, &want).is_some_and(|text| text.contains(place)));
        }
    }
}
