//! MATLAB's files of level 5, plain or compressed: arrays of numbers by their names.
//! <https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf>
//!
//! The crate for them, `matfile`, reads arrays of bytes into memory element by element, and has none of the checks that are here.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::ZlibDecoder;

use super::bytes::Bytes;

pub const MAGIC: &[u8] = b"MATLAB 5.0 MAT-file";

const HEADER_BYTES: u64 = 128;
/// The most that an element may have once it is inflated: SVHN's largest has 1.6 GB.
const MAX_ELEMENT_BYTES: u64 = 4 << 30;

// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// Classes of arrays that are numbers: from doubles to 64 bits without a sign.
const NUMBERS: std::ops::RangeInclusive<u8> = 6..=15;

/// An array, columns first.
pub struct Variable {
    pub name: String,
    pub shape: Vec<usize>,
    kind: u32,
    data: Bytes,
}

/// The arrays of numbers in a file.
///
/// # Errors
/// Another kind of file, a cut or damaged one, big-endian numbers.
pub fn read(file: &Bytes) -> Result<Vec<Variable>> {
    let head = file.read(0, HEADER_BYTES.min(file.len()) as usize)?;
    ensure!(
        head.starts_with(MAGIC) && head.len() as u64 == HEADER_BYTES,
        "not a MATLAB file of level 5 (level 7.3 is HDF5, which is not read: save it with -v7)"
    );
    ensure!(&head[126..] == b"IM", "its numbers are big-endian, or it is damaged");
    let mut variables = Vec::new();
    let mut at = HEADER_BYTES;
    while at < file.len() {
        let (element, next) = element(file, at).with_context(|| format!("at byte {at}"))?;
        let matrix = match element.kind {
            COMPRESSED => {
                let mut whole = Vec::new();
                let inflated =
                    ZlibDecoder::new(element.data.reader()).take(MAX_ELEMENT_BYTES).read_to_end(&mut whole);
                inflated.with_context(|| format!("the compressed variable at byte {at} is damaged"))?;
                let whole = Bytes::in_memory(whole);
                self::element(&whole, 0).with_context(|| format!("the compressed variable at byte {at}"))?.0
            }
            _ => element,
        };
        if matrix.kind == MATRIX {
            variables.extend(variable(&matrix.data).with_context(|| format!("the variable at byte {at}"))?);
        }
        at = next;
    }
    Ok(variables)
}

struct Element {
    kind: u32,
    data: Bytes,
}

/// The element at a place, and where the next is.
fn element(from: &Bytes, at: u64) -> Result<(Element, u64)> {
    let tag = from.read(at, 8).context("it is cut")?;
    let word =
        |start: usize| u32::from_le_bytes([tag[start], tag[start + 1], tag[start + 2], tag[start + 3]]);
    let (kind, len) = (word(0), word(4));
    // Up to four bytes lie in the tag itself.
    if kind >> 16 != 0 {
        let len = kind >> 16;
        ensure!(len <= 4, "an element of {len} bytes in its tag");
        return Ok((Element { kind: kind & 0xffff, data: from.part(at + 4, len.into())? }, at + 8));
    }
    let data = from.part(at + 8, len.into()).context("it is cut")?;
    let padded = if kind == COMPRESSED { u64::from(len) } else { u64::from(len).next_multiple_of(8) };
    Ok((Element { kind, data }, at + 8 + padded))
}

/// An array of numbers; `None` for all else: texts, cells, structs.
fn variable(matrix: &Bytes) -> Result<Option<Variable>> {
    let (flags, at) = element(matrix, 0)?;
    let flags = flags.data.all()?;
    ensure!(flags.len() == 8, "its flags have {} bytes", flags.len());
    let (class, is_complex) = (flags[0], flags[1] & 8 != 0);
    if !NUMBERS.contains(&class) || is_complex {
        return Ok(None);
    }
    let (shape, at) = element(matrix, at)?;
    let size = |bytes: &[u8]| {
        let size = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(size).with_context(|| format!("it has a side of {size}"))
    };
    let shape = shape.data.all()?.chunks_exact(4).map(size).collect::<Result<Vec<_>>>()?;
    let (name, at) = element(matrix, at)?;
    let name = String::from_utf8_lossy(&name.data.all()?).into_owned();
    let (Element { kind, data }, _) = element(matrix, at)?;
    let variable = Variable { name, shape, kind, data };
    let wanted =
        variable.shape.iter().try_fold(variable.item()? as u64, |bytes, &n| bytes.checked_mul(n as u64));
    ensure!(
        wanted == Some(variable.data.len()),
        "`{}` has {} bytes, and its shape is {:?}",
        variable.name,
        variable.data.len(),
        variable.shape
    );
    Ok(Some(variable))
}

impl Variable {
    /// Bytes of a number as it is stored, which may be smaller than the array's own.
    fn item(&self) -> Result<usize> {
        Ok(match self.kind {
            INT8 | UINT8 => 1,
            INT16 | UINT16 => 2,
            INT32 | UINT32 | SINGLE => 4,
            DOUBLE | INT64 | UINT64 => 8,
            other => bail!("`{}` is stored as type {other}, which is none of numbers", self.name),
        })
    }

    /// Where its numbers lie, if they are uint8.
    ///
    /// # Errors
    /// If they are not.
    pub fn bytes(&self) -> Result<Bytes> {
        ensure!(self.kind == UINT8, "it is not uint8");
        Ok(self.data.clone())
    }

    /// Its numbers.
    ///
    /// # Errors
    /// Fractions.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let (kind, size) = (self.kind, self.item()?);
        let number = |item: &[u8]| -> Option<i64> {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(item);
            let bits = u64::from_le_bytes(bytes);
            let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64);
            match kind {
                INT8 => Some((bits as i8).into()),
                INT16 => Some((bits as i16).into()),
                INT32 => Some((bits as i32).into()),
                SINGLE => whole(f32::from_bits(bits as u32).into()),
                DOUBLE => whole(f64::from_bits(bits)),
                _ => i64::try_from(bits).ok(),
            }
        };
        let numbers = self.data.all()?.chunks_exact(size).map(number).collect::<Option<_>>();
        numbers.context("its numbers are not whole")
    }
}
