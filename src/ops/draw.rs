//! The random parameters of views, `kernels/draw.cu`.

mod reference;
#[cfg(test)]
mod tests;

use anyhow::{Result, bail};
use bytemuck::{Pod, Zeroable};

pub use self::reference::{Key, draw_reference};
use super::int;
use super::view::{ImageDesc, ViewParams};
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};
use crate::policy::{AugMix, Before, Crop, Crops, Family, Policy, RandAugment, Step};

/// Draws `N` views of each image, from number `first_view` on.
///
/// * `descs`: `(S,)`.
/// * `params`: `(S, N)`, overwritten. Each depends on policy, seed, its image's size and index, and the view's number
///   alone; zeros for an empty slot.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn draw_views(
    stream: &Stream,
    policy: &Policy,
    (seed, first_view): (u64, u32),
    descs: &Tensor<ImageDesc>,
    params: &Tensor<ViewParams>,
) -> Result<()> {
    let &[s, n] = params.shape() else { bail!("draw_views: params is {params:?}, not (S, N)") };
    descs.expect("draw_views: descs", [s])?;
    let (name, originals, arg) = match &policy.family {
        Family::Original => ("draw_views", u64::MAX, Arg::bytes(&CropsArg::new(&Crops::notebook()))),
        Family::Crops(crops) => ("draw_views", crops.originals.into(), Arg::bytes(&CropsArg::new(crops))),
        Family::AugMix(augmix) => {
            ("draw_augmix", augmix.originals.into(), Arg::bytes(&AugMixArg::new(augmix)))
        }
        Family::RandAugment(randaugment) => {
            let arg = Arg::bytes(&RandAugmentArg::new(randaugment));
            ("draw_randaugment", randaugment.originals.into(), arg)
        }
    };
    let kernel = stream.kernel("draw", name, &[])?;
    let args = args![descs, params, int(s * n)?, int(n)?, seed, first_view, originals, arg];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(s * n, 64), args) }
}

/// `struct AugMixArg` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AugMixArg {
    severity: f32,
    mirror: f32,
    fill: u32,
    padding: i32,
    crop: [f32; 6],
}

impl AugMixArg {
    fn new(augmix: &AugMix) -> AugMixArg {
        let &AugMix { severity, mirror, fill, ref before, .. } = augmix;
        let (padding, crop) = match *before {
            Before::Resized(crop) => (-1, crop),
            Before::Padded(padding) => (padding as i32, Crop::ANY),
        };
        AugMixArg { severity, mirror, fill, padding, crop: crop_range(crop) }
    }
}

/// `struct RandAugmentArg` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RandAugmentArg {
    mirror: f32,
    steps: u32,
    is_bilinear: u32,
    crop: [f32; 6],
    space: [[Step; 2]; 14],
}

impl RandAugmentArg {
    fn new(randaugment: &RandAugment) -> RandAugmentArg {
        let &RandAugment { ops, bilinear, crop, mirror, .. } = randaugment;
        let (crop, space) = (crop_range(crop), randaugment.space());
        RandAugmentArg { mirror, steps: ops, is_bilinear: bilinear, crop, space }
    }
}

/// `struct CropsArg` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CropsArg {
    hflip: f32,
    vflip: f32,
    rotation: f32,
    brightness: f32,
    contrast: f32,
    saturation: f32,
    hue: f32,
    mirror: f32,
    crop: [f32; 6],
}

impl CropsArg {
    fn new(crops: &Crops) -> CropsArg {
        let &Crops { hflip, vflip, rotation, brightness, contrast, saturation, hue, mirror, crop, .. } =
            crops;
        let crop = crop_range(crop);
        CropsArg { hflip, vflip, rotation, brightness, contrast, saturation, hue, mirror, crop }
    }
}

/// `struct CropRange` of the kernels.
fn crop_range(Crop { scale, ratio }: Crop) -> [f32; 6] {
    let log = |ratio: f32| f64::from(ratio).ln() as f32;
    [scale.0, scale.1, ratio.0, ratio.1, log(ratio.0), log(ratio.1)]
}
