//! TIFF's first picture. The crate `tiff` reads its directory; the samples are put together here, since the crate knows neither
//! palettes nor Pillow's ways with alpha, grey of more than 8 bits, and JPEG inside.
//!
//! Pillow itself reads what is not compressed, and libtiff the rest; where they would disagree, or Pillow misreads what it
//! is given, a file is refused.

mod chunks;
mod samples;

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use tiff::decoder::ifd::Value;
use tiff::decoder::{Decoder, Limits};
use tiff::tags::{ByteOrder, Tag};

use super::{Rgb8, check_size, plain};

/// What of the first directory says how its pixels are stored.
struct Header {
    big_endian: bool,
    width: usize,
    height: usize,
    /// Of each sample.
    bits: usize,
    /// Samples of a pixel.
    samples: usize,
    /// `SampleFormat`: 1 unsigned, 2 signed, 3 floating point.
    format: u16,
    /// `PhotometricInterpretation`.
    photometric: u16,
    /// `ExtraSamples`: 0 unspecified, 1 alpha that the colour was multiplied with, 2 alpha that it was not.
    extra: Vec<u16>,
    compression: u16,
    predictor: u16,
    /// `FillOrder` is 2: the first bit of a byte is the lowest.
    reversed: bool,
    /// Each sample in a plane of its own.
    planar: bool,
    subsampling: Option<Vec<u16>>,
    /// In tiles, not in strips.
    tiled: bool,
    /// Of a tile or strip.
    chunk_width: usize,
    chunk_height: usize,
    offsets: Vec<u64>,
    lengths: Vec<u64>,
    jpeg_tables: Vec<u8>,
    palette: Vec<u16>,
    orientation: u16,
}

const COLOUR_MAP: Tag = Tag::ColorMap;
const XMP: Tag = Tag::Unknown(700);

impl Header {
    fn read(bytes: &[u8]) -> Result<Header> {
        // No tag can be longer than the file.
        let mut limits = Limits::default();
        limits.ifd_value_size = 8 * bytes.len();
        let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(plain)?.with_limits(limits);
        let (width, height) = decoder.dimensions().map_err(plain)?;
        check_size(u64::from(width), u64::from(height))?;
        let big_endian = decoder.byte_order() == ByteOrder::BigEndian;
        let mut number = |tag| decoder.find_tag_unsigned::<u16>(tag).map_err(plain);
        let [compression, predictor, fill, planar] =
            [Tag::Compression, Tag::Predictor, Tag::FillOrder, Tag::PlanarConfiguration].map(&mut number);
        let [samples, photometric, orientation] =
            [Tag::SamplesPerPixel, Tag::PhotometricInterpretation, Tag::Orientation].map(number);
        let mut list = |tag| decoder.find_tag_unsigned_vec::<u16>(tag).map_err(plain);
        let [bits, format, extra] = [Tag::BitsPerSample, Tag::SampleFormat, Tag::ExtraSamples].map(&mut list);
        let [subsampling, palette] = [Tag::ChromaSubsampling, COLOUR_MAP].map(list);
        let [bits, format] = [bits?, format?].map(|list| list.unwrap_or_else(|| vec![1]));
        ensure!(
            bits.windows(2).all(|two| two[0] == two[1]),
            "its samples are of {bits:?} bits, not all the same"
        );
        let tiled = decoder.find_tag(Tag::TileOffsets).map_err(plain)?.is_some();
        let (chunk_width, chunk_height) = decoder.chunk_dimensions();
        let mut long = |tag| decoder.find_tag_unsigned_vec::<u64>(tag).map_err(plain);
        let [offsets, lengths] = match tiled {
            true => [Tag::TileOffsets, Tag::TileByteCounts],
            false => [Tag::StripOffsets, Tag::StripByteCounts],
        }
        .map(&mut long);
        let bytes_of =
            |value: Option<Value>| value.and_then(|value| value.into_u8_vec().ok()).unwrap_or_default();
        let jpeg_tables = bytes_of(decoder.find_tag(Tag::JPEGTables).map_err(plain)?);
        let orientation = match orientation? {
            Some(orientation) => orientation,
            None => orientation_of_xmp(&bytes_of(decoder.find_tag(XMP).map_err(plain)?)),
        };
        Ok(Header {
            big_endian,
            width: width as usize,
            height: height as usize,
            bits: usize::from(bits.first().copied().unwrap_or(1)),
            samples: usize::from(samples?.unwrap_or(1)),
            format: format.first().copied().unwrap_or(1),
            photometric: photometric?.context("it does not say what its samples are")?,
            extra: extra?.unwrap_or_default(),
            compression: compression?.unwrap_or(1),
            predictor: predictor?.unwrap_or(1),
            reversed: fill?.unwrap_or(1) == 2,
            planar: planar?.unwrap_or(1) == 2,
            subsampling: subsampling?,
            tiled,
            chunk_width: chunk_width as usize,
            chunk_height: chunk_height as usize,
            offsets: offsets?.unwrap_or_default(),
            lengths: lengths?.unwrap_or_default(),
            jpeg_tables,
            palette: palette?.unwrap_or_default(),
            orientation,
        })
    }
}

/// Adobe's note of it, which Pillow follows where the tag is missing.
fn orientation_of_xmp(xmp: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(xmp);
    let after =
        |at: usize| text[at + "tiff:Orientation".len()..].trim_start_matches("=\"").trim_start_matches('>');
    let found =
        text.match_indices("tiff:Orientation").filter_map(|(at, _)| after(at).chars().next()?.to_digit(10));
    found.map(|digit| digit as u16).next().unwrap_or(1)
}

pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    let header = Header::read(bytes)?;
    let kind = samples::Kind::of(&header)?;
    let stored = chunks::read(&header, kind, bytes)?;
    let (w, h) = (header.width, header.height);
    Ok(turned(samples::to_rgb(&header, kind, stored), w, h, header.orientation))
}

/// An image of `(h, w, 3)` as its orientation has it.
fn turned(pixels: Vec<u8>, w: usize, h: usize, orientation: u16) -> Rgb8 {
    let (width, height) = if (5..=8).contains(&orientation) { (h, w) } else { (w, h) };
    let mut out = Rgb8 { width: width as u32, height: height as u32, pixels };
    if !(2..=8).contains(&orientation) {
        return out;
    }
    // Where the pixel at (x, y) comes from.
    let from = |x: usize, y: usize| match orientation {
        2 => (w - 1 - x, y),
        3 => (w - 1 - x, h - 1 - y),
        4 => (x, h - 1 - y),
        5 => (y, x),
        6 => (y, h - 1 - x),
        7 => (w - 1 - y, h - 1 - x),
        _ => (w - 1 - y, x),
    };
    let at = |x, y| {
        let (x, y) = from(x, y);
        &out.pixels[3 * (y * w + x)..][..3]
    };
    out.pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| at(x, y))).copied().collect();
    out
}
