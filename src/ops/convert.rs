//! Weights as products take them, `kernels/convert.cu`.

use anyhow::Result;
use half::f16;

use super::Element;
use super::width::expect_aligned;
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// `out[i] = inp[i]`, rounded to the nearest.
///
/// * `out`: `inp`'s shape, overwritten. `inp`: fp32.
///
/// # Errors
/// Tensors of different shapes; the launch's own.
pub fn convert<E: Element>(stream: &Stream, out: &Tensor<E>, inp: &Tensor<f32>) -> Result<()> {
    out.expect("convert: out", inp.shape())?;
    expect_aligned("convert: out", out, 8)?;
    expect_aligned("convert: inp", inp, 8)?;
    let n = inp.len();
    let kernel = stream.kernel("convert", "convert", E::DEFINES)?;
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n.div_ceil(8), 256), args![out, inp, n as u64]) }
}

/// Float32 in two terms of float16: `first[i] = inp[i]`, rounded, and `second[i] = scale · (inp[i] − first[i])`.
///
/// * `terms`: `inp`'s shape, overwritten. `inp`: fp32.
///
/// # Errors
/// Tensors of different shapes; the launch's own.
pub fn split(stream: &Stream, terms: [&Tensor<f16>; 2], inp: &Tensor<f32>, scale: f32) -> Result<()> {
    for term in terms {
        term.expect("split: a term", inp.shape())?;
        expect_aligned("split: a term", term, 8)?;
    }
    expect_aligned("split: inp", inp, 8)?;
    let n = inp.len();
    let kernel = stream.kernel("convert", "split", f16::DEFINES)?;
    let args = args![terms[0], terms[1], inp, n as u64, scale];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n.div_ceil(8), 256), args) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{poisoned, random};
    use crate::device_test;

    fn converts<E: Element>(stream: &Stream) -> Result<()> {
        for n in [768 * 3, 2049, 1] {
            let mut inp = random(n, 1.0, 1);
            inp[0] = 65_520.0;
            let out = poisoned::<E>(stream, [n]);
            convert(stream, &out, &stream.vector(&inp)?)?;
            let want: Vec<E> = inp.iter().map(|&x| E::round(x.into())).collect();
            assert_eq!(
                bytemuck::cast_slice::<E, u8>(&stream.read(&out)?),
                bytemuck::cast_slice::<E, u8>(&want)
            );
        }
        Ok(())
    }

    device_test!(weights_are_rounded_to_the_nearest, |stream| {
        converts::<f32>(&stream)?;
        converts::<f16>(&stream)?;
    });

    device_test!(two_terms_are_as_exact_as_float32, |stream| {
        for n in [768 * 3, 2049, 1] {
            let inp = random(n, 0.05, 1);
            let terms = [poisoned(&stream, n), poisoned(&stream, n)];
            split(&stream, [&terms[0], &terms[1]], &stream.vector(&inp)?, 4096.0)?;
            let [first, second] = [stream.read(&terms[0])?, stream.read(&terms[1])?];
            for i in 0..n {
                assert_eq!(first[i], f16::from_f32(inp[i]));
                assert_eq!(second[i], f16::from_f32(4096.0 * (inp[i] - first[i].to_f32())));
                let sum = first[i].widen() + second[i].widen() / 4096.0;
                assert!((sum - f64::from(inp[i])).abs() <= 2f64.powi(-21) * f64::from(inp[i].abs()) + 1e-11);
            }
        }
    });
}
