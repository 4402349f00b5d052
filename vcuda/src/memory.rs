//! Device memory: addresses are host addresses inside one reserved range, so that a checked access is
//! a plain one.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::{PoisonError, RwLock};

use crate::exec::Checks;
use crate::shadow::{CELL_BYTES, Region, Shadow};

/// Between allocations, never accessible: an overrun meets it.
const GUARD_BYTES: usize = 4096;
/// As `cuMemAlloc` aligns.
const ALIGN_BYTES: usize = 256;
const PAGE_BYTES: usize = 4096;
/// Freed allocations that are remembered.
const MEMORIES: usize = 256;
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
    /// Launches that run, and what was freed since one did.
    launches: usize,
    freed: Vec<Freed>,
    /// The last allocations that were freed, to name them: start and end.
    remembered: VecDeque<(u64, u64)>,
}

/// A live allocation.
struct Block {
    end: u64,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Device,
    /// The device, at addresses that were reserved before and stay so.
    Reserved,
    File,
}

/// Pages that the host may have back, and whether their addresses stay reserved.
struct Freed {
    start: usize,
    pages: usize,
    is_reserved: bool,
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

    /// Makes an address range inaccessible, and free unless it is reserved.
    fn give_back(&mut self, Freed { start, pages, is_reserved }: Freed) {
        // SAFETY: these pages were this allocation's alone; the host gets their memory back.
        unsafe {
            libc::madvise(start as *mut _, pages, libc::MADV_DONTNEED);
            libc::mprotect(start as *mut _, pages, libc::PROT_NONE);
        }
        if !is_reserved {
            self.put_back(start, pages);
        }
    }

    /// Makes pages accessible as a live allocation; false when the host has no room for it.
    fn give(&mut self, start: usize, bytes: usize, source: Source) -> bool {
        let pages = bytes.max(1).next_multiple_of(PAGE_BYTES);
        // SAFETY: inside our reservation, and no live allocation is there.
        let ok = unsafe { libc::mprotect(start as *mut _, pages, libc::PROT_READ | libc::PROT_WRITE) };
        if ok == 0 {
            self.used_bytes += pages;
            // The allocation ends where its bytes end, so that an overrun is seen to the byte.
            self.live.insert(start as u64, Block { end: (start + bytes.max(1)) as u64, source });
        }
        ok == 0
    }
}

