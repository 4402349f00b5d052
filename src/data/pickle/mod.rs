//! Python's pickles of plain values and of NumPy's arrays, in every protocol, 0 to 5.
//!
//! A pickle is a program. Here it fills a table, of at most a value an instruction; it calls nothing and builds nothing
//! else, so that none can do harm: what it would call stands in the table by name.

mod text;

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use self::text::{raw_unicode, unescaped};

/// Instructions at most: CIFAR's files have some hundred thousand.
const MOST_INSTRUCTIONS: usize = 1 << 20;

/// A value; others are numbers in the table.
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
    Tuple(Vec<usize>),
    List(Vec<usize>),
    /// Keys and values in turn.
    Dict(Vec<usize>),
    /// `module.name`
    Global(String),
    /// What a global makes of arguments, and the state that it is given afterwards.
    Made {
        global: String,
        arguments: usize,
        state: Option<usize>,
    },
}

/// A pickle's values.
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    top: usize,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct At<'p> {
    pickle: &'p Pickle<'p>,
    at: usize,
}

/// A NumPy array, as it lies in a pickle.
pub struct Array<'p> {
    pub shape: Vec<usize>,
    /// Of its little-endian elements: `u1`, `i8` and so on.
    pub dtype: String,
    /// Whether the first index is the fastest.
    pub fortran: bool,
    pub bytes: Cow<'p, [u8]>,
}

impl<'a> Pickle<'a> {
    /// # Errors
    /// A pickle that is cut, or that holds more than plain values and arrays.
    pub fn read(bytes: &'a [u8]) -> Result<Pickle<'a>> {
        let mut machine = Machine { rest: bytes, ..Machine::default() };
        let top = machine.run().with_context(|| format!("at byte {}", bytes.len() - machine.rest.len()))?;
        Ok(Pickle { values: machine.values, top })
    }

    pub fn top(&'a self) -> At<'a> {
        At { pickle: self, at: self.top }
    }
}

impl<'p> At<'p> {
    fn value(self) -> &'p Value<'p> {
        &self.pickle.values[self.at]
    }

    fn other(self, at: usize) -> At<'p> {
        At { at, ..self }
    }

    /// A dict's value by a key that Python 2 or 3 wrote.
    pub fn field(self, name: &str) -> Result<At<'p>> {
        let Value::Dict(pairs) = self.value() else { bail!("a pickle, but not of a dict") };
        let pair =
            pairs.chunks_exact(2).rev().find(|pair| self.other(pair[0]).text().as_deref() == Some(name));
        Ok(self.other(pair.with_context(|| format!("it has no `{name}`"))?[1]))
    }

    pub fn text(self) -> Option<Cow<'p, str>> {
        match (self.plain(), self.bytes()?) {
            (Some(text), _) => Some(Cow::Borrowed(text)),
            (_, Cow::Borrowed(bytes)) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            (_, Cow::Owned(bytes)) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    /// Text that was written as text.
    fn plain(self) -> Option<&'p str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn int(self) -> Option<i64> {
        match self.value() {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn list(self) -> Option<Vec<At<'p>>> {
        match self.value() {
            Value::List(list) | Value::Tuple(list) => Some(list.iter().map(|&at| self.other(at)).collect()),
            _ => None,
        }
    }

    /// Of a list of ints or an array of any of NumPy's.
    pub fn ints(self) -> Option<Vec<i64>> {
        if let Some(list) = self.list() {
            return list.into_iter().map(At::int).collect();
        }
        let Array { shape, dtype, bytes, .. } = self.array()?;
        let (signed, len) = (dtype.starts_with('i'), dtype.get(1..)?.parse::<usize>().ok()?);
        let fits = "iu".contains(&dtype[..1]) && (1..=8).contains(&len) && shape == [bytes.len() / len];
        let int = |bytes: &[u8]| {
            let negative = signed && bytes[len - 1] >= 0x80;
            let mut all = [if negative { 0xff } else { 0 }; 8];
            all[..len].copy_from_slice(bytes);
            i64::from_le_bytes(all)
        };
        fits.then(|| bytes.chunks_exact(len).map(int).collect())
    }

    pub fn array(self) -> Option<Array<'p>> {
        let Value::Made { global, arguments, state } = self.value() else { return None };
        // Of protocol 5, and of those before: numpy.core.multiarray, and numpy._core.multiarray since NumPy 2.
        let (shape, dtype, fortran, data) = if global.ends_with("._frombuffer") {
            let [data, dtype, shape, order] = self.other(*arguments).list()?.try_into().ok()?;
            (shape, dtype, order.text()?.as_ref() == "F", data)
        } else if global.ends_with("multiarray._reconstruct") {
            let [_, shape, dtype, fortran, data] = self.other((*state)?).list()?.try_into().ok()?;
            (shape, dtype, matches!(fortran.value(), Value::Bool(true)), data)
        } else {
            return None;
        };
        let shape = shape.list()?; // an array could have itself for its shape
        let shape = shape.into_iter().map(|side| usize::try_from(side.int()?).ok()).collect::<Option<_>>()?;
        Some(Array { shape, dtype: dtype.dtype()?, fortran, bytes: data.bytes()? })
    }

