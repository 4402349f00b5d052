//! Device memory: addresses are host addresses inside one reserved range, so that a checked access is
//! a plain one.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::{PoisonError, RwLock};

use crate::exec::Checks;
use crate::shadow::{CELL_BYTES, Region, Shadow};

/// Between allocations, never accessible: an overrun meets it.
const GUARD_BYTES: usize = 4096;
/// As `cuMemAlloc` aligns.
const ALIGN_BYTES: usize = 256;
const PAGE_BYTES: usize = 4096;
/// Address space to reserve; halved until the host grants it.
const RESERVED_BYTES: usize = 1 << 42;
/// The same where every byte has a shadow.
const WATCHED_BYTES: usize = 1 << 38;

/// The device's memory.
pub struct Memory {
    base: usize,
    reserved_bytes: usize,
    capacity_bytes: usize,
    state: RwLock<State>,
    pub(crate) shadow: Shadow,
}

#[derive(Default)]
struct State {
    /// Live allocations, by their start.
    live: BTreeMap<u64, Block>,
    /// Free address ranges: start to end, page by page.
    free: BTreeMap<usize, usize>,
    used_bytes: usize,
    /// Launches that run, and what was freed since one did: start and bytes.
    launches: usize,
    freed: Vec<(usize, usize)>,
}

/// A live allocation, and how many bytes of the device's it takes: none if it is a file's.
struct Block {
    end: u64,
    used_bytes: usize,
}

impl State {
    /// Takes pages and the guard behind them out of the free ranges.
    fn take(&mut self, pages: usize) -> Option<usize> {
        let span = pages.checked_add(GUARD_BYTES)?;
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= span)?;
        self.free.remove(&start);
        if start + span < end {
            self.free.insert(start + span, end);
        }
        Some(start)
    }

    /// Puts what [`State::take`] gave back.
    fn put_back(&mut self, start: usize, pages: usize) {
        let (mut from, mut to) = (start, start + pages + GUARD_BYTES);
        if let Some((&before, &before_end)) = self.free.range(..from).next_back()
            && before_end == from
        {
            self.free.remove(&before);
            from = before;
        }
        if let Some(after_end) = self.free.remove(&to) {
            to = after_end;
        }
        self.free.insert(from, to);
    }

    /// Makes an address range inaccessible, and free.
    fn give_back(&mut self, start: usize, pages: usize) {
        // SAFETY: these pages were this allocation's alone; the host gets their memory back.
        unsafe {
            libc::madvise(start as *mut _, pages, libc::MADV_DONTNEED);
            libc::mprotect(start as *mut _, pages, libc::PROT_NONE);
        }
        self.put_back(start, pages);
    }
}

/// A launch under way.
pub(crate) struct Running<'a>(&'a Memory);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.launches -= 1;
        if state.launches == 0 {
            std::mem::take(&mut state.freed)
                .into_iter()
                .for_each(|(start, pages)| state.give_back(start, pages));
        }
    }
}

