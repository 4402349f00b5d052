//! Handles that are known when they come back: one that is stale, of another kind, or nobody's is an error.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::api::error::Status;

/// What a client has in its hand: a number that is never given twice, not an address.
pub type Handle = *mut c_void;
/// A `CUstream`: null or another mark of a default one, else an object's.
pub type StreamHandle = Handle;
/// A `CUevent`.
pub type EventHandle = Handle;

/// The live objects of one kind, by their handles.
pub struct Handles<T> {
    kind: &'static str,
    live: RwLock<BTreeMap<usize, Arc<T>>>,
}

impl<T> Handles<T> {
    /// `kind`: what they are, in words.
    pub const fn new(kind: &'static str) -> Handles<T> {
        Handles { kind, live: RwLock::new(BTreeMap::new()) }
    }

    /// A new object's handle.
    pub fn add(&self, object: T) -> Handle {
        /// Above the marks that stand for default streams; even numbers, for clients that look.
        static NEXT: AtomicUsize = AtomicUsize::new(0x1000);
        let number = NEXT.fetch_add(16, Ordering::Relaxed);
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(object));
        number as Handle
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn get(&self, handle: Handle) -> Result<Arc<T>, Status> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(&(handle as usize)).cloned().ok_or_else(|| self.unknown(handle))
    }

    /// Destroys the object, once nobody uses it any more.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn remove(&self, handle: Handle) -> Result<Arc<T>, Status> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.remove(&(handle as usize)).ok_or_else(|| self.unknown(handle))
    }

    #[cold]
    fn unknown(&self, handle: Handle) -> Status {
        say!("handle: {handle:?} is no {}, or one that has been destroyed", self.kind);
        Status::InvalidHandle
    }
}
