//! The definition of a view: Pillow's 8-bit image steps and CLIP's preprocess in plain loops.
//!
//! Bit for bit what torchvision gives with the [`Pillow`] that it is told. The kernels of `kernels/augment.cu` are tested
//! against this, and this against Pillow.

use clap::ValueEnum;
use serde::Serialize;

use super::preprocess::{Preprocess, Scale};
use super::view::{ORIGINAL, ViewParams};

/// Releases of Pillow that resize differently: an image is scaled across and down one after the other, with its levels
/// rounded in between, so that the order shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
pub enum Pillow {
    /// Pillow 13.0
    #[default]
    #[serde(rename = "13")]
    #[value(name = "13")]
    V13,
    /// Pillow up to 12.1; and 12.2 and 12.3, but for images over 100 times as tall as wide
    #[serde(rename = "12.1")]
    #[value(name = "12.1")]
    V12_1,
}

impl Pillow {
    /// Whether an image is scaled down before across, from and to these `(width, height)`.
    pub fn is_down_first(self, (w, h): (usize, usize), (width, height): (usize, usize)) -> bool {
        let less = |from: usize, to: usize| from as i64 - to as i64;
        self == Pillow::V13 && height < h && less(h, height) > 2 * less(w, width)
    }
}

/// An 8-bit RGB image.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb {
    pub w: usize,
    pub h: usize,
    /// `(h, w, 3)`, row-major.
    pub data: Vec<u8>,
}

