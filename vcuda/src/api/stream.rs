//! Streams: work is done when it is queued, so they hold nothing but their flags.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::event::{self, EventHandle};
use super::handles::{Handle, Handles};
use super::work::{HostFunction, Work, submit};
use super::{Outcome, Status, capture, context, export, put};

/// A `CUstream` is null (the default stream), one of the two default streams' marks, or one of these.
struct Stream {
    flags: u32,
    priority: AtomicI32,
    id: u64,
    context: usize,
}

pub type StreamHandle = Handle;
static ALL: Handles<Stream> = Handles::new("stream");

/// The legacy default stream, which waits for the others and they for it, unless they say no.
pub const LEGACY: StreamHandle = std::ptr::null_mut();
const PER_THREAD: usize = 2;
const NON_BLOCKING: u32 = 1;

pub fn is_legacy(stream: StreamHandle) -> bool {
    (stream as usize) < PER_THREAD
}

fn is_default(stream: StreamHandle) -> bool {
    (stream as usize) <= PER_THREAD
}

/// The stream, or `None` for a default one.
fn live(stream: StreamHandle) -> Result<Option<Arc<Stream>>, Status> {
    if is_default(stream) { Ok(None) } else { ALL.get(stream).map(Some) }
}

/// Refuses a stream that is none, or none any more.
///
/// # Errors
/// An invalid handle.
pub fn check(stream: StreamHandle) -> Outcome {
    live(stream).map(|_| ())
}

/// Whether the legacy stream waits for this one.
pub fn is_blocking(stream: StreamHandle) -> bool {
    live(stream).is_ok_and(|stream| stream.is_none_or(|stream| stream.flags & NON_BLOCKING == 0))
}

fn create(out: *mut StreamHandle, flags: u32, priority: i32) -> Outcome {
    static COUNT: AtomicU64 = AtomicU64::new(3);
    context::require()?;
    if flags > NON_BLOCKING {
        return Err(Status::InvalidValue);
    }
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    let context = context::current() as usize;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's.
    unsafe { put(out, ALL.add(Stream { flags, priority: AtomicI32::new(priority), id, context })) }
}

fn context_of(stream: StreamHandle) -> Result<*mut c_void, Status> {
    Ok(live(stream)?.map_or(context::current(), |stream| stream.context as *mut c_void))
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
        create(stream, flags, priority.clamp(context::GREATEST_PRIORITY, 0))
    }
    cuStreamDestroy_v2(stream: StreamHandle) {
        if is_default(stream) {
            return Err(Status::InvalidHandle);
        }
        ALL.remove(stream)?;
        capture::abandon(stream);
        Ok(())
    }
    cuStreamSynchronize(stream: StreamHandle) {
        context::require()?;
        capture::wait_for(stream)
    }
    cuStreamQuery(stream: StreamHandle) {
        context::require()?;
        capture::wait_for(stream)
    }
    cuStreamWaitEvent(stream: StreamHandle, event: EventHandle, flags: u32) {
        context::require()?;
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
        context::require()?;
        // SAFETY: the caller's.
        unsafe { put(context, context_of(stream)?) }
    }
    cuStreamGetCtx_v2(stream: StreamHandle, context: *mut *mut c_void, green: *mut *mut c_void) {
        context::require()?;
        // SAFETY: the caller's; there are no green contexts.
        unsafe {
            put(context, context_of(stream)?)?;
            put(green, std::ptr::null_mut())
        }
    }
    cuStreamGetDevice(stream: StreamHandle, ordinal: *mut i32) {
        context::require()?;
        check(stream)?;
        // SAFETY: the caller's.
        unsafe { put(ordinal, 0) }
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
                    stream.priority.store(priority.clamp(context::GREATEST_PRIORITY, 0), Ordering::Relaxed);
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
        function: Option<unsafe extern "C" fn(StreamHandle, i32, *mut c_void)>,
        data: *mut c_void,
        _flags: u32,
    ) {
        let function = function.ok_or(Status::InvalidValue)?;
        capture::wait_for(stream)?;
        // SAFETY: the client's function and data; all that was queued before it is done.
        unsafe { function(stream, 0, data) };
        Ok(())
    }
    cuProfilerStart() { Ok(()) }
    cuProfilerStop() { Ok(()) }
}
