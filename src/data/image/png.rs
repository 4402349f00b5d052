//! PNG, with the crate `png`; the samples become RGB here.

use std::io::Cursor;

use anyhow::{Context, Result, bail};
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::pixels::{rgb_of_channels, rgb_of_grey, rgb_of_indices, unpacked, widened};
use super::{Rgb8, check_size, plain};

/// The picture that is shown where animations are not.
pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: usize::MAX });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(plain)?;
    let info = reader.info();
    let (width, height) = info.size();
    check_size(u64::from(width), u64::from(height))?;
    let (depth, colour) = (info.bit_depth, info.color_type);
    let palette: Vec<[u8; 3]> =
        info.palette.iter().flat_map(|palette| palette.chunks_exact(3)).map(|c| [c[0], c[1], c[2]]).collect();
    let mut samples = vec![0; reader.output_buffer_size().context("it is too large")?];
    let frame = reader.next_frame(&mut samples).map_err(plain)?;
    let rows = || samples.chunks_exact(frame.line_size);
    let high_bytes = || samples.iter().copied().step_by(2);
    let bits = depth as usize;
    let packed = || rows().flat_map(|row| unpacked(row, bits).take(width as usize));
    let pixels = match (colour, depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            // White from 255 on.
            rgb_of_grey(samples.chunks_exact(2).map(|v| if v[0] == 0 { v[1] } else { 255 }))
        }
        (ColorType::Grayscale, _) => rgb_of_grey(packed().map(|sample| widened(sample, bits))),
        (ColorType::Indexed, _) => rgb_of_indices(packed(), &palette),
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => rgb_of_grey(samples.iter().copied().step_by(2)),
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => rgb_of_grey(samples.iter().copied().step_by(4)),
        (ColorType::Rgb, BitDepth::Eight) => samples,
        (ColorType::Rgb, BitDepth::Sixteen) => high_bytes().collect(),
        (ColorType::Rgba, BitDepth::Eight) => rgb_of_channels(&samples, 4),
        (ColorType::Rgba, BitDepth::Sixteen) => rgb_of_channels(&high_bytes().collect::<Vec<u8>>(), 4),
        _ => bail!("it has {bits} bits of {colour:?}, which PNG does not have"),
    };
    Ok(Rgb8 { width, height, pixels })
}
