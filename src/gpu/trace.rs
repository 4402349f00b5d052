//! What a profiler is told: the names of what runs, and when to look.

use std::ffi::CString;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;
use cudarc::driver::sys;

use super::nvtx::Domain;
use super::{Stream, timeline};

/// What a thread does from here until the value is dropped: ranges nest.
///
/// Dropped by the thread that made it, so it cannot be sent.
#[must_use = "a range ends when it is dropped"]
pub struct Range {
    domain: Option<&'static Domain>,
    /// Where a timeline is kept: its name, and since when it lasts.
    kept: Option<(String, Instant)>,
    _thread: PhantomData<*const ()>,
}

/// Begins a range of the domain `memo`, for a profiler that reads NVTX, and for a [`Timeline`](super::Timeline); without
/// either it costs some nanoseconds.
///
/// A name with a NUL in it makes no range.
#[inline]
pub fn range(name: &str) -> Range {
    let kept = timeline::now().map(|now| (name.to_string(), now));
    Range { domain: domain().filter(|domain| push(domain, name)), kept, _thread: PhantomData }
}

/// Whether anybody reads ranges.
pub fn is_heard() -> bool {
    domain().is_some()
}

#[inline]
fn domain() -> Option<&'static Domain> {
    static DOMAIN: OnceLock<Option<Domain>> = OnceLock::new();
    DOMAIN.get_or_init(|| Domain::new(c"memo")).as_ref()
}

#[cold]
fn push(domain: &Domain, name: &str) -> bool {
    CString::new(name).is_ok_and(|name| domain.push(&name))
}

impl Drop for Range {
    #[inline]
    fn drop(&mut self) {
        if let Some(domain) = self.domain {
            domain.pop();
        }
        if let Some((name, start)) = self.kept.take() {
            timeline::keep(name, start);
        }
    }
}

/// The steady state of a run, which a profiler may be told to look at alone (`nsys profile --capture-range=cudaProfilerApi`):
/// from [`Profiler::start`] until it is dropped, on errors too. It is a range as well.
pub struct Profiler {
    stream: Stream,
    range: Option<Range>,
}

impl Profiler {
    /// Waits for what the stream has queued, then lets a profiler begin.
    ///
    /// # Errors
    /// Those of the queued work. Whether there is a profiler is no matter.
    pub fn start(stream: &Stream) -> Result<Profiler> {
        stream.synchronize()?;
        stream.gpu().bind()?;
        // SAFETY: nothing is passed. It fails where profiling is not to be had, which changes nothing for the program.
        let _ = unsafe { sys::cuProfilerStart() };
        Ok(Profiler { stream: stream.clone(), range: Some(range("steady state")) })
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // The work's errors are reported by whoever reads its results.
        let _ = self.stream.synchronize();
        self.range = None;
        if self.stream.gpu().bind().is_ok() {
            // SAFETY: as in `start`.
            let _ = unsafe { sys::cuProfilerStop() };
        }
    }
}
