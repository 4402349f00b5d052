//! Strings of protocol 0, as Python writes them into lines.

use anyhow::{Context, Result, bail};

/// A string as Python 2's `repr` writes it.
pub fn unescaped(line: &str) -> Result<Vec<u8>> {
    let quoted = line.trim();
    let inner = ['\'', '"'].iter().find_map(|&quote| quoted.strip_prefix(quote)?.strip_suffix(quote));
    let mut rest = inner.context("a string without quotes")?.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, behind @ ..] = rest {
        let (byte, len) = match (first, behind) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'x', high, low, ..]) => (hex(&[*high, *low])? as u8, 4),
            (b'\\', [escaped @ (b'\\' | b'\'' | b'"'), ..]) => (*escaped, 2),
            (b'\\', _) => bail!("an escape that Python does not write"),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[len..];
    }
    Ok(bytes)
}

/// Latin-1, with `\uXXXX` and `\UXXXXXXXX` for what is not.
pub fn raw_unicode(mut line: &[u8]) -> Result<String> {
    let mut text = String::with_capacity(line.len());
    while let [first, behind @ ..] = line {
        let len = match (first, behind) {
            (b'\\', [b'u', ..]) => 6,
            (b'\\', [b'U', ..]) => 10,
            _ => 1,
        };
        let code = match line.get(2..len) {
            Some(digits) => hex(digits)?,
            None => u32::from(*first),
        };
        text.push(char::from_u32(code).context("half a surrogate pair")?);
        line = line.get(len..).context("a cut escape")?;
    }
    Ok(text)
}

fn hex(digits: &[u8]) -> Result<u32> {
    Ok(u32::from_str_radix(std::str::from_utf8(digits)?, 16)?)
}
