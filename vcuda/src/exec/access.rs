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
pub unsafe fn addresses(warp: &Warp, op: &Op) -> [u64; LANES] {
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

/// Where all 32 lanes go with one check.
pub enum Together {
    /// To neighbouring places, one after the other.
    Row(*mut u8),
    One(*mut u8),
}

/// Where an access of `bytes` a lane goes if it is so simple; nothing is said of others.
#[inline(always)]
pub fn together(warp: &Warp, op: &Op, at: &[u64; LANES], bytes: u64) -> Option<Together> {
    if warp.mask != ALL {
        return None;
    }
    let (mut apart, mut differ) = (0, 0);
    for lane in 0..LANES {
        let far = at[lane].wrapping_sub(at[0]);
        apart |= far ^ (lane as u64 * bytes);
        differ |= far;
    }
    // As numbers: the compiler would compare lane by lane, in bits that it has to pack.
    let (apart, differ) = std::hint::black_box((apart, differ));
    if apart != 0 && differ != 0 {
        return None;
    }
    let first = at[0].wrapping_add(offset(op));
    let Window { start, end, base, stride } = warp.window(space(op), first);
    let extent = if differ == 0 { bytes } else { bytes * LANES as u64 };
    let inside = first >= start && first < end && end - first >= extent;
    if !inside || stride != 0 || first & (bytes - 1) != 0 {
        return None;
    }
    let host = base.wrapping_add(first) as *mut u8;
    Some(if differ == 0 { Together::One(host) } else { Together::Row(host) })
}

/// Lanes of a row of a matrix's fragment.
pub const QUAD: usize = 4;

/// Where each four lanes of an access of `bytes` a lane go, if they go to neighbouring places in a stretch of memory; nothing
/// is said of others.
#[inline(always)]
pub fn quads(warp: &Warp, op: &Op, at: &[u64; LANES], bytes: u64) -> Option<[*mut u8; LANES / QUAD]> {
    if warp.mask != ALL {
        return None;
    }
    let mut apart = 0;
    for lane in 0..LANES {
        apart |= at[lane].wrapping_sub(at[lane & !(QUAD - 1)]) ^ ((lane % QUAD) as u64 * bytes);
    }
    if std::hint::black_box(apart) != 0 {
        return None;
    }
    let Window { start, end, base, stride } = warp.window(space(op), at[0].wrapping_add(offset(op)));
    let last = (end - start).wrapping_sub(QUAD as u64 * bytes);
    let (mut outside, mut odd, mut out) = (last, 0, [std::ptr::null_mut(); LANES / QUAD]);
    for quad in 0..LANES / QUAD {
        let at = at[QUAD * quad].wrapping_add(offset(op));
        let far = at.wrapping_sub(start);
        outside |= far | last.wrapping_sub(far);
        odd |= at;
        out[quad] = base.wrapping_add(at) as *mut u8;
    }
    (outside >> 63 == 0 && stride == 0 && odd & (bytes - 1) == 0).then_some(out)
}

/// Host pointers of all lanes for an access of `bytes` at these addresses; lanes that are not in the mask get valid
/// ones too, so that a load may read them all. `None` after a fault.
#[inline(always)]
pub fn pointers(warp: &mut Warp, op: &Op, mut at: [u64; LANES], bytes: u64) -> Option<[*mut u8; LANES]> {
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
