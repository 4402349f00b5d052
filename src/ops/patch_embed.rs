//! Image patches to the tokens of the vision tower, and back: `kernels/patch_embed.cu`.

use anyhow::Result;

use super::linear::Linear;
use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Images, tokens (patches and the class), width, elements of a patch (`3 · P · P`).
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub b: usize,
    pub t: usize,
    pub c: usize,
    pub p: usize,
}

/// What enters the tokens, or the gradients of it.
pub struct PatchEmbed<'a> {
    pub weight: &'a Tensor<f32>,   // (C, P)
    pub class: &'a Tensor<f32>,    // (C,)
    pub position: &'a Tensor<f32>, // (T, C)
}

impl PatchEmbed<'_> {
    fn lens(&self, Shape { t, c, p, .. }: Shape) -> [(&str, usize, usize); 3] {
        [
            ("weight", self.weight.len(), c * p),
            ("class", self.class.len(), c),
            ("position", self.position.len(), t * c),
        ]
    }
}

/// `out[b] = [class; patches[b] · weightᵀ] + position`.
///
/// * `out`: `(B, T, C)` fp32, overwritten. `patches`: `(B, T-1, P)`.
/// * `projected`: `(B, T-1, C)`, scratch.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn patch_embed_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    patches: &Tensor<f32>,
    params: &PatchEmbed,
    projected: &Tensor<f32>,
    shape: Shape,
) -> Result<()> {
    let Shape { b, t, c, p } = shape;
    expect_len("patch_embed_forward", &params.lens(shape))?;
    let rows = b * (t - 1);
    let lens = [
        ("out", out.len(), b * t * c),
        ("patches", patches.len(), rows * p),
        ("projected", projected.len(), rows * c),
    ];
    expect_len("patch_embed_forward", &lens)?;
    Linear::nt(&patches.view([rows, p]), &params.weight.view([c, p]), &projected.view([rows, c]))
        .run(stream)?;
    let args = args![out, projected, params.class, params.position, int(t)?, int(c)?];
    let kernel = stream.kernel("patch_embed", "patch_embed_assemble", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(b * t, 128), args) }
}

/// The gradients of [`patch_embed_forward`]'s parameters; none flows into the pixels.
///
/// * `dparams`: overwritten. `dout`: `(B, T, C)`. `patches`: the forward pass's.
/// * `dprojected`: `(B, T-1, C)`, scratch.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn patch_embed_backward(
    stream: &Stream,
    dparams: &PatchEmbed,
    dout: &Tensor<f32>,
    patches: &Tensor<f32>,
    dprojected: &Tensor<f32>,
    shape: Shape,
) -> Result<()> {
    let Shape { b, t, c, p } = shape;
    expect_len("patch_embed_backward", &dparams.lens(shape))?;
    let lens = [
        ("dout", dout.len(), b * t * c),
        ("dprojected", dprojected.len(), b * (t - 1) * c),
        ("patches", patches.len(), b * (t - 1) * p),
    ];
    expect_len("patch_embed_backward", &lens)?;
    let args = args![dparams.position, dparams.class, dout, int(b)?, int(t)?, int(c)?];
    let kernel = stream.kernel("patch_embed", "patch_embed_sum", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(t * c, 128), args) }?;
    let args = args![dprojected, dout, int(t)?, int(c)?];
    let kernel = stream.kernel("patch_embed", "patch_embed_split", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, Launch::new(b * (t - 1), 128), args) }?;
    let rows = b * (t - 1);
    Linear::tn(&dprojected.view([rows, c]), &patches.view([rows, p]), &dparams.weight.view([c, p]))
        .run(stream)
}

