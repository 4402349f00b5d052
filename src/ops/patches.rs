//! Where a view's pixels lie among its patches.
//!
//! A patch is a row of an operand: behind its `3 · P · P` values are zeros, where these are no multiple of 8, so that each begins
//! at a multiple of 16 bytes in float16 too, as fast copies want it.

use super::preprocess::Scale;

/// Elements from one patch to the next: `patch_pitch` of `kernels/patch.cuh`.
pub fn patch_pitch(patch_size: usize) -> usize {
    (3 * patch_size * patch_size).next_multiple_of(8)
}

/// `(N, 3, S, S)` images as the patches that `make_views` makes: `(N, S/P · S/P, pitch)`.
pub fn patchify(images: &[f32], image_size: usize, patch_size: usize) -> Vec<f32> {
    let views = images.len() / (3 * image_size * image_size);
    let mut patches = vec![0.0; views * view_len(image_size, patch_size)];
    for_each_pixel(images.len(), image_size, patch_size, |patch, pixel| patches[patch] = images[pixel]);
    patches
}

/// Elements of a view's patches.
fn view_len(image_size: usize, patch_size: usize) -> usize {
    let across = image_size / patch_size;
    across * across * patch_pitch(patch_size)
}

/// The inverse of [`patchify`].
pub fn unpatchify(patches: &[f32], image_size: usize, patch_size: usize) -> Vec<f32> {
    let views = patches.len() / view_len(image_size, patch_size);
    let mut images = vec![0.0; views * 3 * image_size * image_size];
    for_each_pixel(images.len(), image_size, patch_size, |patch, pixel| images[pixel] = patches[patch]);
    images
}

/// Calls `each` with the places of every one of `len` values: among the patches, and in `(N, 3, S, S)`.
fn for_each_pixel(len: usize, s: usize, p: usize, mut each: impl FnMut(usize, usize)) {
    for value in 0..len {
        let (view, rest) = (value / (3 * s * s), value % (3 * s * s));
        let (tile, of_patch) = (rest / (3 * p * p), rest % (3 * p * p));
        let (channel, rest) = (of_patch / (p * p), of_patch % (p * p));
        let (y, x) = (tile / (s / p) * p + rest / p, tile % (s / p) * p + rest % p);
        let patch = view * view_len(s, p) + tile * patch_pitch(p) + of_patch;
        each(patch, ((view * 3 + channel) * s + y) * s + x);
    }
}

/// The 8-bit pixels, `(N, S, S, 3)`, of normalised `(N, 3, S, S)` images: exactly those that the views
/// were made of.
pub fn to_rgb8(images: &[f32], image_size: usize, scale: &Scale) -> Vec<u8> {
    let plane = image_size * image_size;
    let level = |i: usize| {
        let (view, pixel, channel) = (i / (3 * plane), i / 3 % plane, i % 3);
        scale.level(images[(view * 3 + channel) * plane + pixel], channel)
    };
    (0..images.len()).map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::pillow::{self, Rgb};

    #[test]
    fn patches_are_rows_of_the_convolution() {
        // Of a 4 × 4 image in patches of 2: the second patch starts at column 2 of the first row.
        let image: Vec<f32> = (0..2 * 3 * 16).map(|i| i as f32).collect();
        let patches = patchify(&image, 4, 2);
        assert_eq!(patches[16..28], [2., 3., 6., 7., 18., 19., 22., 23., 34., 35., 38., 39.]);
        assert_eq!((patches[28..32].iter().sum::<f32>(), patches[64], patches.len()), (0.0, 48.0, 128));
        assert_eq!(unpatchify(&patches, 4, 2), image);
    }

    #[test]
    fn pixels_come_back_from_normalised_values() {
        let image =
            Rgb::from_fn(16, 16, |x, y| [(16 * y + x) as u8, (255 - 16 * y - x) as u8, (17 * x) as u8]);
        for scale in [Scale::CLIP, Scale { divisor: 1.0, mean: [0.0; 3], std: [0.5; 3] }] {
            assert_eq!(to_rgb8(&pillow::normalise(&image, &scale), 16, &scale), image.data);
        }
    }
}
