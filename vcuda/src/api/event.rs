//! Events: the host's clock when they were recorded, or a place in a capture.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::graph::NodeHandle;
use super::handles::{Handle, Handles};
use super::stream::{self, StreamHandle};
use super::work::{Work, submit};
use super::{Outcome, Status, capture, context, export, lock, put};

/// A `CUevent`.
pub struct Event {
    timing: bool,
    recorded: Mutex<Recorded>,
}

/// What an event was recorded in last.
#[derive(Clone)]
enum Recorded {
    Never,
    At(Instant),
    /// In the capture of this number, after these nodes.
    Captured(u64, Vec<NodeHandle>),
}

// SAFETY: nodes are only handles here.
unsafe impl Send for Recorded {}

pub type EventHandle = Handle;
static ALL: Handles<Event> = Handles::new("event");
const DISABLE_TIMING: u32 = 2;
/// Flags of recording and waiting: as a node of its own, where captured.
const EXTERNAL: u32 = 1;

export! {
    cuEventCreate(event: *mut EventHandle, flags: u32) {
        context::require()?;
        let new = Event { timing: flags & DISABLE_TIMING == 0, recorded: Mutex::new(Recorded::Never) };
        // SAFETY: the caller's.
        unsafe { put(event, ALL.add(new)) }
    }
    cuEventDestroy_v2(event: EventHandle) { ALL.remove(event).map(|_| ()) }
    cuEventRecord(event: EventHandle, stream: StreamHandle) { record(event, stream, 0) }
    cuEventRecordWithFlags(event: EventHandle, stream: StreamHandle, flags: u32) { record(event, stream, flags) }
    cuEventQuery(event: EventHandle) { completed(event) }
    cuEventSynchronize(event: EventHandle) { completed(event) }
    cuEventElapsedTime(milliseconds: *mut f32, start: EventHandle, end: EventHandle) {
        elapsed(milliseconds, start, end)
    }
    cuEventElapsedTime_v2(milliseconds: *mut f32, start: EventHandle, end: EventHandle) {
        elapsed(milliseconds, start, end)
    }
}

/// # Errors
/// No event, or destroyed.
pub fn live(event: EventHandle) -> Result<Arc<Event>, Status> {
    ALL.get(event)
}

/// Records the time: what came before is done.
///
/// # Errors
/// No event.
pub fn record_now(event: EventHandle) -> Outcome {
    *lock(&live(event)?.recorded) = Recorded::At(Instant::now());
    Ok(())
}

fn record(handle: EventHandle, stream: StreamHandle, flags: u32) -> Outcome {
    let event = live(handle)?;
    if flags & EXTERNAL == 0
        && let Some((capture, nodes)) = capture::place(stream)?
    {
        *lock(&event.recorded) = Recorded::Captured(capture, nodes);
        return Ok(());
    }
    submit(stream, Work::Record(handle))
}

/// What comes after in a stream waits for an event: a dependency, where it is captured.
///
/// # Errors
/// A wait that crosses the border of a capture.
pub fn wait(stream: StreamHandle, handle: EventHandle, flags: u32) -> Outcome {
    stream::check(stream)?;
    let recorded = lock(&live(handle)?.recorded).clone();
    match recorded {
        _ if flags & EXTERNAL != 0 => submit(stream, Work::Wait(handle)),
        Recorded::Never => Ok(()),
        Recorded::At(_) => capture::isolated(stream),
        Recorded::Captured(number, nodes) => capture::join(stream, number, &nodes),
    }
}

fn completed(event: EventHandle) -> Outcome {
    match &*lock(&live(event)?.recorded) {
        Recorded::Captured(number, _) => capture::captured_event(*number),
        _ => Ok(()),
    }
}

fn elapsed(milliseconds: *mut f32, start: EventHandle, end: EventHandle) -> Outcome {
    let (start, end) = (live(start)?, live(end)?);
    let time_of = |event: &Event| match *lock(&event.recorded) {
        Recorded::At(time) if event.timing => Ok(time),
        _ => Err(Status::InvalidHandle),
    };
    let (from, to) = (time_of(&start)?, time_of(&end)?);
    let time = match to >= from {
        true => (to - from).as_secs_f32() * 1e3,
        false => -(from - to).as_secs_f32() * 1e3,
    };
    // SAFETY: the caller's.
    unsafe { put(milliseconds, time) }
}