impl Rgb {
    /// The image of `pixel(x, y)`.
    pub fn from_fn(w: usize, h: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Rgb {
        let data = (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
        Rgb { w, h, data }
    }

    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let i = 3 * (y * self.w + x);
        [self.data[i], self.data[i + 1], self.data[i + 2]]
    }

    pub(super) fn map(&self, pixel: impl Fn([u8; 3]) -> [u8; 3]) -> Rgb {
        Rgb::from_fn(self.w, self.h, |x, y| pixel(self.at(x, y)))
    }
}

/// A view of `size` × `size` pixels up to the normalisation; none of those that mix chains.
pub fn view(source: &Rgb, params: &ViewParams, preprocess: &Preprocess, size: usize, pillow: Pillow) -> Rgb {
    match params.kind {
        ORIGINAL => original(source, preprocess, size, pillow),
        _ => resized_crop(&jittered(source, params), params, size, pillow),
    }
}

/// Flips, rotation and jitter.
fn jittered(source: &Rgb, params: &ViewParams) -> Rgb {
    let flipped = Rgb::from_fn(source.w, source.h, |x, y| {
        let x = if params.hflip != 0 { source.w - 1 - x } else { x };
        let y = if params.vflip != 0 { source.h - 1 - y } else { y };
        source.at(x, y)
    });
    let mut image = rotate(&flipped, params.angle);
    for step in params.jitter_order {
        image = match step {
            0 => brightness(&image, params.brightness),
            1 => contrast(&image, params.contrast),
            2 => saturation(&image, params.saturation),
            _ if params.hue != 0.0 => hue(&image, params.hue),
            _ => image,
        };
    }
    image
}

/// Crop and resize, and a flip of the result.
pub fn resized_crop(image: &Rgb, params: &ViewParams, size: usize, pillow: Pillow) -> Rgb {
    let [top, left, height, width] = params.crop.map(|side| side as usize);
    let crop = Rgb::from_fn(width, height, |x, y| image.at(left + x, top + y));
    let view = resize(&crop, (size, size), Filter::Bilinear, pillow);
    if params.mirror != 0 { mirror(&view) } else { view }
}

/// A crop of the image's own size that may reach past it, into black, and a flip of that.
pub fn padded_crop(image: &Rgb, params: &ViewParams) -> Rgb {
    let [top, left, ..] = params.crop;
    let crop = Rgb::from_fn(image.w, image.h, |x, y| {
        let (x, y) = (x as i64 + i64::from(left), y as i64 + i64::from(top));
        let inside = (0..image.w as i64).contains(&x) && (0..image.h as i64).contains(&y);
        if inside { image.at(x as usize, y as usize) } else { [0; 3] }
    });
    if params.mirror != 0 { mirror(&crop) } else { crop }
}

/// `ImageOps.mirror`.
fn mirror(image: &Rgb) -> Rgb {
    Rgb::from_fn(image.w, image.h, |x, y| image.at(image.w - 1 - x, y))
}

/// The preprocess up to the normalisation: a resize, and the centre `size` × `size` of it as torchvision's `CenterCrop` has it.
pub fn original(source: &Rgb, preprocess: &Preprocess, size: usize, pillow: Pillow) -> Rgb {
    let (width, height) = preprocess.resize.of((source.w, source.h));
    let resized = resize(source, (width, height), preprocess.filter, pillow);
    let [left, top] = [width, height].map(|side| ((side - size) as f64 / 2.0).round_ties_even() as usize);
    Rgb::from_fn(size, size, |x, y| resized.at(left + x, top + y))
}

/// `ToTensor` and `Normalize`: `(3, h, w)`.
pub fn normalise(image: &Rgb, scale: &Scale) -> Vec<f32> {
    let value = |c, i| scale.number(image.data[3 * i + c], c);
    (0..3).flat_map(|c| (0..image.w * image.h).map(move |i| value(c, i))).collect()
}

/// `Image.rotate`: nearest, same size, zero fill, in 16.16 fixed point.
pub fn rotate(image: &Rgb, degrees: f32) -> Rgb {
    let (w, h) = (image.w as f64, image.h as f64);
    let radians = -(f64::from(degrees).rem_euclid(360.0) * (std::f64::consts::PI / 180.0));
    let [cos, sin] = [round15(radians.cos()), round15(radians.sin())];
    let x0 = cos * (-w / 2.0) + sin * (-h / 2.0) + w / 2.0;
    let y0 = -sin * (-w / 2.0) + cos * (-h / 2.0) + h / 2.0;
    let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
    let (xx, xy, yx, yy) = (fixed(cos), fixed(sin), fixed(-sin), fixed(cos));
    let (x0, y0) = (fixed(x0 + cos * 0.5 + sin * 0.5), fixed(y0 + -sin * 0.5 + cos * 0.5));
    Rgb::from_fn(image.w, image.h, |x, y| {
        let sx = (x0 + x as i64 * xx + y as i64 * xy) >> 16;
        let sy = (y0 + x as i64 * yx + y as i64 * yy) >> 16;
        let inside = 0 <= sx && sx < image.w as i64 && 0 <= sy && sy < image.h as i64;
        if inside { image.at(sx as usize, sy as usize) } else { [0; 3] }
    })
}

/// Python's `round(v, 15)`.
pub(super) fn round15(v: f64) -> f64 {
    format!("{v:.15}").parse().unwrap_or(v)
}

/// `ImageEnhance.Brightness`.
pub fn brightness(image: &Rgb, factor: f32) -> Rgb {
    image.map(|pixel| pixel.map(|v| blend(0, v, factor)))
}

/// `ImageEnhance.Contrast`.
pub fn contrast(image: &Rgb, factor: f32) -> Rgb {
    let count = image.w * image.h;
    let sum: u64 = (0..count).map(|i| u64::from(luma(image.at(i % image.w, i / image.w)))).sum();
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    image.map(|pixel| pixel.map(|v| blend(mean, v, factor)))
}

/// `ImageEnhance.Color`.
pub fn saturation(image: &Rgb, factor: f32) -> Rgb {
    image.map(|pixel| pixel.map(|v| blend(luma(pixel), v, factor)))
}

/// torchvision's `adjust_hue`.
pub fn hue(image: &Rgb, factor: f32) -> Rgb {
    let shift = (f64::from(factor) * 255.0) as i32;
    image.map(|pixel| {
        let [h, s, v] = rgb_to_hsv(pixel);
        hsv_to_rgb([(i32::from(h) + shift).rem_euclid(256) as u8, s, v])
    })
}

/// `Image.convert("L")`.
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// `Image.blend` of one value: float32, clamped, truncated.
pub(super) fn blend(degenerate: u8, value: u8, factor: f32) -> u8 {
    let (degenerate, value) = (f32::from(degenerate), f32::from(value));
    (degenerate + factor * (value - degenerate)) as u8
}

/// `Image.convert("HSV")`, its mixture of float32 and float64 included.
pub fn rgb_to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    if high == low {
        return [0, 0, high];
    }
    let range = f32::from(high - low);
    let [rc, gc, bc] = [r, g, b].map(|v| f32::from(high - v) / range);
    let h = if r == high {
        bc - gc
    } else if g == high {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let h = (f64::from(h) / 6.0 + 1.0) % 1.0;
    let s = range / f32::from(high);
    [(f64::from(h as f32) * 255.0) as u8, (f64::from(s) * 255.0) as u8, high]
}

/// `Image.convert("RGB")` of an HSV image.
pub fn hsv_to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sector = f64::from(h) * 6.0 / 255.0;
    let f = (sector - sector.floor()) as f32;
    let s = (f64::from(s) / 255.0) as f32;
    let scaled = |share: f64| (f64::from(v) * share).round() as u8;
    let p = scaled(1.0 - f64::from(s));
    let q = scaled(1.0 - f64::from(s * f));
    let t = scaled(1.0 - f64::from(s) * (1.0 - f64::from(f)));
    match sector as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// A resize filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    Bilinear,
    Bicubic,
}

