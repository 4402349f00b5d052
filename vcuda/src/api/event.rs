//! Events: the host's clock when they were recorded.

use std::ffi::c_void;
use std::sync::Mutex;
use std::time::Instant;

use super::{Status, context, export, lock, put};

/// A `CUevent`.
pub struct Event {
    timing: bool,
    recorded: Mutex<Option<Instant>>,
}

type Handle = *mut Event;
const DISABLE_TIMING: u32 = 2;

export! {
    cuEventCreate(event: *mut Handle, flags: u32) {
        context::require()?;
        let new = Event { timing: flags & DISABLE_TIMING == 0, recorded: Mutex::new(None) };
        // SAFETY: the caller's.
        unsafe { put(event, Box::into_raw(Box::new(new))) }
    }
    cuEventDestroy_v2(event: Handle) {
        live(event)?;
        // SAFETY: made by `cuEventCreate`; the caller destroys it once.
        drop(unsafe { Box::from_raw(event) });
        Ok(())
    }
    cuEventRecord(event: Handle, _stream: *mut c_void) {
        *lock(&live(event)?.recorded) = Some(Instant::now());
        Ok(())
    }
    cuEventRecordWithFlags(event: Handle, _stream: *mut c_void, _flags: u32) {
        *lock(&live(event)?.recorded) = Some(Instant::now());
        Ok(())
    }
    cuEventQuery(event: Handle) { live(event).map(|_| ()) }
    cuEventSynchronize(event: Handle) { live(event).map(|_| ()) }
    cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) { elapsed(milliseconds, start, end) }
    cuEventElapsedTime_v2(milliseconds: *mut f32, start: Handle, end: Handle) { elapsed(milliseconds, start, end) }
}

fn live<'a>(event: Handle) -> Result<&'a Event, Status> {
    // SAFETY: null, or made by `cuEventCreate` and not destroyed, as the caller must see to.
    unsafe { event.as_ref() }.ok_or(Status::InvalidHandle)
}

fn elapsed(milliseconds: *mut f32, start: Handle, end: Handle) -> super::Outcome {
    let (start, end) = (live(start)?, live(end)?);
    let (Some(from), Some(to)) = (*lock(&start.recorded), *lock(&end.recorded)) else {
        return Err(Status::InvalidHandle);
    };
    if !start.timing || !end.timing {
        return Err(Status::InvalidHandle);
    }
    let time = match to >= from {
        true => (to - from).as_secs_f32() * 1e3,
        false => -(from - to).as_secs_f32() * 1e3,
    };
    // SAFETY: the caller's.
    unsafe { put(milliseconds, time) }
}
