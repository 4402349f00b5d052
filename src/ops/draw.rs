//! The random parameters of views, `kernels/draw.cu`.

use anyhow::{Context, Result, bail, ensure};
use bytemuck::{Pod, Zeroable};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::augment::MAX_SIDE;
use super::int;
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};
use crate::policy::{Crop, Crops, Family, Policy};

/// An image of a batch: `struct ImageDesc` of `kernels/view.cuh`. All zeros: an empty slot, whose views are zeros.
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

/// [`ViewParams::kind`]: made by all its steps.
pub const CROP: u32 = 0;
/// [`ViewParams::kind`]: as its image is predicted; all else is zeros.
pub const ORIGINAL: u32 = 1;

/// What happens to the source image on the way to one view, in this order: flips, rotation, jitter,
/// crop and resize, a flip of the result.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct ViewParams {
    /// [`CROP`] or [`ORIGINAL`].
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
    /// Top, left, height, width, inside the image.
    pub crop: [i32; 4],
    /// 1 mirrors the resized crop left and right.
    pub mirror: u32,
}

/// Names of the jitter steps, by their number in [`ViewParams::jitter_order`].
pub const JITTERS: [&str; 4] = ["brightness", "contrast", "saturation", "hue"];

impl Serialize for ViewParams {
    /// Numbers as float64 with their exact float32 value; `hue` is null where the step is left out. Of an original,
    /// `original` alone.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.kind == ORIGINAL {
            let mut view = serializer.serialize_struct("ViewParams", 1)?;
            view.serialize_field("original", &true)?;
            return view.end();
        }
        let mut view = serializer.serialize_struct("ViewParams", 10)?;
        view.serialize_field("hflip", &(self.hflip != 0))?;
        view.serialize_field("vflip", &(self.vflip != 0))?;
        view.serialize_field("angle", &f64::from(self.angle))?;
        view.serialize_field("jitter_order", &self.jitter_order.map(|step| JITTERS[usize::from(step) % 4]))?;
        view.serialize_field("brightness", &f64::from(self.brightness))?;
        view.serialize_field("contrast", &f64::from(self.contrast))?;
        view.serialize_field("saturation", &f64::from(self.saturation))?;
        view.serialize_field("hue", &(self.hue != 0.0).then_some(f64::from(self.hue)))?;
        view.serialize_field("crop", &self.crop)?;
        view.serialize_field("mirror", &(self.mirror != 0))?;
        view.end()
    }
}

/// What an image's views are drawn from, besides the policy.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub seed: u64,
    /// The image's index in its data set.
    pub image: u64,
    /// The index of the view.
    pub view: u32,
}

impl Key {
    /// Four random words.
    fn words(self, block: u32) -> [u32; 4] {
        let counter = [self.image as u32, (self.image >> 32) as u32, self.view, block];
        philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }
}

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
    let (crops, originals) = match &policy.family {
        Family::Original => (&Crops::notebook(), u64::MAX),
        Family::Crops(crops) => (crops, crops.originals.into()),
    };
    let kernel = stream.kernel("draw", "draw_views", &[])?;
    let policy = Arg::bytes(&CropsArg::new(crops));
    let args = args![descs, params, int(s * n)?, int(n)?, seed, first_view, originals, policy];
    // SAFETY: the shapes are the kernel's, checked above.
    unsafe { kernel.launch(stream, Launch::per_element(s * n, 64), args) }
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

/// The definition: view `key.view` of an image of `w` × `h` pixels.
pub fn draw_reference(policy: &Policy, key: Key, (w, h): (usize, usize)) -> ViewParams {
    match &policy.family {
        Family::Crops(crops) if key.view >= crops.originals => draw_crops(crops, key, (w as i32, h as i32)),
        Family::Original | Family::Crops(_) => ViewParams { kind: ORIGINAL, ..ViewParams::zeroed() },
    }
}