/// A launch under way.
pub(crate) struct Running<'a>(&'a Memory);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.launches -= 1;
        if state.launches == 0 {
            std::mem::take(&mut state.freed).into_iter().for_each(|freed| state.give_back(freed));
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
        debug_assert!(start.is_multiple_of(ALIGN_BYTES));
        if !state.give(start, bytes, Source::Device) {
            state.put_back(start, pages);
            return None;
        }
        Some(start as u64)
    }

    /// Sets addresses aside for an allocation to come; `None` when there are none left.
    pub fn reserve_addresses(&self, bytes: usize) -> Option<u64> {
        let pages = bytes.max(1).checked_next_multiple_of(PAGE_BYTES)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.take(pages).map(|start| start as u64)
    }

    /// An allocation at addresses that were reserved for as many bytes, and where none is live; false when the
    /// device, or the host, has no room for it. [`Memory::free`] leaves the addresses reserved.
    pub fn alloc_at(&self, address: u64, bytes: usize) -> bool {
        let pages = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.used_bytes + pages > self.capacity_bytes {
            return false;
        }
        // A launch that still runs must not take what it has freed from whoever has it next.
        state.freed.retain(|freed| freed.start != address as usize);
        state.give(address as usize, bytes, Source::Reserved)
    }

    /// Gives up addresses that were reserved for as many bytes, and where no allocation is live.
    pub fn release_addresses(&self, address: u64, bytes: usize) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let start = address as usize;
        match state.freed.iter_mut().find(|freed| freed.start == start) {
            Some(freed) => freed.is_reserved = false,
            None => state.put_back(start, bytes.max(1).next_multiple_of(PAGE_BYTES)),
        }
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
        state.live.insert(address, Block { end: address + bytes as u64, source: Source::File });
        self.mark_written(address, bytes);
        Some(address)
    }

    /// Gives an allocation back; false if none begins there.
    pub fn free(&self, address: u64) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(Block { end, source }) = state.live.remove(&address) else { return false };
        if state.remembered.len() == MEMORIES {
            state.remembered.pop_front();
        }
        state.remembered.push_back((address, end));
        let start = address as usize / PAGE_BYTES * PAGE_BYTES;
        let pages = (end as usize - start).next_multiple_of(PAGE_BYTES);
        if let Some(written) = &self.shadow.written {
            written.clear(start - self.base, pages);
        }
        // SAFETY: these pages were this allocation's alone.
        unsafe {
            if source == Source::File {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                if libc::mmap(start as *mut _, pages, access, flags, -1, 0) == libc::MAP_FAILED {
                    return true; // still the file's: nobody may have these addresses again
                }
            } else {
                state.used_bytes -= pages;
                libc::madvise(start as *mut _, pages, libc::MADV_DONTNEED); // the host gets its memory back
            }
        }
        let freed = Freed { start, pages, is_reserved: source == Source::Reserved };
        if state.launches == 0 {
            state.give_back(freed);
        } else {
            state.freed.push(freed);
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

    /// Where `bytes` at an address are, in words, for whoever may not go there.
    #[cold]
    pub fn whereabouts(&self, address: u64, bytes: u64) -> String {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let name =
            |start: u64, end: u64| format!("the allocation {start:#x}..{end:#x} ({} bytes)", end - start);
        let before = state.live.range(..=address).next_back().map(|(&start, block)| (start, block.end));
        let freed = state.remembered.iter().rev().find(|(start, end)| (*start..*end).contains(&address));
        match (before, freed) {
            (Some((start, end)), _) if address < end => {
                let beyond = if end - address < bytes { ", and past the end of it" } else { "" };
                format!("at byte {} of {}{beyond}", address - start, name(start, end))
            }
            // Up to its guard's end nothing else is there now.
            (Some((start, end)), _)
                if address < end.next_multiple_of(PAGE_BYTES as u64) + GUARD_BYTES as u64 =>
            {
                format!("{} bytes past the end of {}", address - end, name(start, end))
            }
            (_, Some(&(start, end))) => {
                format!("at byte {} of {}, which has been freed", address - start, name(start, end))
            }
            _ => "outside every allocation".to_string(),
        }
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
    fn places_have_names() {
        let memory = Memory::new(1 << 20);
        let [first, second] = [100, 200].map(|bytes| memory.alloc(bytes).unwrap());
        let inside = format!("at byte 90 of the allocation {first:#x}..{:#x} (100 bytes)", first + 100);
        assert_eq!(memory.whereabouts(first + 90, 10), inside);
        assert_eq!(memory.whereabouts(first + 90, 11), format!("{inside}, and past the end of it"));
        assert!(memory.whereabouts(first + 104, 4).starts_with("4 bytes past the end of the allocation"));
        assert_eq!(memory.whereabouts(second + (1 << 19), 1), "outside every allocation");
        assert!(memory.free(second));
        assert!(memory.whereabouts(second + 8, 1).ends_with("(200 bytes), which has been freed"));
        let again = memory.alloc(8).unwrap();
        assert_eq!(again, second);
        assert!(memory.whereabouts(again, 1).ends_with("(8 bytes)"));
        for _ in 0..2 * MEMORIES {
            assert!(memory.free(memory.alloc(1).unwrap()));
        }
        assert_eq!(memory.state.read().unwrap().remembered.len(), MEMORIES);
    }

    #[test]
    fn reserved_addresses_stay_until_they_are_given_up() {
        let memory = Memory::new(1 << 16);
        let place = memory.reserve_addresses(5000).unwrap();
        assert_eq!((memory.range_of(place), memory.info().0), (None, 1 << 16));
        for _ in 0..2 {
            assert!(memory.alloc_at(place, 5000));
            assert_eq!(memory.range_of(place + 4999), Some((place, place + 5000)));
            assert_ne!(memory.alloc(1), Some(place));
            let launch = memory.running();
            assert!(memory.free(place) && memory.alloc_at(place, 5000));
            drop(launch);
            // SAFETY: live, also after the launch.
            unsafe { *(place as *mut u8).add(4999) = 1 };
            assert!(memory.free(place) && memory.range_of(place).is_none());
        }
        let launch = memory.running();
        assert!(memory.alloc_at(place, 5000) && memory.free(place));
        memory.release_addresses(place, 5000);
        assert_ne!(memory.alloc(5000), Some(place), "a launch may still touch it");
        drop(launch);
        assert_eq!(memory.alloc(5000), Some(place));
        assert!(!memory.alloc_at(memory.reserve_addresses(1 << 16).unwrap(), 1 << 16));
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
