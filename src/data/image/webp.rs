//! WebP, with the crate `image-webp`.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use image_webp::WebPDecoder;

use super::pixels::rgb_of_channels;
use super::{Rgb8, check_size, plain};

/// The picture, or an animation's first frame.
pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    // Of an animation that is cut the first frame may be whole.
    let size = bytes.get(4..8).context("it is cut")?;
    let size = 8 + u64::from(u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    ensure!(bytes.len() as u64 >= size, "it is cut: {} of {size} bytes are there", bytes.len());
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(plain)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let mut pixels = vec![0; decoder.output_buffer_size().context("it is too large")?];
    decoder.read_image(&mut pixels).map_err(plain)?;
    if decoder.has_alpha() {
        pixels = rgb_of_channels(&pixels, 4);
    }
    Ok(Rgb8 { width, height, pixels })
}
