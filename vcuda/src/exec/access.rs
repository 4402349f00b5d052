//! Where the lanes of an access go, PTX ISA 9.7.9 and 9.7.13: every address is checked before it is used.

use super::fault::FaultKind;
use super::op::Op;
use super::registers::{ALL, LANES, lanes_of};
use super::space::{
    GENERIC, GLOBAL, LOCAL, LOCAL_WINDOW, PARAM, PARAM_START, PARAM_WINDOW, SHARED_WINDOW, SHARED32,
    SHARED64, offset, space,
};
use super::warp::Warp;

/// The addresses in an access's register, without its offset.
///
/// # Safety
/// The address slot is in the register file.
#[inline(always)]
unsafe fn addresses(warp: &Warp, op: &Op) -> [u64; LANES] {
    // SAFETY: the caller's.
    unsafe { if space(op) == SHARED32 { warp.wide_lanes(op.a) } else { warp.lanes(op.a) } }
}

/// Whether accesses of `bytes` that begin so far into so many bytes of memory are all inside; neither is as many as half of
/// what the type holds. One loop after the other, each of one kind: of such the compiler makes vectors.
macro_rules! are_inside {
    ($name:ident, $ty:ty) => {
        #[inline(always)]
        pub fn $name(far: &[$ty; LANES], size: $ty, bytes: $ty) -> bool {
            let last = size.wrapping_sub(bytes);
            let (mut before, mut behind) = (0, 0);
            for lane in 0..LANES {
                before |= far[lane];
            }
            for lane in 0..LANES {
                behind |= last.wrapping_sub(far[lane]);
            }
            (before | behind | last) >> (<$ty>::BITS - 1) == 0
        }
    };
}
are_inside!(are_inside32, u32);
are_inside!(are_inside64, u64);

/// Addresses that lead to one stretch of host memory.
pub struct Window {
    start: u64,
    end: u64,
    /// From an address to the host's, and what each lane adds to the one before it.
    base: u64,
    stride: u64,
}

impl Window {
    /// Host pointers of all lanes for an access of `bytes` at these addresses, if all are inside and multiples of that.
    #[inline(always)]
    pub fn pointers(&self, at: &[u64; LANES], bytes: u64) -> Option<[*mut u8; LANES]> {
        let Window { start, end, base, stride } = *self;
        // The last place that is right, from the start; addresses have 63 bits, so a lane is wrong where the sign of its
        // distance to one end or the other is. Host vectors have no comparison of unsigned numbers.
        let last = (end - start).wrapping_sub(bytes);
        let mut out = [std::ptr::null_mut(); LANES];
        let (mut outside, mut odd) = (last, 0);
        for lane in 0..LANES {
            let far = at[lane].wrapping_sub(start);
            outside |= far | last.wrapping_sub(far);
            odd |= at[lane];
            out[lane] = base.wrapping_add(at[lane]).wrapping_add(lane as u64 * stride) as *mut u8;
        }
        (outside >> 63 == 0 && odd & (bytes - 1) == 0).then_some(out)
    }
}

impl Warp<'_> {
    /// Where an address leads if it is like the last one of this operation, or in the CTA's own memory.
    #[inline(always)]
    pub fn window(&self, space: u8, address: u64) -> Window {
        let (origin, space) = match space {
            GENERIC => match address & 0xf << 60 {
                SHARED_WINDOW => (SHARED_WINDOW, SHARED64),
                LOCAL_WINDOW => (LOCAL_WINDOW, LOCAL),
                PARAM_WINDOW => (PARAM_WINDOW + PARAM_START, PARAM),
                _ => (0, GLOBAL),
            },
            LOCAL if address >= PARAM_START => (PARAM_START, PARAM),
            PARAM => (PARAM_START, PARAM),
            space => (0, space),
        };
        let (base, bytes, stride) = match space {
            GLOBAL => {
                let (start, end) = self.cta.ranges.last(self.pc);
                return Window { start, end, base: 0, stride: 0 };
            }
            LOCAL => {
                let bytes = self.cta.kernel.local_bytes_per_thread as u64;
                (self.local as u64, bytes, bytes)
            }
            PARAM => (self.cta.params as u64, self.cta.kernel.param_bytes as u64, 0),
            _ => (self.cta.shared as u64, self.cta.shared_bytes as u64, 0),
        };
        Window { start: origin, end: origin + bytes, base: base.wrapping_sub(origin), stride }
    }
}

/// Lanes of a row of a matrix's fragment.
pub const QUAD: usize = 4;

