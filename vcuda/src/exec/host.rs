//! The host's instruction sets.

/// The instruction sets that operations are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Host {
    /// The best that this machine has; `VCUDA_HOST=baseline|avx2` asks for less.
    pub fn detect() -> Host {
        let wanted = std::env::var("VCUDA_HOST").unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && wanted != "baseline" && wanted != "avx2" {
                return Host::Avx512;
            }
            if avx2 && wanted != "baseline" {
                return Host::Avx2;
            }
        }
        let _ = wanted;
        Host::Baseline
    }
}

/// Bytes of a line of the caches.
pub const LINE: usize = 64;

/// Asks for what will be wanted next; it need not be there.
#[inline(always)]
pub fn prefetch(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may go anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}

/// The same of what is wanted once: it leaves the nearest cache for nowhere, which lines that lie a power of two apart fill
/// soon.
#[inline(always)]
pub fn prefetch_once(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_NTA, _mm_prefetch};
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(from.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}
