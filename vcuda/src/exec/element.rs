//! What `ld` and `st` move. Vector accesses have a lane's elements side by side, registers an element's lanes: 32 rows of
//! `N`, and `N` rows of 32.

use super::access::QUAD;
use super::registers::{LANES, Word};

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

/// Rows, one a lane, as registers, to where these are.
///
/// # Safety
/// The rows are there, and room for 32 lanes of each register.
#[inline(always)]
pub unsafe fn spread<E: Element, const N: usize>(
    to: [*mut E::Lane; N],
    row: impl Fn(usize) -> *const [E; N],
) {
    for first in (0..LANES).step_by(QUAD) {
        // SAFETY: the caller's; so many words in each.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if N == 4 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
                four_words(|lane| row(first + lane).cast(), |n| to[n].add(first).cast());
                continue;
            }
            #[cfg(target_arch = "x86_64")]
            if N == 2 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
                pairs_apart(|lane| row(first + lane).cast(), |n| to[n].add(first).cast());
                continue;
            }
            for n in 0..N {
                let mut column = [E::ZERO; QUAD];
                for lane in 0..QUAD {
                    column[lane] = (*row(first + lane))[n].widen();
                }
                to[n].add(first).cast::<[E::Lane; QUAD]>().write_unaligned(column);
            }
        }
    }
}

/// Registers as rows.
#[inline(always)]
pub fn rows<E: Element, const N: usize>(registers: &[[E::Lane; LANES]; N]) -> [[E; N]; LANES] {
    let mut out = [[E::narrow(E::ZERO); N]; LANES];
    #[cfg(target_arch = "x86_64")]
    if N == 4 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
        // SAFETY: so many words in each.
        unsafe {
            for quad in 0..LANES / QUAD {
                let to = &raw mut out[QUAD * quad];
                four_words(|n| (&raw const registers[n][QUAD * quad]).cast(), |lane| to.add(lane).cast());
            }
        }
        return out;
    }
    #[cfg(target_arch = "x86_64")]
    if N == 2 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
        // SAFETY: as above.
        unsafe { pairs_together((&raw const *registers).cast(), (&raw mut out).cast()) };
        return out;
    }
    for n in 0..N {
        for lane in 0..LANES {
            out[lane][n] = E::narrow(registers[n][lane]);
        }
    }
    out
}

/// Turns a square of four rows of four words. The compiler would move the words one by one.
///
/// # Safety
/// The rows are there, and room for each that comes of them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn four_words(from: impl Fn(usize) -> *const f32, to: impl Fn(usize) -> *mut f32) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's; every x86-64 has SSE2. Words are only moved.
    unsafe {
        let (a, b) = (_mm_loadu_ps(from(0)), _mm_loadu_ps(from(1)));
        let (c, d) = (_mm_loadu_ps(from(2)), _mm_loadu_ps(from(3)));
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(to(0), _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(to(1), _mm_movehl_ps(cd, ab));
        _mm_storeu_ps(to(2), _mm_movelh_ps(ab_high, cd_high));
        _mm_storeu_ps(to(3), _mm_movehl_ps(cd_high, ab_high));
    }
}

/// Four pairs of words to their first words, and their second ones; likewise.
///
/// # Safety
/// The pairs are there, and room for four words at both places.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn pairs_apart(from: impl Fn(usize) -> *const f64, to: impl Fn(usize) -> *mut f32) {
    use std::arch::x86_64::*;
    // SAFETY: as there.
    unsafe {
        let two = |lane| _mm_castpd_ps(_mm_loadh_pd(_mm_load_sd(from(lane)), from(lane + 1)));
        let (a, b) = (two(0), two(2));
        _mm_storeu_ps(to(0), _mm_shuffle_ps::<0b10_00_10_00>(a, b));
        _mm_storeu_ps(to(1), _mm_shuffle_ps::<0b11_01_11_01>(a, b));
    }
}

/// And back, of all lanes.
///
/// # Safety
/// There are 64 words at each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn pairs_together(from: *const f32, to: *mut f32) {
    use std::arch::x86_64::*;
    for lane in (0..LANES).step_by(4) {
        // SAFETY: as above.
        unsafe {
            let (a, b) = (_mm_loadu_ps(from.add(lane)), _mm_loadu_ps(from.add(LANES + lane)));
            _mm_storeu_ps(to.add(2 * lane), _mm_unpacklo_ps(a, b));
            _mm_storeu_ps(to.add(2 * lane + 4), _mm_unpackhi_ps(a, b));
        }
    }
}
