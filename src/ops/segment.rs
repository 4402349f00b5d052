//! Sums over each image's rows, `kernels/segment.cu`: gradients of biases, and what partial sums come to.

use anyhow::Result;

use super::width::{expect_aligned, width};
use super::{Element, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Rows of a partial sum: few enough for a launch of one image to fill a GPU, so many that what is written is little.
const CHUNK: usize = 128;

/// The scratch that [`segment_sum`] needs.
pub fn segment_partial_shape(s: usize, r: usize, n: usize) -> [usize; 3] {
    [s, r.div_ceil(CHUNK), n]
}

/// `out[s] = Σ inp[s][r]` over the image's rows, in an order that R alone decides.
///
/// * `out`: `(S, N)` fp32, overwritten. `inp`: `(S · R, N)`.
/// * `partial`: scratch, [`segment_partial_shape`].
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn segment_sum<E: Element>(
    stream: &Stream,
    out: &Tensor<f32>,
    inp: &Tensor<E>,
    partial: &Tensor<f32>,
) -> Result<()> {
    let &[s, n] = out.shape() else { anyhow::bail!("segment_sum: out is {out:?}, not (S, N)") };
    let r = inp.shape()[0] / s.max(1);
    inp.expect("segment_sum: inp", [s * r, n])?;
    partial.expect("segment_sum: partial", segment_partial_shape(s, r, n))?;
    let w = width(n, 16 / size_of::<E>());
    expect_aligned("segment_sum: inp", inp, w)?;
    expect_aligned("segment_sum: partial", partial, w)?;
    let kernel =
        stream.kernel("segment", "segment_partial", &[E::DEFINES, &[("WIDTH", w as i64)]].concat())?;
    let launch = Launch::over([n.div_ceil(32 * w), r.div_ceil(CHUNK), s], 128);
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, launch, args![partial, inp, int(r)?, int(n)?, int(CHUNK)?]) }?;
    segment_finish(stream, out, partial)
}

/// `out[s] = Σ partial[s][chunk]`: the second step of sums whose first a kernel takes by itself, or one of few rows.
///
/// * `out`: `(S, N)` fp32, overwritten. `partial`: `(S, chunks, N)`.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn segment_finish(stream: &Stream, out: &Tensor<f32>, partial: &Tensor<f32>) -> Result<()> {
    let &[s, chunks, n] = partial.shape() else {
        anyhow::bail!("segment_finish: partial is {partial:?}, not (S, chunks, N)")
    };
    out.expect("segment_finish: out", [s, n])?;
    let w = width(n, 4);
    expect_aligned("segment_finish: partial", partial, w)?;
    expect_aligned("segment_finish: out", out, w)?;
    let kernel = stream.kernel("segment", "segment_finish", &[("WIDTH", w as i64)])?;
    let launch = Launch::over([n.div_ceil(32 * w), 1, s], 128);
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, launch, args![out, partial, int(chunks)?, int(n)?]) }
}

/// The definition, in float64.
pub fn segment_reference(inp: &[f64], s: usize, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; s * n];
    let image_len = inp.len() / s;
    for (i, x) in inp.iter().enumerate() {
        out[i / image_len * n + i % n] += x;
    }
    out
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random};
    use crate::device_test;

    fn check<E: Element>(stream: &Stream) -> Result<()> {
        for (s, r, n) in [(3, 200, 2304), (2, 65, 33), (2, 129, 12), (1, 1, 1), (9, 50, 768)] {
            let inp: Vec<E> = random(s * r * n, 1.0, 1).iter().map(|&x| E::round(x.into())).collect();
            let wide: Vec<f64> = inp.iter().map(|x| x.widen()).collect();
            let sum = |s, data: &[E]| -> Result<Vec<f32>> {
                let (out, partial) =
                    (poisoned(stream, [s, n]), poisoned(stream, segment_partial_shape(s, r, n)));
                segment_sum(stream, &out, &stream.upload([s * r, n], data)?, &partial)?;
                stream.read(&out)
            };
            let all = sum(s, &inp)?;
            assert_close(&all, &segment_reference(&wide, s, n), Tolerance::of_sums(r));
            // An image by itself has the same bits.
            let last = sum(1, &inp[(s - 1) * r * n..])?;
            assert_eq!(last, all[(s - 1) * n..]);
        }
        Ok(())
    }

    device_test!(sums_equal_the_definition, |stream| {
        check::<f32>(&stream)?;
        check::<f16>(&stream)?;
    });
}
