//! The in-place SGD step, `kernels/sgd.cu`.

use anyhow::{Result, ensure};

use super::width::expect_aligned;
use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// `params -= learning_rate · grads`, every parameter in one launch.
///
/// * `params`, `grads`: `(n,)` fp32, `n` a multiple of 4.
///
/// # Errors
/// Lengths that differ or are no multiple of 4; the launch's own.
pub fn sgd_step(
    stream: &Stream,
    params: &Tensor<f32>,
    grads: &Tensor<f32>,
    learning_rate: f32,
) -> Result<()> {
    let n = params.len();
    expect_len("sgd_step", &[("grads", grads.len(), n)])?;
    ensure!(n.is_multiple_of(4), "sgd_step: {n} parameters, not a multiple of 4");
    expect_aligned("sgd_step: params", params, 4)?;
    expect_aligned("sgd_step: grads", grads, 4)?;
    let kernel = stream.kernel("sgd", "sgd_step", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe {
        kernel.launch(stream, Launch::per_element(n / 4, 256), args![params, grads, int(n)?, learning_rate])
    }
}

/// The definition; one rounding an element, as on the device.
pub fn sgd_reference(params: &mut [f32], grads: &[f32], learning_rate: f32) {
    for (p, g) in params.iter_mut().zip(grads) {
        *p = (-learning_rate).mul_add(*g, *p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, random};
    use crate::device_test;

    device_test!(kernel_equals_the_definition, |stream| {
        for n in [4, 1020, 1024, 100_004] {
            let (mut want, grads) = (random(n, 1.0, 1), random(n, 3.0, 2));
            let params = stream.vector(&want)?;
            sgd_step(&stream, &params, &stream.vector(&grads)?, 0.1)?;
            sgd_reference(&mut want, &grads, 0.1);
            assert_close(&stream.read(&params)?, &want, Tolerance::EXACT);
        }
    });

    device_test!(what_begins_elsewhere_is_refused, |stream| {
        let (params, grads) = (stream.zeros(12)?, stream.zeros(12)?);
        let refused = sgd_step(&stream, &params.slice(1..9), &grads.slice(0..8), 0.1).unwrap_err();
        assert!(refused.to_string().contains("sgd_step: params begins"), "{refused}");
        sgd_step(&stream, &params.slice(4..12), &grads.slice(4..12), 0.1)?;
        stream.synchronize()?;
    });
}