impl Memory {
    /// Reserves address space for a device of `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Memory {
        Memory::reserve(capacity_bytes, RESERVED_BYTES)
    }

    /// The same, where the checks keep a shadow of it: modules that are loaded into it tell them of every
    /// access.
    pub fn watched(capacity_bytes: usize, checks: Checks) -> Memory {
        let mut memory = Memory::reserve(capacity_bytes, WATCHED_BYTES);
        let region = |wanted: bool, bytes: usize| if wanted { Region::new(bytes) } else { None };
        memory.shadow.written = region(checks.init, memory.reserved_bytes);
        memory.shadow.cells = region(checks.race, memory.reserved_bytes * CELL_BYTES);
        memory
    }

    fn reserve(capacity_bytes: usize, mut reserved_bytes: usize) -> Memory {
        loop {
            // SAFETY: a fresh mapping without access disturbs nothing.
            let base = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                libc::mmap(std::ptr::null_mut(), reserved_bytes, libc::PROT_NONE, flags, -1, 0)
            };
            if base != libc::MAP_FAILED {
                let base = base as usize;
                let state =
                    State { free: BTreeMap::from([(base, base + reserved_bytes)]), ..State::default() };
                let (state, shadow) = (RwLock::new(state), Shadow::default());
                return Memory { base, reserved_bytes, capacity_bytes, state, shadow };
            }
            reserved_bytes /= 2;
            if reserved_bytes < PAGE_BYTES {
                // A device without memory: every allocation fails, and says so.
                let (state, shadow) = (RwLock::default(), Shadow::default());
                return Memory { base: 0, reserved_bytes: 0, capacity_bytes: 0, state, shadow };
            }
        }
    }

    /// A new allocation's address; `None` when the device, or the host, has no room for it.
    pub fn alloc(&self, bytes: usize) -> Option<u64> {
        let pages = bytes.max(1).checked_next_multiple_of(PAGE_BYTES)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.used_bytes.checked_add(pages)? > self.capacity_bytes {
            return None;
        }
        let start = state.take(pages)?;
        // SAFETY: inside our reservation, and no live allocation is there.
        let ok = unsafe { libc::mprotect(start as *mut _, pages, libc::PROT_READ | libc::PROT_WRITE) };
        if ok != 0 {
            state.put_back(start, pages);
            return None;
        }
        state.used_bytes += pages;
        // The allocation ends where its bytes end, so that an overrun is seen to the byte.
        state.live.insert(start as u64, Block { end: (start + bytes.max(1)) as u64, used_bytes: pages });
        debug_assert!(start.is_multiple_of(ALIGN_BYTES));
        Some(start as u64)
    }

    /// Where `bytes` of a file from `offset` on are mapped, shared with whoever else has it; `None` when the host
    /// does not map it. The file has as many.
    pub fn map(&self, fd: RawFd, offset: u64, bytes: usize) -> Option<u64> {
        let before = offset as usize % PAGE_BYTES;
        let pages = bytes.checked_add(before)?.checked_next_multiple_of(PAGE_BYTES)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let start = state.take(pages)?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let offset = offset as i64 - before as i64;
        // SAFETY: inside our reservation, and no live allocation is there.
        let mapped = unsafe { libc::mmap(start as *mut _, pages, access, flags, fd, offset) };
        if mapped == libc::MAP_FAILED {
            state.put_back(start, pages);
            return None;
        }
        let address = (start + before) as u64;
        state.live.insert(address, Block { end: address + bytes as u64, used_bytes: 0 });
        self.mark_written(address, bytes);
        Some(address)
    }

    /// Gives an allocation back; false if none begins there.
    pub fn free(&self, address: u64) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(Block { end, used_bytes }) = state.live.remove(&address) else { return false };
        let start = address as usize / PAGE_BYTES * PAGE_BYTES;
        let pages = (end as usize - start).next_multiple_of(PAGE_BYTES);
        if let Some(written) = &self.shadow.written {
            written.clear(start - self.base, pages);
        }
        state.used_bytes -= used_bytes;
        // SAFETY: these pages were this allocation's alone.
        unsafe {
            if used_bytes > 0 {
                libc::madvise(start as *mut _, pages, libc::MADV_DONTNEED); // the host gets its memory back
            } else {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                if libc::mmap(start as *mut _, pages, access, flags, -1, 0) == libc::MAP_FAILED {
                    return true; // still the file's: nobody may have these addresses again
                }
            }
        }
        if state.launches == 0 {
            state.give_back(start, pages);
        } else {
            state.freed.push((start, pages));
        }
        true
    }

    /// Until the result is dropped, what is freed stays accessible to the host: a warp may have checked an
    /// address before another one freed it.
    pub(crate) fn running(&self) -> Running<'_> {
        self.state.write().unwrap_or_else(PoisonError::into_inner).launches += 1;
        Running(self)
    }

    /// Whether kernels must tell the checks of their accesses.
    pub fn is_watched(&self) -> bool {
        self.shadow.written.is_some() || self.shadow.cells.is_some()
    }

    /// Tells the checks that the host has written `bytes` at `address`.
    pub fn mark_written(&self, address: u64, bytes: usize) {
        self.shadow.mark(address as usize - self.base, bytes);
    }

    /// Tells the checks that the host has copied `bytes` from one place to another.
    pub fn mark_copied(&self, from: u64, to: u64, bytes: usize) {
        self.shadow.copy(from as usize - self.base, to as usize - self.base, bytes);
    }

    /// The address that the shadows begin with.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// Start and end of the live allocation that an address is in.
    pub fn range_of(&self, address: u64) -> Option<(u64, u64)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let (&start, &Block { end, .. }) = state.live.range(..=address).next_back()?;
        (address < end).then_some((start, end))
    }

    /// Free and total bytes.
    pub fn info(&self) -> (usize, usize) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        (self.capacity_bytes - state.used_bytes, self.capacity_bytes)
    }

    /// Whether an address is one of the device's, live or not.
    pub fn owns(&self, address: u64) -> bool {
        (self.base as u64..(self.base + self.reserved_bytes) as u64).contains(&address)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.reserved_bytes > 0 {
            // SAFETY: our own reservation; nobody holds addresses into it any more.
            unsafe { libc::munmap(self.base as *mut _, self.reserved_bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_to_the_byte_and_memory_comes_back() {
        let memory = Memory::new(1 << 20);
        let (total, _) = memory.info();
        let a = memory.alloc(100).unwrap();
        let b = memory.alloc(5000).unwrap();
        assert_eq!(memory.range_of(a + 99), Some((a, a + 100)));
        assert_eq!(memory.range_of(a + 100), None);
        assert_eq!(memory.range_of(b), Some((b, b + 5000)));
        assert!(memory.owns(a) && !memory.owns(&total as *const usize as u64));
        assert!(memory.free(a) && !memory.free(a) && !memory.free(b + 1));
        assert!(memory.free(b));
        assert_eq!(memory.info().0, total);
        assert_eq!(memory.range_of(b), None);
        assert!(memory.alloc(2 << 20).is_none());
        assert!(memory.alloc(usize::MAX).is_none());
    }

    #[test]
    fn what_is_freed_in_a_launch_can_be_touched_until_it_ends() {
        let memory = Memory::new(1 << 20);
        let place = memory.alloc(100).unwrap();
        let launches = [memory.running(), memory.running()];
        assert!(memory.free(place) && memory.range_of(place).is_none());
        assert_eq!(memory.info().0, 1 << 20);
        // SAFETY: the pages stay until both launches are over.
        unsafe { *(place as *mut u8) = 1 };
        assert_ne!(memory.alloc(100), Some(place));
        drop(launches);
        let again = memory.alloc(100).unwrap();
        // SAFETY: an allocation of this test's.
        assert_eq!((again, unsafe { *(again as *const u8) }), (place, 0));
    }

    #[test]
    fn freed_space_is_joined_and_used_again() {
        let memory = Memory::new(1 << 30);
        let all: Vec<u64> = (0..100).map(|i| memory.alloc(1 + i * 100).unwrap()).collect();
        let first = all[0];
        all.iter().step_by(2).for_each(|&a| assert!(memory.free(a)));
        all.iter().skip(1).step_by(2).for_each(|&a| assert!(memory.free(a)));
        assert_eq!(memory.alloc(1 << 29), Some(first));
    }
}
