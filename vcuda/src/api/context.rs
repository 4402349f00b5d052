//! Contexts. Those of a device share its memory; each thread has a stack of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::device::{Device, check, device_of};
use super::handles::{Handle, Handles};
use super::{Outcome, Status, allocation, capture, event, export, peer, put, queue};

/// A context, which is never freed: a stale handle stays unique.
pub struct Context {
    pub device: &'static Device,
    handle: AtomicUsize,
    is_primary: bool,
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

    /// It is as new: its work is over, its memory is free again, and a fault is forgotten.
    pub fn reset(&self) {
        queue::finish(self);
        peer::end(self);
        allocation::end_context(self.handle());
        self.fault.store(0, Ordering::Relaxed);
    }

    /// Does something with this context current.
    pub fn within<T>(&'static self, action: impl FnOnce() -> T) -> T {
        struct Pop;
        impl Drop for Pop {
            fn drop(&mut self) {
                CURRENT.with_borrow_mut(Vec::pop);
            }
        }
        CURRENT.with_borrow_mut(|stack| stack.push(self));
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

fn set_current(context: Option<&'static Context>) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        stack.extend(context);
    });
}

/// The thread's context.
pub fn current() -> Option<&'static Context> {
    CURRENT.with_borrow(|stack| stack.last().copied())
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

/// A handle's context, or the thread's own for null.
fn given(handle: Handle) -> Result<&'static Context, Status> {
    if handle.is_null() { require() } else { of(handle) }
}

export! {
    cuCtxCreate_v2(context: *mut Handle, flags: u32, ordinal: i32) { create(context, flags, ordinal) }
    cuCtxCreate_v3(context: *mut Handle, _affinity: *mut c_void, _count: i32, flags: u32, ordinal: i32) {
        create(context, flags, ordinal)
    }
    cuCtxCreate_v4(context: *mut Handle, _params: *mut c_void, flags: u32, ordinal: i32) {
        create(context, flags, ordinal)
    }
    cuCtxGetDevice(ordinal: *mut i32) {
        // SAFETY: the caller's.
        unsafe { put(ordinal, require()?.device.ordinal as i32) }
    }
    cuCtxGetApiVersion(_context: Handle, version: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(version, 4) }
    }
    cuCtxGetFlags(flags: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(flags, require()?.flags.load(Ordering::Relaxed)) }
    }
    cuCtxSetFlags(flags: u32) { require()?.set_flags(flags) }
    cuCtxGetId(context: Handle, id: *mut u64) {
        // SAFETY: the caller's.
        unsafe { put(id, given(context)?.handle() as u64) }
    }
    cuCtxGetDevice_v2(ordinal: *mut i32, context: Handle) {
        // SAFETY: the caller's.
        unsafe { put(ordinal, given(context)?.device.ordinal as i32) }
    }
    cuCtxSynchronize() {
        let context = require()?;
        capture::forbid()?;
        queue::wait_for_context(context)
    }
    cuCtxSynchronize_v2(context: Handle) {
        let context = given(context)?;
        capture::forbid()?;
        queue::wait_for_context(context)
    }
    cuCtxRecordEvent(context: Handle, event: event::EventHandle) { event::record_context(of(context)?, event) }
    cuCtxWaitEvent(context: Handle, event: event::EventHandle) { event::wait_context(of(context)?, event) }
    cuCtxResetPersistingL2Cache() { require().map(|_| ()) }
    cuCtxGetSharedMemConfig(config: *mut u32) {
        // SAFETY: the caller's; banks of four bytes.
        unsafe { put(config, 1) }
    }
    cuCtxSetSharedMemConfig(_config: u32) { require().map(|_| ()) }
    cuCtxGetCacheConfig(config: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(config, 0) }
    }
    cuCtxSetCacheConfig(_config: u32) { require().map(|_| ()) }
    cuCtxGetLimit(value: *mut usize, limit: u32) {
        let bytes = LIMITS.get(limit as usize).ok_or(Status::UnsupportedLimit)?.load(Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { put(value, bytes as usize) }
    }
    cuCtxSetLimit(limit: u32, value: usize) {
        require()?;
        LIMITS.get(limit as usize).ok_or(Status::UnsupportedLimit)?.store(value as u64, Ordering::Relaxed);
        Ok(())
    }
    cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) {
        // SAFETY: the caller's.
        unsafe {
            put(least, 0)?;
            put(greatest, GREATEST_PRIORITY)
        }
    }
}

super::export_always! {
    // A context that has failed can be left and destroyed.
    cuCtxSetCurrent(context: Handle) {
        set_current(if context.is_null() { None } else { Some(of(context)?) });
        Ok(())
    }
    cuCtxGetCurrent(context: *mut Handle) {
        // SAFETY: the caller's.
        unsafe { put(context, current_handle()) }
    }
    cuCtxPushCurrent_v2(context: Handle) {
        let context = of(context)?;
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }
    cuCtxDestroy_v2(handle: Handle) {
        let context = of(handle)?;
        if context.is_primary {
            return Err(Status::InvalidContext);
        }
        if current().is_some_and(|current| std::ptr::eq(current, context)) {
            set_current(None);
        }
        context.reset();
        context.has_ended.store(true, Ordering::Relaxed);
        ALL.remove(handle).map(|_| ())
    }
    cuCtxPopCurrent_v2(context: *mut Handle) {
        let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(Status::InvalidContext)?;
        if !context.is_null() {
            // SAFETY: the caller's.
            unsafe { put(context, popped.handle() as Handle)? };
        }
        Ok(())
    }
}

/// Stack of a thread, `printf`'s buffer, the device's heap, in bytes: kept, and changing nothing here.
static LIMITS: [AtomicU64; 3] = [AtomicU64::new(1024), AtomicU64::new(1 << 20), AtomicU64::new(8 << 20)];

impl Context {
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
}

/// A new context, current on this thread.
fn create(out: *mut Handle, flags: u32, ordinal: i32) -> Outcome {
    check(ordinal)?;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    let context = Context::new(device_of(ordinal)?, false);
    context.set_flags(flags)?;
    CURRENT.with_borrow_mut(|stack| stack.push(context));
    // SAFETY: the caller's.
    unsafe { put(out, context.handle() as Handle) }
}
