//! The tokens that enter the vision tower, of groups of views, and their gradient, `kernels/embed.cu`.

use anyhow::{Result, bail, ensure};

use super::width::{expect_aligned, width};
use super::{Element, Param, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// Views of a CTA forward: a position is read once for them.
const VIEWS: usize = 16;
const THREADS: usize = 192;

/// `out[b] = [class; projected[b]] + position`.
///
/// * `out`: `(B, T, C)` fp32, overwritten. `projected`: `(B, T − 1, C)`.
/// * `class`: of C; `position`: of T · C. Where each image has its own, for that many equal groups of B.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn embed_forward<O: Element>(
    stream: &Stream,
    out: &Tensor<f32>,
    projected: &Tensor<O>,
    class: &Param,
    position: &Param,
) -> Result<()> {
    let &[b, t, c] = out.shape() else { bail!("embed_forward: out is {out:?}, not (B, T, C)") };
    ensure!(t > 0, "embed_forward: out is {out:?}, without a token");
    let groups = class.images().unwrap_or(1);
    ensure!(groups > 0 && b.is_multiple_of(groups), "embed_forward: {b} sequences in {groups} groups");
    ensure!(position.images() == class.images(), "embed_forward: class is {class:?}, position {position:?}");
    let w = width(c, 4);
    class.expect("embed_forward: class", c, w)?;
    position.expect("embed_forward: position", t * c, w)?;
    projected.expect("embed_forward: projected", [b, t - 1, c])?;
    expect_aligned("embed_forward: out", out, w)?;
    expect_aligned("embed_forward: projected", projected, w)?;
    let kernel = stream.kernel("embed", "embed_forward", &[O::DEFINES, &[("WIDTH", w as i64)]].concat())?;
    let views = b / groups;
    let launch = Launch::over([t, views.div_ceil(VIEWS), groups], THREADS);
    let [class_step, position_step] = [int(class.step())?, int(position.step())?];
    let (views, t, c, each) = (int(views)?, int(t)?, int(c)?, int(VIEWS)?);
    let args = args![out, projected, class, position, class_step, position_step, views, t, c, each];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, launch, args) }
}

/// The gradients of [`embed_forward`]: of the projected patches, and each image's of class and position.
///
/// * `dprojected`: `(B, T − 1, C)`, overwritten. `dposition`: `(S, T, C)`, `dclass`: `(S, C)` fp32, overwritten: sums over an
///   image's B / S views, in order.
/// * `dout`: `(B, T, C)` fp32.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn embed_backward<O: Element>(
    stream: &Stream,
    dprojected: &Tensor<O>,
    dposition: &Tensor<f32>,
    dclass: &Tensor<f32>,
    dout: &Tensor<f32>,
) -> Result<()> {
    let &[b, t, c] = dout.shape() else { bail!("embed_backward: dout is {dout:?}, not (B, T, C)") };
    ensure!(t > 0, "embed_backward: dout is {dout:?}, without a token");
    let s = dclass.shape()[0];
    if s == 0 || !b.is_multiple_of(s) {
        bail!("embed_backward: {b} views of {s} images");
    }
    dclass.expect("embed_backward: dclass", [s, c])?;
    dposition.expect("embed_backward: dposition", [s, t, c])?;
    dprojected.expect("embed_backward: dprojected", [b, t - 1, c])?;
    let w = width(c, 4);
    expect_aligned("embed_backward: dprojected", dprojected, w)?;
    expect_aligned("embed_backward: dposition", dposition, w)?;
    expect_aligned("embed_backward: dclass", dclass, w)?;
    expect_aligned("embed_backward: dout", dout, w)?;
    let kernel = stream.kernel("embed", "embed_backward", &[O::DEFINES, &[("WIDTH", w as i64)]].concat())?;
    let args = args![dprojected, dposition, dclass, dout, int(b / s)?, int(t)?, int(c)?];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::over([t, 1, s], THREADS), args) }
}

