//! `ld` and `st`, PTX ISA 9.7.9.

use super::access::{QUAD, Together, addresses, pointers, quads, together};
use super::element::{Element, registers, rows};
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
            let at = addresses(warp, op);
            let out: [[E::Lane; LANES]; N] = match together(warp, op, &at, bytes) {
                Some(Together::Row(from)) => registers(&*(from as *const [[E; N]; LANES])),
                Some(Together::One(from)) => {
                    let from = *(from as *const [E; N]);
                    let mut out = [[E::ZERO; LANES]; N];
                    for n in 0..N {
                        out[n] = [from[n].widen(); LANES];
                    }
                    out
                }
                None => {
                    let Some(from) = pointers(warp, op, at, bytes) else { return Flow::Fault };
                    // Rows of a matrix, as a rule.
                    let is_wide = bytes == 16 && space(op) == GLOBAL;
                    let step =
                        if is_wide { warp.cta.ranges.step(warp.pc, warp.index, from[0] as u64) } else { 0 };
                    registers(&gather::<[E; N]>(&from, step))
                }
            };
            for n in 0..N {
                warp.set_lanes(slots(op)[n], out[n]);
            }
        }
        Flow::Next
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
            let at = addresses(warp, op);
            let mut values = [[E::ZERO; LANES]; N];
            for n in 0..N {
                values[n] = warp.lanes(slots(op)[n]);
            }
            let rows: [[E; N]; LANES] = rows(&values);
            match together(warp, op, &at, bytes) {
                Some(Together::Row(to)) => *(to as *mut [[E; N]; LANES]) = rows,
                Some(Together::One(to)) => *(to as *mut [E; N]) = rows[LANES - 1],
                None => {
                    if let Some(to) = quads(warp, op, &at, bytes) {
                        for (quad, to) in to.into_iter().enumerate() {
                            *(to as *mut [[E; N]; QUAD]) = *(&raw const rows[QUAD * quad]).cast();
                        }
                        return Flow::Next;
                    }
                    let Some(to) = pointers(warp, op, at, bytes) else { return Flow::Fault };
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
