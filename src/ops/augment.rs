//! Views of an image, and its CLIP preprocess, on the device: `kernels/augment.cu`.
//!
//! The definition in plain loops is [`super::pillow`]; the results equal it bit for bit.

use std::cell::{Ref, RefCell};

use anyhow::{Result, ensure};
use bytemuck::Pod;

use super::draw::{Key, ViewParams, draw_views};
use super::pillow::{MEAN, STD};
use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};
use crate::policy::Policy;

/// The longest side of a source image, pixels: a row fits into the shared memory of any GPU, and
/// Pillow's 16.16 fixed point holds every coordinate.
pub const MAX_SIDE: usize = 12_000;

/// `struct View` of the kernel.
type View = [u64; 11];

/// Makes views of images for one vision tower, with scratch memory that grows to the largest need.
///
/// The outputs are normalised patches, `(N, S/P · S/P, 3·P·P)` fp32 for images of `S` and patches of
/// `P` pixels: patches row by row, and in each channel, then row, then column, as in the
/// patch convolution's weight.
pub struct Augmenter {
    stream: Stream,
    image_size: usize,
    patch_size: usize,
    scratch: RefCell<Scratch>,
    /// Scratch memory that a launch may use, where one view does not need more.
    scratch_limit_bytes: usize,
}

struct Scratch {
    views: Tensor<View>,  // (n,)
    bounds: Tensor<i32>,  // (n, 2, S, 2)
    weights: Tensor<i32>, // (n, 2, K, S)
    rows: Tensor<u32>,    // (n, h, S)
}

impl Augmenter {
    /// # Errors
    /// A patch size that does not divide the image size; device memory.
    pub fn new(stream: &Stream, image_size: usize, patch_size: usize) -> Result<Augmenter> {
        ensure!(
            patch_size > 0 && image_size > 0 && image_size.is_multiple_of(patch_size),
            "images of {image_size} pixels: not a whole number of patches of {patch_size}"
        );
        let scratch = Scratch {
            views: stream.alloc(0)?,
            bounds: stream.alloc(0)?,
            weights: stream.alloc(0)?,
            rows: stream.alloc(0)?,
        };
        Ok(Augmenter {
            stream: stream.clone(),
            image_size,
            patch_size,
            scratch: RefCell::new(scratch),
            scratch_limit_bytes: 256 << 20,
        })
    }

    /// Draws the parameters of views `key.view ..` of an image of `(w, h)` pixels, one for each element
    /// of `params`: see [`draw_views`].
    pub fn draw(
        &self,
        policy: &Policy,
        key: Key,
        size: (usize, usize),
        params: &Tensor<ViewParams>,
    ) -> Result<()> {
        draw_views(&self.stream, policy, key, size, params)
    }

