//! NumPy's `.npy`: a header, which is a Python dictionary, and an array as it lies in memory.
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
//!
//! The one crate that reads headers and is looked after, `npyz`, reads them by a grammar of all Python literals, and brings a
//! generator of parsers and integers of any size for it.

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;

use super::bytes::Bytes;
use super::pixels::{Layout, Pixels};

pub const MAGIC: &[u8] = b"\x93NUMPY";

/// The most that a header may have: NumPy itself refuses more.
const MAX_HEADER_BYTES: u32 = 10_000;

/// An array in a file.
pub struct Array {
    shape: Vec<usize>,
    /// As `numpy.dtype` writes it, such as `|u1` or `<i8`.
    dtype: String,
    /// Columns first.
    fortran: bool,
    data: Bytes,
}

impl Array {
    /// Reads the header.
    ///
    /// # Errors
    /// No `.npy`, a header that NumPy does not write, fewer or more bytes than the shape says.
    pub fn open(file: &Bytes) -> Result<Array> {
        let head = file.read(0, file.len().min(12) as usize)?;
        ensure!(head.starts_with(MAGIC) && head.len() >= 10, "not a whole .npy file");
        let (at, len) = match head[6] {
            1 => (10, u32::from(u16::from_le_bytes([head[8], head[9]]))),
            2 | 3 if head.len() == 12 => (12, u32::from_le_bytes([head[8], head[9], head[10], head[11]])),
            version => bail!("version {version} of .npy is not read; 1 to 3 are"),
        };
        ensure!(len <= MAX_HEADER_BYTES, "its header has {len} bytes, more than NumPy reads");
        let header = file.read(at, len as usize).context("not a whole .npy file")?;
        let header = std::str::from_utf8(&header).context("its header is no text")?;
        let field = |name: &str, value: &str| -> Result<String> {
            let found = Regex::new(&format!("['\"]{name}['\"]\\s*:\\s*{value}"))?.captures(header);
            let found = found
                .with_context(|| format!("its header has no `{name}` that is read: {}", header.trim()))?;
            Ok(found[1].to_string())
        };
        let dtype = field("descr", "['\"]([^'\"]*)['\"]")?;
        let fortran = field("fortran_order", "(True|False)")? == "True";
        let numbers = field("shape", "\\(([0-9L, ]*)\\)")?;
        let numbers = numbers.split(',').map(|n| n.trim().trim_end_matches('L')).filter(|n| !n.is_empty());
        let shape: Vec<usize> = numbers.map(str::parse).collect::<Result<_, _>>().context("its `shape`")?;
        let start = at + u64::from(len);
        let mut array = Array { shape, dtype, fortran, data: file.part(start, file.len() - start)? };
        let bytes =
            array.shape.iter().try_fold(array.item()?.1 as u64, |bytes, &n| bytes.checked_mul(n as u64));
        let there = array.data.len();
        ensure!(
            bytes == Some(there),
            "it has {there} bytes of data, and its shape {:?} of {} asks for {}; write it again",
            array.shape,
            array.dtype,
            bytes.map_or("more than there can be".to_string(), |bytes| bytes.to_string())
        );
        // Of one dimension, both orders are the same.
        array.fortran &= array.shape.iter().filter(|&&n| n > 1).count() > 1;
        Ok(array)
    }

    /// Kind and bytes of an element.
    fn item(&self) -> Result<(char, usize)> {
        let item = self.dtype.trim_start_matches(['<', '>', '|', '=']);
        let kind = item.chars().next().unwrap_or('?');
        let bytes = item.get(kind.len_utf8()..).and_then(|digits| digits.parse().ok());
        match bytes {
            Some(bytes) if "uifb".contains(kind) && (1..=16).contains(&bytes) => Ok((kind, bytes)),
            _ if kind == 'O' => bail!("it holds Python objects (dtype object), which are not read"),
            _ => bail!("its dtype {} is not read", self.dtype),
        }
    }

    /// Whether this may be images: `(N, H, W)` or `(N, H, W, C)` bytes.
    pub fn looks_like_images(&self) -> bool {
        self.dtype.ends_with("u1") && matches!(self.shape.len(), 3 | 4)
    }

    /// As images: uint8, `(N, H, W, 3)`, or grey `(N, H, W)` and `(N, H, W, 1)`.
    ///
    /// # Errors
    /// Another dtype, shape or order, named.
    pub fn images(&self) -> Result<Pixels> {
        let Array { shape, dtype, .. } = self;
        ensure!(
            dtype.ends_with("u1"),
            "its dtype is {dtype}; images are uint8, which no scaling has touched"
        );
        let (&[n, height, width], layout) = (match &shape[..] {
            [sizes @ .., 3] if sizes.len() == 3 => (sizes, Layout::Interleaved),
            [sizes @ .., 1] if sizes.len() == 3 => (sizes, Layout::Grey),
            sizes if sizes.len() == 3 => (sizes, Layout::Grey),
            [_, 3, _, _] => {
                bail!(
                    "its shape is {shape:?}, channels first; (N, H, W, 3) is read: np.moveaxis(images, 1, 3)"
                )
            }
            _ => bail!("its shape is {shape:?}; images are (N, H, W, 3), or (N, H, W) in grey"),
        }) else {
            bail!("its shape is {shape:?}");
        };
        ensure!(
            !self.fortran,
            "it is in Fortran order, which parts each image over the whole file; save np.ascontiguousarray(images)"
        );
        Pixels::new(self.data.clone(), n, (width, height), layout)
            .with_context(|| format!("its shape is {shape:?}"))
    }

