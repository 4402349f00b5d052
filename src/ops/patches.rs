//! Where a view's pixels lie among its patches.

use super::preprocess::Scale;

/// `(N, 3, S, S)` images as the patches that `make_views` makes.
pub fn patchify(images: &[f32], image_size: usize, patch_size: usize) -> Vec<f32> {
    let mut patches = vec![0.0; images.len()];
    for_each_pixel(images.len(), image_size, patch_size, |patch, pixel| patches[patch] = images[pixel]);
    patches
}

/// The inverse of [`patchify`].
pub fn unpatchify(patches: &[f32], image_size: usize, patch_size: usize) -> Vec<f32> {
    let mut images = vec![0.0; patches.len()];
    for_each_pixel(patches.len(), image_size, patch_size, |patch, pixel| images[pixel] = patches[patch]);
    images
}

/// Calls `each` with the places of every value: among the patches, and in `(N, 3, S, S)`.
fn for_each_pixel(len: usize, s: usize, p: usize, mut each: impl FnMut(usize, usize)) {
    for patch in 0..len {
        let (view, rest) = (patch / (3 * s * s), patch % (3 * s * s));
        let (tile, rest) = (rest / (3 * p * p), rest % (3 * p * p));
        let (channel, rest) = (rest / (p * p), rest % (p * p));
        let (y, x) = (tile / (s / p) * p + rest / p, tile % (s / p) * p + rest % p);
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
        assert_eq!(patches[12..24], [2., 3., 6., 7., 18., 19., 22., 23., 34., 35., 38., 39.]);
        assert_eq!(patches[48], 48.0);
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
