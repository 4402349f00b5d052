//! `ld` and `st`, PTX ISA 9.7.9.

use super::access::{QUAD, Together, pointers, together};
use super::element::{Element, rows, spread};
use super::host::prefetch;
use super::op::{Body, Flow, Op};
use super::registers::{ALL, LANES, lanes_of};
use super::space::{GLOBAL, space};
use super::warp::Warp;

/// The register slots of a vector access, in order.
#[inline(always)]
fn slots(op: &Op) -> [u16; 4] {
    [op.d, op.b, op.c, op.e]
}

/// `ld` of `N` elements; vector registers are `d`, `b`, `c`, `e`.
pub struct Load<E: Element, const N: usize>(std::marker::PhantomData<E>);

impl<E: Element, const N: usize> Body for Load<E, N> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked.
        unsafe {
            let bytes = (E::BYTES * N) as u64;
            match together(warp, op, bytes) {
                Some(Together::Quads(from)) => {
                    set_rows::<E, N>(warp, op, |lane| {
                        from[lane / QUAD].cast::<[E; N]>().wrapping_add(lane % QUAD)
                    });
                }
                Some(Together::One(from)) => {
                    let from = *(from as *const [E; N]);
                    for n in 0..N {
                        warp.set_lanes(slots(op)[n], [from[n].widen(); LANES]);
                    }
                }
                None => {
                    let Some(from) = pointers(warp, op, bytes) else { return Flow::Fault };
                    if bytes == 16 && space(op) == GLOBAL {
                        // Rows of a matrix, as a rule.
                        let step = warp.cta.ranges.step(warp.pc, warp.index, from[0] as u64);
                        let rows = gather::<[E; N]>(&from, step);
                        set_rows::<E, N>(warp, op, |lane| &raw const rows[lane]);
                    } else {
                        set_rows::<E, N>(warp, op, |lane| from[lane].cast());
                    }
                }
            }
        }
        Flow::Next
    }
}

/// Sets the vector registers, given each lane's row of them.
///
/// # Safety
/// The rows are there, and the slots in the register file.
#[inline(always)]
unsafe fn set_rows<E: Element, const N: usize>(
    warp: &mut Warp,
    op: &Op,
    row: impl Fn(usize) -> *const [E; N],
) {
    let mut to = [std::ptr::null_mut(); N];
    // SAFETY: the caller's.
    unsafe {
        if warp.writable == ALL {
            for n in 0..N {
                to[n] = warp.register_mut::<E::Lane>(slots(op)[n]).cast();
            }
            return spread(to, row);
        }
        let mut out = [[E::ZERO; LANES]; N];
        for n in 0..N {
            to[n] = (&raw mut out[n]).cast();
        }
        spread(to, row);
        for n in 0..N {
            warp.set_lanes(slots(op)[n], out[n]);
        }
    }
}

/// What is at each pointer; it may soon be wanted so many bytes from there. In place the compiler would take the values
/// apart into words; as it is, the host has the lanes' misses of its caches under way at once.
///
/// # Safety
/// The pointers lead to as much.
#[inline(never)]
unsafe fn gather<T: Copy>(from: &[*mut u8; LANES], step: u64) -> [T; LANES] {
    // SAFETY: the caller's.
    unsafe {
        let mut out = [*(from[0] as *const T); LANES];
        for lane in 1..LANES {
            out[lane] = *(from[lane] as *const T);
        }
        if step != 0 {
            for from in from {
                prefetch(from.wrapping_add(step as usize), 1);
            }
        }
        out
    }
}

/// `st` of `N` elements; vector registers are `d`, `b`, `c`, `e`.
pub struct Store<E: Element, const N: usize>(std::marker::PhantomData<E>);

impl<E: Element, const N: usize> Body for Store<E, N> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked.
        unsafe {
            let bytes = (E::BYTES * N) as u64;
            let mut values = [[E::ZERO; LANES]; N];
            for n in 0..N {
                values[n] = warp.lanes(slots(op)[n]);
            }
            let rows: [[E; N]; LANES] = rows(&values);
            match together(warp, op, bytes) {
                Some(Together::Quads(to)) => {
                    for (quad, to) in to.into_iter().enumerate() {
                        *(to as *mut [[E; N]; QUAD]) = *(&raw const rows[QUAD * quad]).cast();
                    }
                }
                Some(Together::One(to)) => *(to as *mut [E; N]) = rows[LANES - 1],
                None => {
                    let Some(to) = pointers(warp, op, bytes) else { return Flow::Fault };
                    if warp.mask == ALL {
                        for lane in 0..LANES {
                            *(to[lane] as *mut [E; N]) = rows[lane];
                        }
                        return Flow::Next;
                    }
                    for lane in lanes_of(warp.mask) {
                        *(to[lane] as *mut [E; N]) = rows[lane];
                    }
                }
            }
        }
        Flow::Next
    }
}
