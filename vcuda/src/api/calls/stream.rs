//! Streams: made, waited for, asked what they are, and to call the host.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::{event, export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::context::{GREATEST_PRIORITY, require};
use crate::api::objects::handles::{EventHandle, StreamHandle};
use crate::api::objects::stream::{NON_BLOCKING, add, check, is_default, live, place, remove};
use crate::api::settings::settings;
use crate::api::streams::submit::submit;
use crate::api::streams::work::{HostFunction, Work};
use crate::api::streams::{capture, queue};

fn create(out: *mut StreamHandle, flags: u32, priority: i32) -> Outcome {
    if flags > NON_BLOCKING {
        return Err(Status::InvalidValue);
    }
    let context = require()?;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's.
    unsafe { put(out, add(flags, priority, context)) }
}

fn context_of(stream: StreamHandle) -> Result<*mut c_void, Status> {
    Ok(place(stream)?.context.handle() as *mut c_void)
}

/// A `CUstreamCallback`.
type StreamCallback = unsafe extern "C" fn(StreamHandle, i32, *mut c_void);

/// One that is to be called once.
struct Callback {
    function: StreamCallback,
    stream: StreamHandle,
    data: *mut c_void,
}

unsafe extern "C" fn call_back(data: *mut c_void) {
    // SAFETY: boxed by `cuStreamAddCallback`, for one call.
    let Callback { function, stream, data } = *unsafe { Box::from_raw(data.cast()) };
    // SAFETY: the client's function and data; all that was queued before it is done.
    unsafe { function(stream, 0, data) };
}

/// `CUlaunchAttributeID`s that streams have.
const SYNCHRONIZATION_POLICY: u32 = 3;
const PRIORITY: u32 = 8;
const ACCESS_POLICY_WINDOW: u32 = 1;
const MEM_SYNC_DOMAIN_MAP: u32 = 9;
const MEM_SYNC_DOMAIN: u32 = 10;
/// Size of a `CUstreamAttrValue`.
const ATTRIBUTE_BYTES: usize = 64;

export! {
    cuStreamCreate(stream: *mut StreamHandle, flags: u32) { create(stream, flags, 0) }
    cuStreamCreateWithPriority(stream: *mut StreamHandle, flags: u32, priority: i32) {
        create(stream, flags, priority.clamp(GREATEST_PRIORITY, 0))
    }
    cuStreamDestroy_v2(stream: StreamHandle) {
        if is_default(stream) {
            return Err(Status::InvalidHandle);
        }
        let place = place(stream)?;
        remove(stream)?;
        capture::abandon(stream);
        queue::leave(&place);
        Ok(())
    }
    cuStreamSynchronize(stream: StreamHandle) {
        require()?;
        capture::wait_for(stream)?;
        queue::wait_for_stream(&place(stream)?)
    }
    cuStreamQuery(stream: StreamHandle) {
        require()?;
        capture::wait_for(stream)?;
        let place = place(stream)?;
        match queue::tips_of(&place).iter().all(queue::has_come) {
            true => queue::outcome_of(place.context),
            false => Err(Status::NotReady),
        }
    }
    cuStreamWaitEvent(stream: StreamHandle, event: EventHandle, flags: u32) {
        require()?;
        event::wait(stream, event, flags)
    }
    cuStreamGetFlags(stream: StreamHandle, flags: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(flags, live(stream)?.map_or(0, |stream| stream.flags)) }
    }
    cuStreamGetPriority(stream: StreamHandle, priority: *mut i32) {
        // SAFETY: the caller's.
        unsafe { put(priority, live(stream)?.map_or(0, |stream| stream.priority.load(Ordering::Relaxed))) }
    }
    cuStreamGetId(stream: StreamHandle, id: *mut u64) {
        // SAFETY: the caller's.
        unsafe { put(id, live(stream)?.map_or((stream as u64).max(1), |stream| stream.id)) }
    }
    cuStreamGetCtx(stream: StreamHandle, context: *mut *mut c_void) {
        require()?;
        // SAFETY: the caller's.
        unsafe { put(context, context_of(stream)?) }
    }
    cuStreamGetCtx_v2(stream: StreamHandle, context: *mut *mut c_void, green: *mut *mut c_void) {
        require()?;
        // SAFETY: the caller's; there are no green contexts.
        unsafe {
            put(context, context_of(stream)?)?;
            put(green, std::ptr::null_mut())
        }
    }
    cuStreamGetDevice(stream: StreamHandle, ordinal: *mut i32) {
        require()?;
        // SAFETY: the caller's.
        unsafe { put(ordinal, place(stream)?.context.device.ordinal as i32) }
    }
    cuStreamGetAttribute(stream: StreamHandle, attribute: u32, value: *mut [u8; ATTRIBUTE_BYTES]) {
        let mut bytes = [0; ATTRIBUTE_BYTES];
        let stream = live(stream)?;
        match attribute {
            PRIORITY => {
                let priority = stream.map_or(0, |stream| stream.priority.load(Ordering::Relaxed));
                bytes[..4].copy_from_slice(&priority.to_ne_bytes());
            }
            SYNCHRONIZATION_POLICY => bytes[0] = 1, // automatic
            MEM_SYNC_DOMAIN_MAP => bytes[1] = 1,    // the remote domain
            ACCESS_POLICY_WINDOW | MEM_SYNC_DOMAIN => {}
            _ => return Err(Status::InvalidValue),
        }
        // SAFETY: the caller's.
        unsafe { put(value, bytes) }
    }
    cuStreamSetAttribute(stream: StreamHandle, attribute: u32, value: *const [u8; ATTRIBUTE_BYTES]) {
        // SAFETY: the caller's.
        let bytes = unsafe { value.as_ref() }.ok_or(Status::InvalidValue)?;
        let stream = live(stream)?;
        match attribute {
            PRIORITY => {
                let priority = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                if let Some(stream) = stream {
                    stream.priority.store(priority.clamp(GREATEST_PRIORITY, 0), Ordering::Relaxed);
                }
                Ok(())
            }
            SYNCHRONIZATION_POLICY | ACCESS_POLICY_WINDOW | MEM_SYNC_DOMAIN_MAP | MEM_SYNC_DOMAIN => Ok(()),
            _ => Err(Status::InvalidValue),
        }
    }
    cuStreamCopyAttributes(to: StreamHandle, from: StreamHandle) {
        if let (Some(to), Some(from)) = (live(to)?, live(from)?) {
            to.priority.store(from.priority.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        Ok(())
    }
    cuStreamAttachMemAsync(stream: StreamHandle, _address: u64, _bytes: usize, _flags: u32) { check(stream) }
    cuLaunchHostFunc(stream: StreamHandle, function: Option<HostFunction>, data: *mut c_void) {
        submit(stream, Work::Host(function.ok_or(Status::InvalidValue)?, data))
    }
    cuStreamAddCallback(
        stream: StreamHandle,
        function: Option<StreamCallback>,
        data: *mut c_void,
        _flags: u32,
    ) {
        let function = function.ok_or(Status::InvalidValue)?;
        capture::wait_for(stream)?;
        if settings().defers {
            let callback = Box::into_raw(Box::new(Callback { function, stream, data }));
            return submit(stream, Work::Host(call_back, callback.cast()));
        }
        // SAFETY: the client's function and data; all that was queued before it is done.
        unsafe { function(stream, 0, data) };
        Ok(())
    }
}
