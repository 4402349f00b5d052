//! Loads, stores and atomics, PTX ISA 9.7.9 and 9.7.13: every address is checked before it is used.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::fault::FaultKind;
use super::op::{ALL, Body, Flow, LANES, Op, Warp, Word};

/// Where shared and local memory and the kernel's parameters appear among generic addresses: above any
/// host address. The address of a parameter is in its window from the start.
pub const SHARED_WINDOW: u64 = 1 << 60;
pub const LOCAL_WINDOW: u64 = 2 << 60;
pub const PARAM_WINDOW: u64 = 3 << 60;

/// State spaces, as const parameters: with 64-bit addresses but for `SHARED32`.
pub const GLOBAL: u8 = 0;
pub const SHARED32: u8 = 1;
pub const SHARED64: u8 = 2;
pub const LOCAL: u8 = 3;
pub const GENERIC: u8 = 4;
pub const PARAM: u8 = 5;

/// A memory element.
pub trait Element: Copy + 'static {
    /// The register lane it loads into.
    type Lane: Word;
    const BYTES: usize = size_of::<Self>();
    fn widen(self) -> Self::Lane;
    fn narrow(lane: Self::Lane) -> Self;
    const ZERO: Self::Lane;
}

macro_rules! element {
    ($ty:ty, $lane:ty) => {
        impl Element for $ty {
            type Lane = $lane;
            const ZERO: $lane = 0;
            #[inline(always)]
            fn widen(self) -> $lane {
                self as $lane
            }
            #[inline(always)]
            fn narrow(lane: $lane) -> $ty {
                lane as $ty
            }
        }
    };
}
element!(u8, u32);
element!(u16, u32);
element!(u32, u32);
element!(u64, u64);

/// Host pointers of all lanes for an access of `bytes`; lanes that are not in the mask get the first
/// one's, so that a load may read them all. `None` after a fault.
///
/// # Safety
/// The address slot is in the register file.
#[inline(always)]
pub unsafe fn pointers<const SPACE: u8>(warp: &mut Warp, op: &Op, bytes: u64) -> Option<[*mut u8; LANES]> {
    let mut at = [0u64; LANES];
    // SAFETY: the caller's.
    unsafe {
        match SPACE {
            SHARED32 => {
                let narrow: [u32; LANES] = warp.lanes(op.a);
                for lane in 0..LANES {
                    at[lane] = narrow[lane] as u64;
                }
            }
            _ => at = warp.lanes(op.a),
        }
    }
    if warp.mask != ALL {
        let first = at[warp.mask.trailing_zeros() as usize & 31];
        for lane in 0..LANES {
            at[lane] = if warp.mask >> lane & 1 != 0 { at[lane] } else { first };
        }
    }
    let (mut low, mut high, mut bits) = (u64::MAX, 0, 0);
    for lane in 0..LANES {
        at[lane] = at[lane].wrapping_add(op.imm as u64);
        low = low.min(at[lane]);
        high = high.max(at[lane]);
        bits |= at[lane];
    }
    let (base, inside) = match SPACE {
        GLOBAL => (0, low >= warp.range.0 && high < warp.range.1 && warp.range.1 - high >= bytes),
        SHARED32 | SHARED64 => {
            let size = warp.cta.shared_bytes as u64;
            (warp.cta.shared as u64, high < size && size - high >= bytes)
        }
        _ => (0, false),
    };
    if !inside || bits & (bytes - 1) != 0 {
        // SAFETY: the addresses are looked at one by one.
        return unsafe { pointers_checked::<SPACE>(warp, at, bytes) };
    }
    let mut out = [std::ptr::null_mut(); LANES];
    for lane in 0..LANES {
        out[lane] = base.wrapping_add(at[lane]) as *mut u8;
    }
    Some(out)
}

