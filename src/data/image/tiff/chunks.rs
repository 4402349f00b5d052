//! Strips and tiles: unpacked, and put together to whole rows.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::super::jpeg::{self, Colour};
use super::super::plain;
use super::Header;
use super::samples::Kind;

/// All samples of all pixels, a pixel's side by side: rows of whole bytes, values in little-endian order.
pub fn read(header: &Header, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>> {
    let &Header { width, height, bits, samples, planar, chunk_width, chunk_height, .. } = header;
    let planes = if planar { samples } else { 1 };
    let pixel_bits = bits * samples / planes;
    let (across, down) = (width.div_ceil(chunk_width), height.div_ceil(chunk_height));
    ensure!(
        header.offsets.len() == across * down * planes && header.lengths.len() == header.offsets.len(),
        "it has {} parts where {} are needed",
        header.offsets.len(),
        across * down * planes
    );
    ensure!(
        across == 1 || (chunk_width * pixel_bits).is_multiple_of(8),
        "its tiles do not end at whole bytes"
    );
    let stride = (width * pixel_bits).div_ceil(8);
    let mut all = vec![0; planes * height * stride];
    for (i, (&offset, &length)) in header.offsets.iter().zip(&header.lengths).enumerate() {
        let (plane, y, x) = (i / (across * down), i / across % down * chunk_height, i % across * chunk_width);
        let rows = chunk_height.min(height - y);
        // A tile is stored whole, a last strip is not.
        let stored_rows = if header.tiled { chunk_height } else { rows };
        let chunk = Chunk { header, kind, rows: stored_rows, pixel_bits, samples: samples / planes };
        let part = || format!("part {} of {}", i + 1, header.offsets.len());
        let part = chunk.read(bytes, offset, length).with_context(part)?;
        let from = (chunk_width * pixel_bits).div_ceil(8);
        let at = x * pixel_bits / 8;
        let len = from.min(stride - at);
        for (row, source) in part.chunks_exact(from).take(rows).enumerate() {
            all[(plane * height + y + row) * stride + at..][..len].copy_from_slice(&source[..len]);
        }
    }
    if planes > 1 {
        let value = bits / 8;
        let plane = all.len() / planes;
        let pixels = 0..plane / value;
        let side_by_side = pixels.flat_map(|i| (0..planes).map(move |p| p * plane + i * value));
        all = side_by_side.flat_map(|at| all[at..at + value].to_vec()).collect();
    }
    Ok(all)
}

/// A strip or tile of so many rows.
struct Chunk<'a> {
    header: &'a Header,
    kind: Kind,
    rows: usize,
    pixel_bits: usize,
    /// Side by side in it.
    samples: usize,
}

