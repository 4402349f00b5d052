//! The definition of what [`super::draw_views`] draws.

use bytemuck::Zeroable;

use super::crop_range;
use crate::ops::view::{CROP, ORIGINAL, PADDED_CHAINS, RESIZED_CHAINS, ViewParams};
use crate::policy::{AugMix, Before, Crop, Crops, Family, Operation, Policy, RandAugment, Step};

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
pub(super) fn central_crop(crop: Crop, w: i32, h: i32) -> [i32; 4] {
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
pub(super) fn permutation(mut index: usize) -> [u8; 4] {
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
pub(super) fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
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
