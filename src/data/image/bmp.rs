//! Windows bitmaps, of OS/2's header and Windows' 3 to 5.

use anyhow::{Context, Result, bail, ensure};

use super::pixels::{rgb_of_indices, unpacked};
use super::{Rgb8, check_size};

const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BIT_FIELDS: u32 = 3;

/// Masks of red, green, blue and alpha in 32 bits, and the bytes that the colours are. All zeros mean the usual.
const MASKS: [([u32; 4], [usize; 3]); 8] = [
    ([0x00ff_0000, 0xff00, 0xff, 0], [2, 1, 0]),
    ([0xff00_0000, 0x00ff_0000, 0xff00, 0], [3, 2, 1]),
    ([0xff00_0000, 0xff00, 0xff, 0], [3, 1, 0]),
    ([0xff00_0000, 0x00ff_0000, 0xff00, 0xff], [3, 2, 1]),
    ([0xff, 0xff00, 0x00ff_0000, 0xff00_0000], [0, 1, 2]),
    ([0x00ff_0000, 0xff00, 0xff, 0xff00_0000], [2, 1, 0]),
    ([0xff00_0000, 0xff00, 0xff, 0x00ff_0000], [3, 1, 0]),
    ([0, 0, 0, 0], [2, 1, 0]),
];

pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    let u16_at = |at: usize| -> Result<u16> {
        let two = bytes.get(at..at + 2).context("its header is cut")?;
        Ok(u16::from_le_bytes([two[0], two[1]]))
    };
    let u32_at = |at: usize| -> Result<u32> { Ok(u32::from(u16_at(at)?) | u32::from(u16_at(at + 2)?) << 16) };
    let header = u32_at(14)? as usize;
    let old = header == 12;
    ensure!(
        old || [40, 52, 56, 64, 108, 124].contains(&header),
        "its header has {header} bytes, which is not known"
    );
    let (width, height, bits, compression, colours) = if old {
        (u32::from(u16_at(18)?), u32::from(u16_at(20)?), u16_at(24)?, RAW, 0)
    } else {
        (u32_at(18)?, u32_at(22)?, u16_at(28)?, u32_at(30)?, u32_at(46)?)
    };
    // The first row is the lowest one, unless the height is negative.
    let down = !old && height >> 24 == 0xff;
    let height = if down { height.wrapping_neg() } else { height };
    check_size(u64::from(width), u64::from(height))?;
    let (w, h, bits) = (width as usize, height as usize, usize::from(bits));
    ensure!(
        [1, 4, 8, 16, 24, 32].contains(&bits),
        "it has {bits} bits a pixel; 1, 4, 8, 16, 24 and 32 are known"
    );

    let mut end = 14 + header;
    let mut masks = [0; 4];
    if compression == BIT_FIELDS {
        // A header of 40 bytes has them behind it, without alpha's.
        let count = if header >= 56 { 4 } else { 3 };
        for (i, mask) in masks.iter_mut().enumerate().take(count) {
            *mask = u32_at(54 + 4 * i)?;
        }
        end = end.max(54 + 4 * 3);
    }
    let mut palette = Vec::new();
    let mut offset = u32_at(10)? as usize;
    if bits <= 8 {
        let each = if old { 3 } else { 4 };
        let colours = if colours == 0 { 1 << bits } else { colours as usize };
        ensure!(colours <= 65536, "its palette has {colours} colours");
        let entries = bytes.get(end..).unwrap_or_default().chunks_exact(each).take(colours);
        palette = entries.map(|c| [c[2], c[1], c[0]]).collect();
        if offset == 14 + header {
            offset += each * colours;
        }
        end += each * colours;
    }
    let data = bytes.get(if offset == 0 { end } else { offset }..).unwrap_or_default();

    let stride = (w * bits).div_ceil(32) * 4;
    let rows = || -> Result<_> {
        // The last row's padding may be missing.
        let last = (w * bits).div_ceil(8);
        ensure!(data.len() >= stride * (h - 1) + last, "it is cut: {} bytes of pixels are there", data.len());
        Ok(data.chunks(stride).take(h))
    };
    let pixels: Vec<u8> = match (compression, bits) {
        (RLE8, 8) | (RLE4, 4) => {
            rgb_of_indices(run_lengths(data, offset, w, h, compression == RLE4)?, &palette)
        }
        (RAW, 1 | 4 | 8) => rgb_of_indices(rows()?.flat_map(|row| unpacked(row, bits).take(w)), &palette),
        (RAW | BIT_FIELDS, 16) => {
            let green = match (compression, &masks[..3]) {
                (RAW, _) | (_, [0x7c00, 0x3e0, 0x1f]) => 5,
                (_, [0xf800, 0x7e0, 0x1f]) => 6,
                _ => bail!("its colours are in the bits {:x?}, which is not known", &masks[..3]),
            };
            let pixel = |v: &[u8]| {
                let v = u32::from(v[0]) | u32::from(v[1]) << 8;
                let part = |shift: u32, bits: u32| {
                    let most = (1 << bits) - 1;
                    ((v >> shift & most) * 255 / most) as u8
                };
                [part(5 + green, 5), part(5, green), part(0, 5)]
            };
            rows()?.flat_map(|row| row.chunks_exact(2).take(w).flat_map(pixel)).collect()
        }
        (RAW | BIT_FIELDS, 24 | 32) => {
            let known =
                if bits == 32 { MASKS.iter().find(|(known, _)| *known == masks) } else { MASKS.first() };
            let bgr = bits == 32 || compression == RAW || masks[..3] == MASKS[0].0[..3];
            let (_, [r, g, b]) = known
                .filter(|_| bgr)
                .with_context(|| format!("its colours are in the bits {masks:x?}, which is not known"))?;
            let pixel = |v: &[u8]| [v[*r], v[*g], v[*b]];
            rows()?.flat_map(|row| row.chunks_exact(bits / 8).take(w).flat_map(pixel)).collect()
        }
        _ => bail!("it is of {bits} bits in compression {compression}, which is not known"),
    };
    let pixels = if down { pixels } else { pixels.chunks_exact(3 * w).rev().flatten().copied().collect() };
    Ok(Rgb8 { width, height, pixels })
}

