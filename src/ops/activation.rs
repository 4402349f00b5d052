//! The activations of CLIP's MLPs, `kernels/activation.cu`.

use anyhow::Result;

use super::{expect_len, int};
use crate::args;
use crate::clip::Activation;
use crate::gpu::{Launch, Stream, Tensor};

/// `out = f(inp)`, `(n,)` fp32, overwritten.
///
/// # Errors
/// Lengths that differ; the launch's own.
pub fn activation_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    inp: &Tensor<f32>,
    kind: Activation,
) -> Result<()> {
    expect_len("activation_forward", &[("inp", inp.len(), out.len())])?;
    let kernel = match kind {
        Activation::QuickGelu => "quick_gelu_forward",
        Activation::Gelu => "gelu_forward",
    };
    let n = out.len();
    let kernel = stream.kernel("activation", kernel, &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n, 256), args![out, inp, int(n)?]) }
}

/// `dout = dout · f'(inp)`, in place; `inp` is the forward pass's.
///
/// # Errors
/// Lengths that differ; the launch's own.
pub fn activation_backward(
    stream: &Stream,
    dout: &Tensor<f32>,
    inp: &Tensor<f32>,
    kind: Activation,
) -> Result<()> {
    expect_len("activation_backward", &[("inp", inp.len(), dout.len())])?;
    let kernel = match kind {
        Activation::QuickGelu => "quick_gelu_backward",
        Activation::Gelu => "gelu_backward",
    };
    let n = dout.len();
    let kernel = stream.kernel("activation", kernel, &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(n, 256), args![dout, inp, int(n)?]) }
}

/// The definition, in float64: value and derivative.
pub fn activation_reference(x: f64, kind: Activation) -> (f64, f64) {
    match kind {
        Activation::QuickGelu => {
            let s = 1.0 / (1.0 + (-1.702 * x).exp());
            (x * s, s + 1.702 * x * s * (1.0 - s))
        }
        Activation::Gelu => {
            let cdf = 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2));
            (x * cdf, cdf + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt())
        }
    }
}

/// The error function by its Taylor series, good to 1e-13 for `|x| < 4`; ±1 beyond 6.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random};
    use crate::device_test;

    const KINDS: [Activation; 2] = [Activation::QuickGelu, Activation::Gelu];

    device_test!(kernels_equal_the_definition, |stream| {
        for kind in KINDS {
            for n in [1, 255, 5000] {
                let (inp, dout) = (random(n, 5.0, 1), random(n, 1.0, 2));
                let (d_inp, out, d_dout) =
                    (stream.vector(&inp)?, poisoned(&stream, n), stream.vector(&dout)?);
                activation_forward(&stream, &out, &d_inp, kind)?;
                activation_backward(&stream, &d_dout, &d_inp, kind)?;
                let want: Vec<_> = inp.iter().map(|&x| activation_reference(x.into(), kind)).collect();
                let value: Vec<f64> = want.iter().map(|w| w.0).collect();
                let slope: Vec<f64> = want.iter().zip(&dout).map(|(w, &d)| w.1 * f64::from(d)).collect();
                assert_close(&stream.read(&out)?, &value, Tolerance::FP32);
                assert_close(&stream.read(&d_dout)?, &slope, Tolerance::FP32);
            }
        }
    });

    #[test]
    fn the_definition_is_its_own_derivative() {
        for kind in KINDS {
            for x in [-3.0, -0.7, 0.0, 0.2, 2.5] {
                let f = |x: &[f64]| activation_reference(x[0], kind).0;
                finite_difference(&[x], f, &[activation_reference(x, kind).1]);
            }
        }
        // Abramowitz and Stegun, table 7.1.
        assert!((erf(0.5) - 0.520_499_877_8).abs() < 1e-10 && (erf(2.0) - 0.995_322_265_0).abs() < 1e-10);
    }
}