/// The same, lane by lane: where one of them is wrong, in generic and local memory, and when the
/// access leaves the allocation of the last one.
#[cold]
#[inline(never)]
unsafe fn pointers_checked<const SPACE: u8>(
    warp: &mut Warp,
    at: [u64; LANES],
    bytes: u64,
) -> Option<[*mut u8; LANES]> {
    let mut out = [std::ptr::null_mut(); LANES];
    for lane in 0..LANES {
        out[lane] = warp.pointer::<SPACE>(lane, at[lane], bytes, bytes)?;
    }
    Some(out)
}

impl Warp<'_> {
    /// The host pointer of a lane's access of `bytes` at `address`, a multiple of `align`; `None` after a
    /// fault. Generic addresses of shared memory reach the whole cluster, others the CTA's own.
    pub fn pointer<const SPACE: u8>(
        &mut self,
        lane: usize,
        address: u64,
        bytes: u64,
        align: u64,
    ) -> Option<*mut u8> {
        let cta = self.cta;
        let space = match SPACE {
            GENERIC if address >> 60 == SHARED_WINDOW >> 60 => SHARED64,
            GENERIC if address >> 60 == LOCAL_WINDOW >> 60 => LOCAL,
            GENERIC | LOCAL if address >> 60 == PARAM_WINDOW >> 60 => PARAM,
            GENERIC => GLOBAL,
            space => space,
        };
        let offset = if SPACE == GENERIC || space == PARAM { address & (SHARED_WINDOW - 1) } else { address };
        let named = match space {
            GLOBAL => "global",
            LOCAL => "local",
            PARAM => "parameter",
            _ => "shared",
        };
        if address & (align - 1) != 0 {
            let message = format!("a {named} access of {bytes} bytes at {address:#x} is misaligned");
            self.fail_lane(lane, FaultKind::MisalignedAddress, message);
            return None;
        }
        let (base, size) = match space {
            GLOBAL => return self.global_pointer(lane, address, bytes),
            // SAFETY: the lane's part of the warp's local memory.
            LOCAL => unsafe {
                let size = cta.kernel.local_bytes_per_thread;
                (self.local.add(lane * size), size)
            },
            PARAM => (cta.params, cta.kernel.param_bytes),
            _ if SPACE == GENERIC => match cta.shared_at(offset, bytes) {
                Ok(at) => return Some(at),
                Err(message) => {
                    self.fail_lane(lane, FaultKind::IllegalAddress, message);
                    return None;
                }
            },
            _ => (cta.shared, cta.shared_bytes),
        };
        if !(offset < size as u64 && size as u64 - offset >= bytes) {
            let message =
                format!("a {named} access of {bytes} bytes at {offset:#x} is outside its {size} bytes");
            self.fail_lane(lane, FaultKind::IllegalAddress, message);
            return None;
        }
        // SAFETY: inside the memory that `base` is the start of.
        Some(unsafe { base.add(offset as usize) })
    }

    /// Whether an access that [`Warp::pointer`] has let through to `host` is one of shared memory.
    #[inline(always)]
    pub fn is_shared<const SPACE: u8>(&self, host: *const u8) -> bool {
        match SPACE {
            GENERIC => {
                let (start, bytes) = self.cta.cluster.shared_range();
                (host as usize).wrapping_sub(start) < bytes
            }
            space => space == SHARED32 || space == SHARED64,
        }
    }

    fn global_pointer(&mut self, lane: usize, address: u64, bytes: u64) -> Option<*mut u8> {
        if !(address >= self.range.0 && address < self.range.1) {
            self.range = self.cta.memory.range_of(address).unwrap_or((1, 1));
        }
        if address >= self.range.0 && address < self.range.1 && self.range.1 - address >= bytes {
            return Some(address as *mut u8);
        }
        let place = self.cta.memory.whereabouts(address, bytes);
        let message = format!("a global access of {bytes} bytes at {address:#x} is {place}");
        self.fail_lane(lane, FaultKind::IllegalAddress, message);
        None
    }
}

