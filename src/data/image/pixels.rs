//! From stored samples to RGB, as Pillow's unpackers and `convert("RGB")` do it.

/// Samples of `bits` 1, 2, 4 or 8 of a row, the first in the highest bits.
pub fn unpacked(row: &[u8], bits: usize) -> impl Iterator<Item = u8> {
    let (each, mask) = (8 / bits, (0xff_u16 >> (8 - bits)) as u8);
    row.iter().flat_map(move |byte| (1..=each).map(move |i| byte >> (8 - bits * i) & mask))
}

/// A sample of `bits`, from 0 to 255.
pub fn widened(sample: u8, bits: usize) -> u8 {
    // 255, 85, 17, 1: exact.
    sample * (255 / ((1_u16 << bits) - 1) as u8)
}

/// Grey, repeated.
pub fn rgb_of_grey(grey: impl IntoIterator<Item = u8>) -> Vec<u8> {
    grey.into_iter().flat_map(|value| [value; 3]).collect()
}

/// Entries of a palette; one that is not there is black.
pub fn rgb_of_indices(indices: impl IntoIterator<Item = u8>, palette: &[[u8; 3]]) -> Vec<u8> {
    indices.into_iter().flat_map(|index| palette.get(usize::from(index)).copied().unwrap_or([0; 3])).collect()
}

/// The first three of each pixel's `channels`.
pub fn rgb_of_channels(samples: &[u8], channels: usize) -> Vec<u8> {
    samples.chunks_exact(channels).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

/// Of inks from 0, none, to 255, the first four of each pixel's `channels`: `cmyk2rgb`.
pub fn rgb_of_cmyk(inks: &[u8], channels: usize) -> Vec<u8> {
    let pixel = |cmyk: &[u8]| {
        let white = 255 - u32::from(cmyk[3]);
        [0, 1, 2].map(|i| {
            let product = u32::from(cmyk[i]) * white + 128;
            (white - (((product >> 8) + product) >> 8)) as u8
        })
    };
    inks.chunks_exact(channels).flat_map(pixel).collect()
}

/// `ImagingConvertYCbCr2RGB`, whose tables are multiples of 1/64, halves added and cut off towards zero.
pub fn rgb_of_ycbcr(samples: &[u8]) -> Vec<u8> {
    let table = |factor: f64| -> Vec<i32> {
        (0..256).map(|i| (factor * f64::from(i - 128) * 64.0 + 0.5) as i32).collect()
    };
    let [r_cr, g_cb, g_cr, b_cb] = [1.402, -0.34414, -0.71414, 1.772].map(table);
    let pixel = |ycbcr: &[u8]| {
        let [y, cb, cr] = [0, 1, 2].map(|i| usize::from(ycbcr[i]));
        [r_cr[cr], g_cb[cb] + g_cr[cr], b_cb[cb]].map(|c| (y as i32 + (c >> 6)).clamp(0, 255) as u8)
    };
    samples.chunks_exact(3).flat_map(pixel).collect()
}

/// Colour that was multiplied with its alpha, the fourth of each pixel's `channels`, as it was before: `unpackRGBa`.
pub fn rgb_of_premultiplied(samples: &[u8], channels: usize) -> Vec<u8> {
    let pixel = |rgba: &[u8]| {
        let alpha = u32::from(rgba[3]);
        [0, 1, 2].map(|i| (u32::from(rgba[i]) * 255).checked_div(alpha).unwrap_or(0).min(255) as u8)
    };
    samples.chunks_exact(channels).flat_map(pixel).collect()
}
