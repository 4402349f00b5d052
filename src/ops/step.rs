//! The explicit part of the implicit step, `kernels/step.cu`: each image's biases, norms and embeddings; which images'
//! gradients have overflowed; and weights as products take them.

use anyhow::{Result, bail};
use bytemuck::{Pod, Zeroable};

use super::width::expect_aligned;
use super::{Element, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Elements of a piece, a CTA's.
const PIECE: usize = 1024;

/// `struct Piece` of the kernel.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Piece {
    param: u64,
    grad: u64,
    out: u64,
    grad_step: i32,
    out_step: i32,
    len: i32,
    aligned: i32,
}

/// A row's part: a tensor `(S, pitch)`, and the column where it begins.
pub type Part<'a> = (&'a Tensor<f32>, usize);

/// Which parameters step, where their gradients are, and where each image's go. Holds all of their memory.
pub struct Steps {
    pieces: Tensor<u8>,
    count: usize,
    images: usize,
    held: Vec<[Tensor<f32>; 3]>,
}

impl Steps {
    /// Of parameters, `(n,)` each, gradients `(S, n)` and outputs `(S, n)`, which may be parts of wider rows.
    ///
    /// # Errors
    /// Tensors of other shapes; no device memory.
    pub fn new(stream: &Stream, images: usize, params: &[(&Tensor<f32>, Part, Part)]) -> Result<Steps> {
        let mut pieces = Vec::new();
        for &(param, (grad, grad_at), (out, out_at)) in params {
            let n = param.len();
            for (what, tensor, at) in [("grad", grad, grad_at), ("out", out, out_at)] {
                match *tensor.shape() {
                    [s, pitch] if s == images && at.checked_add(n).is_some_and(|end| end <= pitch) => {}
                    _ => bail!("step: {what} is {tensor:?}, not ({images}, {at} + {n} or more)"),
                }
            }
            let (grad_step, out_step) = (grad.shape()[1], out.shape()[1]);
            for from in (0..n).step_by(PIECE) {
                let address = |tensor: &Tensor<f32>, at: usize| tensor.address() + 4 * (at + from) as u64;
                let [param, grad, out] = [address(param, 0), address(grad, grad_at), address(out, out_at)];
                let steps_bytes = 4 * (grad_step as u64 | out_step as u64);
                let is_aligned = (param | grad | out | steps_bytes).is_multiple_of(16);
                let len = int(PIECE.min(n - from))?;
                let (grad_step, out_step) = (int(grad_step)?, int(out_step)?);
                pieces.push(Piece { param, grad, out, grad_step, out_step, len, aligned: is_aligned.into() });
            }
        }
        let count = pieces.len();
        let pieces = stream.vector(bytemuck::cast_slice::<Piece, u8>(&pieces))?;
        let held = params.iter().map(|(p, (g, _), (o, _))| [*p, *g, *o].map(Tensor::clone)).collect();
        Ok(Steps { pieces, count, images, held })
    }

    /// Parameters that step.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// `out[s] = param − rate · grad[s]` for all of `steps`, one rounding an element; `flags[s] |= 1` where a gradient is not finite.
///
/// * `flags`: `(S,)`. `rate`: the learning rate over the loss scale.
///
/// # Errors
/// Flags of another shape; the launch's own.
pub fn step_images(stream: &Stream, steps: &Steps, flags: &Tensor<u32>, rate: f32) -> Result<()> {
    flags.expect("step_images: flags", [steps.images])?;
    let kernel = stream.kernel("step", "step_images", &[])?;
    let launch = Launch::over([steps.count, steps.images, 1], 256);
    // SAFETY: the pieces are parts of tensors that `steps` holds.
    unsafe { kernel.launch(stream, launch, args![&steps.pieces, flags, rate]) }
}

/// `flags[s] |= 1` where a value of image s is not finite.
///
/// * `flags`: `(S,)`. `values`: `(S, n)` fp32.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn flag_overflow(stream: &Stream, flags: &Tensor<u32>, values: &Tensor<f32>) -> Result<()> {
    let &[s, n] = values.shape() else { bail!("flag_overflow: values are {values:?}, not (S, n)") };
    flags.expect("flag_overflow: flags", [s])?;
    let kernel = stream.kernel("step", "flag_overflow", &[])?;
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe {
        kernel.launch(stream, Launch::over([n.div_ceil(1024), s, 1], 256), args![flags, values, int(n)?])
    }
}

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
    let kernel = stream.kernel("step", "convert", E::DEFINES)?;
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n.div_ceil(8), 256), args![out, inp, n as u64]) }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::check::{poisoned, random};
    use crate::device_test;

    device_test!(steps_equal_the_definition, |stream| {
        // Whole pieces, several, odd lengths in odd places, and one of everything.
        for (s, lens) in [(3, &[768, 2304, 1025, 5, 38_400][..]), (9, &[3, 4]), (1, &[1])] {
            let width: usize = lens.iter().sum();
            let grads = random(s * width, 3.0, 1);
            let (grad, out) = (stream.upload([s, width], &grads)?, poisoned::<f32>(&stream, [s, width]));
            let flags = stream.zeros([s])?;
            let params: Vec<Vec<f32>> = lens.iter().map(|&len| random(len, 1.0, len as u64)).collect();
            let tensors: Vec<Tensor<f32>> =
                params.iter().map(|param| stream.vector(param)).collect::<Result<_>>()?;
            let (mut table, mut at) = (Vec::new(), 0);
            for tensor in &tensors {
                table.push((tensor, (&grad, at), (&out, at)));
                at += tensor.len();
            }
            let steps = Steps::new(&stream, s, &table)?;
            assert_eq!(steps.len(), lens.len());
            step_images(&stream, &steps, &flags, 0.1)?;
            let all = params.concat();
            let want: Vec<f32> =
                (0..s * width).map(|i| (-0.1f32).mul_add(grads[i], all[i % width])).collect();
            assert_eq!(stream.read(&out)?, want);
            assert_eq!(stream.read(&flags)?, vec![0; s]);

            // The last gradient of the last image.
            let mut bad = grads.clone();
            bad[s * width - 1] = f32::INFINITY;
            stream.write(&grad, &bad)?;
            step_images(&stream, &steps, &flags, 0.1)?;
            let want: Vec<u32> = (0..s).map(|i| u32::from(i + 1 == s)).collect();
            assert_eq!(stream.read(&flags)?, want);
            assert!(Steps::new(&stream, s, &[(&tensors[0], (&grad, width), (&out, 0))]).is_err());
            assert!(Steps::new(&stream, s, &[(&tensors[0], (&grad, usize::MAX), (&out, 0))]).is_err());
        }
    });

    device_test!(overflow_is_flagged_and_flags_stay, |stream| {
        for (s, n) in [(3, 2304), (2, 1025), (1, 1)] {
            let mut values = random(s * n, 6e4, 1);
            let flags = stream.zeros([s])?;
            flag_overflow(&stream, &flags, &stream.upload([s, n], &values)?)?;
            assert_eq!(stream.read(&flags)?, vec![0; s]);
            for bad in [f32::NAN, f32::NEG_INFINITY] {
                values[n - 1] = bad;
                stream.write(&flags, &vec![0; s])?;
                flag_overflow(&stream, &flags, &stream.upload([s, n], &values)?)?;
                values[n - 1] = f32::MAX;
                flag_overflow(&stream, &flags, &stream.upload([s, n], &values)?)?;
                assert_eq!(stream.read(&flags)?, (0..s).map(|s| u32::from(s == 0)).collect::<Vec<_>>());
            }
        }
    });

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
}