impl Filter {
    /// Of an input at a distance.
    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Bilinear => f64::max(0.0, 1.0 - x.abs()),
            Filter::Bicubic => bicubic(x),
        }
    }

    /// The distance from which the weight is 0.
    pub fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

/// `Image.resize` to `(width, height)`: across and down, 8-bit rounding after each.
pub fn resize(image: &Rgb, size: (usize, usize), filter: Filter, pillow: Pillow) -> Rgb {
    match pillow.is_down_first((image.w, image.h), size) {
        true => resize_across(&resize_down(image, size.1, filter), size.0, filter),
        false => resize_down(&resize_across(image, size.0, filter), size.1, filter),
    }
}

fn resize_across(image: &Rgb, width: usize, filter: Filter) -> Rgb {
    let across = weights(image.w, width, filter);
    Rgb::from_fn(width, image.h, |x, y| {
        let (first, weights) = &across[x];
        weighted(weights.iter().enumerate().map(|(i, k)| (*k, image.at(first + i, y))))
    })
}

fn resize_down(image: &Rgb, height: usize, filter: Filter) -> Rgb {
    let down = weights(image.h, height, filter);
    Rgb::from_fn(image.w, height, |x, y| {
        let (first, weights) = &down[y];
        weighted(weights.iter().enumerate().map(|(i, k)| (*k, image.at(x, first + i))))
    })
}

/// Fractional bits of a weight.
const WEIGHT_BITS: u32 = 22;

/// For each output: its first input, and a weight for that and each that follows.
fn weights(size_in: usize, size_out: usize, filter: Filter) -> Vec<(usize, Vec<i32>)> {
    let scale = size_in as f64 / size_out as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let of = |output: usize| {
        let center = (output as f64 + 0.5) * scale;
        let first = (center - support + 0.5) as usize;
        let end = size_in.min((center + support + 0.5) as usize);
        let weight = |input: usize| filter.weight((input as f64 - center + 0.5) * (1.0 / stretch));
        let sum: f64 = (first..end).map(weight).sum();
        let fixed = |input| {
            let weight = weight(input) / sum * f64::from(1 << WEIGHT_BITS);
            (weight + f64::copysign(0.5, weight)) as i32
        };
        (first, (first..end).map(fixed).collect())
    };
    (0..size_out).map(of).collect()
}

fn weighted(taps: impl Iterator<Item = (i32, [u8; 3])>) -> [u8; 3] {
    let mut sum = [1 << (WEIGHT_BITS - 1); 3];
    for (weight, pixel) in taps {
        for (sum, v) in sum.iter_mut().zip(pixel) {
            *sum += weight * i32::from(v);
        }
    }
    sum.map(|sum| (sum >> WEIGHT_BITS).clamp(0, 255) as u8)
}
