//! What ran when, on the host's threads and on a device: for a picture of a few batches.
//!
//! Host threads keep the ranges that a profiler would read ([`super::trace`]); a stream keeps what is queued on it between two
//! events each, and reads their times once all is done, so that nothing waits meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::{Event, Stream};

/// What a span on a device is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stage,
    Kernel,
    Copy,
    Graph,
}

/// Something that a thread did.
#[derive(Clone, Debug)]
pub struct HostSpan {
    pub thread: String,
    pub name: String,
    pub start: Instant,
    pub end: Instant,
}

/// Something that a device did.
#[derive(Clone, Debug)]
pub struct DeviceSpan {
    pub name: &'static str,
    pub kind: Kind,
    /// Microseconds since the timeline began.
    pub start_us: f64,
    pub end_us: f64,
}

/// What a stream has queued between these events.
pub(super) struct Queued {
    pub name: &'static str,
    pub kind: Kind,
    pub start: Event,
    pub end: Event,
}

static IS_KEPT: AtomicBool = AtomicBool::new(false);
static HOST: Mutex<Vec<HostSpan>> = Mutex::new(Vec::new());

/// Since when a range has lasted, where ranges are kept.
pub(super) fn now() -> Option<Instant> {
    IS_KEPT.load(Ordering::Relaxed).then(Instant::now)
}

/// Keeps a range of this thread that ends here.
#[cold]
pub(super) fn keep(name: String, start: Instant) {
    let thread = thread::current().name().unwrap_or("a thread").to_string();
    HOST.lock().unwrap_or_else(PoisonError::into_inner).push(HostSpan {
        thread,
        name,
        start,
        end: Instant::now(),
    });
}

/// Of all threads and of one stream, from [`Timeline::begin`] to [`Timeline::end`]. There is one at a time.
pub struct Timeline {
    stream: Stream,
    zero: Event,
    pub since: Instant,
}

impl Timeline {
    /// Waits for the stream, then keeps what is queued on it, and ranges.
    ///
    /// # Errors
    /// Those of the queued work; the driver's.
    pub fn begin(stream: &Stream) -> Result<Timeline> {
        let zero = Event::new(stream.gpu())?;
        zero.record(stream)?;
        zero.synchronize()?;
        let since = Instant::now();
        stream.keep_spans();
        IS_KEPT.store(true, Ordering::Relaxed);
        Ok(Timeline { stream: stream.clone(), zero, since })
    }

    /// Waits for the stream; what has been kept, in the order in which it began.
    ///
    /// # Errors
    /// Those of the queued work; the driver's.
    pub fn end(self) -> Result<(Vec<HostSpan>, Vec<DeviceSpan>)> {
        IS_KEPT.store(false, Ordering::Relaxed);
        let mut host = std::mem::take(&mut *HOST.lock().unwrap_or_else(PoisonError::into_inner));
        host.retain(|span| span.start >= self.since);
        host.sort_by_key(|span| span.start);
        let queued = self.stream.take_spans().unwrap_or_default();
        self.stream.synchronize()?;
        let span = |Queued { name, kind, start, end }: Queued| {
            let (start_us, end_us) = (start.elapsed_us(&self.zero)?, end.elapsed_us(&self.zero)?);
            Ok(DeviceSpan { name, kind, start_us, end_us })
        };
        let mut device: Vec<DeviceSpan> = queued.into_iter().map(span).collect::<Result<_>>()?;
        device.sort_by(|a, b| a.start_us.total_cmp(&b.start_us).then(b.end_us.total_cmp(&a.end_us)));
        Ok((host, device))
    }
}
