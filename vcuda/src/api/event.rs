//! Events: when they were recorded by the host's clock, and what that comes after; or a place in a capture.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::context::Context;
use super::graph::NodeHandle;
use super::handles::{Handle, Handles};
use super::queue::{self, Mark, Task};
use super::stream::{self, StreamHandle};
use super::work::{Work, submit};
use super::{Outcome, Status, capture, context, export, lock, put, settings};

/// A `CUevent`.
pub struct Event {
    timing: bool,
    context: &'static Context,
    recorded: Mutex<Recorded>,
}

/// What an event was recorded in last.
#[derive(Clone)]
enum Recorded {
    Never,
    At(Instant),
    /// In a queue; when it came to that.
    Queued(Vec<Mark>, Arc<OnceLock<Instant>>),
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
        let (context, recorded) = (context::require()?, Mutex::new(Recorded::Never));
        let new = Event { timing: flags & DISABLE_TIMING == 0, context, recorded };
        // SAFETY: the caller's.
        unsafe { put(event, ALL.add(new)) }
    }
    cuEventDestroy_v2(event: EventHandle) { ALL.remove(event).map(|_| ()) }
    cuEventRecord(event: EventHandle, stream: StreamHandle) { record(event, stream, 0) }
    cuEventRecordWithFlags(event: EventHandle, stream: StreamHandle, flags: u32) { record(event, stream, flags) }
    cuEventQuery(event: EventHandle) {
        let event = live(event)?;
        match event.completed()? {
            Some(marks) if !marks.iter().all(queue::has_come) => Err(Status::NotReady),
            _ => queue::outcome_of(event.context),
        }
    }
    cuEventSynchronize(event: EventHandle) {
        let event = live(event)?;
        match event.completed()? {
            Some(marks) => queue::wait(event.context, &marks),
            None => Ok(()),
        }
    }
    cuEventElapsedTime(milliseconds: *mut f32, start: EventHandle, end: EventHandle) {
        elapsed(milliseconds, start, end)
    }
    cuEventElapsedTime_v2(milliseconds: *mut f32, start: EventHandle, end: EventHandle) {
        elapsed(milliseconds, start, end)
    }
}

impl Event {
    /// What it waits for, where that is in a queue.
    ///
    /// # Errors
    /// It was recorded in a capture that is not over.
    fn completed(&self) -> Result<Option<Vec<Mark>>, Status> {
        match &*lock(&self.recorded) {
            Recorded::Captured(number, _) => capture::captured_event(*number).map(|()| None),
            Recorded::Queued(marks, _) => Ok(Some(marks.clone())),
            Recorded::Never | Recorded::At(_) => Ok(None),
        }
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

/// Records an event at a place in a queue, which is made of what is to be done there.
pub fn record_as(event: EventHandle, make: impl FnOnce(Box<dyn FnOnce() + Send>) -> Mark) -> Mark {
    let time = Arc::new(OnceLock::new());
    let reached = time.clone();
    let mark = make(Box::new(move || {
        let _ = reached.set(Instant::now());
    }));
    if let Ok(event) = live(event) {
        *lock(&event.recorded) = Recorded::Queued(vec![mark.clone()], time);
    }
    mark
}

/// The places in a queue that an event was last recorded at.
pub fn marks_of(event: EventHandle) -> Vec<Mark> {
    match live(event).map(|event| lock(&event.recorded).clone()) {
        Ok(Recorded::Queued(marks, _)) => marks,
        _ => Vec::new(),
    }
}

/// Records all that a context's streams have been asked for.
///
/// # Errors
/// No event, or another context's.
pub fn record_context(context: &Context, event: EventHandle) -> Outcome {
    let found = live(event)?;
    if !std::ptr::eq(found.context, context) {
        return Err(Status::InvalidHandle);
    }
    if !settings().defers {
        return record_now(event);
    }
    let time = Arc::new(OnceLock::from(Instant::now()));
    *lock(&found.recorded) = Recorded::Queued(queue::tips(context), time);
    Ok(())
}

/// All that a context's streams are asked for later waits for an event.
///
/// # Errors
/// No event.
pub fn wait_context(context: &Context, event: EventHandle) -> Outcome {
    live(event)?;
    queue::hold(context, &marks_of(event));
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
    if !std::ptr::eq(stream::place(stream)?.context, event.context) {
        say!(
            "handle: {handle:?} is an event of another context than the stream {stream:?} that is to record it"
        );
        return Err(Status::InvalidHandle);
    }
    submit(stream, Work::Record(handle))
}

/// What comes after in a stream waits for an event: a dependency, where it is captured.
///
/// # Errors
/// A wait that crosses the border of a capture.
pub fn wait(stream: StreamHandle, handle: EventHandle, flags: u32) -> Outcome {
    let place = stream::place(stream)?;
    let recorded = lock(&live(handle)?.recorded).clone();
    match recorded {
        _ if flags & EXTERNAL != 0 => submit(stream, Work::Wait(handle)),
        Recorded::Never => Ok(()),
        Recorded::At(_) => capture::isolated(stream),
        Recorded::Queued(marks, _) => {
            capture::isolated(stream)?;
            queue::push(&place, Task::Nothing, &marks);
            Ok(())
        }
        Recorded::Captured(number, nodes) => capture::join(stream, number, &nodes),
    }
}

fn elapsed(milliseconds: *mut f32, start: EventHandle, end: EventHandle) -> Outcome {
    let (start, end) = (live(start)?, live(end)?);
    let time_of = |event: &Event| match &*lock(&event.recorded) {
        _ if !event.timing => Err(Status::InvalidHandle),
        Recorded::At(time) => Ok(*time),
        Recorded::Queued(_, time) => time.get().copied().ok_or(Status::NotReady),
        Recorded::Never | Recorded::Captured(..) => Err(Status::InvalidHandle),
    };
    if !std::ptr::eq(start.context, end.context) {
        return Err(Status::InvalidHandle);
    }
    let (from, to) = (time_of(&start)?, time_of(&end)?);
    let time = match to >= from {
        true => (to - from).as_secs_f32() * 1e3,
        false => -(from - to).as_secs_f32() * 1e3,
    };
    // SAFETY: the caller's.
    unsafe { put(milliseconds, time) }
}
