//! An image of a batch, and what happens to it on the way to one view: the structs of `kernels/view.cuh`.

use anyhow::{Context, Result, ensure};
use bytemuck::{Pod, Zeroable};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::policy::Step;

/// The longest side of a source image, pixels: a row fits into the shared memory of any GPU (64 KB on sm_75), and
/// Pillow's 16.16 fixed point holds every coordinate.
pub const MAX_SIDE: usize = 16_000;

/// An image of a batch: `struct ImageDesc`. All zeros: an empty slot, whose views are zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct ImageDesc {
    /// Of its `(h, w, 3)` bytes in the batch's pixels.
    pub offset: u64,
    /// Its index in its data set, which keys the random numbers.
    pub index: u64,
    pub w: u32,
    pub h: u32,
}

impl ImageDesc {
    /// Descriptions of images whose pixels lie one behind the other, from the first byte of `pixels` on, where they are copied.
    ///
    /// * `images`: an image's index, width and height, and its `(h, w, 3)` RGB.
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`]; pixels of another size, or more than there is room for.
    pub fn pack(images: &[(u64, (usize, usize), &[u8])], pixels: &mut [u8]) -> Result<Vec<ImageDesc>> {
        let mut at = 0;
        let mut descs = Vec::with_capacity(images.len());
        for &(index, (w, h), image) in images {
            let sides = 1..=MAX_SIDE;
            ensure!(
                sides.contains(&w) && sides.contains(&h),
                "image {index} of {w} × {h} pixels: each side must be 1 to {MAX_SIDE}; resize it first"
            );
            ensure!(
                image.len() == 3 * w * h,
                "image {index} has {} bytes, not those of {w} × {h} pixels",
                image.len()
            );
            let room = pixels.get_mut(at..at + image.len());
            room.context("more pixels than there is room for")?.copy_from_slice(image);
            descs.push(ImageDesc { offset: at as u64, index, w: w as u32, h: h as u32 });
            at += image.len();
        }
        Ok(descs)
    }
}

/// [`ViewParams::kind`]: flips, rotation, jitter, crop and resize, a flip of the result.
pub const CROP: u32 = 0;
/// [`ViewParams::kind`]: as its image is predicted; all else is zeros.
pub const ORIGINAL: u32 = 1;
/// [`ViewParams::kind`]: crop and resize, a flip of the result, chains of operations.
pub const RESIZED_CHAINS: u32 = 2;
/// [`ViewParams::kind`]: a crop of the image's own size that may reach past it, into black; a flip, chains of operations,
/// and of their ends what an image is predicted as.
pub const PADDED_CHAINS: u32 = 3;

/// Steps of all of a view's chains.
pub const STEPS: usize = 9;

/// What happens to the source image on the way to one view.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct ViewParams {
    /// [`CROP`], [`ORIGINAL`], [`RESIZED_CHAINS`] or [`PADDED_CHAINS`].
    pub kind: u32,
    /// 1 mirrors left and right.
    pub hflip: u32,
    /// 1 mirrors top and bottom.
    pub vflip: u32,
    /// Degrees, anticlockwise, within ±180.
    pub angle: f32,
    /// A permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
    pub jitter_order: [u8; 4],
    /// Factor; 1 changes nothing.
    pub brightness: f32,
    /// Factor; 1 changes nothing.
    pub contrast: f32,
    /// Factor; 1 changes nothing.
    pub saturation: f32,
    /// Turns, within ±0.5. Exactly 0 leaves the step out, as torchvision does where its range is 0: the
    /// way to HSV and back alone would move pixels.
    pub hue: f32,
    /// Top, left, height, width; inside the image, but of [`PADDED_CHAINS`].
    pub crop: [i32; 4],
    /// 1 mirrors what has been cropped, and resized, left and right.
    pub mirror: u32,
    /// Chains of operations, 1 or 3; each begins anew.
    pub chains: u32,
    /// Steps of each.
    pub depths: [u32; 3],
    /// Of each chain's end in the view.
    pub weights: [f32; 3],
    /// Weight of what they began with; the weights of the ends are of the rest.
    pub unchanged: f32,
    /// 1 moves pixels by bilinear interpolation, 0 to the nearest.
    pub is_bilinear: u32,
    /// The colour where no pixel is moved to: red, green and blue from the lowest byte.
    pub fill: u32,
    /// `STEPS / chains` of each chain, of which its depth counts.
    pub steps: [Step; STEPS],
}

impl ViewParams {
    /// Chain `number`'s steps.
    pub fn chain(&self, number: usize) -> &[Step] {
        let first = number * (STEPS / self.chains.max(1) as usize);
        &self.steps[first..first + self.depths[number] as usize]
    }
}

/// Names of the jitter steps, by their number in [`ViewParams::jitter_order`].
pub const JITTERS: [&str; 4] = ["brightness", "contrast", "saturation", "hue"];

impl Serialize for ViewParams {
    /// Numbers as float64 with their exact float32 value; `hue` is null where the step is left out. Of each kind what it
    /// has.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut view = serializer.serialize_map(None)?;
        match self.kind {
            ORIGINAL => view.serialize_entry("original", &true)?,
            CROP => {
                view.serialize_entry("hflip", &(self.hflip != 0))?;
                view.serialize_entry("vflip", &(self.vflip != 0))?;
                view.serialize_entry("angle", &f64::from(self.angle))?;
                let order = self.jitter_order.map(|step| JITTERS[usize::from(step) % 4]);
                view.serialize_entry("jitter_order", &order)?;
                view.serialize_entry("brightness", &f64::from(self.brightness))?;
                view.serialize_entry("contrast", &f64::from(self.contrast))?;
                view.serialize_entry("saturation", &f64::from(self.saturation))?;
                view.serialize_entry("hue", &(self.hue != 0.0).then_some(f64::from(self.hue)))?;
                view.serialize_entry("crop", &self.crop)?;
                view.serialize_entry("mirror", &(self.mirror != 0))?;
            }
            _ => {
                view.serialize_entry("crop", &self.crop)?;
                view.serialize_entry("resized", if self.kind == PADDED_CHAINS { "last" } else { "first" })?;
                view.serialize_entry("mirror", &(self.mirror != 0))?;
                view.serialize_entry(
                    "interpolation",
                    ["nearest", "bilinear"][usize::from(self.is_bilinear != 0)],
                )?;
                view.serialize_entry("fill", &self.fill.to_le_bytes()[..3])?;
                view.serialize_entry("unchanged", &f64::from(self.unchanged))?;
                let chain = |number: usize| {
                    let weight = f64::from(self.weights[number]);
                    serde_json::json!({"weight": weight, "steps": self.chain(number)})
                };
                let chains = (0..self.chains as usize).map(chain).collect::<Vec<_>>();
                view.serialize_entry("chains", &chains)?;
            }
        }
        view.end()
    }
}
