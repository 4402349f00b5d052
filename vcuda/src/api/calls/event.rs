//! Events: made, recorded, waited for, and the time between them.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::context::{self, Context};
use crate::api::objects::handles::{EventHandle, StreamHandle};
use crate::api::objects::stream;
use crate::api::settings::settings;
use crate::api::streams::event::{Event, Recorded, live, marks_of, record_now, remove};
use crate::api::streams::plan::Task;
use crate::api::streams::submit::submit;
use crate::api::streams::work::Work;
use crate::api::streams::{capture, queue};
use crate::order::Mark;

const DISABLE_TIMING: u32 = 2;
/// Flags of recording and waiting: as a node of its own, where captured.
const EXTERNAL: u32 = 1;

export! {
    cuEventCreate(event: *mut EventHandle, flags: u32) {
        let new = Event::create(flags & DISABLE_TIMING == 0, context::require()?);
        // SAFETY: the caller's.
        unsafe { put(event, new) }
    }
    cuEventDestroy_v2(event: EventHandle) { remove(event) }
    cuEventRecord(event: EventHandle, stream: StreamHandle) { record(event, stream, 0) }
    cuEventRecordWithFlags(event: EventHandle, stream: StreamHandle, flags: u32) { record(event, stream, flags) }
    cuEventQuery(event: EventHandle) {
        let event = live(event)?;
        match completed(&event)? {
            Some(marks) if !marks.iter().all(queue::has_come) => Err(Status::NotReady),
            _ => queue::outcome_of(event.context),
        }
    }
    cuEventSynchronize(event: EventHandle) {
        let event = live(event)?;
        match completed(&event)? {
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
    found.record(Recorded::Queued(queue::tips(context), time));
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

/// What an event waits for, where that is in a queue.
///
/// # Errors
/// It was recorded in a capture that is not over.
fn completed(event: &Event) -> Result<Option<Vec<Mark>>, Status> {
    match event.recorded() {
        Recorded::Captured(number, _) => capture::captured_event(number).map(|()| None),
        Recorded::Queued(marks, _) => Ok(Some(marks)),
        Recorded::Never | Recorded::At(_) => Ok(None),
    }
}

fn record(handle: EventHandle, stream: StreamHandle, flags: u32) -> Outcome {
    let event = live(handle)?;
    if flags & EXTERNAL == 0
        && let Some((capture, nodes)) = capture::place(stream)?
    {
        event.record(Recorded::Captured(capture, nodes));
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
    match live(handle)?.recorded() {
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
    if !std::ptr::eq(start.context, end.context) {
        return Err(Status::InvalidHandle);
    }
    let (from, to) = (start.time()?, end.time()?);
    let time = match to >= from {
        true => (to - from).as_secs_f32() * 1e3,
        false => -(from - to).as_secs_f32() * 1e3,
    };
    // SAFETY: the caller's.
    unsafe { put(milliseconds, time) }
}