/// Where all 32 lanes go with one check.
pub enum Together {
    /// Each four lanes to neighbouring places, one after the other.
    Quads([*mut u8; LANES / QUAD]),
    One(*mut u8),
}

impl Together {
    /// Where the first lane goes, if the others go to the places behind it, one after the other, of so many bytes.
    #[inline(always)]
    pub fn row(&self, bytes: u64) -> Option<*mut u8> {
        let Together::Quads(at) = self else { return None };
        let mut apart = 0;
        for quad in 0..LANES / QUAD {
            apart |= (at[quad] as u64).wrapping_sub(at[0] as u64) ^ ((QUAD * quad) as u64 * bytes);
        }
        (apart == 0).then_some(at[0])
    }
}

/// Of addresses for accesses of so many bytes: what is not zero if four lanes go to other than neighbouring places, and what is
/// not if some differ.
macro_rules! apart {
    ($name:ident, $ty:ty) => {
        #[inline(always)]
        fn $name(at: &[$ty; LANES], bytes: u64) -> ($ty, $ty) {
            let (mut apart, mut differ) = (0, 0);
            for lane in 0..LANES {
                apart |=
                    at[lane].wrapping_sub(at[lane & !(QUAD - 1)]) ^ ((lane % QUAD) as $ty * bytes as $ty);
                differ |= at[lane] ^ at[0];
            }
            // As numbers: the compiler would compare lane by lane, in bits that it has to pack.
            std::hint::black_box((apart, differ))
        }
    };
}
apart!(apart32, u32);
apart!(apart64, u64);

/// Where an access of `bytes` a lane goes if it is so simple; nothing is said of others.
///
/// # Safety
/// The address slot is in the register file.
#[inline(always)]
pub unsafe fn together(warp: &Warp, op: &Op, bytes: u64) -> Option<Together> {
    if warp.mask != ALL {
        return None;
    }
    let mut starts = [0; LANES / QUAD];
    // SAFETY: the caller's.
    let is_one = unsafe {
        if space(op) == SHARED32 {
            let at: &[u32; LANES] = warp.register(op.a);
            let (apart, differ) = apart32(at, bytes);
            let mut far = 0;
            for quad in 0..LANES / QUAD {
                starts[quad] = u64::from(at[QUAD * quad]);
                far |= at[QUAD * quad];
            }
            // Past half of what 32 bits hold, the lanes may go on at zero.
            if apart != 0 && differ != 0 || far >> 31 != 0 {
                return None;
            }
            differ == 0
        } else {
            let at: &[u64; LANES] = warp.register(op.a);
            let (apart, differ) = apart64(at, bytes);
            if apart != 0 && differ != 0 {
                return None;
            }
            for quad in 0..LANES / QUAD {
                starts[quad] = at[QUAD * quad];
            }
            differ == 0
        }
    };
    let Window { start, end, base, stride } = warp.window(space(op), starts[0].wrapping_add(offset(op)));
    if stride != 0 {
        return None;
    }
    let last = (end - start).wrapping_sub(if is_one { bytes } else { QUAD as u64 * bytes });
    let (mut outside, mut odd, mut out) = (last, 0, [std::ptr::null_mut(); LANES / QUAD]);
    for quad in 0..LANES / QUAD {
        let at = starts[quad].wrapping_add(offset(op));
        let far = at.wrapping_sub(start);
        outside |= far | last.wrapping_sub(far);
        odd |= at;
        out[quad] = base.wrapping_add(at) as *mut u8;
    }
    let is_right = outside >> 63 == 0 && odd & (bytes - 1) == 0;
    is_right.then_some(if is_one { Together::One(out[0]) } else { Together::Quads(out) })
}

/// Host pointers of all lanes for an access of `bytes`; lanes that are not in the mask get valid ones too, so that a load may
/// read them all. `None` after a fault.
///
/// # Safety
/// The address slot is in the register file.
#[inline(always)]
pub unsafe fn pointers(warp: &mut Warp, op: &Op, bytes: u64) -> Option<[*mut u8; LANES]> {
    // SAFETY: the caller's.
    let mut at = unsafe {
        if space(op) == SHARED32 && warp.mask == ALL {
            let found = shared_pointers(warp, warp.register(op.a), offset(op), bytes);
            if found.is_some() {
                return found;
            }
        }
        addresses(warp, op)
    };
    let first = at[warp.mask.trailing_zeros() as usize & 31];
    if warp.mask != ALL {
        for lane in 0..LANES {
            at[lane] = if warp.mask >> lane & 1 != 0 { at[lane] } else { first };
        }
    }
    for lane in 0..LANES {
        at[lane] = at[lane].wrapping_add(offset(op));
    }
    let first = first.wrapping_add(offset(op));
    match warp.window(space(op), first).pointers(&at, bytes) {
        Some(out) => Some(out),
        None => pointers_checked(warp, space(op), &at, bytes),
    }
}

