//! The definition of the steps of a chain: Pillow's `ImageOps`, `ImageEnhance` and `Image.transform` in plain loops, bit for bit.

use super::pillow::{Rgb, blend, brightness, contrast, rotate, round15, saturation};
use crate::policy::{Operation, Step};

/// How pixels are moved.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    pub is_bilinear: bool,
    /// The colour where none is moved to.
    pub fill: [u8; 3],
}

/// What a step makes of a picture; a number that is none of an operation's leaves it.
pub fn step(image: &Rgb, step: &Step, moves: Moves) -> Rgb {
    let argument = step.argument;
    let of = f64::from(argument);
    match step.operation() {
        Some(Operation::AutoContrast) => by_channel(image, autocontrast),
        Some(Operation::Equalize) => by_channel(image, equalize),
        Some(Operation::Posterize) => {
            let mask = !((1u32 << (8 - (argument as u32).min(8))) - 1) as u8;
            image.map(|pixel| pixel.map(|v| v & mask))
        }
        Some(Operation::Solarize) => {
            image.map(|pixel| pixel.map(|v| if f32::from(v) < argument { v } else { 255 - v }))
        }
        Some(Operation::Brightness) => brightness(image, argument),
        Some(Operation::Contrast) => contrast(image, argument),
        Some(Operation::Color) => saturation(image, argument),
        Some(Operation::Sharpness) => sharpness(image, argument),
        Some(Operation::Rotate) if argument == 0.0 => image.clone(),
        Some(Operation::Rotate) if !moves.is_bilinear => rotate(image, argument),
        Some(Operation::Rotate) => transform(image, rotation(image, of), moves),
        Some(Operation::ShearX) => transform(image, [1.0, of, 0.0, 0.0, 1.0, 0.0], moves),
        Some(Operation::ShearY) => transform(image, [1.0, 0.0, 0.0, of, 1.0, 0.0], moves),
        Some(Operation::TranslateX) => {
            transform(image, [1.0, 0.0, (of * image.w as f64).trunc(), 0.0, 1.0, 0.0], moves)
        }
        Some(Operation::TranslateY) => {
            transform(image, [1.0, 0.0, 0.0, 0.0, 1.0, (of * image.h as f64).trunc()], moves)
        }
        Some(Operation::Identity) | None => image.clone(),
    }
}

fn by_channel(image: &Rgb, of: fn(&[u32; 256]) -> [u8; 256]) -> Rgb {
    let mut counts = [[0; 256]; 3];
    for pixel in image.data.chunks(3) {
        for (counts, &v) in counts.iter_mut().zip(pixel) {
            counts[usize::from(v)] += 1;
        }
    }
    let tables = counts.map(|counts| of(&counts));
    image.map(|pixel| [0, 1, 2].map(|c| tables[c][usize::from(pixel[c])]))
}

/// The lowest and the highest level that there is.
fn ends(counts: &[u32; 256]) -> (usize, usize) {
    let low = counts.iter().position(|&count| count != 0).unwrap_or(0);
    (low, counts.iter().rposition(|&count| count != 0).unwrap_or(0))
}

fn autocontrast(counts: &[u32; 256]) -> [u8; 256] {
    let (low, high) = ends(counts);
    if high <= low {
        return std::array::from_fn(|level| level as u8);
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    std::array::from_fn(|level| (level as f64 * scale + offset) as u8)
}

fn equalize(counts: &[u32; 256]) -> [u8; 256] {
    let (low, high) = ends(counts);
    let step = (counts.iter().sum::<u32>() - counts[high]) / 255;
    if high <= low || step == 0 {
        return std::array::from_fn(|level| level as u8);
    }
    let mut n = step / 2;
    std::array::from_fn(|level| {
        let value = (n / step).min(255) as u8;
        n += counts[level];
        value
    })
}

/// `ImageEnhance.Sharpness`: the picture and its `ImageFilter.SMOOTH`, which leaves the edge.
fn sharpness(image: &Rgb, factor: f32) -> Rgb {
    Rgb::from_fn(image.w, image.h, |x, y| {
        let own = image.at(x, y);
        if x == 0 || y == 0 || x + 1 == image.w || y + 1 == image.h {
            return own;
        }
        [0, 1, 2].map(|c| {
            let around = (0..9).map(|i| u32::from(image.at(x + i % 3 - 1, y + i / 3 - 1)[c])).sum::<u32>();
            // Thirteenths, whose halves never are: so it does not matter that Pillow adds them up in float.
            let smooth = (2 * (around + 4 * u32::from(own[c])) + 13) / 26;
            blend(smooth as u8, own[c], factor)
        })
    })
}

/// `Image.rotate`'s matrix.
fn rotation(image: &Rgb, degrees: f64) -> [f64; 6] {
    let (w, h) = (image.w as f64, image.h as f64);
    let radians = -(degrees.rem_euclid(360.0) * (std::f64::consts::PI / 180.0));
    let [cos, sin] = [round15(radians.cos()), round15(radians.sin())];
    let x0 = cos * (-w / 2.0) + sin * (-h / 2.0) + w / 2.0;
    let y0 = -sin * (-w / 2.0) + cos * (-h / 2.0) + h / 2.0;
    [cos, sin, x0, -sin, cos, y0]
}

/// `Image.transform` to the same size, `AFFINE`.
fn transform(image: &Rgb, [xx, xy, x0, yx, yy, y0]: [f64; 6], moves: Moves) -> Rgb {
    let (w, h) = (image.w as i64, image.h as i64);
    let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
    Rgb::from_fn(image.w, image.h, |x, y| {
        if !moves.is_bilinear {
            let of = |a: f64, b: f64, c: f64| {
                (fixed(c + a * 0.5 + b * 0.5) + x as i64 * fixed(a) + y as i64 * fixed(b)) >> 16
            };
            let (column, row) = (of(xx, xy, x0), of(yx, yy, y0));
            let inside = (0..w).contains(&column) && (0..h).contains(&row);
            return if inside { image.at(column as usize, row as usize) } else { moves.fill };
        }
        let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
        let (column, row) = (xx * x + xy * y + x0, yx * x + yy * y + y0);
        if column < 0.0 || column >= w as f64 || row < 0.0 || row >= h as f64 {
            return moves.fill;
        }
        let (column, row) = (column - 0.5, row - 0.5);
        let (left, top) = (column.floor(), row.floor());
        let (dx, dy) = (column - left, row - top);
        let near = |x: f64, y: f64| {
            image.at((x as i64).clamp(0, w - 1) as usize, (y as i64).clamp(0, h - 1) as usize).map(f64::from)
        };
        let (a, b) = (near(left, top), near(left + 1.0, top));
        let (c, d) = (near(left, top + 1.0), near(left + 1.0, top + 1.0));
        [0, 1, 2].map(|i| {
            let (upper, lower) = (a[i] + (b[i] - a[i]) * dx, c[i] + (d[i] - c[i]) * dx);
            (upper + (lower - upper) * dy) as u8
        })
    })
}