    /// Makes one view for each element of `params`, which were drawn for this size.
    ///
    /// * `source`: `(h, w, 3)` RGB.
    /// * `patches`: `(n, S/P · S/P, 3·P·P)`, overwritten.
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`], lengths that do not fit, device memory, or the launches' own.
    pub fn views(
        &self,
        source: &Tensor<u8>,
        (w, h): (usize, usize),
        params: &Tensor<ViewParams>,
        patches: &Tensor<f32>,
    ) -> Result<()> {
        let (n, s, view_len) = (params.len(), self.image_size, self.view_len());
        check_source(source, (w, h))?;
        expect_len("views", &[("patches", patches.len(), n * view_len)])?;
        let k = taps(1.0, w.max(h), s);
        // The grid's second dimension is a view and ends at 65535.
        let chunk = (self.scratch_limit_bytes / self.scratch_bytes(h, k)).clamp(1, 65535);
        for first in (0..n).step_by(chunk) {
            let n = chunk.min(n - first);
            let scratch = self.scratch(n, h, k)?;
            let kernel = self.stream.kernel("augment", "plan_views", &[])?;
            // SAFETY: the lengths are those of the kernel, checked above.
            unsafe {
                kernel.launch(
                    &self.stream,
                    Launch::over([(2 * s).div_ceil(128), n, 1], 128),
                    args![
                        &params.slice(first..first + n),
                        int(w)?,
                        int(h)?,
                        int(s)?,
                        int(k)?,
                        &scratch.views,
                        &scratch.bounds,
                        &scratch.weights
                    ],
                )
            }?;
            let ctas = (w * h).div_ceil(16 * 256).min(512);
            let kernel = self.stream.kernel("augment", "sum_luma", &[])?;
            // SAFETY: the lengths are those of the kernel, checked above.
            unsafe {
                kernel.launch(
                    &self.stream,
                    Launch::over([ctas, n, 1], 256),
                    args![source, int(w)?, int(h)?, &scratch.views],
                )
            }?;
            let out = patches.slice(first * view_len..(first + n) * view_len);
            self.resize(&scratch, source, (w, h), n, k, &out)?;
        }
        Ok(())
    }

    /// CLIP's preprocess: the short side resized to `S` (bicubic), the centre cropped, normalised.
    ///
    /// * `source`: `(h, w, 3)` RGB.
    /// * `patches`: `(S/P · S/P, 3·P·P)`, overwritten.
    ///
    /// # Errors
    /// As [`Augmenter::views`].
    pub fn original(&self, source: &Tensor<u8>, (w, h): (usize, usize), patches: &Tensor<f32>) -> Result<()> {
        let s = self.image_size;
        check_source(source, (w, h))?;
        expect_len("original", &[("patches", patches.len(), self.view_len())])?;
        let long = s * w.max(h) / w.min(h);
        let (width, height) = if w <= h { (s, long) } else { (long, s) };
        let k = usize::max(taps(2.0, w, width), taps(2.0, h, height));
        let scratch = self.scratch(1, h, k)?;
        let kernel = self.stream.kernel("augment", "plan_original", &[])?;
        // SAFETY: the lengths are those of the kernel, checked above.
        unsafe {
            kernel.launch(
                &self.stream,
                Launch::per_element(2 * s, 128),
                args![
                    int(w)?,
                    int(h)?,
                    int(width)?,
                    int(height)?,
                    int(s)?,
                    int(k)?,
                    &scratch.views,
                    &scratch.bounds,
                    &scratch.weights
                ],
            )
        }?;
        self.resize(&scratch, source, (w, h), 1, k, patches)
    }

    /// Both passes of `n` planned views.
    fn resize(
        &self,
        scratch: &Scratch,
        source: &Tensor<u8>,
        (w, h): (usize, usize),
        n: usize,
        k: usize,
        patches: &Tensor<f32>,
    ) -> Result<()> {
        let (s, p) = (self.image_size, self.patch_size);
        let Scratch { views, bounds, weights, rows } = scratch;
        let kernel = self.stream.kernel("augment", "resize_rows", &[])?;
        // SAFETY: the lengths are those of the kernel, checked above.
        unsafe {
            kernel.launch(
                &self.stream,
                Launch::over([h, n, 1], 256).shared(4 * w),
                args![source, int(w)?, int(h)?, int(s)?, int(k)?, views, bounds, weights, rows],
            )
        }?;
        let kernel = self.stream.kernel("augment", "resize_columns", &[])?;
        // SAFETY: the lengths are those of the kernel, checked above.
        unsafe {
            kernel.launch(
                &self.stream,
                Launch::over([(s / p) * (s / p), n, 1], 256),
                args![rows, int(h)?, int(s)?, int(p)?, int(k)?, bounds, weights, patches],
            )
        }
    }

    /// Scratch for `n` views of an image of `h` rows, with at most `k` weights an output.
    fn scratch(&self, n: usize, h: usize, k: usize) -> Result<Ref<'_, Scratch>> {
        let s = self.image_size;
        {
            let scratch = &mut *self.scratch.borrow_mut();
            self.grow(&mut scratch.views, n)?;
            self.grow(&mut scratch.bounds, n * 4 * s)?;
            self.grow(&mut scratch.weights, n * 2 * k * s)?;
            self.grow(&mut scratch.rows, n * h * s)?;
        }
        Ok(self.scratch.borrow())
    }

    fn grow<T: Pod>(&self, slice: &mut Tensor<T>, len: usize) -> Result<()> {
        if slice.len() < len {
            *slice = self.stream.alloc(0)?; // free the old one first
            *slice = self.stream.alloc(len)?;
        }
        Ok(())
    }

    fn scratch_bytes(&self, h: usize, k: usize) -> usize {
        size_of::<View>() + self.image_size * (16 + 8 * k + 4 * h)
    }

    /// Elements of a view's patches.
    fn view_len(&self) -> usize {
        3 * self.image_size * self.image_size
    }
}

/// The most inputs that an output of a resize can have (Pillow's `ksize`).
fn taps(support: f64, size_in: usize, size_out: usize) -> usize {
    let stretch = f64::max(1.0, size_in as f64 / size_out as f64);
    2 * (support * stretch).ceil() as usize + 1
}

fn check_source(source: &Tensor<u8>, (w, h): (usize, usize)) -> Result<()> {
    ensure!(
        (1..=MAX_SIDE).contains(&w) && (1..=MAX_SIDE).contains(&h),
        "image of {w} × {h} pixels: each side must be 1 to {MAX_SIDE}; resize it first"
    );
    expect_len("augment", &[("source", source.len(), 3 * w * h)])
}

/// `(N, 3, S, S)` images as the patches that [`Augmenter`] makes.
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
pub fn to_rgb8(images: &[f32], image_size: usize) -> Vec<u8> {
    let plane = image_size * image_size;
    let value = |i: usize| {
        let (view, pixel, channel) = (i / (3 * plane), i / 3 % plane, i % 3);
        let normalised = images[(view * 3 + channel) * plane + pixel];
        ((normalised * STD[channel] + MEAN[channel]) * 255.0).round() as u8
    };
    (0..images.len()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::poisoned;
    use crate::device_test;
    use crate::ops::draw::draw_reference;
    use crate::ops::pillow::{self, Rgb};

    /// Noise over a slope, in steps of 1 or 64: both every value and many equal channels.
    fn source(w: usize, h: usize) -> Rgb {
        let step = if (w + h).is_multiple_of(2) { 1 } else { 64 };
        Rgb::from_fn(w, h, |x, y| {
            let noise = ((x * 7919 + y * 104_729 + 13) as u32).wrapping_mul(2_654_435_761).to_le_bytes();
            [0, 1, 2].map(|c| (noise[c] / 2 + (255 * x / (2 * w)) as u8) / step * step)
        })
    }

    fn patches_of(image: &Rgb, patch_size: usize) -> Vec<f32> {
        patchify(&pillow::normalise(image), image.w, patch_size)
    }

    /// Makes `n` views and the original on the device, and compares every bit with the definition.
    fn compare(
        stream: &Stream,
        augmenter: &Augmenter,
        policy: &Policy,
        source: &Rgb,
        seed: u64,
        n: usize,
    ) -> Result<()> {
        let (size, patch) = (augmenter.image_size, augmenter.patch_size);
        let (key, dims) = (Key { seed, image: 5, view: 0 }, (source.w, source.h));
        let pixels = stream.vector(&source.data)?;
        let params = stream.alloc(n)?;
        augmenter.draw(policy, key, dims, &params)?;
        let out = poisoned(stream, (n + 1) * augmenter.view_len());
        let (views, original) = (0..n * augmenter.view_len(), n * augmenter.view_len()..out.len());
        augmenter.views(&pixels, dims, &params, &out.slice(views))?;
        augmenter.original(&pixels, dims, &out.slice(original))?;
        let out = stream.read(&out)?;
        for (i, got) in out.chunks(augmenter.view_len()).enumerate() {
            let params = draw_reference(policy, Key { view: i as u32, ..key }, dims);
            let want =
                if i < n { pillow::view(source, &params, size) } else { pillow::original(source, size) };
            assert!(got == patches_of(&want, patch), "{policy}: view {i} of {n} of {dims:?}: {params:?}");
        }
        Ok(())
    }

    device_test!(views_and_original_equal_the_definition, |stream| {
        let policies: [Policy; 3] = [
            Policy::notebook(),
            Policy::mild(),
            "notebook:rotation=180,brightness=2,contrast=2,saturation=2,hue=0.5,ratio=0.2..5".parse()?,
        ];
        let augmenter = Augmenter::new(&stream, 32, 8)?;
        for (w, h) in [(1, 1), (2, 3), (7, 300), (300, 7), (45, 61), (32, 32), (100, 64)] {
            for (seed, policy) in policies.iter().enumerate() {
                compare(&stream, &augmenter, policy, &source(w, h), seed as u64, 12)?;
            }
        }
    });

    device_test!(the_notebooks_own_size, |stream| {
        compare(&stream, &Augmenter::new(&stream, 224, 32)?, &Policy::notebook(), &source(32, 32), 0, 50)?;
        compare(&stream, &Augmenter::new(&stream, 224, 14)?, &Policy::notebook(), &source(333, 257), 1, 3)?;
    });

    device_test!(a_photograph_in_chunks_of_scratch, |stream| {
        let augmenter = Augmenter { scratch_limit_bytes: 2 << 20, ..Augmenter::new(&stream, 224, 32)? };
        assert!(augmenter.scratch_bytes(1100, taps(1.0, 1500, 224)) * 3 > augmenter.scratch_limit_bytes);
        compare(&stream, &augmenter, &Policy::notebook(), &source(1500, 1100), 7, 3)?;
    });

    device_test!(six_thousand_pixels_a_side, |stream| {
        compare(&stream, &Augmenter::new(&stream, 224, 32)?, &Policy::notebook(), &source(6000, 6000), 2, 1)?;
    });

    device_test!(bad_sizes_are_refused, |stream| {
        assert!(Augmenter::new(&stream, 224, 0).is_err());
        assert!(Augmenter::new(&stream, 224, 15).is_err());
        let augmenter = Augmenter::new(&stream, 32, 8)?;
        let (pixels, patches) = (stream.zeros(48)?, stream.zeros(augmenter.view_len())?);
        augmenter.original(&pixels, (4, 4), &patches)?;
        for dims in [(0, 4), (4, 0), (4, 5), (1, MAX_SIDE + 1)] {
            assert!(augmenter.original(&pixels, dims, &patches).is_err(), "{dims:?}");
        }
        let short = patches.slice(1..patches.len());
        assert!(augmenter.original(&pixels, (4, 4), &short).is_err());
    });

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
        assert_eq!(to_rgb8(&pillow::normalise(&image), 16), image.data);
    }
}