/// Indices, the lowest row first: runs, and literal ones up to a word's end. What is skipped has colour 0.
fn run_lengths(data: &[u8], offset: usize, w: usize, h: usize, halves: bool) -> Result<Vec<u8>> {
    let (mut out, mut x, mut at) = (Vec::new(), 0, 0);
    // Two of four bits a byte, or one.
    let spread = |bytes: &[u8], count: usize| -> Vec<u8> {
        match halves {
            true => unpacked(bytes, 4).take(count).collect(),
            false => bytes[..count].to_vec(),
        }
    };
    while out.len() < w * h {
        let Some(&[count, value]) = data.get(at..at + 2) else { break };
        at += 2;
        match (usize::from(count), usize::from(value)) {
            (0, 0) => {
                out.resize(out.len().next_multiple_of(w), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let Some(&[right, up]) = data.get(at..at + 2) else { break };
                at += 2;
                let skipped = usize::from(right) + usize::from(up) * w;
                out.resize((out.len() + skipped).min(w * h), 0);
                x = out.len() % w;
            }
            (0, literal) => {
                let count = literal.min(w * h - out.len());
                let bytes = if halves { count.div_ceil(2) } else { count };
                let Some(bytes) = data.get(at..at + bytes) else { break };
                out.extend(spread(bytes, count));
                at += bytes.len();
                at += (offset + at) % 2;
                x += literal;
            }
            (run, _) => {
                // A run ends with its row.
                let run = run.min(w.saturating_sub(x));
                match halves {
                    true => out.extend((0..run).map(|i| if i % 2 == 0 { value >> 4 } else { value & 15 })),
                    false => out.resize(out.len() + run, value),
                }
                x += run;
            }
        }
    }
    ensure!(out.len() >= w * h, "it is cut: {} of {} pixels are there", out.len(), w * h);
    out.truncate(w * h);
    Ok(out)
}
