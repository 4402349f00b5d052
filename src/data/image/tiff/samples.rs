//! Which samples Pillow knows, and how they become RGB.

use std::borrow::Cow;

use anyhow::{Result, bail, ensure};

use super::super::pixels::{
    rgb_of_channels, rgb_of_cmyk, rgb_of_grey, rgb_of_indices, rgb_of_premultiplied, rgb_of_ycbcr, unpacked,
    widened,
};
use super::Header;

/// Of a pixel's samples: what those that count are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// 1, 2, 4 or 8 bits; white may be 0.
    Grey {
        white_is_zero: bool,
    },
    /// 12 or 16 bits unsigned, 16 or 32 signed, 32 floating point: cut off to 0 to 255.
    Wide,
    /// 1, 2, 4 or 8 bits.
    Palette,
    /// 8 or 16 bits; with three or more samples.
    Rgb,
    /// The fourth sample is alpha that the others were multiplied with.
    Premultiplied,
    /// 8 or 16 bits.
    Cmyk,
    YCbCr,
}

impl Kind {
    /// As Pillow's table `OPEN_INFO`.
    ///
    /// # Errors
    /// What is not in it, or would be misread.
    pub fn of(header: &Header) -> Result<Kind> {
        let &Header { big_endian, bits, samples, format, photometric, compression, reversed, planar, .. } =
            header;
        let kind = match (photometric, bits, samples, format, &header.extra[..]) {
            (0 | 1, 1 | 2 | 4 | 8, 1, 1, []) => Kind::Grey { white_is_zero: photometric == 0 },
            (1, 8, 1, 2, []) => Kind::Grey { white_is_zero: false },
            (1, 8, 2, 1, [0 | 2]) => Kind::Grey { white_is_zero: false },
            // Pillow does not invert these.
            (0, 16, 1, 1, []) if !big_endian => Kind::Wide,
            (1, 16, 1, 1 | 2, []) => Kind::Wide,
            (1, 12, 1, 1, []) if !big_endian => Kind::Wide,
            (1, 32, 1, 1, []) if !big_endian => Kind::Wide,
            (1, 32, 1, 2 | 3, []) | (0, 32, 1, 3, []) => Kind::Wide,
            (2, 8, 3, 1, []) | (2, 8, 4, 1, [] | [0] | [2] | [999]) => Kind::Rgb,
            (2, 8, 5, 1, [0, 0] | [2, 0]) | (2, 8, 6, 1, [0, 0, 0] | [2, 0, 0]) => Kind::Rgb,
            (2, 8, 4, 1, [1]) | (2, 8, 5, 1, [1, 0]) | (2, 8, 6, 1, [1, 0, 0]) => Kind::Premultiplied,
            (2, 16, 3, 1, []) | (2, 16, 4, 1, [] | [0] | [2]) => Kind::Rgb,
            (2, 16, 4, 1, [1]) => Kind::Premultiplied,
            (3, 1 | 2 | 4 | 8, 1, 1, []) | (3, 8, 2, 1, [0 | 2]) => Kind::Palette,
            (5, 8, 4, 1, []) | (5, 8, 5, 1, [0]) | (5, 8, 6, 1, [0, 0]) | (5, 16, 4, 1, []) => Kind::Cmyk,
            (6, 8, 3, 1, []) => Kind::YCbCr,
            _ => bail!("it has {}, which is not read", Told(header)),
        };
        let one = samples == 1 && (bits <= 8 || bits == 16 && !big_endian && (photometric, format) == (1, 1));
        let reversible = one || (kind, bits, samples) == (Kind::Rgb, 8, 3);
        ensure!(!reversed || reversible, "it has {} and FillOrder 2, which is not read", Told(header));
        // Pillow gives libtiff's values, which are in this machine's order, to the file's.
        let swapped = kind == Kind::Wide && big_endian && compression != 1 && (format != 1 || bits == 32);
        ensure!(!swapped, "it is big-endian and compressed, with {}, which Pillow misreads", Told(header));
        ensure!(
            !planar
                || samples == 1 && compression != 1
                || matches!(kind, Kind::Rgb | Kind::Cmyk)
                    && (bits == 8 || compression != 1)
                    // Pillow takes the one for alpha without being told, and forgets the other.
                    && !(samples > 3 && photometric == 2 && header.extra.is_empty())
                    && !(reversed && compression == 1),
            "it has {} in separate planes, which is not read",
            Told(header)
        );
        if kind == Kind::YCbCr {
            let plain = compression == 1
                && !planar
                && header.subsampling.as_ref().is_none_or(|sub| sub[..] == [1, 1]);
            ensure!(
                plain || compression == 7 && !planar,
                "it has YCbCr with compression {compression} and subsampling {:?}, which is not read",
                header.subsampling.as_deref().unwrap_or(&[2, 2])
            );
        }
        Ok(kind)
    }
}