    fn dtype(self) -> Option<String> {
        let Value::Made { global, arguments, state } = self.value() else { return None };
        let order = self.other((*state)?).list()?.get(1)?.text()?;
        let name = self.other(*arguments).list()?.first()?.text()?;
        (global == "numpy.dtype" && order.as_ref() != ">").then(|| name.to_string())
    }

    fn bytes(self) -> Option<Cow<'p, [u8]>> {
        match self.value() {
            Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            // How Python 3 writes bytes for Python 2.
            Value::Made { global, arguments, .. } if global == "_codecs.encode" => {
                let [text, encoding] = self.other(*arguments).list()?.try_into().ok()?;
                let latin = |c: char| u8::try_from(u32::from(c)).ok();
                let bytes = text.plain()?.chars().map(latin).collect::<Option<Vec<u8>>>()?;
                encoding.plain()?.starts_with("latin").then_some(Cow::Owned(bytes))
            }
            _ => None,
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: HashMap<u64, usize>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<usize> {
        for _ in 0..MOST_INSTRUCTIONS {
            let code = self.byte()?;
            match code {
                0x80 => drop(self.byte()?),    // PROTO
                0x95 => drop(self.number(8)?), // FRAME
                b'(' => self.marks.push(self.stack.len()),
                b'.' => return self.pop(),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.marked()?),
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Bool(true)),
                0x89 => self.push(Value::Bool(false)),
                b'I' => {
                    let value = match self.line()? {
                        "00" => Value::Bool(false),
                        "01" => Value::Bool(true),
                        int => Value::Int(int.parse()?),
                    };
                    self.push(value);
                }
                b'L' => {
                    let int = self.line()?.trim_end_matches('L').parse()?;
                    self.push(Value::Int(int));
                }
                b'J' => {
                    let int = self.number(4)? as u32 as i32;
                    self.push(Value::Int(int.into()));
                }
                b'K' => self.push_int(1)?,
                b'M' => self.push_int(2)?,
                0x8a => {
                    let bytes = self.counted(1)?;
                    ensure!(bytes.len() <= 8, "a number of {} bytes", bytes.len());
                    let mut all = [if bytes.last() >= Some(&0x80) { 0xff } else { 0 }; 8];
                    all[..bytes.len()].copy_from_slice(bytes);
                    self.push(Value::Int(i64::from_le_bytes(all)));
                }
                b'U' | b'C' => self.push_bytes(1)?,
                b'T' | b'B' => self.push_bytes(4)?,
                0x8e | 0x96 => self.push_bytes(8)?,
                b'S' => {
                    let bytes = unescaped(self.line()?)?;
                    self.push(Value::Bytes(bytes.into()));
                }
                0x8c => self.push_text(1)?,
                b'X' => self.push_text(4)?,
                0x8d => self.push_text(8)?,
                b'V' => {
                    let text = raw_unicode(self.line_bytes()?)?;
                    self.push(Value::Text(text.into()));
                }
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let from = self.stack.len().checked_sub(count).context("it takes what is not there")?;
                    let items = self.stack.split_off(from);
                    self.push(Value::Tuple(items));
                }
                b't' => {
                    let items = self.marked()?;
                    self.push(Value::Tuple(items));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'l' => {
                    let items = self.marked()?;
                    self.push(Value::List(items));
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b'd' => {
                    let items = self.marked()?;
                    self.push(Value::Dict(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend([item])?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend([key, value])?;
                }
                b'e' | b'u' => {
                    let items = self.marked()?;
                    self.extend(items)?;
                }
                b'p' => {
                    let place = self.line()?.parse()?;
                    self.keep(place)?;
                }
                b'q' | b'r' => {
                    let place = self.number(if code == b'q' { 1 } else { 4 })?;
                    self.keep(place)?;
                }
                0x94 => self.keep(self.memo.len() as u64)?,
                b'g' => {
                    let place = self.line()?.parse()?;
                    self.fetch(place)?;
                }
                b'h' | b'j' => {
                    let place = self.number(if code == b'h' { 1 } else { 4 })?;
                    self.fetch(place)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push_global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name])
                    else {
                        bail!("a global without a name");
                    };
                    let (module, name) = (module.clone(), name.clone());
                    self.push_global(&module, &name)?;
                }
                b'R' => {
                    let (arguments, global) = (self.pop()?, self.pop()?);
                    let Value::Global(global) = &self.values[global] else {
                        bail!("it calls what is no global")
                    };
                    let made = Value::Made { global: global.clone(), arguments, state: None };
                    self.push(made);
                }
                b'b' => {
                    let (state, made) = (self.pop()?, *self.stack.last().context("a state of nothing")?);
                    match &mut self.values[made] {
                        Value::Made { state: own, .. } => *own = Some(state),
                        _ => bail!("a state of what has none"),
                    }
                }
                _ => bail!("instruction {code:#04x}, which plain values and arrays do not need"),
            }
        }
        bail!("more than {MOST_INSTRUCTIONS} instructions")
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).context("it is cut")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, len: usize) -> Result<u64> {
        let mut all = [0; 8];
        all[..len].copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(all))
    }

    /// Bytes behind their number, which has so many bytes.
    fn counted(&mut self, len: usize) -> Result<&'a [u8]> {
        let count = self.number(len)?;
        self.take(usize::try_from(count).context("it is cut")?)
    }

    fn line_bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.rest.iter().position(|&byte| byte == b'\n').context("it is cut")?;
        let line = self.take(len)?;
        self.byte()?;
        Ok(line)
    }

    fn line(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.line_bytes()?).context("a line that is not UTF-8")
    }

    /// By a short name: what it makes is told by it, each time.
    fn push_global(&mut self, module: &str, name: &str) -> Result<()> {
        ensure!(
            module.len() + name.len() <= 200,
            "a global with a name of {} bytes",
            module.len() + name.len()
        );
        self.push(Value::Global(format!("{module}.{name}")));
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn push_int(&mut self, len: usize) -> Result<()> {
        let int = self.number(len)? as i64;
        self.push(Value::Int(int));
        Ok(())
    }

    fn push_bytes(&mut self, len: usize) -> Result<()> {
        let bytes = self.counted(len)?;
        self.push(Value::Bytes(bytes.into()));
        Ok(())
    }

    fn push_text(&mut self, len: usize) -> Result<()> {
        let text = std::str::from_utf8(self.counted(len)?).context("text that is not UTF-8")?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn pop(&mut self) -> Result<usize> {
        self.stack.pop().context("it takes what is not there")
    }

    /// What lies on the stack from the last mark on.
    fn marked(&mut self) -> Result<Vec<usize>> {
        let mark = self.marks.pop().context("it takes from a mark that is not there")?;
        ensure!(mark <= self.stack.len(), "it takes what is not there");
        Ok(self.stack.split_off(mark))
    }

    /// Adds to the list or dict on top.
    fn extend(&mut self, items: impl IntoIterator<Item = usize>) -> Result<()> {
        match &mut self.values[*self.stack.last().context("it adds to nothing")?] {
            Value::List(list) | Value::Dict(list) => list.extend(items),
            _ => bail!("it adds to what is neither list nor dict"),
        }
        Ok(())
    }

    fn keep(&mut self, place: u64) -> Result<()> {
        self.memo.insert(place, *self.stack.last().context("it keeps what is not there")?);
        Ok(())
    }

    fn fetch(&mut self, place: u64) -> Result<()> {
        self.stack.push(*self.memo.get(&place).context("it fetches what it has not kept")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_is_its_own_shape_is_no_array() {
        // numpy.core.multiarray._reconstruct(), with the state (1, itself, 2, False, b"").
        let bytes = b"cnumpy.core.multiarray\n_reconstruct\n)Rq\x00(K\x01h\x00K\x02\x89C\x00tb.";
        let pickle = Pickle::read(bytes).unwrap();
        assert!(pickle.top().array().is_none() && pickle.top().ints().is_none());
    }

    #[test]
    fn what_is_deep_or_used_again_costs_a_value_each() {
        let deep = [&b"]".repeat(100_000)[..], &b"a".repeat(99_999), b"."].concat();
        assert_eq!(Pickle::read(&deep).unwrap().values.len(), 100_000);
        // x = [], then sixty times x = (x, x).
        let again: Vec<u8> = (0..60).flat_map(|i| [b'h', i, 0x86, b'q', i + 1]).collect();
        let doubled = [&b"]q\x00"[..], &again, b"."].concat();
        assert_eq!(Pickle::read(&doubled).unwrap().values.len(), 61);
    }

    #[test]
    fn bounds_are_named() {
        let global = |len| [b"c", &b"m".repeat(len)[..], b"\nn\n."].concat();
        Pickle::read(&global(199)).map(drop).unwrap();
        let cases: [(Vec<u8>, &str); 4] = [
            (global(200), "a global with a name of 201 bytes"),
            (b"X\xff\xff\xff\xffabc.".to_vec(), "it is cut"),
            (b"N".repeat(MOST_INSTRUCTIONS), "instructions"),
            (b"\x8a\x09123456789.".to_vec(), "a number of 9 bytes"),
        ];
        for (bytes, want) in cases {
            let error = format!("{:#}", Pickle::read(&bytes).map(drop).unwrap_err());
            assert!(error.contains(want), "{error}, not {want}");
        }
    }
}
