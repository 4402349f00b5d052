//! Image files to 8-bit RGB: what Pillow 13.0.0's `Image.open(file).convert("RGB")` gives, to the bit, or a refusal that
//! names what is not read. So alpha is dropped, whatever colour lies under it; grey is repeated; colours of 16 bits keep their
//! high byte; grey of more than 8 bits is not scaled, and white from 255 on; colour profiles and JPEG's orientation are left alone,
//! and TIFF's orientation is followed.
//!
//! The contents say what a file is, not its name. `tests/make_images.py` makes a file of every kind.

mod bmp;
mod gif;
mod jpeg;
mod kind;
mod pixels;
mod png;
mod pnm;
mod tiff;
mod webp;

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};

use self::kind::Kind;
use crate::ops::view::MAX_SIDE;
use crate::plain_file;

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

impl AsRef<Rgb8> for Rgb8 {
    fn as_ref(&self) -> &Rgb8 {
        self
    }
}

/// Where Pillow takes a file for an attack: twice its `MAX_IMAGE_PIXELS`.
const MAX_PIXELS: u64 = 178_956_970;

/// The most that a file may have: more than the pixels allow in any format.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// Decodes a file.
///
/// # Errors
/// As [`decode`] and [`read_bytes`]. It is named.
pub fn read_image(path: &Path) -> Result<Rgb8> {
    let read = || decode(&read_bytes(path)?);
    read().with_context(|| format!("reading the image {}", path.display()))
}

/// The bytes of an image's file.
///
/// # Errors
/// A file that is missing or too large, a folder or a pipe; it is not named.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let (mut file, len) = plain_file::open(path)?;
    ensure!(len <= MAX_FILE_BYTES, "it has {len} bytes, more than any image that is read");
    let mut bytes = Vec::with_capacity(len as usize);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Decodes the first picture of a JPEG, PNG, GIF, WebP, BMP, TIFF or PNM file.
///
/// # Errors
/// What is no image, cut, broken or too large; what Pillow does not read either, or what is not read here: by its name.
pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    match kind::of(bytes)? {
        Kind::Bmp => bmp::decode(bytes),
        Kind::Gif => gif::decode(bytes),
        Kind::Jpeg => jpeg::decode(bytes),
        Kind::Png => png::decode(bytes),
        Kind::Pnm => pnm::decode(bytes),
        Kind::Tiff => tiff::decode(bytes),
        Kind::WebP => webp::decode(bytes),
    }
}

/// A decoder's error without those that it is made of, which it tells of itself.
fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// The most memory that decoding takes at once, a pixel: four samples of 16 bits, their high bytes, and RGB.
const BYTES_A_PIXEL: u64 = 16;

/// Judges a header before anything is reserved for what it says: a small file may claim billions of pixels.
fn check_size(width: u64, height: u64) -> Result<()> {
    ensure!(width > 0 && height > 0, "it has no pixels");
    let pixels = width.saturating_mul(height);
    ensure!(pixels <= MAX_PIXELS, "it is {width}x{height}; {MAX_PIXELS} pixels are the most, as in Pillow");
    ensure!(
        width.max(height) <= MAX_SIDE as u64,
        "it is {width}x{height}; {MAX_SIDE} pixels a side are the most that views are made of"
    );
    // Asked for once, since what follows would end the program.
    let room = Vec::<u8>::new().try_reserve_exact((BYTES_A_PIXEL * pixels) as usize);
    ensure!(room.is_ok(), "there is too little memory for its {width}x{height} pixels");
    Ok(())
}
