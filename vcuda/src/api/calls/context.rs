//! Contexts: made, made current, and what they are asked for.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{event, export, export_always, peer, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::context::{
    Context, GREATEST_PRIORITY, current, current_handle, of, pop, push, require, set_current,
};
use crate::api::objects::device::{check, device_of};
use crate::api::objects::handles::{EventHandle, Handle};
use crate::api::objects::{allocation, memory};
use crate::api::streams::{capture, queue};

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
        unsafe { put(flags, require()?.flags()) }
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
    cuProfilerStart() { require().map(|_| ()) }
    cuProfilerStop() { require().map(|_| ()) }
    cuCtxRecordEvent(context: Handle, event: EventHandle) { event::record_context(of(context)?, event) }
    cuCtxWaitEvent(context: Handle, event: EventHandle) { event::wait_context(of(context)?, event) }
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

export_always! {
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
        push(context);
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
        reset(context);
        context.end()
    }
    cuCtxPopCurrent_v2(context: *mut Handle) {
        let popped = pop().ok_or(Status::InvalidContext)?;
        if !context.is_null() {
            // SAFETY: the caller's.
            unsafe { put(context, popped.handle() as Handle)? };
        }
        Ok(())
    }
}

/// Stack of a thread, `printf`'s buffer, the device's heap, in bytes: kept, and changing nothing here.
static LIMITS: [AtomicU64; 3] = [AtomicU64::new(1024), AtomicU64::new(1 << 20), AtomicU64::new(8 << 20)];

/// A new context, current on this thread.
fn create(out: *mut Handle, flags: u32, ordinal: i32) -> Outcome {
    check(ordinal)?;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    let context = Context::new(device_of(ordinal)?, false);
    context.set_flags(flags)?;
    push(context);
    // SAFETY: the caller's.
    unsafe { put(out, context.handle() as Handle) }
}

/// It is as new: its work is over, its memory is free again, and a fault is forgotten.
pub fn reset(context: &Context) {
    queue::finish(context);
    peer::end(context);
    for (address, left) in allocation::take_from(context.handle()) {
        memory::release(address, &left);
    }
    context.forgive();
}
