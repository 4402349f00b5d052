//! The step of what is no product, `kernels/step.cu`: each image's biases, norms and embeddings; which images'
//! gradients have overflowed; and weights as products take them.

use anyhow::{Result, bail, ensure};
use bytemuck::{Pod, Zeroable};
use half::f16;

use super::width::expect_aligned;
use super::{Element, Param, int};
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
    param_step: u64,
    grad_step: u64,
    out_step: u64,
    len: i32,
    aligned: i32,
}

/// A parameter that steps, shared by the images or each one's own; each image's gradient; and where its result goes, which
/// may be the parameter itself.
pub struct Step {
    pub param: Param,
    pub grad: Param,
    pub out: Param,
}

/// Which parameters step. Holds all of their memory.
pub struct Steps {
    pieces: Tensor<u8>,
    count: usize,
    images: usize,
    held: Vec<Step>,
}

impl Steps {
    /// # Errors
    /// Parameters of other lengths, or for another number of images; no device memory.
    pub fn new(stream: &Stream, images: usize, steps: Vec<Step>) -> Result<Steps> {
        let mut pieces = Vec::new();
        for Step { param, grad, out } in &steps {
            let n = param.len();
            let (shared, each) = (param.images().is_none(), Some(images));
            ensure!(shared || param.images() == each, "step: param is {param:?}, for {images} images");
            for (what, each_image) in [("grad", grad), ("out", out)] {
                let fits = (each_image.images(), each_image.len()) == (each, n);
                ensure!(fits, "step: {what} is {each_image:?}, not {n} for each of {images} images");
            }
            for from in (0..n).step_by(PIECE) {
                let [param_at, grad_at, out_at] =
                    [param, grad, out].map(|place| place.address() + (size_of::<f32>() * from) as u64);
                let [param_step, grad_step, out_step] = [param, grad, out].map(|place| place.step() as u64);
                let steps_bytes = 4 * (param_step | grad_step | out_step);
                pieces.push(Piece {
                    param: param_at,
                    grad: grad_at,
                    out: out_at,
                    param_step,
                    grad_step,
                    out_step,
                    len: int(PIECE.min(n - from))?,
                    aligned: (param_at | grad_at | out_at | steps_bytes).is_multiple_of(16).into(),
                });
            }
        }
        let count = pieces.len();
        let pieces = stream.vector(bytemuck::cast_slice::<Piece, u8>(&pieces))?;
        Ok(Steps { pieces, count, images, held: steps })
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
    let kernel = stream.kernel("step", "split", f16::DEFINES)?;
    let args = args![terms[0], terms[1], inp, n as u64, scale];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n.div_ceil(8), 256), args) }
}

#[cfg(test)]
mod tests {
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
                let part = at..at + tensor.len();
                let (grad, out) = (Param::each(&grad, part.clone()), Param::each(&out, part));
                table.push(Step { param: tensor.into(), grad, out });
                at += tensor.len();
            }
            let steps = Steps::new(&stream, s, table)?;
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
            let wrong =
                |grad, out| Steps::new(&stream, s, vec![Step { param: (&tensors[0]).into(), grad, out }]);
            assert!(wrong(Param::each(&grad, 1..width), Param::each(&out, 0..lens[0])).is_err());
            assert!(wrong((&tensors[0]).into(), Param::each(&out, 0..lens[0])).is_err());
            assert!(wrong(Param::each(&grad, 0..lens[0]), (&tensors[0]).into()).is_err());

            // Each image's own parameters, in place.
            let own = random(s * width, 1.0, 2);
            stream.write(&grad, &grads)?;
            stream.write(&out, &own)?;
            let all = Param::each(&out, 0..width);
            let step = Step { param: all.clone(), grad: Param::each(&grad, 0..width), out: all };
            step_images(&stream, &Steps::new(&stream, s, vec![step])?, &flags, 0.1)?;
            let want: Vec<f32> = own.iter().zip(&grads).map(|(x, g)| (-0.1f32).mul_add(*g, *x)).collect();
            assert_eq!(stream.read(&out)?, want);
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
