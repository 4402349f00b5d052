//! Which bytes have been written: a byte beside each byte of device, shared and local memory. Only what a
//! kernel reads is asked for; copies from device to device carry it along.

use super::span::Span;
use crate::exec::registers::{LANES, lanes_of};
use crate::memory::Memory;

/// A map of the memory that begins at host address `origin`.
#[derive(Default)]
pub struct Written {
    origin: usize,
    map: Vec<u8>,
}

/// The same, wherever the map is.
#[derive(Clone, Copy)]
pub struct Map {
    origin: usize,
    first: *mut u8,
}

impl Written {
    /// A new range: start and bytes.
    pub fn begin(&mut self, (start, bytes): (usize, usize)) {
        self.origin = start;
        self.map.clear();
        self.map.resize(bytes, 0);
    }

    /// A part of it counts as written, or not.
    pub fn fill(&mut self, start: usize, bytes: usize, is_written: bool) {
        self.map[start - self.origin..][..bytes].fill(is_written as u8);
    }

    /// What is known of one place goes to another, of as many bytes.
    pub fn carry(&mut self, from: usize, to: usize, bytes: usize) {
        let from = from - self.origin;
        self.map.copy_within(from..from + bytes, to - self.origin);
    }

    pub fn share(&self) -> Map {
        Map { origin: self.origin, first: self.map.as_ptr().cast_mut() }
    }

    /// The map of device memory, if there is one.
    #[inline(always)]
    pub fn of(memory: &Memory) -> Option<Map> {
        let region = memory.shadow.written.as_ref()?;
        Some(Map { origin: memory.base(), first: region.at(0) })
    }
}

impl Map {
    /// The first lane that reads a byte that nobody wrote, and the byte's place in its access.
    #[inline(always)]
    pub fn first_unwritten(&self, span: &Span) -> Option<(usize, usize)> {
        // SAFETY: the addresses have been checked, and the map has a byte for each of theirs. Threads that
        // mark the same bytes meanwhile race in the kernel itself.
        unsafe {
            let place = |lane: usize| self.first.add(span.at[lane] - self.origin);
            let mut fine = true;
            if span.contiguous {
                fine = is_written(place(0), LANES * span.bytes);
            } else if span.uniform {
                fine = is_written(place(0), span.bytes);
            } else {
                for lane in lanes_of(span.mask) {
                    fine &= match span.bytes {
                        4 => place(lane).cast::<u32>().read_unaligned() == 0x0101_0101,
                        bytes => is_written(place(lane), bytes),
                    };
                }
            }
            if fine { None } else { self.find_unwritten(span) }
        }
    }

    #[cold]
    fn find_unwritten(&self, span: &Span) -> Option<(usize, usize)> {
        lanes_of(span.mask).find_map(|lane| {
            // SAFETY: as above.
            let unwritten =
                |&byte: &usize| unsafe { *self.first.add(span.at[lane] - self.origin + byte) } == 0;
            (0..span.bytes).find(unwritten).map(|byte| (lane, byte))
        })
    }

    /// The span is written.
    #[inline(always)]
    pub fn mark(&self, span: &Span) {
        // SAFETY: as above.
        unsafe {
            if span.contiguous {
                return self.first.add(span.at[0] - self.origin).write_bytes(1, LANES * span.bytes);
            }
            for lane in lanes_of(span.mask) {
                let place = self.first.add(span.at[lane] - self.origin);
                match span.bytes {
                    4 => place.cast::<u32>().write_unaligned(0x0101_0101),
                    bytes => place.write_bytes(1, bytes),
                }
            }
        }
    }
}

/// Whether all of so many bytes are 1.
///
/// # Safety
/// They are the map's.
#[inline(always)]
unsafe fn is_written(at: *const u8, bytes: usize) -> bool {
    // Loops, no closures: those would be compiled for the plainest host.
    let (mut all, mut words) = (1, u64::MAX);
    // SAFETY: the caller's.
    unsafe {
        for word in 0..bytes / 8 {
            words &= at.cast::<u64>().add(word).read_unaligned();
        }
        for byte in bytes / 8 * 8..bytes {
            all &= *at.add(byte);
        }
    }
    all != 0 && words & 0x0101_0101_0101_0101 == 0x0101_0101_0101_0101
}
