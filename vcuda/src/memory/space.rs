//! One range of addresses for all devices: what is free in it, and which allocation is whose.
//!
//! Addresses cost nothing, so the range is far larger than any memory, unless the process may have only so many of them (`ulimit
//! -v`): then it grows by what is asked for, and the rest stays the host's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{GUARD_BYTES, MOST_DEVICES, PAGE_BYTES};

/// What a range grows by at least, where it grows.
const GROWTH_BYTES: usize = 64 << 20;
/// What the host keeps of the process's addresses: its own allocations must not fail, which would end it.
const HOST_BYTES: usize = 64 << 20;
/// Where ranges that grow begin, a terabyte apart: addresses that nothing else takes before there are no others.
const GROWING_FROM: usize = 16 << 40;
const GROWING_APART: usize = 1 << 40;

/// The range, which all devices' memories share.
pub struct Space {
    pub base: usize,
    reserved_bytes: AtomicUsize,
    /// Whether the process's addresses are limited, so that the range grows.
    grows: bool,
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
    pub fn whole(mut bytes: usize) -> Space {
        loop {
            match reserved(0, bytes, 0) {
                Some(base) => return Space::of(base, bytes, false),
                None if bytes < 2 * PAGE_BYTES => return Space::of(0, 0, false),
                None => bytes /= 2,
            }
        }
    }

    /// Reserves few addresses, and more when they are needed.
    pub fn growing() -> Space {
        static RANGES: AtomicUsize = AtomicUsize::new(0);
        let hint = GROWING_FROM + RANGES.fetch_add(1, Relaxed) % 64 * GROWING_APART;
        match reserved(hint, GROWTH_BYTES, 0) {
            Some(base) => Space::of(base, GROWTH_BYTES, true),
            None => Space::of(0, 0, false),
        }
    }

    fn of(base: usize, bytes: usize, grows: bool) -> Space {
        let free = if bytes > 0 { BTreeMap::from([(base, base + bytes)]) } else { BTreeMap::new() };
        let (reserved_bytes, losses) = (AtomicUsize::new(bytes), AtomicUsize::new(0));
        Space { base, reserved_bytes, grows, losses, state: RwLock::new(State { free, ..State::default() }) }
    }

    /// Bytes of addresses that the range has by now.
    pub fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load(Relaxed)
    }

    /// Bytes that devices may have besides what they have, as far as the host's addresses go.
    pub fn left_bytes(&self, state: &State) -> usize {
        let free: usize = state.free.iter().map(|(start, end)| end - start).sum();
        match addresses_left_bytes() {
            Some(left) if self.grows => free + left.saturating_sub(HOST_BYTES),
            _ => free,
        }
    }

    /// Takes pages and the guard behind them out of the free ranges; `None` where there are no such addresses.
    pub fn take(&self, state: &mut State, pages: usize) -> Option<usize> {
        let span = pages.checked_add(GUARD_BYTES)?;
        state.take(span).or_else(|| {
            let end = self.base + self.reserved_bytes();
            let more = if self.grows { span.checked_next_multiple_of(GROWTH_BYTES)? } else { return None };
            addresses_left_bytes().is_none_or(|left| left > more + HOST_BYTES).then_some(())?;
            reserved(end, more, libc::MAP_FIXED_NOREPLACE)?;
            self.reserved_bytes.fetch_add(more, Relaxed);
            state.put_back(end, more);
            state.take(span)
        })
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
        if self.reserved_bytes() > 0 {
            // SAFETY: our own reservation; nobody holds addresses into it any more.
            unsafe { libc::munmap(self.base as *mut _, self.reserved_bytes()) };
        }
    }
}

/// Addresses without access, at `hint` if they are free, or there only if `flags` say so.
fn reserved(hint: usize, bytes: usize, flags: i32) -> Option<usize> {
    // SAFETY: a fresh mapping without access, in no other one's place, disturbs nothing.
    let base = unsafe {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        libc::mmap(hint as *mut _, bytes, libc::PROT_NONE, flags, -1, 0)
    };
    if base == libc::MAP_FAILED {
        return None;
    }
    if flags != 0 && base as usize != hint {
        // A kernel before 4.17 takes the flag for a hint.
        // SAFETY: the mapping of just now.
        unsafe { libc::munmap(base, bytes) };
        return None;
    }
    // Rows of a matrix are often a page apart. Where the host has no larger pages, nothing is lost.
    // SAFETY: our own mapping.
    unsafe { libc::madvise(base, bytes, libc::MADV_HUGEPAGE) };
    Some(base as usize)
}

/// Whether the host has what it needs besides devices' memory.
pub fn host_has_room() -> bool {
    addresses_left_bytes().is_none_or(|left| left > HOST_BYTES)
}

/// Addresses that the process may still take, where they are limited.
pub fn addresses_left_bytes() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct is the call's to fill.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let taken_pages: usize = statm.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Some((limit.rlim_cur as usize).saturating_sub(taken_pages * PAGE_BYTES))
}

impl State {
    /// The first free range of so many bytes.
    fn take(&mut self, span: usize) -> Option<usize> {
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= span)?;
        self.free.remove(&start);
        if start + span < end {
            self.free.insert(start + span, end);
        }
        Some(start)
    }

    /// Makes a range free.
    fn put_back(&mut self, start: usize, span: usize) {
        let (mut from, mut to) = (start, start + span);
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

    /// Puts what [`Space::take`] gave back.
    pub fn put_back_pages(&mut self, start: usize, pages: usize) {
        self.put_back(start, pages + GUARD_BYTES);
    }

    /// Makes an address range inaccessible, and free unless it is reserved.
    pub fn give_back(&mut self, Freed { start, pages, is_reserved }: Freed) {
        // SAFETY: these pages were this allocation's alone; the host gets their memory back.
        unsafe {
            libc::madvise(start as *mut _, pages, libc::MADV_DONTNEED);
            libc::mprotect(start as *mut _, pages, libc::PROT_NONE);
        }
        if !is_reserved {
            self.put_back_pages(start, pages);
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