/// Host pointers of accesses of `bytes` at addresses of 32 bits in the CTA's shared memory, an offset added, if all are inside and
/// multiples of that.
#[inline(always)]
fn shared_pointers(warp: &Warp, at: &[u32; LANES], offset: u64, bytes: u64) -> Option<[*mut u8; LANES]> {
    let (mut far, mut odd, mut places) = (0, 0, [0; LANES]);
    for lane in 0..LANES {
        // Below half of what 32 bits hold a sum with 32 bits of a sign is right, or has the upper bit.
        far |= at[lane];
        places[lane] = at[lane].wrapping_add(offset as u32);
        odd |= places[lane];
    }
    let is_short = i32::try_from(offset as i64).is_ok();
    let is_inside = are_inside32(&places, warp.cta.shared_bytes as u32, bytes as u32);
    if !is_short || far >> 31 != 0 || !is_inside || odd & (bytes as u32 - 1) != 0 {
        return None;
    }
    let mut out = [std::ptr::null_mut(); LANES];
    for lane in 0..LANES {
        out[lane] = warp.cta.shared.wrapping_add(places[lane] as usize);
    }
    Some(out)
}

/// The same, lane by lane: where one of them is wrong, or they go to several stretches of memory.
#[cold]
#[inline(never)]
fn pointers_checked(warp: &mut Warp, space: u8, at: &[u64; LANES], bytes: u64) -> Option<[*mut u8; LANES]> {
    let mut out = [std::ptr::null_mut(); LANES];
    for lane in lanes_of(warp.mask) {
        out[lane] = warp.pointer_in(space, lane, at[lane], bytes, bytes)?;
    }
    let first = out[warp.mask.trailing_zeros() as usize & 31];
    lanes_of(!warp.mask).for_each(|lane| out[lane] = first);
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
        self.pointer_in(SPACE, lane, address, bytes, align)
    }

    /// The same in a space that is known only now.
    #[inline(never)]
    pub fn pointer_in(
        &mut self,
        named: u8,
        lane: usize,
        address: u64,
        bytes: u64,
        align: u64,
    ) -> Option<*mut u8> {
        let cta = self.cta;
        let space = match named {
            GENERIC if address >> 60 == SHARED_WINDOW >> 60 => SHARED64,
            GENERIC if address >> 60 == LOCAL_WINDOW >> 60 => LOCAL,
            GENERIC if address >> 60 == PARAM_WINDOW >> 60 => PARAM,
            GENERIC => GLOBAL,
            LOCAL if address >= PARAM_START => PARAM,
            space => space,
        };
        let offset = match space {
            PARAM => (address & (SHARED_WINDOW - 1)).wrapping_sub(PARAM_START),
            _ if named == GENERIC => address & (SHARED_WINDOW - 1),
            _ => address,
        };
        let name = match space {
            GLOBAL => "global",
            LOCAL => "local",
            PARAM => "parameter",
            _ => "shared",
        };
        if address & (align - 1) != 0 {
            let message = format!("a {name} access of {bytes} bytes at {address:#x} is misaligned");
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
            _ if named == GENERIC => match cta.shared_at(offset, bytes) {
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
                format!("a {name} access of {bytes} bytes at {offset:#x} is outside its {size} bytes");
            self.fail_lane(lane, FaultKind::IllegalAddress, message);
            return None;
        }
        // SAFETY: inside the memory that `base` is the start of.
        Some(unsafe { base.add(offset as usize) })
    }

    /// Whether an access that [`Warp::pointer`] has let through to `host` is one of shared memory.
    pub fn is_shared(&self, host: *const u8) -> bool {
        let (start, bytes) = self.cta.cluster.shared_range();
        (host as usize).wrapping_sub(start) < bytes
    }

    fn global_pointer(&mut self, lane: usize, address: u64, bytes: u64) -> Option<*mut u8> {
        let (start, end) = self.cta.ranges.find(self.pc, address, self.cta.memory);
        if address >= start && address < end && end - address >= bytes {
            return Some(address as *mut u8);
        }
        let place = self.cta.memory.whereabouts(address, bytes);
        let message = format!("a global access of {bytes} bytes at {address:#x} is {place}");
        self.fail_lane(lane, FaultKind::IllegalAddress, message);
        None
    }
}
