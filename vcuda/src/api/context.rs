//! Contexts. There is one device, and all contexts share its memory; each thread has a stack of them.

use std::cell::RefCell;
use std::ffi::c_void;

use super::{Status, device::check, export, put};

/// A `CUcontext`: any address but null; this one is the primary.
static PRIMARY: u8 = 0;
type Handle = *mut c_void;

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

fn current() -> Handle {
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
        unsafe { put(context, primary()) }
    }
    cuDevicePrimaryCtxRelease_v2(ordinal: i32) { check(ordinal) }
    cuDevicePrimaryCtxReset_v2(ordinal: i32) { check(ordinal) }
    cuDevicePrimaryCtxSetFlags_v2(ordinal: i32, _flags: u32) { check(ordinal) }
    cuDevicePrimaryCtxGetState(ordinal: i32, flags: *mut u32, active: *mut i32) {
        check(ordinal)?;
        // SAFETY: the caller's.
        unsafe {
            put(flags, 0)?;
            put(active, 1)
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
    cuCtxSynchronize() { require() }
    cuCtxGetCacheConfig(config: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(config, 0) }
    }
    cuCtxSetCacheConfig(_config: u32) { require() }
    cuCtxGetLimit(value: *mut usize, limit: u32) {
        let bytes = [1024, 1 << 20, 8 << 20].get(limit as usize).copied().ok_or(Status::UnsupportedLimit)?;
        // SAFETY: the caller's.
        unsafe { put(value, bytes) }
    }
    cuCtxSetLimit(limit: u32, _value: usize) {
        if limit < 3 { require() } else { Err(Status::UnsupportedLimit) }
    }
    cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) {
        // SAFETY: the caller's.
        unsafe {
            put(least, 0)?;
            put(greatest, -5)
        }
    }
}

/// A new handle, current on this thread.
fn create(context: *mut Handle, ordinal: i32) -> super::Outcome {
    check(ordinal)?;
    let handle: Handle = Box::into_raw(Box::new(0u8)).cast(); // never freed: a stale handle stays unique
    CURRENT.with_borrow_mut(|stack| stack.push(handle as usize));
    // SAFETY: the caller's.
    unsafe { put(context, handle) }
}
