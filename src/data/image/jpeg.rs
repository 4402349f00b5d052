//! JPEG, to the bit as Pillow has it, whose decoder is libjpeg-turbo.
//!
//! Decoders of the same file differ in how they round, and most in how they enlarge the colour planes. libjpeg-turbo's way is what
//! Pillow, OpenCV and torchvision give, and so what models were trained and measured on. Of the crates that have
//! it, `mozjpeg-sys` is the one that needs only a C compiler: Mozilla's fork of it changes the encoder alone, and without its assembly,
//! which wants `nasm`, it gives the same bits (1,000 of 1,000 ImageNet files, and every kind of `tests/make_images.py`).
//! `turbojpeg` is as exact and wants `cmake`; `libjpeg-turbo-rs` 0.9.0, which is Rust throughout, differs at the edges of YCCK
//! with halved colour; `zune-jpeg` 0.5.15 (of `image`) differs in every file of colour. What is left: where a file is damaged so that values
//! overflow, libjpeg-turbo's own assembly and its plain C, which runs here, give different rubbish.
//!
//! Without assembly the inverse DCT takes two fifths of the time, and images are decoded at 0.82 times Pillow's speed; with
//! [`idct.c`](../../../../src/data/image/idct.c), which does eight columns at once, all in all 1.45 times as fast as without.
//!
//! libjpeg reports an error by a call that must not return. The crate `mozjpeg` unwinds Rust's stack through C for it; here
//! [`jpeg.c`](../../../../src/data/image/jpeg.c) jumps back to where it started, as libjpeg's own documentation has it.

use std::ffi::{CStr, c_char, c_int};

use anyhow::{Result, bail, ensure};
// Linked by what jpeg.c calls.
use mozjpeg_sys as _;

use super::pixels::rgb_of_cmyk;
use super::{Rgb8, check_size};

/// libjpeg's JMSG_LENGTH_MAX.
const MESSAGE_BYTES: usize = 200;

/// What becomes of the components' colours; as in jpeg.c.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub enum Colour {
    /// RGB, or four inks, of what the file says, or of what libjpeg guesses that it is.
    Guessed,
    /// RGB of what is YCbCr, whatever the file says.
    YCbCr,
    /// None is changed.
    Stored,
}

/// `struct header` of jpeg.c.
#[repr(C)]
#[derive(Default)]
struct Header {
    width: u32,
    height: u32,
    components: u32,
    /// Of a decoded pixel.
    channels: u32,
}

unsafe extern "C" {
    fn memo_jpeg(
        bytes: *const u8,
        length: usize,
        colour: Colour,
        header: *mut Header,
        pixels: *mut u8,
        message: *mut c_char,
    ) -> c_int;
}

/// Reads the header, or the pixels of the one that was read before.
fn call(bytes: &[u8], colour: Colour, header: &mut Header, pixels: Option<&mut [u8]>) -> Result<()> {
    let mut message = [0u8; MESSAGE_BYTES];
    if let Some(pixels) = &pixels {
        assert_eq!(pixels.len(), values(header), "room for all rows");
    }
    let pixels = pixels.map_or(std::ptr::null_mut(), <[u8]>::as_mut_ptr);
    // SAFETY: jpeg.c reads `bytes.len()` bytes, writes no more of the pixels than the header says, which was
    // just compared, and a message of MESSAGE_BYTES at most with a zero at its end.
    let code = unsafe {
        memo_jpeg(bytes.as_ptr(), bytes.len(), colour, header, pixels, message.as_mut_ptr().cast::<c_char>())
    };
    match code {
        0 => Ok(()),
        1 => {
            let why = CStr::from_bytes_until_nul(&message).unwrap_or_default().to_string_lossy();
            bail!("libjpeg says: {why}")
        }
        _ => bail!("it is cut: the file ends before its last row"),
    }
}

/// Bytes of the decoded pixels.
fn values(header: &Header) -> usize {
    header.width as usize * header.height as usize * header.channels as usize
}

/// A decoded image, `(height, width, channels)`.
pub struct Decoded {
    pub width: u32,
    pub height: u32,
    pub channels: usize,
    pub samples: Vec<u8>,
}

/// The first image of a JPEG file, or of tables and an image that lacks them.
///
/// # Errors
/// What libjpeg does not read: broken and cut files, 12 bits, lossless ones; other than one, three or four components;
/// too many pixels.
pub fn read(bytes: &[u8], colour: Colour) -> Result<Decoded> {
    let mut header = Header::default();
    call(bytes, colour, &mut header, None)?;
    let Header { width, height, components, channels } = header;
    check_size(u64::from(width), u64::from(height))?;
    ensure!(
        colour == Colour::Stored || matches!(components, 1 | 3 | 4),
        "it has {components} components; 1, 3 and 4 are known"
    );
    let mut samples = vec![0; values(&header)];
    call(bytes, colour, &mut header, Some(&mut samples))?;
    Ok(Decoded { width, height, channels: channels as usize, samples })
}

/// The first image of a JPEG file.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: &[u8]) -> Result<Rgb8> {
    let Decoded { width, height, channels, samples } = read(bytes, Colour::Guessed)?;
    let pixels = match channels {
        // Stored inverted, as Adobe's programs do, and as Pillow takes for granted.
        4 => rgb_of_cmyk(&samples.iter().map(|ink| 255 - ink).collect::<Vec<u8>>(), 4),
        _ => samples,
    };
    Ok(Rgb8 { width, height, pixels })
}