/// The definition, in float64: `(B, T, C)`.
pub fn patch_embed_reference(
    patches: &[f64],
    weight: &[f64],
    class: &[f64],
    position: &[f64],
    Shape { b, t, c, p }: Shape,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(b * t * c);
    for (image, token, channel) in (0..b * t * c).map(|i| (i / (t * c), i / c % t, i % c)) {
        let value = match token {
            0 => class[channel],
            _ => {
                let patch = &patches[(image * (t - 1) + token - 1) * p..][..p];
                patch.iter().zip(&weight[channel * p..]).map(|(x, w)| x * w).sum()
            }
        };
        out.push(value + position[token * c + channel]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random, widen};
    use crate::device_test;

    const CASES: [Shape; 4] = [
        Shape { b: 3, t: 50, c: 96, p: 192 },
        Shape { b: 2, t: 17, c: 64, p: 48 },
        Shape { b: 5, t: 5, c: 7, p: 27 },
        Shape { b: 1, t: 2, c: 1, p: 3 },
    ];

    device_test!(forward_equals_the_definition, |stream| {
        for shape in CASES {
            let Shape { b, t, c, p } = shape;
            let (patches, weight) = (random(b * (t - 1) * p, 1.0, 1), random(c * p, 1.0, 2));
            let (class, position) = (random(c, 1.0, 3), random(t * c, 1.0, 4));
            let (out, projected) = (poisoned(&stream, b * t * c), poisoned(&stream, b * (t - 1) * c));
            let (d_weight, d_class, d_position) =
                (stream.vector(&weight)?, stream.vector(&class)?, stream.vector(&position)?);
            let params = PatchEmbed { weight: &d_weight, class: &d_class, position: &d_position };
            patch_embed_forward(&stream, &out, &stream.vector(&patches)?, &params, &projected, shape)?;
            let want = patch_embed_reference(
                &widen(&patches),
                &widen(&weight),
                &widen(&class),
                &widen(&position),
                shape,
            );
            assert_close(&stream.read(&out)?, &want, Tolerance::of_sums(p));
        }
    });

    device_test!(gradients_are_the_definitions_derivatives, |stream| {
        for shape in CASES {
            let Shape { b, t, c, p } = shape;
            let (patches, dout) = (random(b * (t - 1) * p, 1.0, 1), random(b * t * c, 1.0, 2));
            let (weight, class, position) =
                (poisoned(&stream, c * p), poisoned(&stream, c), poisoned(&stream, t * c));
            let dparams = PatchEmbed { weight: &weight, class: &class, position: &position };
            let scratch = poisoned(&stream, b * (t - 1) * c);
            patch_embed_backward(
                &stream,
                &dparams,
                &stream.vector(&dout)?,
                &stream.vector(&patches)?,
                &scratch,
                shape,
            )?;
            // The definition is linear in its parameters: each derivative is a sum of dout over where
            // a unit change of one of them shows.
            let (patches, dout) = (widen(&patches), widen(&dout));
            let derivative = |weight: &[f64], class: &[f64], position: &[f64]| -> f64 {
                let out = patch_embed_reference(&patches, weight, class, position, shape);
                out.iter().zip(&dout).map(|(y, g)| y * g).sum()
            };
            let unit =
                |len: usize, at: usize| -> Vec<f64> { (0..len).map(|i| (i == at) as u8 as f64).collect() };
            let zeros = |len: usize| vec![0.0; len];
            let checked = |len: usize| (0..len).step_by(len.div_ceil(40));
            let (weight, class, position) =
                (stream.read(&weight)?, stream.read(&class)?, stream.read(&position)?);
            let (mut got, mut want) = (Vec::new(), Vec::new());
            for i in checked(c * p) {
                got.push(weight[i]);
                want.push(derivative(&unit(c * p, i), &zeros(c), &zeros(t * c)));
            }
            for i in checked(c) {
                got.push(class[i]);
                want.push(derivative(&zeros(c * p), &unit(c, i), &zeros(t * c)));
            }
            for i in checked(t * c) {
                got.push(position[i]);
                want.push(derivative(&zeros(c * p), &zeros(c), &unit(t * c, i)));
            }
            assert_close(&got, &want, Tolerance::of_sums(b * t));
        }
    });
}
