//! The random parameters of views, `kernels/draw.cu`.

use anyhow::{Context, Result, bail, ensure};
use bytemuck::{Pod, Zeroable};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::augment::MAX_SIDE;
use super::int;
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};
use crate::policy::{AugMix, Before, Crop, Crops, Family, Operation, Policy, RandAugment, Step};

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

/// The definition: view `key.view` of an image of `w` × `h` pixels.
pub fn draw_reference(policy: &Policy, key: Key, (w, h): (usize, usize)) -> ViewParams {
    let size = (w as i32, h as i32);
    match &policy.family {
        Family::Crops(crops) if key.view >= crops.originals => draw_crops(crops, key, size),
        Family::AugMix(augmix) if key.view >= augmix.originals => draw_augmix(augmix, key, size),
        Family::RandAugment(randaugment) if key.view >= randaugment.originals => {
            draw_randaugment(randaugment, key, size)
        }
        _ => ViewParams { kind: ORIGINAL, ..ViewParams::zeroed() },
    }
}

/// See [`crate::policy::AugMix`].
fn draw_augmix(augmix: &AugMix, key: Key, (w, h): (i32, i32)) -> ViewParams {
    let (kind, crop) = match augmix.before {
        Before::Resized(crop) => (RESIZED_CHAINS, draw_crop(crop, key, (w, h))),
        Before::Padded(padding) => {
            let [.., top, left] = key.words(2);
            let [top, left] = [top, left].map(|word| below(word, 2 * padding + 1) as i32 - padding as i32);
            (PADDED_CHAINS, [top, left, h, w])
        }
    };
    let [mirror, depths @ ..] = key.words(12);
    // The lengths that two uniform cuts leave are as Dirichlet(1, 1, 1) has them.
    let [unchanged, one, other, _] = key.words(13).map(|word| uniform(word, 0.0, 1.0));
    let mut view = ViewParams {
        kind,
        crop,
        mirror: u32::from(uniform(mirror, 0.0, 1.0) < augmix.mirror),
        chains: 3,
        depths: depths.map(|word| 1 + below(word, 3)),
        weights: [one.min(other), one.max(other) - one.min(other), 1.0 - one.max(other)],
        unchanged,
        is_bilinear: 1,
        fill: augmix.fill,
        ..ViewParams::zeroed()
    };
    for (number, step) in view.steps.iter_mut().enumerate() {
        if (number % 3) < view.depths[number / 3] as usize {
            let [operation, level, direction, _] = key.words(14 + number as u32);
            let sign = if direction >> 31 == 1 { -1.0 } else { 1.0 };
            *step = augmix_step(below(operation, 9), uniform(level, 0.1, augmix.severity), sign);
        }
    }
    view
}

/// An operation of MEMO's nine at a level of 0 to 10, as its `int_parameter` and `float_parameter` have it.
fn augmix_step(number: u32, level: f32, sign: f32) -> Step {
    let (operation, argument) = match number {
        0 => (Operation::AutoContrast, 0.0),
        1 => (Operation::Equalize, 0.0),
        2 => (Operation::Rotate, sign * (level * 3.0).trunc()),
        3 => (Operation::Solarize, 256.0 - (level * 25.6).trunc()),
        4 => (Operation::ShearX, sign * (level * 0.03)),
        5 => (Operation::ShearY, sign * (level * 0.03)),
        6 => (Operation::TranslateX, sign * (level * (1.0 / 30.0))),
        7 => (Operation::TranslateY, sign * (level * (1.0 / 30.0))),
        _ => (Operation::Posterize, 4.0 - (level * 0.4).trunc()),
    };
    Step::new(operation, argument)
}

/// See [`crate::policy::RandAugment`].
fn draw_randaugment(randaugment: &RandAugment, key: Key, size: (i32, i32)) -> ViewParams {
    let &RandAugment { ops, bilinear, crop, mirror, .. } = randaugment;
    let space = randaugment.space();
    let mut view = ViewParams {
        kind: RESIZED_CHAINS,
        crop: draw_crop(crop, key, size),
        mirror: u32::from(uniform(key.words(12)[0], 0.0, 1.0) < mirror),
        chains: 1,
        depths: [ops, 0, 0],
        weights: [1.0, 0.0, 0.0],
        is_bilinear: bilinear,
        ..ViewParams::zeroed()
    };
    for (number, step) in (0..ops).zip(&mut view.steps) {
        let [operation, _, direction, _] = key.words(14 + number);
        *step = space[below(operation, 14) as usize][(direction >> 31) as usize];
    }
    view
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
        ..ViewParams::zeroed()
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
        let names = ["notebook", "mild", "tpt", "none", "augmix:originals=1", "augmix-cifar:severity=10"];
        let more = ["randaugment:ops=9", "notebook:hflip=1,contrast=2,hue=0.5,scale=0.9..1,ratio=0.2..0.4"];
        names.iter().chain(&more).map(|text| text.parse()).collect()
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
