//! What a file is, by its first bytes.

use anyhow::{Result, bail, ensure};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Bmp,
    Gif,
    Jpeg,
    Png,
    Pnm,
    Tiff,
    WebP,
}

/// The format of a file.
///
/// # Errors
/// None of these: what it is instead, as far as its beginning tells.
pub fn of(bytes: &[u8]) -> Result<Kind> {
    ensure!(!bytes.is_empty(), "the file is empty");
    let at = |at: usize, part: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(part));
    let begins = |starts: &[&[u8]]| starts.iter().any(|start| bytes.starts_with(start));
    match bytes {
        _ if begins(&[b"\xff\xd8\xff"]) => return Ok(Kind::Jpeg),
        _ if begins(&[b"\x89PNG\r\n\x1a\n"]) => return Ok(Kind::Png),
        _ if begins(&[b"GIF87a", b"GIF89a"]) => return Ok(Kind::Gif),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => return Ok(Kind::WebP),
        _ if begins(&[b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"]) => return Ok(Kind::Tiff),
        _ if begins(&[b"BM"]) => return Ok(Kind::Bmp),
        [b'P', b'1'..=b'6', b' ' | b'\t'..=b'\r', ..] => return Ok(Kind::Pnm),
        [b'P', b'f', b' ' | b'\t'..=b'\r', ..] => return Ok(Kind::Pnm),
        _ => {}
    }
    // Kinds of `ftyp` boxes.
    let box_of = |brands: &[&[u8]]| at(4, b"ftyp") && brands.iter().any(|brand| at(8, brand));
    let named = [
        (begins(&[b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"]), "JPEG XL"),
        (box_of(&[b"avif", b"avis"]), "AVIF"),
        (box_of(&[b"heic", b"heix", b"hevc", b"mif1", b"msf1"]), "HEIC"),
        (at(4, b"ftyp"), "a video"),
        (begins(&[b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"]), "JPEG 2000"),
        (begins(&[b"8BPS"]), "a Photoshop document"),
        (begins(&[b"\0\0\x01\0", b"\0\0\x02\0"]), "an icon"),
        (begins(&[b"DDS "]), "a DDS texture"),
        (begins(&[b"v/1\x01"]), "OpenEXR"),
        (begins(&[b"P7\n", b"PF\n"]), "a portable arbitrary or colour float map"),
        (begins(&[b"qoif"]), "QOI"),
        (begins(&[b"%PDF"]), "a PDF document"),
        (begins(&[b"PK\x03\x04"]), "a zip archive"),
        (begins(&[b"\x1f\x8b"]), "a gzip archive"),
        (begins(&[b"\x93NUMPY"]), "a NumPy array"),
        (begins(&[b"\x89HDF"]), "an HDF5 file"),
        (begins(&[b"\x00\x05\x16\x07"]), "macOS's notes on another file"),
    ];
    if let Some((_, name)) = named.iter().find(|(is, _)| *is) {
        bail!("its contents are {name}, which is not read; {READ}");
    }
    ensure!(
        !begins(&[b"version https://git-lfs"]),
        "it is Git LFS's pointer to the image; fetch it with `git lfs pull`"
    );
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let (text, cut) = (text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']), bytes.len() > 200);
    let tag = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    ensure!(
        !tag("<!doctype html") && !tag("<html") && !tag("<head") && !tag("<body"),
        "its contents are a web page (HTML), not the image that its address was to give"
    );
    ensure!(!tag("<svg") && !text.contains("<svg"), "its contents are SVG, which is not read; {READ}");
    ensure!(!tag("<?xml") && !tag("<"), "its contents are XML, not an image");
    ensure!(bytes.iter().any(|&byte| byte != 0), "it holds nothing but zeros");
    let plain = |c: char| !c.is_control() || c.is_whitespace();
    if !text.is_empty() && text.chars().all(|c| plain(c) && (c != char::REPLACEMENT_CHARACTER || cut)) {
        let start: String = text.chars().take(40).collect();
        bail!("its contents are text, not an image: {start:?}");
    }
    bail!("its contents are no image that is known; {READ}")
}

const READ: &str = "JPEG, PNG, GIF, WebP, BMP, TIFF and PNM are";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_what_they_are() {
        assert_eq!(of(b"P6\n1 1 255\n").unwrap(), Kind::Pnm);
        assert_eq!(of(b"MM\0\x2a").unwrap(), Kind::Tiff);
        for (bytes, want) in [
            (&b""[..], "the file is empty"),
            (b"\xff\x0a\0\0", "are JPEG XL, which is not read"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"\0\0\0 ftypavif\0", "AVIF"),
            (b"\0\0\0 ftypheic\0", "HEIC"),
            (b"\0\0\0 ftypisom\0", "a video"),
            (b"  <!DOCTYPE html>", "a web page"),
            (b"\xef\xbb\xbf<HTML>", "a web page"),
            (b"<?xml version=\"1.0\"?><svg/>", "SVG"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"Not Found", "text, not an image: \"Not Found\""),
            (b"P7\nWIDTH 1", "a portable arbitrary"),
            (b"\0\0\0\0", "nothing but zeros"),
            (b"\x01\x02\x03", "no image that is known"),
        ] {
            let error = of(bytes).unwrap_err().to_string();
            assert!(error.contains(want), "{error}: {want}");
        }
    }
}
