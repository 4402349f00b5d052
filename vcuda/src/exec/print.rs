//! `printf` and the text of a failed `assert`: what device code calls `vprintf` and `__assertfail`
//! (CUDA C++ Programming Guide, 10.34 and 10.35).

use std::ffi::{CString, c_char};

use super::check::Kind;
use super::fault::FaultKind;
use super::op::{Body, Flow, Op};
use super::registers::{LANES, lanes_of};
use super::space::{GENERIC, LOCAL};
use super::warp::Warp;

/// Bytes of a string that is printed, and of a number, at most.
const MAX_BYTES: usize = 1 << 16;

/// `vprintf(format, arguments)`: their addresses are in local memory where slots `a` and `b` say, the
/// result goes where `c` says.
pub struct Print;
impl Body for Print {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the operands narrow slots.
        let places = unsafe { [op.a, op.b, op.c].map(|slot| warp.lanes::<u32>(slot)) };
        for lane in lanes_of(warp.mask) {
            let [format, arguments, result] = places.map(|place| u64::from(place[lane]));
            if print(warp, lane, format, arguments, result).is_none() {
                return Flow::Fault;
            }
        }
        Flow::Next
    }
}

fn print(warp: &mut Warp, lane: usize, format: u64, arguments: u64, result: u64) -> Option<()> {
    let format: u64 = load::<LOCAL>(warp, lane, format)?;
    let arguments: u64 = load::<LOCAL>(warp, lane, arguments)?;
    let format = string(warp, lane, format)?;
    let mut arguments = Arguments { warp, lane, at: arguments, count: 0 };
    let text = arguments.format(&format)?;
    let count = arguments.count;
    let place = warp.pointer::<LOCAL>(lane, result, 4, 4)?;
    warp.access(lane, place, 4, Kind::Write)?;
    // SAFETY: checked just now.
    unsafe { *place.cast::<u32>() = count };
    warp.cta.grid.output.push(warp.cta.index.get(), text);
    Some(())
}

/// A value in memory; `None` after a fault.
pub fn load<const SPACE: u8>(warp: &mut Warp, lane: usize, address: u64) -> Option<u64> {
    let from = warp.pointer::<SPACE>(lane, address, 8, 8)?;
    // SAFETY: checked just now.
    Some(unsafe { *from.cast::<u64>() })
}

/// A string that ends in NUL, without it.
fn string(warp: &mut Warp, lane: usize, address: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < MAX_BYTES {
        let from = warp.pointer::<GENERIC>(lane, address.wrapping_add(text.len() as u64), 1, 1)?;
        // SAFETY: checked just now.
        match unsafe { *from } {
            0 => break,
            byte => text.push(byte),
        }
    }
    Some(text)
}

/// The arguments of one call, each at a multiple of its size.
struct Arguments<'a, 'b> {
    warp: &'a mut Warp<'b>,
    lane: usize,
    at: u64,
    count: u32,
}

impl Arguments<'_, '_> {
    fn next(&mut self, bytes: u64) -> Option<u64> {
        let at = self.at.wrapping_add(bytes - 1) & !(bytes - 1);
        (self.at, self.count) = (at.wrapping_add(bytes), self.count + 1);
        let from = self.warp.pointer::<GENERIC>(self.lane, at, bytes, bytes)?;
        // SAFETY: checked just now.
        Some(unsafe {
            match bytes {
                4 => (*from.cast::<i32>()) as u64,
                _ => *from.cast::<u64>(),
            }
        })
    }