/// Samples in words.
struct Told<'a>(&'a Header);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Header { bits, samples, format, photometric, extra, .. } = self.0;
        let meaning = match photometric {
            0 => "grey, white 0",
            1 => "grey",
            2 => "RGB",
            3 => "palette",
            4 => "transparency mask",
            5 => "CMYK",
            6 => "YCbCr",
            8..=10 => "Lab",
            _ => "unknown",
        };
        let format = match format {
            1 => "unsigned",
            2 => "signed",
            3 => "floating-point",
            _ => "void or complex",
        };
        write!(f, "{samples} {format} samples of {bits} bits ({meaning}, photometric {photometric}")?;
        if !extra.is_empty() {
            write!(f, ", extra samples {extra:?}")?;
        }
        write!(f, ")")
    }
}

/// RGB of what [`super::chunks::read`] gives: rows of whole bytes, samples in little-endian order.
pub fn to_rgb(header: &Header, kind: Kind, stored: Vec<u8>) -> Vec<u8> {
    let &Header { bits, samples, format, width, height, .. } = header;
    let stride = stored.len() / height;
    let packed = || {
        stored.chunks_exact(stride).flat_map(|row| unpacked(row, bits).take(width * samples)).step_by(samples)
    };
    match kind {
        Kind::Grey { white_is_zero } => {
            let flip = if white_is_zero { 255 } else { 0 };
            rgb_of_grey(packed().map(|sample| widened(sample, bits) ^ flip))
        }
        Kind::Palette => {
            let entries = header.palette.len() / 3;
            let part = |i: usize, c: usize| (header.palette[c * entries + i] / 256) as u8;
            let palette: Vec<[u8; 3]> = (0..entries).map(|i| [0, 1, 2].map(|c| part(i, c))).collect();
            rgb_of_indices(packed(), &palette)
        }
        Kind::Wide => {
            let bytes = stored.chunks_exact(bits.div_ceil(8));
            match (bits, format) {
                (12, _) => {
                    rgb_of_grey(stored.chunks_exact(stride).flat_map(|row| twelve_bits(row).take(width)))
                }
                (16, 1) => rgb_of_grey(bytes.map(|v| u16::from_le_bytes([v[0], v[1]]).min(255) as u8)),
                (16, _) => rgb_of_grey(bytes.map(|v| i16::from_le_bytes([v[0], v[1]]).clamp(0, 255) as u8)),
                // Unsigned ones are taken for signed.
                (_, 1 | 2) => rgb_of_grey(
                    bytes.map(|v| i32::from_le_bytes([v[0], v[1], v[2], v[3]]).clamp(0, 255) as u8),
                ),
                _ => rgb_of_grey(bytes.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]) as u8)),
            }
        }
        Kind::Rgb | Kind::Premultiplied | Kind::Cmyk => {
            // Of 16 bits the high byte.
            let eight = match bits {
                16 => Cow::Owned(stored.iter().copied().skip(1).step_by(2).collect::<Vec<u8>>()),
                _ => Cow::Borrowed(&stored[..]),
            };
            match kind {
                Kind::Premultiplied => rgb_of_premultiplied(&eight, samples),
                Kind::Cmyk => rgb_of_cmyk(&eight, samples),
                _ => rgb_of_channels(&eight, samples),
            }
        }
        // Of a JPEG it is RGB already.
        Kind::YCbCr if header.compression == 7 => stored,
        Kind::YCbCr => rgb_of_ycbcr(&stored),
    }
}

/// Two values in three bytes, cut off.
fn twelve_bits(row: &[u8]) -> impl Iterator<Item = u8> {
    let at = |i: usize| u16::from(row.get(i).copied().unwrap_or(0));
    (0..row.len() * 8 / 12).map(move |i| {
        let first = i / 2 * 3;
        let value = match i % 2 {
            0 => at(first) << 4 | at(first + 1) >> 4,
            _ => (at(first + 1) & 15) << 8 | at(first + 2),
        };
        value.min(255) as u8
    })
}
