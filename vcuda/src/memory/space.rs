//! One range of addresses for all devices: what is free in it, and which allocation is whose.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{GUARD_BYTES, MOST_DEVICES, PAGE_BYTES};

/// The range, which all devices' memories share.
pub struct Space {
    pub base: usize,
    pub reserved_bytes: usize,
    /// How often kernels have lost access to an allocation.
    pub losses: AtomicUsize,
    state: RwLock<State>,
}

#[derive(Default)]
pub struct State {
    /// Live allocations, by their start.
    pub live: BTreeMap<u64, Block>,
    /// Free address ranges: start to end, page by page.
    free: BTreeMap<usize, usize>,
    /// Bytes in use, by device.
    pub used_bytes: [usize; MOST_DEVICES],
    /// Launches that run, and what was freed since one did.
    pub launches: usize,
    pub freed: Vec<Freed>,
    /// The last allocations that were freed, to name them: start and end.
    pub remembered: VecDeque<(u64, u64)>,
}

/// A live allocation.
#[derive(Clone, Copy)]
pub struct Block {
    pub end: u64,
    pub source: Source,
    /// The device that has it.
    pub device: usize,
    pub reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Device,
    /// The device, at addresses that were reserved before and stay so.
    Reserved,
    File,
}

/// Which kernels may access an allocation besides its own device's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of devices that have peer access to its device.
    Peers,
    /// Those of these devices, a bit each.
    Devices(u32),
}

/// Pages that the host may have back, and whether their addresses stay reserved.
pub struct Freed {
    pub start: usize,
    pub pages: usize,
    pub is_reserved: bool,
}

impl Space {
    /// Reserves so many bytes of addresses, or as many as the host grants: none, where that is less than a page.
    pub fn reserve(mut reserved_bytes: usize) -> Space {
        loop {
            // SAFETY: a fresh mapping without access disturbs nothing.
            let base = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                libc::mmap(std::ptr::null_mut(), reserved_bytes, libc::PROT_NONE, flags, -1, 0)
            };
            if base != libc::MAP_FAILED {
                // Rows of a matrix are often a page apart. Where the host has no larger pages, nothing is lost.
                // SAFETY: our own mapping.
                unsafe { libc::madvise(base, reserved_bytes, libc::MADV_HUGEPAGE) };
                let base = base as usize;
                let free = BTreeMap::from([(base, base + reserved_bytes)]);
                let state = RwLock::new(State { free, ..State::default() });
                return Space { base, reserved_bytes, losses: AtomicUsize::new(0), state };
            }
            reserved_bytes /= 2;
            if reserved_bytes < PAGE_BYTES {
                return Space {
                    base: 0,
                    reserved_bytes: 0,
                    losses: AtomicUsize::new(0),
                    state: RwLock::default(),
                };
            }
        }
    }

    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.reserved_bytes > 0 {
            // SAFETY: our own reservation; nobody holds addresses into it any more.
            unsafe { libc::munmap(self.base as *mut _, self.reserved_bytes) };
        }
    }
}

impl State {
    /// Takes pages and the guard behind them out of the free ranges.
    pub fn take(&mut self, pages: usize) -> Option<usize> {
        let span = pages.checked_add(GUARD_BYTES)?;
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= span)?;
        self.free.remove(&start);
        if start + span < end {
            self.free.insert(start + span, end);
        }
        Some(start)
    }

    /// Puts what [`State::take`] gave back.
    pub fn put_back(&mut self, start: usize, pages: usize) {
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
    pub fn give_back(&mut self, Freed { start, pages, is_reserved }: Freed) {
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
    pub fn give(&mut self, start: usize, bytes: usize, source: Source, device: usize) -> bool {
        let pages = bytes.max(1).next_multiple_of(PAGE_BYTES);
        // SAFETY: inside our reservation, and no live allocation is there.
        let ok = unsafe { libc::mprotect(start as *mut _, pages, libc::PROT_READ | libc::PROT_WRITE) };
        if ok == 0 {
            self.used_bytes[device] += pages;
            // The allocation ends where its bytes end, so that an overrun is seen to the byte.
            let block = Block { end: (start + bytes.max(1)) as u64, source, device, reach: Reach::Peers };
            self.live.insert(start as u64, block);
        }
        ok == 0
    }
}