/// The definition, one rounding an element, of one sequence.
pub fn embed_reference(projected: &[f32], class: &[f32], position: &[f32]) -> Vec<f32> {
    class.iter().chain(projected).zip(position).map(|(token, place)| token + place).collect()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random};
    use crate::device_test;

    const SHAPES: [[usize; 4]; 4] = [[3, 4, 50, 768], [2, 17, 5, 33], [1, 1, 1, 1], [2, 3, 2, 1024]];

    fn elements<O: Element>(len: usize) -> Vec<O> {
        random(len, 1.0, 1).iter().map(|&x| O::round(x.into())).collect()
    }

    fn forward<O: Element>(stream: &Stream) -> Result<()> {
        for [s, n, t, c] in SHAPES {
            let projected: Vec<O> = elements(s * n * (t - 1) * c);
            let (class, position) = (random(s * c, 1.0, 2), random(s * t * c, 1.0, 3));
            for groups in [1, s] {
                let (class, position) = (&class[..groups * c], &position[..groups * t * c]);
                let out = poisoned(stream, [s * n, t, c]);
                let (d_class, d_position) = match groups {
                    1 => (stream.vector(class)?, stream.vector(position)?),
                    _ => (stream.upload([groups, c], class)?, stream.upload([groups, t * c], position)?),
                };
                let d_projected = stream.upload([s * n, t - 1, c], &projected)?;
                embed_forward(stream, &out, &d_projected, &Param::from(&d_class), &Param::from(&d_position))?;
                let wide: Vec<f32> = projected.iter().map(|x| x.widen() as f32).collect();
                let want: Vec<f32> = (0..s * n)
                    .flat_map(|b| {
                        let group = b / (s * n / groups);
                        let projected = &wide[b * (t - 1) * c..][..(t - 1) * c];
                        embed_reference(
                            projected,
                            &class[group * c..][..c],
                            &position[group * t * c..][..t * c],
                        )
                    })
                    .collect();
                assert_close(&stream.read(&out)?, &want, Tolerance::EXACT);
            }
        }
        Ok(())
    }

    fn backward<O: Element>(stream: &Stream) -> Result<()> {
        for [s, n, t, c] in SHAPES {
            let dout = random(s * n * t * c, 1.0, 4);
            let dprojected = poisoned::<O>(stream, [s * n, t - 1, c]);
            let (dposition, dclass) = (poisoned(stream, [s, t, c]), poisoned(stream, [s, c]));
            let d_dout = stream.upload([s * n, t, c], &dout)?;
            embed_backward(stream, &dprojected, &dposition, &dclass, &d_dout)?;
            let (mut patches, mut sums) = (Vec::new(), vec![0f32; s * t * c]);
            for (b, sequence) in dout.chunks(t * c).enumerate() {
                patches.extend(sequence[c..].iter().map(|&d| O::round(d.into()).widen()));
                sums[b / n * t * c..].iter_mut().zip(sequence).for_each(|(sum, d)| *sum += d);
            }
            let got: Vec<f64> = stream.read(&dprojected)?.iter().map(|x| x.widen()).collect();
            assert_close(&got, &patches, Tolerance::EXACT);
            // In order, so to the bit.
            assert_close(&stream.read(&dposition)?, &sums, Tolerance::EXACT);
            let classes: Vec<f32> = sums.chunks(t * c).flat_map(|image| image[..c].to_vec()).collect();
            assert_close(&stream.read(&dclass)?, &classes, Tolerance::EXACT);
        }
        Ok(())
    }

    device_test!(tokens_equal_the_definition, |stream| {
        forward::<f32>(&stream)?;
        forward::<f16>(&stream)?;
    });

    device_test!(gradients_equal_the_definition, |stream| {
        backward::<f32>(&stream)?;
        backward::<f16>(&stream)?;
    });
}