fn draw_crops(crops: &Crops, key: Key, size: (i32, i32)) -> ViewParams {
    let jitter = |word, strength: f32| uniform(word, f32::max(0.0, 1.0 - strength), 1.0 + strength);
    let [hflip, vflip, angle, order] = key.words(0);
    let [brightness, contrast, saturation, hue] = key.words(1);
    ViewParams {
        kind: CROP,
        hflip: u32::from(uniform(hflip, 0.0, 1.0) < crops.hflip),
        vflip: u32::from(uniform(vflip, 0.0, 1.0) < crops.vflip),
        angle: uniform(angle, -crops.rotation, crops.rotation),
        jitter_order: permutation(below(order, 24) as usize),
        brightness: jitter(brightness, crops.brightness),
        contrast: jitter(contrast, crops.contrast),
        saturation: jitter(saturation, crops.saturation),
        hue: uniform(hue, -crops.hue, crops.hue),
        crop: draw_crop(crops.crop, key, size),
        mirror: u32::from(uniform(key.words(12)[0], 0.0, 1.0) < crops.mirror),
    }
}

/// Torchvision's `RandomResizedCrop.get_params`.
fn draw_crop(crop: Crop, key: Key, (w, h): (i32, i32)) -> [i32; 4] {
    let found = (0..10).find_map(|k| try_crop(crop, key.words(2 + k), w, h));
    found.unwrap_or_else(|| central_crop(crop, w, h))
}

/// One of its tries.
fn try_crop(crop: Crop, words: [u32; 4], w: i32, h: i32) -> Option<[i32; 4]> {
    let [.., low, high] = crop_range(crop);
    let area = f64::from(h) * f64::from(w) * f64::from(uniform(words[0], crop.scale.0, crop.scale.1));
    let ratio = f64::from(f64::from(uniform(words[1], low, high)).exp() as f32);
    let width = (area * ratio).sqrt().round_ties_even() as i32;
    let height = (area / ratio).sqrt().round_ties_even() as i32;
    let fits = 0 < width && width <= w && 0 < height && height <= h;
    fits.then(|| {
        let top = below(words[2], (h - height + 1) as u32) as i32;
        let left = below(words[3], (w - width + 1) as u32) as i32;
        [top, left, height, width]
    })
}

/// Its fallback: the largest central crop whose ratio is in range, of one pixel at least.
fn central_crop(crop: Crop, w: i32, h: i32) -> [i32; 4] {
    let ratio = f64::from(w) / f64::from(h);
    let (low, high) = (f64::from(crop.ratio.0), f64::from(crop.ratio.1));
    let (mut width, mut height) = (w, h);
    if ratio < low {
        height = 1.max((f64::from(w) / low).round_ties_even() as i32);
    } else if ratio > high {
        width = 1.max((f64::from(h) * high).round_ties_even() as i32);
    }
    [(h - height) / 2, (w - width) / 2, height, width]
}

/// Permutation `index` of 24, in lexicographic order.
fn permutation(mut index: usize) -> [u8; 4] {
    let mut left = vec![0, 1, 2, 3];
    [6, 2, 1, 1].map(|permutations_of_the_rest| {
        let item = left.remove(index / permutations_of_the_rest);
        index %= permutations_of_the_rest;
        item
    })
}

/// Uniform in `[low, high]` from the word's upper 24 bits.
fn uniform(word: u32, low: f32, high: f32) -> f32 {
    let unit = (word >> 8) as f32 / (1 << 24) as f32;
    (high - low).mul_add(unit, low)
}

