//! GIF's first frame, with the crate `gif`: on a canvas of its transparent colour, or of colour 0.

use anyhow::{Context, Result};
use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::pixels::{rgb_of_grey, rgb_of_indices};
use super::{Rgb8, check_size, plain};

/// Of the header, behind which the file's palette lies.
const HEADER_BYTES: usize = 13;
/// Flags of the header: that there is a palette, of 256 colours.
const HAS_PALETTE: u8 = 0x80;
const OF_256: u8 = 7;

pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    let header = bytes.get(..HEADER_BYTES).context("its header is cut")?;
    if header[10] & HAS_PALETTE == 0 {
        // A file may do without palettes, which the crate does not know: then it is grey.
        let mut with_grey = [header, &rgb_of_grey(0..=255), &bytes[HEADER_BYTES..]].concat();
        with_grey[10] |= HAS_PALETTE | OF_256;
        return decode(&with_grey);
    }
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited); // sizes are judged below
    options.allow_unknown_blocks(true);
    let mut decoder = options.read_info(bytes).map_err(plain)?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let (screen_w, screen_h) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(plain)?.context("it has no frame")?;
    let [left, top, w, h] = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    // A frame that sticks out makes the canvas larger.
    let (width, height) = (screen_w.max(left + w), screen_h.max(top + h));
    check_size(width as u64, height as u64)?;
    check_size(w as u64, h as u64)?;
    let background = frame.transparent.unwrap_or(0);
    let colours = |palette: Option<&[u8]>| -> Vec<[u8; 3]> {
        palette.unwrap_or_default().chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect()
    };
    // Pillow takes a palette that is a ramp of greys for none. Then it is the file's, if it has one, even where it
    // was the frame's own palette that was a ramp.
    let is_ramp = |palette: &[[u8; 3]]| palette.iter().zip(0..).all(|(colour, i)| *colour == [i; 3]);
    let of_all = [colours(frame.palette.as_deref()), colours(global.as_deref())];
    let palette = of_all.into_iter().find(|palette| !is_ramp(palette));

    let mut indices = vec![0; w * h];
    decoder.read_into_buffer(&mut indices).map_err(plain)?;
    let mut canvas = vec![background; width * height];
    for (row, y) in indices.chunks_exact(w).zip(top..) {
        canvas[y * width + left..][..w].copy_from_slice(row);
    }
    let pixels = match palette {
        Some(palette) => rgb_of_indices(canvas, &palette),
        None => rgb_of_grey(canvas),
    };
    Ok(Rgb8 { width: width as u32, height: height as u32, pixels })
}
