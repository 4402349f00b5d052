//! Memory that runs out ends the program as any other error does, where the standard library would abort it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// The system's allocator, but that it returns only with memory. What `--out` holds by then stays: lines are written as they come.
pub struct Allocator;

// SAFETY: every call is the system allocator's own, with the caller's arguments.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller has it.
        there(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller has it.
        there(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller has it.
        there(unsafe { System.realloc(place, layout, size) }, size)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller has it.
        unsafe { System.dealloc(place, layout) }
    }
}

/// This memory, if there is any.
fn there(place: *mut u8, bytes: usize) -> *mut u8 {
    if place.is_null() {
        end(bytes);
    }
    place
}

/// Says what is missing, without memory for it.
#[cold]
fn end(bytes: usize) -> ! {
    let mut text = [0; 200];
    let room = text.len();
    let mut rest = &mut text[..];
    let _ = writeln!(
        rest,
        "error: out of memory: {bytes} more bytes are needed, which the machine or a limit of the process (ulimit -v) does not give"
    );
    let len = room - rest.len();
    // SAFETY: `len` bytes of `text` were written. Other threads may hold locks, so nothing is cleaned up.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), len);
        libc::_exit(1)
    }
}
