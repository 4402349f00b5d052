//! Streams, by handle: whose they are, and their flags. What they are asked for is in [`queue`](super::queue), if it waits.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::context::Context;
use super::event::{self, EventHandle};
use super::handles::{Handle, Handles};
use super::work::{HostFunction, Work, submit};
use super::{Outcome, Status, capture, context, export, put, queue, settings};

/// A `CUstream` is null (the default stream), one of the two default streams' marks, or one of these.
struct Stream {
    flags: u32,
    priority: AtomicI32,
    id: u64,
    context: &'static Context,
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
    if flags > NON_BLOCKING {
        return Err(Status::InvalidValue);
    }
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    let context = context::require()?;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's.
    unsafe { put(out, ALL.add(Stream { flags, priority: AtomicI32::new(priority), id, context })) }
}

fn context_of(stream: StreamHandle) -> Result<*mut c_void, Status> {
    Ok(place(stream)?.context.handle() as *mut c_void)
}

/// What tells streams apart: the context's handle, the stream's, and the thread's number where each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    context: usize,
    stream: usize,
    thread: u64,
}

impl Key {
    pub fn legacy(context: &Context) -> Key {
        Key { context: context.handle(), stream: 0, thread: 0 }
    }

    /// The keys of all streams of a context.
    pub fn all_of(context: &Context) -> std::ops::RangeInclusive<Key> {
        let last = Key { stream: usize::MAX, thread: u64::MAX, ..Key::legacy(context) };
        Key::legacy(context)..=last
    }
}

/// A stream, as far as the order of work is concerned.
#[derive(Clone)]
pub struct Place {
    pub context: &'static Context,
    pub key: Key,
    /// Whether the legacy stream waits for it, and it for that.
    pub is_blocking: bool,
}

impl Place {
    pub fn is_legacy(&self) -> bool {
        self.key.stream == 0
    }

    pub fn name(&self) -> String {
        match self.key.stream {
            0 => "the default stream".to_string(),
            PER_THREAD => format!("thread {}'s default stream", self.key.thread),
            stream => format!("stream {stream:#x}"),
        }
    }
}

/// A stream's place.
///
/// # Errors
/// No stream, or no context for a default one.
pub fn place(stream: StreamHandle) -> Result<Place, Status> {
    if let Some(found) = live(stream)? {
        let key = Key { context: found.context.handle(), stream: stream as usize, thread: 0 };
        return Ok(Place { context: found.context, key, is_blocking: found.flags & NON_BLOCKING == 0 });
    }
    let context = context::require()?;
    let legacy = Key::legacy(context);
    let key = if is_legacy(stream) { legacy } else { Key { stream: PER_THREAD, thread: thread(), ..legacy } };
    Ok(Place { context, key, is_blocking: true })
}

/// The calling thread's number, from 1 on.
fn thread() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = COUNT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|&number| number)
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
        create(stream, flags, priority.clamp(context::GREATEST_PRIORITY, 0))
    }
    cuStreamDestroy_v2(stream: StreamHandle) {
        if is_default(stream) {
            return Err(Status::InvalidHandle);
        }
        let place = place(stream)?;
        ALL.remove(stream)?;
        capture::abandon(stream);
        queue::leave(&place);
        Ok(())
    }
    cuStreamSynchronize(stream: StreamHandle) {
        context::require()?;
        capture::wait_for(stream)?;
        queue::wait_for_stream(&place(stream)?)
    }
    cuStreamQuery(stream: StreamHandle) {
        context::require()?;
        capture::wait_for(stream)?;
        let place = place(stream)?;
        match queue::tips_of(&place).iter().all(queue::has_come) {
            true => queue::outcome_of(place.context),
            false => Err(Status::NotReady),
        }
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
    cuProfilerStart() { Ok(()) }
    cuProfilerStop() { Ok(()) }
}
