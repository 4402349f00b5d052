//! Image files to 8-bit RGB, as PIL's `convert("RGB")` gives it: alpha is dropped, grey is repeated, 16-bit
//! channels keep their high byte, and orientation tags are left alone. Two differences: JPEG decoders may
//! differ from PIL's libjpeg by one level, and PIL turns 16-bit grey without alpha white above 255.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Pixel};

use crate::ops::augment::MAX_SIDE;

/// Row-major 8-bit RGB.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb8 {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>, // (height, width, 3)
}

impl Rgb8 {
    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        (self.width as usize, self.height as usize)
    }
}

/// Memory that decoding one image may take: a few times 200 million pixels.
const DECODE_BYTES: u64 = 2 << 30;

/// Decodes a PNG, JPEG, BMP, GIF, WebP, TIFF or PNM file.
///
/// # Errors
/// A file that is missing, a folder, no image, cut, or too large; it is named.
pub fn read_image(path: &Path) -> Result<Rgb8> {
    let read = || -> Result<Rgb8> {
        ensure!(!path.is_dir(), "it is a folder");
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        if reader.format() == Some(ImageFormat::Jpeg) {
            // The decoder would fill what is missing with grey.
            ensure!(jpeg_is_whole(&std::fs::read(path)?), "it is cut: its end marker is missing");
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODE_BYTES);
        reader.limits(limits);
        // The header is judged first: a small file may claim billions of pixels.
        let decoder = reader.into_decoder()?;
        let (width, height) = decoder.dimensions();
        ensure!(width > 0 && height > 0, "it has no pixels");
        ensure!(
            width.max(height) as usize <= MAX_SIDE,
            "it is {width}x{height}; {MAX_SIDE} pixels a side is the most"
        );
        let pixels = match DynamicImage::from_decoder(decoder)? {
            DynamicImage::ImageLuma16(image) => high_bytes(&image),
            DynamicImage::ImageLumaA16(image) => high_bytes(&image),
            DynamicImage::ImageRgb16(image) => high_bytes(&image),
            DynamicImage::ImageRgba16(image) => high_bytes(&image),
            image => image.into_rgb8().into_raw(),
        };
        Ok(Rgb8 { width, height, pixels })
    };
    read().with_context(|| format!("reading the image {}", path.display()))
}

/// Whether the markers lead to the end of the image (ITU T.81, section B.1.1). The end marker of a preview
/// inside a segment is not met, because segments are skipped by their lengths.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[mark, marker]) = bytes.get(at..at + 2) {
        at += match (mark, marker) {
            (0xff, 0xd9) => return true,
            // A fill byte.
            (0xff, 0xff) => 1,
            // An escaped 0xff of the entropy-coded data, or a marker that stands alone.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => 2,
            (0xff, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            // Entropy-coded data.
            _ => 1,
        };
    }
    false
}

/// `into_rgb8` would round to the nearest of 257 steps instead.
fn high_bytes<P: Pixel<Subpixel = u16>>(image: &ImageBuffer<P, Vec<u16>>) -> Vec<u8> {
    image.pixels().flat_map(|pixel| pixel.to_rgb().0.map(|v| (v >> 8) as u8)).collect()
}
