//! Contexts. There is one device, and all contexts share its memory; each thread has a stack of them.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Status, allocation, capture, device, device::check, event, export, export_always, lock, put};

/// A `CUcontext`: any address but null; this one is the primary.
static PRIMARY: u8 = 0;
type Handle = *mut c_void;

/// The primary context's users, and the flags that it was given.
struct Primary {
    users: usize,
    flags: u32,
}

static STATE: Mutex<Primary> = Mutex::new(Primary { users: 0, flags: 0 });

/// `CUctx_flags`: all that there are.
const FLAGS: u32 = 0xff;
/// Of streams; the least is 0.
pub const GREATEST_PRIORITY: i32 = -5;

thread_local! {
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn primary() -> Handle {
    (&raw const PRIMARY).cast_mut().cast()
}

fn set_current(context: Handle) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        if !context.is_null() {
            stack.push(context as usize);
        }
    });
}

/// The thread's context, or null.
pub fn current() -> Handle {
    CURRENT.with_borrow(|stack| stack.last().map_or(std::ptr::null_mut(), |&context| context as Handle))
}

/// Refuses a call that needs a context where the thread has none.
pub fn require() -> super::Outcome {
    if current().is_null() { Err(Status::InvalidContext) } else { Ok(()) }
}

export! {
    cuDevicePrimaryCtxRetain(context: *mut Handle, ordinal: i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(context, primary())? };
        lock(&STATE).users += 1;
        Ok(())
    }
    cuDevicePrimaryCtxSetFlags_v2(ordinal: i32, flags: u32) {
        check(ordinal)?;
        if flags & !FLAGS != 0 {
            return Err(Status::InvalidValue);
        }
        lock(&STATE).flags = flags;
        Ok(())
    }
    cuDevicePrimaryCtxGetState(ordinal: i32, flags: *mut u32, active: *mut i32) {
        check(ordinal)?;
        let state = lock(&STATE);
        // SAFETY: the caller's.
        unsafe {
            put(flags, state.flags)?;
            put(active, i32::from(state.users > 0))
        }
    }
    cuCtxCreate_v2(context: *mut Handle, _flags: u32, ordinal: i32) { create(context, ordinal) }
    cuCtxCreate_v3(context: *mut Handle, _affinity: *mut c_void, _count: i32, _flags: u32, ordinal: i32) {
        create(context, ordinal)
    }
    cuCtxCreate_v4(context: *mut Handle, _params: *mut c_void, _flags: u32, ordinal: i32) {
        create(context, ordinal)
    }
    cuCtxDestroy_v2(context: Handle) {
        if context.is_null() {
            return Err(Status::InvalidContext);
        }
        if current() == context {
            set_current(std::ptr::null_mut());
        }
        allocation::end_context(context as usize);
        Ok(())
    }
    cuCtxSetCurrent(context: Handle) {
        set_current(context);
        Ok(())
    }
    cuCtxGetCurrent(context: *mut Handle) {
        // SAFETY: the caller's.
        unsafe { put(context, current()) }
    }
    cuCtxPushCurrent_v2(context: Handle) {
        if context.is_null() {
            return Err(Status::InvalidContext);
        }
        CURRENT.with_borrow_mut(|stack| stack.push(context as usize));
        Ok(())
    }
    cuCtxPopCurrent_v2(context: *mut Handle) {
        let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(Status::InvalidContext)?;
        if !context.is_null() {
            // SAFETY: the caller's.
            unsafe { put(context, popped as Handle)? };
        }
        Ok(())
    }
    cuCtxGetDevice(ordinal: *mut i32) {
        require()?;
        // SAFETY: the caller's.
        unsafe { put(ordinal, 0) }
    }
    cuCtxGetApiVersion(_context: Handle, version: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(version, 4) }
    }
    cuCtxGetFlags(flags: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(flags, 0) }
    }
    cuCtxSetFlags(_flags: u32) { require() }
    cuCtxGetId(_context: Handle, id: *mut u64) {
        require()?;
        // SAFETY: the caller's.
        unsafe { put(id, current() as u64) }
    }
    cuCtxGetDevice_v2(ordinal: *mut i32, _context: Handle) {
        // SAFETY: the caller's.
        unsafe { put(ordinal, 0) }
    }
    cuCtxSynchronize() {
        require()?;
        capture::forbid()
    }
    cuCtxSynchronize_v2(_context: Handle) { capture::forbid() }
    cuCtxRecordEvent(_context: Handle, event: event::EventHandle) { event::record_now(event) }
    cuCtxWaitEvent(_context: Handle, event: event::EventHandle) { event::live(event).map(|_| ()) }
    cuCtxResetPersistingL2Cache() { require() }
    cuCtxEnablePeerAccess(_peer: Handle, _flags: u32) { Err(Status::PeerAccessUnsupported) }
    cuCtxDisablePeerAccess(_peer: Handle) { Err(Status::PeerAccessNotEnabled) }
    cuCtxGetSharedMemConfig(config: *mut u32) {
        // SAFETY: the caller's; banks of four bytes.
        unsafe { put(config, 1) }
    }
    cuCtxSetSharedMemConfig(_config: u32) { require() }
    cuCtxGetCacheConfig(config: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(config, 0) }
    }
    cuCtxSetCacheConfig(_config: u32) { require() }
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

/// Stack of a thread, `printf`'s buffer, the device's heap, in bytes: kept, and changing nothing here.
static LIMITS: [AtomicU64; 3] = [AtomicU64::new(1024), AtomicU64::new(1 << 20), AtomicU64::new(8 << 20)];

export_always! {
    cuDevicePrimaryCtxRelease_v2(ordinal: i32) {
        check(ordinal)?;
        let mut state = lock(&STATE);
        state.users = state.users.checked_sub(1).ok_or(Status::InvalidContext)?;
        if state.users == 0 {
            end_primary();
        }
        Ok(())
    }
    cuDevicePrimaryCtxReset_v2(ordinal: i32) {
        check(ordinal)?;
        end_primary();
        Ok(())
    }
}

/// The context is as new: its memory is free again, and a fault is forgotten.
fn end_primary() {
    allocation::end_context(primary() as usize);
    device().fault.store(0, Ordering::Relaxed);
}

/// A new handle, current on this thread.
fn create(context: *mut Handle, ordinal: i32) -> super::Outcome {
    check(ordinal)?;
    let handle: Handle = Box::into_raw(Box::new(0u8)).cast(); // never freed: a stale handle stays unique
    CURRENT.with_borrow_mut(|stack| stack.push(handle as usize));
    // SAFETY: the caller's.
    unsafe { put(context, handle) }
}
