//! What the checks know of each byte of device memory, in address ranges that grow as they are touched.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use crate::exec::check::pieces::Pieces;

/// A private mapping that costs memory only where it has been written, and is zero elsewhere.
pub struct Region {
    base: usize,
    bytes: usize,
}

impl Region {
    /// `None` where the host does not grant the address space.
    pub fn new(bytes: usize) -> Option<Region> {
        // SAFETY: a fresh mapping disturbs nothing.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        (base != libc::MAP_FAILED).then_some(Region { base: base as usize, bytes })
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.bytes);
        (self.base + offset) as *mut u8
    }

    /// Zeros the part, and gives its memory back; page by page.
    pub fn clear(&self, offset: usize, bytes: usize) {
        // SAFETY: inside our own mapping, as `bytes` are no more than it has.
        unsafe { libc::madvise((self.base + offset) as *mut _, bytes, libc::MADV_DONTNEED) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more.
        unsafe { libc::munmap(self.base as *mut _, self.bytes) };
    }
}

/// Bytes of [`Shadow::cells`] for each byte of device memory, at most.
pub const CELL_BYTES: usize = 16;

/// Beside the device's memory, byte by byte.
#[derive(Default)]
pub struct Shadow {
    /// 1 for each byte that has been written.
    pub written: Option<Region>,
    /// Who accessed it last: the race check's.
    pub cells: Option<Region>,
    /// The race check's time, which goes on from launch to launch.
    pub now: AtomicU32,
    /// What other pieces of work have touched: the race check's, where streams do several.
    pub pieces: Pieces,
    /// Held by a launch whose races are looked for: one at a time.
    pub serial: Mutex<()>,
}

impl Shadow {
    /// Marks `bytes` at `offset` as written.
    pub fn mark(&self, offset: usize, bytes: usize) {
        if let Some(region) = &self.written {
            // SAFETY: the shadow is as long as the memory. A kernel that writes the same bytes meanwhile
            // races with whoever calls this.
            unsafe { region.at(offset).write_bytes(1, bytes) };
        }
    }

    /// Marks `bytes` at `to` as those at `from` are.
    pub fn copy(&self, from: usize, to: usize, bytes: usize) {
        if let Some(region) = &self.written {
            // SAFETY: as above.
            unsafe { std::ptr::copy(region.at(from), region.at(to), bytes) };
        }
    }
}
