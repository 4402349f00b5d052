//! The devices' memory: addresses are host addresses inside one range that all devices share, so that a checked access is
//! a plain one, and an address says whose it is.

mod space;
#[cfg(test)]
mod tests;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::exec::Checks;
use crate::shadow::{CELL_BYTES, Region, Shadow};
use space::{Block, Freed, Source, Space, addresses_left_bytes};

pub use space::{Reach, host_has_room};

/// Between allocations, never accessible: an overrun meets it.
const GUARD_BYTES: usize = 4096;
/// As `cuMemAlloc` aligns.
const ALIGN_BYTES: usize = 256;
const PAGE_BYTES: usize = 4096;
/// Freed allocations that are remembered.
const MEMORIES: usize = 256;
/// Address space to reserve where it is not limited; halved until the host grants it.
const RESERVED_BYTES: usize = 1 << 42;
/// The same where every byte has a shadow.
const WATCHED_BYTES: usize = 1 << 38;

/// Devices of a process, at most.
pub const MOST_DEVICES: usize = 16;

/// A device's memory.
pub struct Memory {
    /// No other memory of the process has it, nor had it.
    number: usize,
    space: Arc<Space>,
    device: usize,
    capacity_bytes: usize,
    /// The devices whose memory its kernels may access, its own too: a bit each.
    peers: AtomicU32,
    pub(crate) shadow: Arc<Shadow>,
}

/// A launch under way.
pub(crate) struct Running<'a>(&'a Memory);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.space.write();
        state.launches -= 1;
        if state.launches == 0 {
            std::mem::take(&mut state.freed).into_iter().for_each(|freed| state.give_back(freed));
        }
    }
}

fn next_number() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

