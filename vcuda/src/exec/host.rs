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
