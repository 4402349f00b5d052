//! Pickles, judged before the crate that reads them sees them: an object that lies as deep as the file is long, or that is used again
//! and again in another one, would end the program or fill its memory.
//!
//! Opcodes and their arguments are those of Python's `pickletools` (protocols 0 to 5). Nothing is built: of each object only its depth
//! and its size are kept.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Deeper than any data of arrays, lists and names.
const MOST_DEPTH: u32 = 32;
/// Objects may be used again, up to so many times the file's length in all.
const MOST_GROWTH: usize = 4;
/// Digits of a number, or bytes of a binary one.
const MOST_DIGITS: usize = 40;

/// What is known of an object.
#[derive(Clone, Copy)]
struct Object {
    /// Of containers inside each other.
    depth: u32,
    /// Bytes of its text, and one for each object in it.
    size: usize,
    /// Used again: a change would change what has it already.
    is_shared: bool,
}

/// Refuses a pickle that is cut, that is no data, or that would grow.
///
/// # Errors
/// What it is, and where.
pub fn check(bytes: &[u8]) -> Result<()> {
    let most_size = bytes.len().saturating_mul(MOST_GROWTH).saturating_add(1 << 16);
    let mut machine = Machine { bytes, most_size, ..Machine::default() };
    while machine.step().with_context(|| format!("byte {}", machine.opcode_at))? {}
    Ok(())
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    most_size: usize,
    objects: Vec<Object>,
    /// Places of objects.
    stack: Vec<usize>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<usize, usize>,
}

