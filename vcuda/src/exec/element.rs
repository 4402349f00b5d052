//! What `ld` and `st` move. Vector accesses have a lane's elements side by side, registers an element's lanes: 32 rows of
//! `N`, and `N` rows of 32.

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

/// Rows as registers.
#[inline(always)]
pub fn registers<E: Element, const N: usize>(rows: &[[E; N]; LANES]) -> [[E::Lane; LANES]; N] {
    let mut out = [[E::ZERO; LANES]; N];
    #[cfg(target_arch = "x86_64")]
    if N == 4 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
        // SAFETY: so many words in each.
        unsafe { four_words::<1, { LANES / 4 }>((&raw const *rows).cast(), (&raw mut out).cast()) };
        return out;
    }
    #[cfg(target_arch = "x86_64")]
    if N == 2 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
        // SAFETY: as above.
        unsafe { pairs_apart((&raw const *rows).cast(), (&raw mut out).cast()) };
        return out;
    }
    for n in 0..N {
        for lane in 0..LANES {
            out[n][lane] = rows[lane][n].widen();
        }
    }
    out
}

/// Registers as rows.
#[inline(always)]
pub fn rows<E: Element, const N: usize>(registers: &[[E::Lane; LANES]; N]) -> [[E; N]; LANES] {
    let mut out = [[E::narrow(E::ZERO); N]; LANES];
    #[cfg(target_arch = "x86_64")]
    if N == 4 && size_of::<E>() == 4 && size_of::<E::Lane>() == 4 {
        // SAFETY: so many words in each.
        unsafe { four_words::<{ LANES / 4 }, 1>((&raw const *registers).cast(), (&raw mut out).cast()) };
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

/// Turns squares of four by four words: their rows are `FROM` groups of four words apart, and `TO` of them after. The
/// compiler would move the words one by one.
///
/// # Safety
/// There are 128 words at each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn four_words<const FROM: usize, const TO: usize>(from: *const [u32; 4], to: *mut [u32; 4]) {
    use std::arch::x86_64::*;
    let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
    for square in 0..LANES / 4 {
        // SAFETY: inside the words; every x86-64 has SSE2.
        unsafe {
            let (from, to) = (
                from.add(if FROM == 1 { 4 * square } else { square }),
                to.add(if TO == 1 { 4 * square } else { square }),
            );
            let (a, b) = (_mm_loadu_si128(from), _mm_loadu_si128(from.add(FROM)));
            let (c, d) = (_mm_loadu_si128(from.add(2 * FROM)), _mm_loadu_si128(from.add(3 * FROM)));
            let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
            _mm_storeu_si128(to, _mm_unpacklo_epi64(ab, cd));
            _mm_storeu_si128(to.add(TO), _mm_unpackhi_epi64(ab, cd));
            _mm_storeu_si128(to.add(2 * TO), _mm_unpacklo_epi64(ab_high, cd_high));
            _mm_storeu_si128(to.add(3 * TO), _mm_unpackhi_epi64(ab_high, cd_high));
        }
    }
}

/// Pairs of words to all first words, and then all second ones; likewise.
///
/// # Safety
/// There are 64 words at each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn pairs_apart(from: *const f32, to: *mut f32) {
    use std::arch::x86_64::*;
    for lane in (0..LANES).step_by(4) {
        // SAFETY: inside the words; every x86-64 has SSE2. Words are only moved.
        unsafe {
            let (a, b) = (_mm_loadu_ps(from.add(2 * lane)), _mm_loadu_ps(from.add(2 * lane + 4)));
            _mm_storeu_ps(to.add(lane), _mm_shuffle_ps::<0b10_00_10_00>(a, b));
            _mm_storeu_ps(to.add(LANES + lane), _mm_shuffle_ps::<0b11_01_11_01>(a, b));
        }
    }
}

/// And back.
///
/// # Safety
/// As [`pairs_apart`].
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
