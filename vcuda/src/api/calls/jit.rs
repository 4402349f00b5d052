//! Options of loading: the client's buffers for what there is to say.

use std::ffi::c_void;
use std::time::Duration;

use super::list;
use crate::api::error::Status;

/// `CUjit_option`.
const WALL_TIME: u32 = 2;
const INFO_BUFFER: u32 = 3;
const INFO_BYTES: u32 = 4;
const ERROR_BUFFER: u32 = 5;
const ERROR_BYTES: u32 = 6;

/// A client's buffer, and where its size stands: in bytes, before and after.
#[derive(Default)]
pub struct Log {
    buffer: *mut u8,
    bytes: *mut *mut c_void,
}

/// The options that say something back; others (optimisation, registers, targets) change nothing here.
#[derive(Default)]
pub struct Jit {
    pub info: Log,
    pub error: Log,
    milliseconds: *mut *mut c_void,
}

impl Jit {
    /// # Errors
    /// Lists that are not there.
    pub fn new(options: *const u32, values: *mut *mut c_void, count: u32) -> Result<Jit, Status> {
        let mut jit = Jit::default();
        list(values, count as usize)?;
        for (i, option) in list(options, count as usize)?.iter().enumerate() {
            // SAFETY: as many values as options; the value of a buffer is the buffer.
            let (at, value) = unsafe { (values.add(i), *values.add(i)) };
            match *option {
                WALL_TIME => jit.milliseconds = at,
                INFO_BUFFER => jit.info.buffer = value.cast(),
                INFO_BYTES => jit.info.bytes = at,
                ERROR_BUFFER => jit.error.buffer = value.cast(),
                ERROR_BYTES => jit.error.bytes = at,
                _ => {}
            }
        }
        jit.info.clear();
        jit.error.clear();
        Ok(jit)
    }

    /// How long loading took.
    pub fn time(&self, time: Duration) {
        if !self.milliseconds.is_null() {
            // SAFETY: the option's value, a float in a pointer's place.
            unsafe { self.milliseconds.cast::<f32>().write(time.as_secs_f32() * 1e3) };
        }
    }
}

impl Log {
    fn room(&self) -> usize {
        if self.buffer.is_null() || self.bytes.is_null() {
            return 0;
        }
        // SAFETY: the option's value, a 32-bit size in a pointer's place.
        unsafe { self.bytes.cast::<u32>().read() as usize }
    }

    fn clear(&self) {
        if self.room() > 0 {
            // SAFETY: the client's buffer has a byte.
            unsafe { self.buffer.write(0) };
        }
    }

    /// Writes a message, cut to the buffer, and its length with the NUL.
    pub fn write(&self, message: &str) {
        let room = self.room();
        if room == 0 {
            return;
        }
        let count = message.len().min(room - 1);
        // SAFETY: the client's buffer of `room` bytes, and its size's place.
        unsafe {
            std::ptr::copy_nonoverlapping(message.as_ptr(), self.buffer, count);
            self.buffer.add(count).write(0);
            self.bytes.cast::<u32>().write(count as u32 + 1);
        }
    }
}