impl<'a> Machine<'a> {
    /// Does what the next opcode says; false at the end.
    fn step(&mut self) -> Result<bool> {
        self.opcode_at = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(&height) if height == self.stack.len() => self.marks.truncate(self.marks.len() - 1),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.stack.push(top);
                self.share(top);
            }
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),

            // Numbers, None, True and False.
            b'N' | 0x88 | 0x89 => self.push_leaf(0),
            b'K' => self.push_leaf_of(1)?,
            b'M' => self.push_leaf_of(2)?,
            b'J' => self.push_leaf_of(4)?,
            b'G' => self.push_leaf_of(8)?,
            b'I' | b'L' | b'F' => {
                let digits = self.line()?.len();
                ensure!(digits <= MOST_DIGITS, "a number of {digits} digits; {MOST_DIGITS} are the most");
                self.push_leaf(digits);
            }
            0x8a | 0x8b => {
                let len = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                ensure!(len <= MOST_DIGITS, "a number of {len} bytes; {MOST_DIGITS} are the most");
                self.push_leaf_of(len)?;
            }

            // Text and bytes.
            b'S' | b'V' => {
                let len = self.line()?.len();
                self.push_leaf(len);
            }
            b'U' | b'C' | 0x8c => self.push_text(1)?,
            b'T' | b'B' | b'X' => self.push_text(4)?,
            0x8d | 0x8e | 0x96 => self.push_text(8)?,

            // Functions and classes, by name.
            b'c' => {
                let len = self.line()?.len() + self.line()?.len();
                self.push_leaf(len);
            }

            // Containers and what is called: each has all that it is made of.
            b'}' | b']' | b')' | 0x8f => self.push(&[])?,
            0x93 | b'R' | 0x81 => self.push_of(2)?,
            0x92 | 0x87 => self.push_of(3)?,
            0x85 => self.push_of(1)?,
            0x86 => self.push_of(2)?,
            b't' | b'l' | b'd' | 0x91 => {
                let parts = self.pop_to_mark()?;
                self.push(&parts)?;
            }
            b'a' | b'b' => self.add(1)?,
            b's' => self.add(2)?,
            b'e' | b'u' | 0x90 => {
                let parts = self.pop_to_mark()?;
                self.add_all(&parts)?;
            }

            // The memo.
            b'p' => {
                let id = self.line_number()?;
                self.remember(id)?;
            }
            b'q' | b'r' => {
                let id = self.length(if opcode == b'q' { 1 } else { 4 })?;
                self.remember(id)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'g' => {
                let id = self.line_number()?;
                self.recall(id)?;
            }
            b'h' | b'j' => {
                let id = self.length(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(id)?;
            }
            _ => bail!("opcode {opcode:#04x}, which no data of arrays, lists and names has"),
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.with_context(|| format!("it is cut: {len} bytes are expected here"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A line without its end.
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').context("it is cut: a line has no end")?;
        Ok(&self.take(len + 1)?[..len])
    }

    fn line_number(&mut self) -> Result<usize> {
        let line = String::from_utf8_lossy(self.line()?);
        line.trim().parse().with_context(|| format!("{line:?} is no place of the memo"))
    }

    /// A number of so many bytes, the lowest first.
    fn length(&mut self, width: usize) -> Result<usize> {
        let mut number = [0; 8];
        number[..width].copy_from_slice(self.take(width)?);
        Ok(usize::try_from(u64::from_le_bytes(number))?)
    }

    fn push_leaf(&mut self, bytes: usize) {
        self.stack.push(self.objects.len());
        self.objects.push(Object { depth: 0, size: 1 + bytes, is_shared: false });
    }

    fn push_leaf_of(&mut self, bytes: usize) -> Result<()> {
        self.take(bytes)?;
        self.push_leaf(bytes);
        Ok(())
    }

    /// Text whose length comes first, in so many bytes.
    fn push_text(&mut self, width: usize) -> Result<()> {
        let len = self.length(width)?;
        self.push_leaf_of(len)
    }

    /// An object of the last so many.
    fn push_of(&mut self, count: usize) -> Result<()> {
        let parts = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        self.push(&parts)
    }

    fn push(&mut self, parts: &[usize]) -> Result<()> {
        self.push_leaf(0);
        self.add_all(parts)
    }

    /// Puts the last so many into the one before them.
    fn add(&mut self, count: usize) -> Result<()> {
        let parts = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        self.add_all(&parts)
    }

    /// Puts these into the last one.
    fn add_all(&mut self, parts: &[usize]) -> Result<()> {
        let whole = *self.stack.last().context("it has nothing to put an object into")?;
        let mut object = self.objects[whole];
        ensure!(!object.is_shared, "an object that changes once it is used in another one");
        for &part in parts {
            let Object { depth, size, .. } = self.objects[part];
            object.depth = object.depth.max(depth + 1);
            object.size = object.size.saturating_add(size);
        }
        ensure!(object.depth <= MOST_DEPTH, "objects more than {MOST_DEPTH} deep inside each other");
        ensure!(
            object.size <= self.most_size,
            "objects are used again and again: whole, it is over {} bytes",
            self.most_size
        );
        self.objects[whole] = object;
        Ok(())
    }

    fn pop(&mut self) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        ensure!(self.stack.len() > floor, "it takes an object that is not there");
        Ok(self.stack.remove(self.stack.len() - 1))
    }

    /// All since the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<usize>> {
        let height = self.marks.pop().context("it goes back to a mark that it has not set")?;
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }

    fn remember(&mut self, id: usize) -> Result<()> {
        let top = *self.stack.last().context("it remembers an object that is not there")?;
        self.memo.insert(id, top);
        Ok(())
    }

    fn recall(&mut self, id: usize) -> Result<()> {
        let known = *self.memo.get(&id).with_context(|| format!("object {id} is not in its memo"))?;
        self.share(known);
        Ok(())
    }

    fn share(&mut self, object: usize) {
        self.objects[object].is_shared = true;
        self.stack.push(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_passes() {
        // pickle.dumps({"a": [1, 2.5, None, True], b"b": ("x", "x")}, protocol) of CPython 3.12, protocols 0, 2 and 4.
        let zero = b"(dp0\nVa\np1\n(lp2\nI1\naF2.5\naNaI01\nasc_codecs\nencode\np3\n(Vb\np4\nVlatin1\np5\ntp6\nRp7\n(Vx\np8\ng8\ntp9\ns.";
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88eC\x01bq\x03X\x01\x00\x00\x00xq\x04h\x04\x86q\x05u.";
        let four = b"\x80\x04\x95\x22\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88eC\x01b\x94\x8c\x01x\x94h\x04\x86\x94u.";
        for bytes in [&zero[..], two, four] {
            check(bytes).unwrap();
            for cut in 0..bytes.len() {
                check(&bytes[..cut]).unwrap_err();
            }
        }
    }

    /// So many lists, each in the one before it.
    fn nested(depth: usize) -> Vec<u8> {
        [&b"]".repeat(depth)[..], &b"a".repeat(depth - 1), b"."].concat()
    }

    /// `x = [text]`, then so often `x = (x, x)`.
    fn doubled(times: u8) -> Vec<u8> {
        let mut bytes = b"](X\xff\x00\x00\x00".to_vec();
        bytes.extend([b'x'; 255]);
        bytes.extend(b"eq\x00");
        (0..times).for_each(|i| bytes.extend([b'h', i, 0x86, b'q', i + 1]));
        bytes.push(b'.');
        bytes
    }

    #[test]
    fn what_would_grow_is_refused() {
        check(&nested(MOST_DEPTH as usize + 1)).unwrap();
        check(&doubled(7)).unwrap();
        let number = |digits| [&b"I"[..], &vec![b'1'; digits], b"\n."].concat();
        check(&number(MOST_DIGITS)).unwrap();
        let cases: [(Vec<u8>, &str); 7] = [
            (nested(MOST_DEPTH as usize + 2), "byte 66: objects more than 32 deep"),
            (doubled(9), "used again and again"),
            (number(MOST_DIGITS + 1), "byte 0: a number of 41 digits"),
            (b"]q\x00h\x00a.".to_vec(), "an object that changes once it is used"),
            (b"X\xff\xff\xff\xffabc.".to_vec(), "it is cut: 4294967295 bytes"),
            (b"cos\nsystem\n(S'x'\no.".to_vec(), "opcode 0x6f"),
            (b"h\x05.".to_vec(), "object 5 is not in its memo"),
        ];
        for (bytes, want) in cases {
            let error = format!("{:#}", check(&bytes).unwrap_err());
            assert!(error.contains(want), "{error}, not {want}");
        }
    }
}
