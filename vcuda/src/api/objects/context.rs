//! Contexts. Those of a device share its memory; each thread has a stack of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::device::{Device, devices};
use super::handles::{Handle, Handles};
use crate::api::error::{Outcome, Status};

/// A context, which is never freed: a stale handle stays unique.
pub struct Context {
    pub device: &'static Device,
    handle: AtomicUsize,
    pub is_primary: bool,
    flags: AtomicU32,
    /// The first fault of its work, or 0: every later call returns it.
    fault: AtomicI32,
    has_ended: AtomicBool,
    /// Contexts whose memory its kernels may access.
    pub peers: Mutex<BTreeSet<usize>>,
}

static ALL: Handles<&Context> = Handles::new("context");

/// `CUctx_flags`: all that there are.
pub const FLAGS: u32 = 0xff;
/// Of streams; the least is 0.
pub const GREATEST_PRIORITY: i32 = -5;

thread_local! {
    static CURRENT: RefCell<Vec<&'static Context>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    pub fn new(device: &'static Device, is_primary: bool) -> &'static Context {
        let context: &Context = Box::leak(Box::new(Context {
            device,
            handle: AtomicUsize::new(0),
            is_primary,
            flags: AtomicU32::new(0),
            fault: AtomicI32::new(0),
            has_ended: AtomicBool::new(false),
            peers: Mutex::default(),
        }));
        context.handle.store(ALL.add(context) as usize, Ordering::Relaxed);
        context
    }

    /// The `CUcontext`.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    /// The error that sticks to it, or 0.
    pub fn fault(&self) -> i32 {
        self.fault.load(Ordering::Relaxed)
    }

    /// From now on every call returns this error, unless one sticks already.
    pub fn fail(&self, status: Status) {
        let _ = self.fault.compare_exchange(0, status as i32, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A fault is forgotten.
    pub fn forgive(&self) {
        self.fault.store(0, Ordering::Relaxed);
    }

    /// From now on its handle is none.
    ///
    /// # Errors
    /// It is none already.
    pub fn end(&self) -> Outcome {
        self.has_ended.store(true, Ordering::Relaxed);
        ALL.remove(self.handle() as Handle).map(|_| ())
    }

    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// # Errors
    /// Flags that there are none of.
    pub fn set_flags(&self, flags: u32) -> Outcome {
        if flags & !FLAGS != 0 {
            return Err(Status::InvalidValue);
        }
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// Does something with this context current.
    pub fn within<T>(&'static self, action: impl FnOnce() -> T) -> T {
        struct Pop;
        impl Drop for Pop {
            fn drop(&mut self) {
                pop();
            }
        }
        push(self);
        let _pop = Pop;
        action()
    }
}

/// The context of a handle.
///
/// # Errors
/// None has it, or none any more.
pub fn of(handle: Handle) -> Result<&'static Context, Status> {
    ALL.get(handle).map(|context| *Arc::as_ref(&context)).map_err(|_| Status::InvalidContext)
}

/// Takes the place of the thread's context.
pub fn set_current(context: Option<&'static Context>) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        stack.extend(context);
    });
}

/// The thread's context.
pub fn current() -> Option<&'static Context> {
    CURRENT.with_borrow(|stack| stack.last().copied())
}

/// One more context of the thread's, which is current now.
pub fn push(context: &'static Context) {
    CURRENT.with_borrow_mut(|stack| stack.push(context));
}

/// The one that was current is so no more.
pub fn pop() -> Option<&'static Context> {
    CURRENT.with_borrow_mut(Vec::pop)
}

/// The same, as a handle or null.
pub fn current_handle() -> Handle {
    current().map_or(0, Context::handle) as Handle
}

/// The error that sticks to the thread's context, or 0.
pub fn fault() -> i32 {
    current().map_or(0, Context::fault)
}

/// The thread's context, for a call that needs one.
///
/// # Errors
/// It has none, or one that has been destroyed.
pub fn require() -> Result<&'static Context, Status> {
    match current() {
        None => Err(Status::InvalidContext),
        Some(context) if context.has_ended.load(Ordering::Relaxed) => Err(Status::ContextIsDestroyed),
        Some(context) => Ok(context),
    }
}

/// The device of the thread's context; the first one where it has none.
pub fn device() -> &'static Device {
    current().map_or(&devices()[0], |context| context.device)
}