impl Chunk<'_> {
    fn read(&self, bytes: &[u8], offset: u64, length: u64) -> Result<Vec<u8>> {
        let &Header { compression, reversed, big_endian, bits, predictor, chunk_width, .. } = self.header;
        let stride = (chunk_width * self.pixel_bits).div_ceil(8);
        let len = stride.checked_mul(self.rows).context("it is too large")?;
        let rest =
            usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).context("it is cut")?;
        // Uncompressed, Pillow does not ask for the length.
        let length = if compression == 1 { len } else { usize::try_from(length).unwrap_or(usize::MAX) };
        let stored = rest.get(..length).context("it is cut")?;
        if compression == 7 {
            return self.read_jpeg(stored);
        }
        let turned: Vec<u8>;
        let stored = match reversed {
            true => {
                turned = stored.iter().map(|byte| byte.reverse_bits()).collect();
                &turned
            }
            false => stored,
        };
        let mut out = unpack(compression, stored, len)?;
        ensure!(out.len() == len, "it is cut: it has {} of {len} bytes", out.len());
        // Without compression there is no prediction, whatever is written, nor with PackBits.
        let is_predicted = compression != 1 && compression != PACK_BITS;
        if bits >= 16 && big_endian && !(predictor == 3 && is_predicted) {
            out.chunks_exact_mut(bits / 8).for_each(<[u8]>::reverse);
        }
        if is_predicted {
            out.chunks_exact_mut(stride).try_for_each(|row| self.undo_prediction(row))?;
        }
        Ok(out)
    }

    fn read_jpeg(&self, stored: &[u8]) -> Result<Vec<u8>> {
        let &Header { bits, chunk_width, .. } = self.header;
        ensure!(bits == 8, "JPEG of {bits} bits is not read");
        // Tables for all, and an image that lacks them.
        let whole = [&self.header.jpeg_tables[..], stored].concat();
        let colour = if self.kind == Kind::YCbCr { Colour::YCbCr } else { Colour::Stored };
        let image = jpeg::read(&whole, colour)?;
        ensure!(
            image.width as usize == chunk_width
                && image.height as usize >= self.rows
                && image.channels == self.samples,
            "its JPEG is {}x{} of {} components where {chunk_width}x{} of {} are needed",
            image.width,
            image.height,
            image.channels,
            self.rows,
            self.samples
        );
        Ok(image.samples)
    }

    /// Values of a row were stored as differences from the pixel before.
    fn undo_prediction(&self, row: &mut [u8]) -> Result<()> {
        let samples = self.samples;
        match (self.header.predictor, self.header.bits) {
            (1, _) => {}
            (2, 8) => (samples..row.len()).for_each(|i| row[i] = row[i].wrapping_add(row[i - samples])),
            (2, 16) => {
                for i in (2 * samples..row.len()).step_by(2) {
                    let value = |at: usize| u16::from_le_bytes([row[at], row[at + 1]]);
                    let sum = value(i).wrapping_add(value(i - 2 * samples));
                    row[i..i + 2].copy_from_slice(&sum.to_le_bytes());
                }
            }
            (2, 32) => {
                for i in (4 * samples..row.len()).step_by(4) {
                    let value =
                        |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
                    let sum = value(i).wrapping_add(value(i - 4 * samples));
                    row[i..i + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
            // Bytes of floats, the highest of all values first.
            (3, 16 | 32) => {
                let (size, count) = (self.header.bits / 8, row.len() * 8 / self.header.bits);
                (samples..row.len()).for_each(|i| row[i] = row[i].wrapping_add(row[i - samples]));
                let planes = row.to_vec();
                for (i, value) in row.chunks_exact_mut(size).enumerate() {
                    (0..size).for_each(|b| value[size - 1 - b] = planes[b * count + i]);
                }
            }
            (predictor, bits) => bail!("prediction {predictor} of {bits} bits is not read"),
        }
        Ok(())
    }
}

const PACK_BITS: u16 = 32773;

/// The first `len` bytes, or fewer if there are no more.
fn unpack(compression: u16, stored: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let limit = len as u64;
    match compression {
        1 => out.extend(stored),
        5 => {
            let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            let mut rest = stored;
            let mut block = [0; 4096];
            while out.len() < len {
                let done = decoder.decode_bytes(rest, &mut block);
                rest = &rest[done.consumed_in..];
                out.extend(&block[..done.consumed_out]);
                match done.status? {
                    weezl::LzwStatus::Ok => {}
                    weezl::LzwStatus::NoProgress | weezl::LzwStatus::Done => break,
                }
            }
            out.truncate(len);
        }
        8 | 32946 => drop(flate2::read::ZlibDecoder::new(stored).take(limit).read_to_end(&mut out)?),
        50000 => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(stored).map_err(plain)?;
            decoder.take(limit).read_to_end(&mut out).map_err(plain)?;
        }
        PACK_BITS => out = unpack_bits(stored, len),
        _ => bail!("compression {compression} ({}) is not read", name_of(compression)),
    }
    Ok(out)
}

/// Runs and literal bytes, after a signed count.
fn unpack_bits(mut stored: &[u8], len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((&count, rest)) = stored.split_first() {
        stored = rest;
        match count {
            _ if out.len() >= len => break,
            128 => {}
            129.. => {
                let Some((&value, rest)) = rest.split_first() else { break };
                out.resize(out.len() + 257 - usize::from(count), value);
                stored = rest;
            }
            _ => {
                let literal = rest.len().min(usize::from(count) + 1);
                out.extend(&rest[..literal]);
                stored = &rest[literal..];
            }
        }
    }
    out.truncate(len);
    out
}

fn name_of(compression: u16) -> &'static str {
    match compression {
        2..=4 | 32771 => "fax",
        6 => "JPEG of TIFF 6.0, which was withdrawn",
        34676 | 34677 => "LogLuv",
        34712 | 34713 => "JPEG 2000",
        34887 => "LERC",
        34925 => "LZMA",
        50001 => "WebP",
        50002 | 52546 => "JPEG XL",
        _ => "unknown",
    }
}
