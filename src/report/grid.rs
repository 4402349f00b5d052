//! Contact sheets: many small images on one PNG.

use std::io::Cursor;

use anyhow::Result;
use image::{ImageFormat, RgbImage};

use crate::data::Rgb8;

const MARGIN: usize = 4;
/// Tiny images are enlarged, each pixel to a square, up to about this side.
const CELL: usize = 96;
const PAPER: u8 = 255;

/// A sheet as square as it can be, images in order, as a PNG.
///
/// # Errors
/// Larger than a PNG can be.
pub fn square(images: &[Rgb8]) -> Result<Vec<u8>> {
    let side = images.len().isqrt();
    rows(images, side.max(1) + (side.pow(2) < images.len()) as usize)
}

/// A sheet with `columns` images in a row.
///
/// # Errors
/// As [`square`].
pub fn rows(images: &[Rgb8], columns: usize) -> Result<Vec<u8>> {
    let side = images.iter().map(|image| image.width.max(image.height) as usize).max().unwrap_or(1);
    let rows = images.len().div_ceil(columns);
    // All images get cells of one size; a larger original is shrunk to the views'.
    let views =
        images.iter().skip(1).map(|image| image.width.max(image.height) as usize).max().unwrap_or(side);
    let cell = if views < CELL { CELL / views * views } else { views };
    let pitch = cell + MARGIN;
    let (width, height) = (columns * pitch + MARGIN, rows * pitch + MARGIN);
    let mut sheet = RgbImage::from_pixel(width as u32, height as u32, image::Rgb([PAPER; 3]));
    for (i, picture) in images.iter().enumerate() {
        let (left, top) = (i % columns * pitch + MARGIN, i / columns * pitch + MARGIN);
        let (w, h) = (picture.width as usize, picture.height as usize);
        let (shown_w, shown_h) = (cell * w / w.max(h), cell * h / w.max(h));
        for y in 0..shown_h.max(1) {
            for x in 0..shown_w.max(1) {
                let from = (y * h / shown_h.max(1) * w + x * w / shown_w.max(1)) * 3;
                let pixel = [picture.pixels[from], picture.pixels[from + 1], picture.pixels[from + 2]];
                sheet.put_pixel((left + x) as u32, (top + y) as u32, image::Rgb(pixel));
            }
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner())
}