impl Memory {
    /// Reserves address space for a device of `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Memory {
        let space = match addresses_left_bytes() {
            None => Space::whole(RESERVED_BYTES),
            Some(_) => Space::growing(),
        };
        Memory::first(space, Shadow::default(), capacity_bytes)
    }

    /// The same, where the checks keep a shadow of it: modules that are loaded into it tell them of every
    /// access. Where addresses are limited, it has its part of one half of those that are left.
    pub fn watched(capacity_bytes: usize, checks: Checks) -> Memory {
        let shadows = usize::from(checks.init) + CELL_BYTES * usize::from(checks.race);
        let bytes = addresses_left_bytes().map_or(WATCHED_BYTES, |left| left / 2 / (1 + shadows));
        let space = Space::whole(bytes.min(WATCHED_BYTES) / PAGE_BYTES * PAGE_BYTES);
        let region = |wanted: bool, bytes: usize| if wanted && bytes > 0 { Region::new(bytes) } else { None };
        let shadow = Shadow {
            written: region(checks.init, space.reserved_bytes()),
            cells: region(checks.race, space.reserved_bytes() * CELL_BYTES),
            ..Shadow::default()
        };
        // Without its shadow it would be a memory that nobody watches.
        let is_watched = shadow.written.is_some() >= checks.init && shadow.cells.is_some() >= checks.race;
        Memory::first(space, shadow, if is_watched { capacity_bytes } else { 0 })
    }

    fn first(space: Space, shadow: Shadow, capacity_bytes: usize) -> Memory {
        // A device without addresses has no memory: every allocation fails, and says so.
        let capacity_bytes = if space.reserved_bytes() > 0 { capacity_bytes } else { 0 };
        let (space, shadow, peers) = (Arc::new(space), Arc::new(shadow), AtomicU32::new(1));
        Memory { number: next_number(), space, device: 0, capacity_bytes, peers, shadow }
    }

    /// The memory of another device, of as many bytes, among the same addresses.
    pub fn of_device(&self, device: usize) -> Memory {
        assert!(device < MOST_DEVICES);
        let (space, shadow) = (self.space.clone(), self.shadow.clone());
        let peers = AtomicU32::new(1 << device);
        let (number, capacity_bytes) = (next_number(), self.capacity_bytes);
        Memory { number, space, device, capacity_bytes, peers, shadow }
    }

    /// Whether kernels of this device may access another one's memory from now on.
    pub fn set_peer(&self, device: usize, may: bool) {
        match may {
            true => self.peers.fetch_or(1 << device, Relaxed),
            false => self.peers.fetch_and(!(1 << device), Relaxed),
        };
        self.space.losses.fetch_add(1, Relaxed);
    }

    /// Says which devices may access the allocation that begins at an address.
    pub fn set_reach(&self, address: u64, reach: Reach) {
        if let Some(block) = self.space.write().live.get_mut(&address) {
            block.reach = reach;
            self.space.losses.fetch_add(1, Relaxed);
        }
    }

    fn may_access(&self, block: &Block) -> bool {
        let reach = match block.reach {
            Reach::Peers => self.peers.load(Relaxed) >> block.device,
            Reach::Devices(mask) => mask >> self.device,
        };
        block.device == self.device || reach & 1 != 0
    }

    /// A new allocation's address; `None` when the device, or the host, has no room for it.
    pub fn alloc(&self, bytes: usize) -> Option<u64> {
        let pages = bytes.max(1).checked_next_multiple_of(PAGE_BYTES)?;
        let mut state = self.space.write();
        if state.used_bytes[self.device].checked_add(pages)? > self.capacity_bytes {
            return None;
        }
        let start = self.space.take(&mut state, pages)?;
        debug_assert!(start.is_multiple_of(ALIGN_BYTES));
        if !state.give(start, bytes, Source::Device, self.device) {
            state.put_back_pages(start, pages);
            return None;
        }
        self.shadow.pieces.forget(start, pages);
        Some(start as u64)
    }

    /// Sets addresses aside for an allocation to come; `None` when there are none left.
    pub fn reserve_addresses(&self, bytes: usize) -> Option<u64> {
        let pages = bytes.max(1).checked_next_multiple_of(PAGE_BYTES)?;
        let mut state = self.space.write();
        self.space.take(&mut state, pages).map(|start| start as u64)
    }

    /// An allocation at addresses that were reserved for as many bytes, and where none is live; false when the
    /// device, or the host, has no room for it. [`Memory::free`] leaves the addresses reserved.
    pub fn alloc_at(&self, address: u64, bytes: usize) -> bool {
        let pages = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let mut state = self.space.write();
        if state.used_bytes[self.device] + pages > self.capacity_bytes {
            return false;
        }
        // A launch that still runs must not take what it has freed from whoever has it next.
        state.freed.retain(|freed| freed.start != address as usize);
        self.shadow.pieces.forget(address as usize, pages);
        state.give(address as usize, bytes, Source::Reserved, self.device)
    }

    /// Gives up addresses that were reserved for as many bytes, and where no allocation is live.
    pub fn release_addresses(&self, address: u64, bytes: usize) {
        let mut state = self.space.write();
        let start = address as usize;
        match state.freed.iter_mut().find(|freed| freed.start == start) {
            Some(freed) => freed.is_reserved = false,
            None => state.put_back_pages(start, bytes.max(1).next_multiple_of(PAGE_BYTES)),
        }
    }

    /// Where `bytes` of a file from `offset` on are mapped, shared with whoever else has it; `None` when the host
    /// does not map it. The file has as many.
    pub fn map(&self, fd: RawFd, offset: u64, bytes: usize) -> Option<u64> {
        let before = offset as usize % PAGE_BYTES;
        let pages = bytes.checked_add(before)?.checked_next_multiple_of(PAGE_BYTES)?;
        let mut state = self.space.write();
        let start = self.space.take(&mut state, pages)?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let offset = offset as i64 - before as i64;
        // SAFETY: inside our reservation, and no live allocation is there.
        let mapped = unsafe { libc::mmap(start as *mut _, pages, access, flags, fd, offset) };
        if mapped == libc::MAP_FAILED {
            state.put_back_pages(start, pages);
            return None;
        }
        let address = (start + before) as u64;
        let (device, reach) = (self.device, Reach::Peers);
        let block = Block { end: address + bytes as u64, source: Source::File, device, reach };
        state.live.insert(address, block);
        self.mark_written(address, bytes);
        Some(address)
    }

    /// Gives an allocation back; false if none begins there.
    pub fn free(&self, address: u64) -> bool {
        let mut state = self.space.write();
        let Some(Block { end, source, device, .. }) = state.live.remove(&address) else { return false };
        self.space.losses.fetch_add(1, Relaxed);
        if state.remembered.len() == MEMORIES {
            state.remembered.pop_front();
        }
        state.remembered.push_back((address, end));
        let start = address as usize / PAGE_BYTES * PAGE_BYTES;
        let pages = (end as usize - start).next_multiple_of(PAGE_BYTES);
        if let Some(written) = &self.shadow.written {
            written.clear(start - self.base(), pages);
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
                state.used_bytes[device] -= pages;
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
        self.space.write().launches += 1;
        Running(self)
    }

    /// Whether kernels must tell the checks of their accesses.
    pub fn is_watched(&self) -> bool {
        self.shadow.written.is_some() || self.shadow.cells.is_some()
    }

    /// Tells the checks that the host has written `bytes` at `address`.
    pub fn mark_written(&self, address: u64, bytes: usize) {
        self.shadow.mark(address as usize - self.base(), bytes);
    }

    /// Tells the checks that the host has copied `bytes` from one place to another.
    pub fn mark_copied(&self, from: u64, to: u64, bytes: usize) {
        self.shadow.copy(from as usize - self.base(), to as usize - self.base(), bytes);
    }

    /// Which of the process's memories it is, 1 and up.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The address that the shadows begin with.
    pub(crate) fn base(&self) -> usize {
        self.space.base
    }

    /// How often kernels have lost access to an allocation: as long as it is the same, those that they had they still have.
    pub fn losses(&self) -> usize {
        self.space.losses.load(Relaxed)
    }

    /// Start and end of the live allocation that an address is in, if kernels of this device may access it.
    pub fn range_of(&self, address: u64) -> Option<(u64, u64)> {
        let state = self.space.read();
        let (&start, block) = state.live.range(..=address).next_back()?;
        (address < block.end && self.may_access(block)).then_some((start, block.end))
    }

    /// The same of any device's, and whose it is.
    pub fn range_anywhere(&self, address: u64) -> Option<(u64, u64, usize)> {
        let state = self.space.read();
        let (&start, block) = state.live.range(..=address).next_back()?;
        (address < block.end).then_some((start, block.end, block.device))
    }

    /// Where `bytes` at an address are, in words, for whoever may not go there.
    #[cold]
    pub fn whereabouts(&self, address: u64, bytes: u64) -> String {
        let state = self.space.read();
        let name =
            |start: u64, end: u64| format!("the allocation {start:#x}..{end:#x} ({} bytes)", end - start);
        let last = state.live.range(..=address).next_back();
        let before = last.map(|(&start, block)| (start, block.end));
        let barred = last.map(|(_, block)| block).filter(|block| !self.may_access(block));
        let whose = barred.map_or(String::new(), |block| {
            format!(" of device {}, which device {} has no peer access to", block.device, self.device)
        });
        let freed = state.remembered.iter().rev().find(|(start, end)| (*start..*end).contains(&address));
        match (before, freed) {
            (Some((start, end)), _) if address < end => {
                let beyond = if end - address < bytes { ", and past the end of it" } else { "" };
                format!("at byte {} of {}{whose}{beyond}", address - start, name(start, end))
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
        let state = self.space.read();
        let free = self.capacity_bytes - state.used_bytes[self.device];
        (free.min(self.space.left_bytes(&state)), self.capacity_bytes)
    }

    /// Whether an address is one of a device's, live or not.
    pub fn owns(&self, address: u64) -> bool {
        (address as usize).wrapping_sub(self.space.base) < self.space.reserved_bytes()
    }
}