/// The host pointer of an access of `bytes` at one valid address in all lanes, such as the operand that
/// a warp shares in a matrix product; `None` where it is anything else.
///
/// # Safety
/// The address slot is in the register file.
#[inline(always)]
unsafe fn one_pointer<const SPACE: u8>(warp: &Warp, op: &Op, bytes: u64) -> Option<*mut u8> {
    let mut differ = 0;
    // SAFETY: the caller's.
    let first = unsafe {
        match SPACE {
            SHARED32 => {
                let at: [u32; LANES] = warp.lanes(op.a);
                at.iter().for_each(|address| differ |= u64::from(address ^ at[0]));
                u64::from(at[0])
            }
            _ => {
                let at: [u64; LANES] = warp.lanes(op.a);
                at.iter().for_each(|address| differ |= address ^ at[0]);
                at[0]
            }
        }
    };
    let address = first.wrapping_add(op.imm as u64);
    let (base, start, end) = match SPACE {
        GLOBAL => (0, warp.range.0, warp.range.1),
        SHARED32 | SHARED64 => (warp.cta.shared as u64, 0, warp.cta.shared_bytes as u64),
        _ => return None,
    };
    let inside = address >= start && address < end && end - address >= bytes;
    (warp.mask == ALL && differ == 0 && inside && address & (bytes - 1) == 0)
        .then(|| base.wrapping_add(address) as *mut u8)
}

/// The register slots of a vector access, in order.
#[inline(always)]
fn slots(op: &Op) -> [u16; 4] {
    [op.d, op.b, op.c, op.e]
}

/// `ld` of `N` elements; vector registers are `d`, `b`, `c`, `e`.
pub struct Load<const SPACE: u8, E: Element, const N: usize>(std::marker::PhantomData<E>);

impl<const SPACE: u8, E: Element, const N: usize> Body for Load<SPACE, E, N> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked.
        unsafe {
            let step = E::BYTES * N;
            if let Some(from) = one_pointer::<SPACE>(warp, op, step as u64) {
                let from = *(from as *const [E; N]);
                for n in 0..N {
                    warp.set_lanes(slots(op)[n], [from[n].widen(); LANES]);
                }
                return Flow::Next;
            }
            let Some(at) = pointers::<SPACE>(warp, op, step as u64) else { return Flow::Fault };
            let mut contiguous = true;
            for lane in 0..LANES {
                contiguous &= at[lane] as usize == at[0] as usize + lane * step;
            }
            let mut rows = [[E::narrow(E::ZERO); N]; LANES];
            let from = if contiguous {
                &*(at[0] as *const [[E; N]; LANES])
            } else {
                for lane in 0..LANES {
                    rows[lane] = *(at[lane] as *const [E; N]);
                }
                &rows
            };
            let mut out = [[E::ZERO; LANES]; N];
            for n in 0..N {
                for lane in 0..LANES {
                    out[n][lane] = from[lane][n].widen();
                }
            }
            for n in 0..N {
                warp.set_lanes(slots(op)[n], out[n]);
            }
        }
        Flow::Next
    }
}

/// `st` of `N` elements; vector registers are `d`, `b`, `c`, `e`.
pub struct Store<const SPACE: u8, E: Element, const N: usize>(std::marker::PhantomData<E>);

impl<const SPACE: u8, E: Element, const N: usize> Body for Store<SPACE, E, N> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked.
        unsafe {
            let Some(at) = pointers::<SPACE>(warp, op, (E::BYTES * N) as u64) else { return Flow::Fault };
            let mut values = [[E::ZERO; LANES]; N];
            for n in 0..N {
                values[n] = warp.lanes(slots(op)[n]);
            }
            let step = E::BYTES * N;
            let mut contiguous = warp.mask == ALL;
            for lane in 0..LANES {
                contiguous &= at[lane] as usize == at[0] as usize + lane * step;
            }
            let mut rows = [[E::narrow(E::ZERO); N]; LANES];
            for lane in 0..LANES {
                for n in 0..N {
                    rows[lane][n] = E::narrow(values[n][lane]);
                }
            }
            if contiguous {
                *(at[0] as *mut [[E; N]; LANES]) = rows;
            } else {
                for lane in (0..LANES).filter(|lane| warp.mask >> lane & 1 != 0) {
                    *(at[lane] as *mut [E; N]) = rows[lane];
                }
            }
        }
        Flow::Next
    }
}

