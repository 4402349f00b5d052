//! `ld` and `st`, PTX ISA 9.7.9.

use super::access::{Together, addresses, pointers, together};
use super::op::{Body, Flow, LANES, Op, Warp, Word, lanes_of};

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
            let mut out = [[E::ZERO; LANES]; N];
            match together(warp, op, &at, bytes) {
                Some(Together::Row(from)) => {
                    let from = &*(from as *const [[E; N]; LANES]);
                    for n in 0..N {
                        for lane in 0..LANES {
                            out[n][lane] = from[lane][n].widen();
                        }
                    }
                }
                Some(Together::One(from)) => {
                    let from = *(from as *const [E; N]);
                    for n in 0..N {
                        out[n] = [from[n].widen(); LANES];
                    }
                }
                None => {
                    let Some(from) = pointers(warp, op, at, bytes) else { return Flow::Fault };
                    for lane in 0..LANES {
                        let from = *(from[lane] as *const [E; N]);
                        for n in 0..N {
                            out[n][lane] = from[n].widen();
                        }
                    }
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
pub struct Store<E: Element, const N: usize>(std::marker::PhantomData<E>);

impl<E: Element, const N: usize> Body for Store<E, N> {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width; the pointers are checked.
        unsafe {
            let bytes = (E::BYTES * N) as u64;
            let at = addresses(warp, op);
            let mut rows = [[E::narrow(E::ZERO); N]; LANES];
            for n in 0..N {
                let values: [E::Lane; LANES] = warp.lanes(slots(op)[n]);
                for lane in 0..LANES {
                    rows[lane][n] = E::narrow(values[lane]);
                }
            }
            match together(warp, op, &at, bytes) {
                Some(Together::Row(to)) => *(to as *mut [[E; N]; LANES]) = rows,
                Some(Together::One(to)) => *(to as *mut [E; N]) = rows[LANES - 1],
                None => {
                    let Some(to) = pointers(warp, op, at, bytes) else { return Flow::Fault };
                    for lane in lanes_of(warp.mask) {
                        *(to[lane] as *mut [E; N]) = rows[lane];
                    }
                }
            }
        }
        Flow::Next
    }
}