    /// The text of `format` with the arguments in it; `None` after a fault.
    fn format(&mut self, format: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(format.len());
        let mut rest = format;
        while let Some(start) = rest.iter().position(|&byte| byte == b'%') {
            out.extend_from_slice(&rest[..start]);
            let (spec, after) = self.specification(&rest[start..])?;
            rest = after;
            let Some((&conversion, flags)) = spec.split_last() else { break };
            let long = flags.iter().any(|byte| b"ljztL".contains(byte));
            // Widths are a few digits; C's library would fill gigabytes with the zeros of a larger one.
            let wide = flags.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 4);
            match conversion {
                _ if wide => out.extend_from_slice(&spec),
                b'%' => out.push(b'%'),
                b'd' | b'i' | b'o' | b'u' | b'x' | b'X' if long => {
                    let value = self.next(8)?;
                    number(&mut out, flags, &[b'l', b'l', conversion], value as i64);
                }
                b'd' | b'i' | b'o' | b'u' | b'x' | b'X' | b'c' => {
                    let value = self.next(4)? as i32;
                    // `h` and `hh` narrow the int that was passed.
                    let narrow: Vec<u8> = flags.iter().copied().filter(|&byte| byte == b'h').collect();
                    number(&mut out, flags, &[&narrow, &[conversion][..]].concat(), value);
                }
                b'e' | b'E' | b'f' | b'F' | b'g' | b'G' | b'a' | b'A' => {
                    let value = f64::from_bits(self.next(8)?);
                    number(&mut out, flags, &[conversion], value);
                }
                b'p' => {
                    let value = self.next(8)?;
                    number(&mut out, flags, b"p", value);
                }
                b's' => {
                    let address = self.next(8)?;
                    let text = CString::new(string(self.warp, self.lane, address)?).unwrap_or_default();
                    number(&mut out, flags, b"s", text.as_ptr());
                }
                // What CUDA does not know it prints as it stands.
                _ => {
                    out.extend_from_slice(&spec);
                }
            }
        }
        out.extend_from_slice(rest);
        Some(out)
    }

    /// A conversion specification, from its `%` to its letter, with numbers in the place of `*`; and what
    /// comes after it.
    fn specification<'f>(&mut self, text: &'f [u8]) -> Option<(Vec<u8>, &'f [u8])> {
        let mut spec = vec![b'%'];
        for (i, &byte) in text.iter().enumerate().skip(1) {
            match byte {
                b'*' => spec.extend(format!("{}", self.next(4)? as i32).bytes()),
                _ => spec.push(byte),
            }
            if !b"-+ #0123456789.*hljztL".contains(&byte) {
                return Some((spec, &text[i + 1..]));
            }
        }
        Some((spec, &[]))
    }
}

/// Appends what C's `snprintf` makes of a value under `%`, the flags, width and precision among `flags`, and
/// the length and letter in `conversion`.
fn number<T: Copy>(out: &mut Vec<u8>, flags: &[u8], conversion: &[u8], value: T) {
    let kept = flags.iter().copied().filter(|byte| !b"hljztL".contains(byte));
    let Ok(spec) = CString::new(kept.chain(conversion.iter().copied()).collect::<Vec<u8>>()) else { return };
    let mut buffer = vec![0u8; 128];
    for _ in 0..2 {
        // SAFETY: the specification takes one argument of the type that the caller chose with its letter, and
        // the buffer has the length that is given.
        let length = unsafe {
            libc::snprintf(buffer.as_mut_ptr().cast::<c_char>(), buffer.len(), spec.as_ptr(), value)
        };
        let length = usize::try_from(length).unwrap_or(0).min(MAX_BYTES);
        if length < buffer.len() {
            return out.extend_from_slice(&buffer[..length]);
        }
        buffer.resize(length + 1, 0);
    }
}

/// `__assertfail(message, file, line, function, …)`: each is in local memory where a slot says.
pub struct AssertFail;
impl Body for AssertFail {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave the operands narrow slots.
        let places = unsafe { [op.a, op.b, op.c, op.e].map(|slot| warp.lanes::<u32>(slot)) };
        let lane = warp.mask.trailing_zeros() as usize % LANES;
        if let Some(message) = assertion(warp, lane, places.map(|place| place[lane].into())) {
            warp.fail_lane(lane, FaultKind::Assert, message);
        }
        Flow::Fault
    }
}

/// As CUDA words it, but for the CTA and thread, which every fault names.
fn assertion(warp: &mut Warp, lane: usize, [message, file, line, function]: [u64; 4]) -> Option<String> {
    let mut text = |place: u64| {
        let address = load::<LOCAL>(warp, lane, place)?;
        Some(String::from_utf8_lossy(&string(warp, lane, address)?).into_owned())
    };
    let (message, file, function) = (text(message)?, text(file)?, text(function)?);
    let from = warp.pointer::<LOCAL>(lane, line, 4, 4)?;
    // SAFETY: checked just now.
    let line = unsafe { *from.cast::<u32>() };
    Some(format!("{file}:{line}: {function}: assertion `{message}` failed"))
}
