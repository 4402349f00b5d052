//! Image files to 8-bit RGB, as PIL's `convert("RGB")` gives it: alpha is dropped, grey is repeated,
//! and orientation tags are left alone. JPEG decoders may differ from PIL's by one level.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::{ImageReader, Limits};

use crate::ops::augment::MAX_SIDE;

/// Row-major 8-bit RGB.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb8 {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>, // (height, width, 3)
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
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODE_BYTES);
        reader.limits(limits);
        let image = reader.decode()?;
        let (width, height) = (image.width(), image.height());
        ensure!(width > 0 && height > 0, "it has no pixels");
        ensure!(
            width.max(height) as usize <= MAX_SIDE,
            "it is {width}x{height}; {MAX_SIDE} pixels a side is the most"
        );
        Ok(Rgb8 { width, height, pixels: image.into_rgb8().into_raw() })
    };
    read().with_context(|| format!("reading the image {}", path.display()))
}
