//! Image patches to the tokens of the vision tower, and back: `kernels/patch_embed.cu`.

use anyhow::Result;

use super::expect_len;
use super::matmul::{matmul_backward_weight, matmul_forward};
use crate::args;
use crate::gpu::{Gpu, Launch, Slice};

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
    pub weight: &'a Slice<f32>,   // (C, P)
    pub class: &'a Slice<f32>,    // (C,)
    pub position: &'a Slice<f32>, // (T, C)
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
    gpu: &Gpu,
    out: &Slice<f32>,
    patches: &Slice<f32>,
    params: &PatchEmbed,
    projected: &Slice<f32>,
    shape: Shape,
) -> Result<()> {
    let Shape { b, t, c, p } = shape;
    expect_len("patch_embed_forward", &params.lens(shape))?;
    expect_len("patch_embed_forward", &[("out", out.len(), b * t * c)])?;
    matmul_forward(gpu, projected, patches, params.weight, None, None, (b * (t - 1), p, c))?;
    let args = args![out, projected, params.class, params.position, t as i32, c as i32];
    gpu.launch("patch_embed", "patch_embed_assemble", Launch::new(b * t, 128), args)
}

/// The gradients of [`patch_embed_forward`]'s parameters; none flows into the pixels.
///
/// * `dparams`: overwritten. `dout`: `(B, T, C)`. `patches`: the forward pass's.
/// * `dprojected`: `(B, T-1, C)`, scratch.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn patch_embed_backward(
    gpu: &Gpu,
    dparams: &PatchEmbed,
    dout: &Slice<f32>,
    patches: &Slice<f32>,
    dprojected: &Slice<f32>,
    shape: Shape,
) -> Result<()> {
    let Shape { b, t, c, p } = shape;
    expect_len("patch_embed_backward", &dparams.lens(shape))?;
    let lens = [("dout", dout.len(), b * t * c), ("dprojected", dprojected.len(), b * (t - 1) * c)];
    expect_len("patch_embed_backward", &lens)?;
    let args = args![dparams.position, dparams.class, dout, b as i32, t as i32, c as i32];
    gpu.launch("patch_embed", "patch_embed_sum", Launch::per_element(t * c, 128), args)?;
    let args = args![dprojected, dout, t as i32, c as i32];
    gpu.launch("patch_embed", "patch_embed_split", Launch::new(b * (t - 1), 128), args)?;
    matmul_backward_weight(gpu, dparams.weight, dprojected, patches, (b * (t - 1), p, c))
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

    device_test!(forward_equals_the_definition, |gpu| {
        for shape in CASES {
            let Shape { b, t, c, p } = shape;
            let (patches, weight) = (random(b * (t - 1) * p, 1.0, 1), random(c * p, 1.0, 2));
            let (class, position) = (random(c, 1.0, 3), random(t * c, 1.0, 4));
            let (out, projected) = (poisoned(&gpu, b * t * c), poisoned(&gpu, b * (t - 1) * c));
            let (d_weight, d_class, d_position) =
                (gpu.upload(&weight)?, gpu.upload(&class)?, gpu.upload(&position)?);
            let params = PatchEmbed { weight: &d_weight, class: &d_class, position: &d_position };
            patch_embed_forward(&gpu, &out, &gpu.upload(&patches)?, &params, &projected, shape)?;
            let want = patch_embed_reference(
                &widen(&patches),
                &widen(&weight),
                &widen(&class),
                &widen(&position),
                shape,
            );
            assert_close(&gpu.read(&out)?, &want, Tolerance::of_sums(p));
        }
    });

    device_test!(gradients_are_the_definitions_derivatives, |gpu| {
        for shape in CASES {
            let Shape { b, t, c, p } = shape;
            let (patches, dout) = (random(b * (t - 1) * p, 1.0, 1), random(b * t * c, 1.0, 2));
            let (weight, class, position) = (poisoned(&gpu, c * p), poisoned(&gpu, c), poisoned(&gpu, t * c));
            let dparams = PatchEmbed { weight: &weight, class: &class, position: &position };
            let scratch = poisoned(&gpu, b * (t - 1) * c);
            patch_embed_backward(
                &gpu,
                &dparams,
                &gpu.upload(&dout)?,
                &gpu.upload(&patches)?,
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
            let (weight, class, position) = (gpu.read(&weight)?, gpu.read(&class)?, gpu.read(&position)?);
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
