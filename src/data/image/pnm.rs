//! The portable maps of Netpbm: bits (P1, P4), grey (P2, P5), colour (P3, P6), as text or as bytes, and floats of grey (Pf).

use anyhow::{Context, Result, ensure};

use super::pixels::{rgb_of_grey, unpacked};
use super::{Rgb8, check_size};

/// Words between white space and comments; the bytes behind the last one that was read.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The next one, and the one white space behind it. A comment goes from `#` to the end of its line.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut word = Vec::new();
        while let Some((&byte, rest)) = self.0.split_first() {
            self.0 = rest;
            match byte {
                b'#' => {
                    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                    self.0 = end.map_or(&[][..], |end| &rest[end + 1..]);
                }
                b' ' | b'\t'..=b'\r' if word.is_empty() => {}
                b' ' | b'\t'..=b'\r' => break,
                _ => word.push(byte),
            }
        }
        (!word.is_empty()).then_some(word)
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let word = self.next().with_context(|| format!("it is cut: no {what}"))?;
        let word = String::from_utf8_lossy(&word);
        word.parse().ok().with_context(|| format!("its {what} is {word:?}"))
    }
}

pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    let kind = bytes[1];
    let mut words = Words(&bytes[2..]);
    let (width, height) = (words.number::<u32>("width")?, words.number::<u32>("height")?);
    check_size(u64::from(width), u64::from(height))?;
    let (w, h) = (width as usize, height as usize);
    let pixels = match kind {
        b'1' => rgb_of_grey(bits_of_text(words.0, w * h)?),
        b'4' => {
            let stride = w.div_ceil(8);
            let rows = whole(words.0, stride * h)?.chunks_exact(stride);
            rgb_of_grey(rows.flat_map(|row| unpacked(row, 1).take(w)).map(|black| 255 * (1 - black)))
        }
        b'f' => floats(&mut words, w, h)?,
        _ => {
            let max = words.number::<u32>("maximum")?;
            ensure!((1..65536).contains(&max), "its maximum is {max}; it must be 1 to 65535");
            let colour = matches!(kind, b'3' | b'6');
            let count = if colour { 3 * w * h } else { w * h };
            // Grey of more than 8 bits becomes 16 bits, and white from 255 on.
            let most = if max > 255 && !colour { 65535.0 } else { 255.0 };
            let scaled =
                |value: u32| (f64::from(value) / f64::from(max) * most).round_ties_even().min(255.0) as u8;
            let samples: Vec<u8> = match kind {
                b'2' | b'3' => numbers_of_text(&mut words, count, max)?.map(scaled).collect(),
                _ if max < 256 => whole(words.0, count)?.iter().map(|&v| scaled(u32::from(v))).collect(),
                _ => {
                    let pairs = whole(words.0, 2 * count)?.chunks_exact(2);
                    pairs.map(|v| scaled(u32::from(u16::from_be_bytes([v[0], v[1]])))).collect()
                }
            };
            if colour { samples } else { rgb_of_grey(samples) }
        }
    };
    Ok(Rgb8 { width, height, pixels })
}

fn whole(bytes: &[u8], len: usize) -> Result<&[u8]> {
    bytes.get(..len).with_context(|| format!("it is cut: {} of {len} bytes of pixels are there", bytes.len()))
}

/// Digits 0 and 1, which need no white space between them: white and black.
fn bits_of_text(text: &[u8], count: usize) -> Result<Vec<u8>> {
    let mut comment = false;
    let mut values = Vec::new();
    for &byte in text {
        if values.len() == count {
            break;
        }
        match byte {
            b'\r' | b'\n' => comment = false,
            _ if comment => {}
            b'#' => comment = true,
            b'0' | b'1' => values.push(255 * (b'1' - byte)),
            b' ' | b'\t'..=b'\r' => {}
            _ => anyhow::bail!("it has {:?} among its digits 0 and 1", char::from(byte)),
        }
    }
    ensure!(values.len() == count, "it is cut: {} of {count} pixels are there", values.len());
    Ok(values)
}

fn numbers_of_text(words: &mut Words, count: usize, max: u32) -> Result<std::vec::IntoIter<u32>> {
    let mut values = Vec::new();
    for i in 0..count {
        let value = words.number::<u32>("next value").with_context(|| format!("value {i} of {count}"))?;
        ensure!(value <= max, "value {i} is {value}; its maximum is {max}");
        values.push(value);
    }
    Ok(values.into_iter())
}

/// Little-endian if the scale is negative, the lowest row first; cut off to whole numbers from 0 to 255.
fn floats(words: &mut Words, w: usize, h: usize) -> Result<Vec<u8>> {
    let scale = words.number::<f64>("scale")?;
    ensure!(scale != 0.0 && scale.is_finite(), "its scale is {scale}");
    let of = if scale < 0.0 { f32::from_le_bytes } else { f32::from_be_bytes };
    let rows = whole(words.0, 4 * w * h)?.chunks_exact(4 * w).rev();
    let values = rows.flat_map(|row| row.chunks_exact(4)).map(|v| of([v[0], v[1], v[2], v[3]]) as u8);
    Ok(rgb_of_grey(values))
}
