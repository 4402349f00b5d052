//! Events: when they were recorded by the host's clock, and what that comes after; or a place in a capture.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::work::NodeHandle;
use crate::api::error::{Outcome, Status};
use crate::api::lock;
use crate::api::objects::context::Context;
use crate::api::objects::handles::{EventHandle, Handles};
use crate::order::Mark;

/// A `CUevent`.
pub struct Event {
    has_timing: bool,
    pub context: &'static Context,
    recorded: Mutex<Recorded>,
}

/// What an event was recorded in last.
#[derive(Clone)]
pub enum Recorded {
    Never,
    At(Instant),
    /// In a queue; when it came to that.
    Queued(Vec<Mark>, Arc<OnceLock<Instant>>),
    /// In the capture of this number, after these nodes.
    Captured(u64, Vec<NodeHandle>),
}

// SAFETY: nodes are only handles here.
unsafe impl Send for Recorded {}

static ALL: Handles<Event> = Handles::new("event");

impl Event {
    /// A new event's handle.
    pub fn create(has_timing: bool, context: &'static Context) -> EventHandle {
        ALL.add(Event { has_timing, context, recorded: Mutex::new(Recorded::Never) })
    }

    pub fn recorded(&self) -> Recorded {
        lock(&self.recorded).clone()
    }

    pub fn record(&self, place: Recorded) {
        *lock(&self.recorded) = place;
    }

    /// When what it was recorded in came to it.
    ///
    /// # Errors
    /// It was not recorded, without its time, or in a capture; it has not come to it yet.
    pub fn time(&self) -> Result<Instant, Status> {
        match &*lock(&self.recorded) {
            _ if !self.has_timing => Err(Status::InvalidHandle),
            Recorded::At(time) => Ok(*time),
            Recorded::Queued(_, time) => time.get().copied().ok_or(Status::NotReady),
            Recorded::Never | Recorded::Captured(..) => Err(Status::InvalidHandle),
        }
    }
}

/// From now on the handle is none.
///
/// # Errors
/// It is none already.
pub fn remove(event: EventHandle) -> Outcome {
    ALL.remove(event).map(|_| ())
}

/// An event.
///
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
    live(event)?.record(Recorded::At(Instant::now()));
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
        event.record(Recorded::Queued(vec![mark.clone()], time));
    }
    mark
}

/// The places in a queue that an event was last recorded at.
pub fn marks_of(event: EventHandle) -> Vec<Mark> {
    match live(event).map(|event| event.recorded()) {
        Ok(Recorded::Queued(marks, _)) => marks,
        _ => Vec::new(),
    }
}
