//! Streams, by handle: whose they are, and their flags.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::context::{self, Context};
use super::handles::{Handles, StreamHandle};
use crate::api::error::{Outcome, Status};

/// A `CUstream` is null (the default stream), one of the two default streams' marks, or one of these.
pub struct Stream {
    pub flags: u32,
    pub priority: AtomicI32,
    pub id: u64,
    context: &'static Context,
}

static ALL: Handles<Stream> = Handles::new("stream");

/// The legacy default stream, which waits for the others and they for it, unless they say no.
pub const LEGACY: StreamHandle = std::ptr::null_mut();
const PER_THREAD: usize = 2;
/// Of its flags, all that there is.
pub const NON_BLOCKING: u32 = 1;

pub fn is_legacy(stream: StreamHandle) -> bool {
    (stream as usize) < PER_THREAD
}

pub fn is_default(stream: StreamHandle) -> bool {
    (stream as usize) <= PER_THREAD
}

/// The stream, or `None` for a default one.
///
/// # Errors
/// No stream, or destroyed.
pub fn live(stream: StreamHandle) -> Result<Option<Arc<Stream>>, Status> {
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

/// A new stream.
pub fn add(flags: u32, priority: i32, context: &'static Context) -> StreamHandle {
    static COUNT: AtomicU64 = AtomicU64::new(3);
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    ALL.add(Stream { flags, priority: AtomicI32::new(priority), id, context })
}

/// From now on the handle is none.
///
/// # Errors
/// It is none already.
pub fn remove(stream: StreamHandle) -> Outcome {
    ALL.remove(stream).map(|_| ())
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
