//! Addresses of the process, where they are limited (`ulimit -v`). vcuda, which stands in a driver's place, counts its own.

/// Bytes of addresses that the process may still take; `None` where there is no limit.
pub fn addresses_left_bytes() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct is the call's to fill.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let taken_pages: usize = statm.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Some((limit.rlim_cur as usize).saturating_sub(taken_pages * 4096))
}