/// Uniform in `0..n`; its bias is at most `n / 2^32`.
fn below(word: u32, n: u32) -> u32 {
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let a = 0xD251_1F53 * u64::from(c0);
        let b = 0xCD9E_8D57 * u64::from(c2);
        (c0, c1, c2, c3) = ((b >> 32) as u32 ^ c1 ^ k0, b as u32, (a >> 32) as u32 ^ c3 ^ k1, a as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;

    /// Random123's `kat_vectors`.
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn policies() -> Result<Vec<Policy>> {
        // The last asks for crops that seldom fit, so that tries and fallback are drawn too.
        ["notebook", "mild", "tpt", "none", "notebook:hflip=1,contrast=2,hue=0.5,scale=0.9..1,ratio=0.2..0.4"]
            .iter()
            .map(|text| text.parse())
            .collect()
    }

    const SIZES: [(usize, usize); 6] = [(32, 32), (1, 1), (7, 300), (300, 7), (45, 61), (6000, 4001)];

    fn desc(index: u64, (w, h): (usize, usize)) -> ImageDesc {
        ImageDesc { offset: 0, index, w: w as u32, h: h as u32 }
    }

    device_test!(kernel_equals_the_definition, |stream| {
        for policy in policies()? {
            let (seed, view, n) = (0x0123_4567_89ab_cdef, u32::MAX - 150, 151);
            let image = |i: usize| (5 << 33 | 7) + i as u64;
            let mut descs: Vec<_> = SIZES.iter().enumerate().map(|(i, size)| desc(image(i), *size)).collect();
            descs.insert(2, desc(0, (0, 0)));
            let params = stream.alloc([descs.len(), n])?;
            draw_views(&stream, &policy, (seed, view), &stream.vector(&descs)?, &params)?;
            for (got, desc) in stream.read(&params)?.chunks(n).zip(descs) {
                let size = (desc.w as usize, desc.h as usize);
                let at = |i| draw_reference(&policy, Key { seed, image: desc.index, view: view + i }, size);
                let want = |i| if desc.w == 0 { ViewParams::zeroed() } else { at(i) };
                assert_eq!(got, (0..n as u32).map(want).collect::<Vec<_>>(), "{policy} {size:?}");
            }
        }
    });

    device_test!(views_do_not_depend_on_how_many_are_drawn, |stream| {
        let policy = Policy::notebook();
        let descs = stream.vector(&[desc(9, (32, 32))])?;
        let draw = |view, n| {
            let params = stream.alloc([1, n])?;
            draw_views(&stream, &policy, (3, view), &descs, &params)?;
            stream.read(&params)
        };
        let all = draw(0, 50)?;
        assert_eq!(draw(17, 4)?, all[17..21]);
        for (a, b) in [((4, 9, 0), (3, 9, 0)), ((3, 8, 0), (3, 9, 0)), ((3, 9, 1), (3, 9, 0))] {
            let at = |(seed, image, view)| draw_reference(&policy, Key { seed, image, view }, (32, 32));
            assert_ne!(at(a), at(b));
        }
    });

    #[test]
    fn draws_fill_their_ranges_evenly() {
        let policy = Policy::notebook();
        const N: u32 = 24_000;
        let views: Vec<ViewParams> =
            (0..N).map(|view| draw_reference(&policy, Key { seed: 1, image: 2, view }, (640, 480))).collect();
        // Five standard deviations of each count or mean.
        let near = |value: f64, want: f64, sigma: f64| {
            let bound = 5.0 * sigma / f64::from(N).sqrt();
            assert!((value - want).abs() < bound, "{value} is further than {bound} from {want}");
        };
        let mean = |of: &dyn Fn(&ViewParams) -> f64| views.iter().map(of).sum::<f64>() / f64::from(N);
        near(mean(&|v| v.hflip.into()), 0.5, 0.5);
        near(mean(&|v| v.vflip.into()), 0.5, 0.5);
        near(mean(&|v| v.angle.into()), 0.0, 60.0 / 12f64.sqrt());
        near(mean(&|v| v.brightness.into()), 1.0, 0.4 / 12f64.sqrt());
        near(mean(&|v| v.contrast.into()), 1.0, 0.4 / 12f64.sqrt());
        near(mean(&|v| v.saturation.into()), 1.0, 0.4 / 12f64.sqrt());
        near(mean(&|v| v.hue.into()), 0.0, 0.4 / 12f64.sqrt());
        for index in 0..24 {
            let share = mean(&|v| f64::from(u8::from(v.jitter_order == permutation(index))));
            near(share, 1.0 / 24.0, (23.0f64 / 576.0).sqrt());
        }
        for view in &views {
            let [top, left, height, width] = view.crop;
            assert!(top >= 0 && left >= 0 && top + height <= 480 && left + width <= 640);
            assert!(view.angle.abs() <= 30.0 && view.hue.abs() <= 0.2);
            let area = f64::from(height * width) / (640.0 * 480.0);
            let ratio = f64::from(width) / f64::from(height);
            assert!((0.079..=1.0).contains(&area) && (0.745..=1.34).contains(&ratio), "{view:?}");
        }
    }

    /// As TPT has them: the original first, then crops with every other mirrored and nothing else.
    #[test]
    fn tpt_mirrors_every_other_crop() -> Result<()> {
        let (policy, n) = ("tpt".parse()?, 4_000);
        let draw = |view| draw_reference(&policy, Key { seed: 1, image: 2, view }, (640, 480));
        assert_eq!(draw(0), ViewParams { kind: ORIGINAL, ..ViewParams::zeroed() });
        let views: Vec<ViewParams> = (1..=n).map(draw).collect();
        for view in &views {
            let &ViewParams { jitter_order, crop, mirror, .. } = view;
            let plain =
                ViewParams { brightness: 1.0, contrast: 1.0, saturation: 1.0, ..ViewParams::zeroed() };
            assert_eq!(*view, ViewParams { jitter_order, crop, mirror, ..plain });
        }
        let mirrored = views.iter().filter(|view| view.mirror == 1).count() as f64;
        assert!((mirrored - 2_000.0).abs() < 5.0 * f64::sqrt(1_000.0), "{mirrored}");
        Ok(())
    }

    #[test]
    fn the_fallback_is_torchvisions() {
        assert_eq!(central_crop(Crop::ANY, 300, 7), [0, 145, 7, 9]);
        assert_eq!(central_crop(Crop::ANY, 7, 300), [145, 0, 9, 7]);
        assert_eq!(central_crop(Crop::ANY, 40, 40), [0, 0, 40, 40]);
        assert_eq!(central_crop(Crop { ratio: (50.0, 60.0), ..Crop::ANY }, 1, 9), [4, 0, 1, 1]);
    }

    #[test]
    fn prints_the_exact_values() -> Result<()> {
        let view = draw_reference(&Policy::notebook(), Key { seed: 0, image: 0, view: 0 }, (32, 32));
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&view)?)?;
        assert_eq!(json["angle"].as_f64(), Some(view.angle.into()));
        assert_eq!(json["hue"].as_f64(), Some(view.hue.into()));
        assert_eq!(json["hflip"].as_bool(), Some(view.hflip == 1));
        assert_eq!(json["crop"], serde_json::json!(view.crop));
        assert_eq!(json["jitter_order"][0], JITTERS[usize::from(view.jitter_order[0])]);
        let keys: Vec<_> = json.as_object().into_iter().flat_map(|object| object.keys()).collect();
        let want = "hflip vflip angle jitter_order brightness contrast saturation hue crop mirror";
        assert_eq!(keys, want.split(' ').collect::<Vec<_>>());
        let mild = draw_reference(&Policy::mild(), Key { seed: 0, image: 0, view: 0 }, (32, 32));
        assert!(serde_json::to_value(mild)?["hue"].is_null());
        let none = draw_reference(&"none".parse()?, Key { seed: 0, image: 0, view: 0 }, (32, 32));
        assert_eq!(serde_json::to_value(none)?, serde_json::json!({"original": true}));
        Ok(())
    }
}