    /// As labels: integers of any size, `(N,)` or `(N, 1)`.
    ///
    /// # Errors
    /// Another dtype or shape, named.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let Array { shape, dtype, .. } = self;
        let (kind, size) = self.item()?;
        ensure!(
            "ui".contains(kind) && [1, 2, 4, 8].contains(&size),
            "its dtype is {dtype}; labels are integers, a class's number an image"
        );
        ensure!(
            matches!(shape[..], [_] | [_, 1]),
            "its shape is {shape:?}; labels are (N,), a class's number an image"
        );
        let bytes = self.data.all()?;
        let big = dtype.starts_with('>');
        let number = |item: &[u8]| -> i64 {
            let fold = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
            let bits = match big {
                true => item.iter().fold(0, fold),
                false => item.iter().rev().fold(0, fold),
            };
            let unused = 64 - 8 * size as u32;
            match kind {
                'i' => (bits << unused) as i64 >> unused,
                // What is no class anyway stays none.
                _ => i64::try_from(bits).unwrap_or(i64::MAX),
            }
        };
        Ok(bytes.chunks_exact(size).map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Bytes {
        let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes()].concat();
        bytes.extend(header.bytes().chain(data.iter().copied()));
        Bytes::in_memory(bytes)
    }

    #[test]
    fn integers_of_every_kind() {
        for (dtype, data, want) in [
            ("|u1", &[7, 255][..], [7, 255]),
            ("|i1", &[7, 255], [7, -1]),
            ("<u2", &[7, 1, 255, 255], [263, 65535]),
            (">i2", &[1, 7, 255, 254], [263, -2]),
            ("<i8", &[9, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255], [9, -1]),
            (">u8", &[0, 0, 0, 0, 0, 0, 0, 9, 255, 0, 0, 0, 0, 0, 0, 0], [9, i64::MAX]),
        ] {
            for shape in ["(2,)", "(2, 1)", "(2L,)"] {
                let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
                assert_eq!(
                    Array::open(&npy(&header, data)).unwrap().integers().unwrap(),
                    want,
                    "{dtype} {shape}"
                );
            }
        }
    }

    #[test]
    fn faults_are_named() {
        let header = |dtype: &str, fortran: &str, shape: &str| {
            format!("{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
        };
        let images =
            |header: String, bytes: usize| Array::open(&npy(&header, &vec![0; bytes]))?.images().map(drop);
        let labels =
            |header: String, bytes: usize| Array::open(&npy(&header, &vec![0; bytes]))?.integers().map(drop);
        let cases = [
            (
                images(header("'|u1'", "False", "(2, 2, 2, 3)"), 23),
                "it has 23 bytes of data, and its shape [2, 2, 2, 3]",
            ),
            (images(header("'|u1'", "False", "(2, 2, 2, 3)"), 25), "it has 25 bytes of data"),
            (images(header("'|u1'", "True", "(2, 2, 2, 3)"), 24), "Fortran order"),
            (images(header("'<f4'", "False", "(2, 2, 2, 3)"), 96), "its dtype is <f4; images are uint8"),
            (images(header("'|u1'", "False", "(2, 3, 2, 2)"), 24), "channels first"),
            (images(header("'|u1'", "False", "(2, 2, 2, 4)"), 32), "its shape is [2, 2, 2, 4]; images are"),
            (images(header("'|u1'", "False", "(0, 2, 2, 3)"), 0), "no image"),
            (images(header("'|u1'", "False", "(1, 0, 2, 3)"), 0), "no pixels"),
            (images(header("'|u1'", "False", "(1, 1, 70000, 3)"), 210_000), "16000 pixels a side"),
            (images(header("'|u1'", "False", "(4294967296, 4294967296, 2, 3)"), 0), "more than there can be"),
            (images(header("[('a', '|u1')]", "False", "(2,)"), 2), "no `descr` that is read"),
            (images(header("'|O'", "False", "(2,)"), 2), "Python objects"),
            (images("{'shape': (2,)}".into(), 2), "no `descr`"),
            (labels(header("'<f8'", "False", "(2,)"), 16), "its dtype is <f8; labels are integers"),
            (labels(header("'|u1'", "False", "(2, 3)"), 6), "its shape is [2, 3]; labels are (N,)"),
            (labels(header("'|b1'", "False", "(2,)"), 2), "its dtype is |b1"),
            (
                Array::open(&Bytes::in_memory(b"\x93NUMPY\x01\0\xff\xff{".to_vec())).map(drop),
                "more than NumPy reads",
            ),
            (
                Array::open(&Bytes::in_memory(b"\x93NUMPY\x01\0\xff\0{".to_vec())).map(drop),
                "not a whole .npy",
            ),
            (Array::open(&Bytes::in_memory(b"\x93NUMPY\x09\0\xff\0{".to_vec())).map(drop), "version 9"),
        ];
        for (result, want) in cases {
            let error = format!("{:#}", result.expect_err(want));
            assert!(error.contains(want), "{error}");
        }
    }
}