/// What an atomic does to its word, `Op::e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Atomic {
    Add,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
    MinU,
    MaxU,
    MinS,
    MaxS,
    AddF,
    Inc,
    Dec,
}

const ATOMICS: [Atomic; 13] = [
    Atomic::Add,
    Atomic::And,
    Atomic::Or,
    Atomic::Xor,
    Atomic::Exchange,
    Atomic::CompareExchange,
    Atomic::MinU,
    Atomic::MaxU,
    Atomic::MinS,
    Atomic::MaxS,
    Atomic::AddF,
    Atomic::Inc,
    Atomic::Dec,
];

macro_rules! atomic {
    ($name:ident, $word:ty, $signed:ty, $atomic:ty, $add:expr) => {
        /// `atom`: `d` gets the old value, `b` and `c` are the operands.
        pub struct $name<const SPACE: u8>;
        impl<const SPACE: u8> Body for $name<SPACE> {
            #[inline(always)]
            unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
                // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked and
                // aligned, and all concurrent access to them in this launch is atomic or a race of the kernel's.
                unsafe {
                    let Some(at) = pointers::<SPACE>(warp, op, size_of::<$word>() as u64) else {
                        return Flow::Fault;
                    };
                    let (b, c): ([$word; LANES], [$word; LANES]) = (warp.lanes(op.b), warp.lanes(op.c));
                    let operation = ATOMICS[op.e as usize];
                    let add: fn($word, $word, bool) -> $word = $add;
                    let mut old = [0; LANES];
                    for lane in (0..LANES).filter(|lane| warp.mask >> lane & 1 != 0) {
                        let (b, c) = (b[lane], c[lane]);
                        let is_shared = warp.is_shared::<SPACE>(at[lane]);
                        let update = |x: $word| match operation {
                            Atomic::Add => x.wrapping_add(b),
                            Atomic::And => x & b,
                            Atomic::Or => x | b,
                            Atomic::Xor => x ^ b,
                            Atomic::Exchange => b,
                            Atomic::CompareExchange => {
                                if x == b {
                                    c
                                } else {
                                    x
                                }
                            }
                            Atomic::MinU => x.min(b),
                            Atomic::MaxU => x.max(b),
                            Atomic::MinS => (x as $signed).min(b as $signed) as $word,
                            Atomic::MaxS => (x as $signed).max(b as $signed) as $word,
                            Atomic::AddF => add(x, b, is_shared),
                            Atomic::Inc => {
                                if x >= b {
                                    0
                                } else {
                                    x + 1
                                }
                            }
                            Atomic::Dec => {
                                if x == 0 || x > b {
                                    b
                                } else {
                                    x - 1
                                }
                            }
                        };
                        let cell = <$atomic>::from_ptr(at[lane] as *mut $word);
                        old[lane] = match cell.fetch_update(Relaxed, Relaxed, |x| Some(update(x))) {
                            Ok(old) | Err(old) => old,
                        };
                    }
                    let writable = std::mem::replace(&mut warp.writable, warp.mask);
                    warp.set_lanes(op.d, old);
                    warp.writable = writable;
                }
                Flow::Next
            }
        }
    };
}
atomic!(Atomic32, u32, i32, AtomicU32, add32);
atomic!(Atomic64, u64, i64, AtomicU64, |a, b, _| (f64::from_bits(a) + f64::from_bits(b)).to_bits());

/// `atom.add.f32`, which keeps subnormals in shared memory and takes and gives zeros of their sign for them in
/// global memory (PTX ISA 9.7.13.15).
pub fn add32(a: u32, b: u32, is_shared: bool) -> u32 {
    let flush = |bits: u32| if bits & 0x7f80_0000 == 0 && !is_shared { bits & 0x8000_0000 } else { bits };
    flush((f32::from_bits(flush(a)) + f32::from_bits(flush(b))).to_bits())
}
