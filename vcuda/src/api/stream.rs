//! Streams: work is done when it is queued, so they hold nothing but their flags.

use std::ffi::c_void;

use super::{Status, context, export, put};

/// A `CUstream` is null (the default stream) or one of these.
pub struct Stream {
    flags: u32,
    priority: i32,
}

type Handle = *mut Stream;

/// The per-thread default streams' handles in CUDA.
fn is_default(stream: Handle) -> bool {
    (stream as usize) <= 2
}

export! {
    cuStreamCreate(stream: *mut Handle, flags: u32) {
        context::require()?;
        // SAFETY: the caller's.
        unsafe { put(stream, Box::into_raw(Box::new(Stream { flags, priority: 0 }))) }
    }
    cuStreamCreateWithPriority(stream: *mut Handle, flags: u32, priority: i32) {
        context::require()?;
        // SAFETY: the caller's.
        unsafe { put(stream, Box::into_raw(Box::new(Stream { flags, priority }))) }
    }
    cuStreamDestroy_v2(stream: Handle) {
        if is_default(stream) {
            return Err(Status::InvalidHandle);
        }
        // SAFETY: made by `cuStreamCreate`; the caller destroys it once.
        drop(unsafe { Box::from_raw(stream) });
        Ok(())
    }
    cuStreamSynchronize(_stream: Handle) { context::require() }
    cuStreamQuery(_stream: Handle) { context::require() }
    cuStreamWaitEvent(_stream: Handle, _event: *mut c_void, _flags: u32) { context::require() }
    cuStreamGetFlags(stream: Handle, flags: *mut u32) {
        // SAFETY: a live stream, and the caller's output.
        unsafe { put(flags, if is_default(stream) { 0 } else { (*stream).flags }) }
    }
    cuStreamGetPriority(stream: Handle, priority: *mut i32) {
        // SAFETY: a live stream, and the caller's output.
        unsafe { put(priority, if is_default(stream) { 0 } else { (*stream).priority }) }
    }
    cuStreamIsCapturing(_stream: Handle, status: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(status, 0) }
    }
    cuStreamAttachMemAsync(_stream: Handle, _address: u64, _bytes: usize, _flags: u32) { Ok(()) }
    cuLaunchHostFunc(_stream: Handle, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        let function = function.ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's function and data; all that was queued before it is done.
        unsafe { function(data) };
        Ok(())
    }
    cuStreamAddCallback(
        stream: Handle,
        function: Option<unsafe extern "C" fn(Handle, i32, *mut c_void)>,
        data: *mut c_void,
        _flags: u32,
    ) {
        let function = function.ok_or(Status::InvalidValue)?;
        // SAFETY: as above.
        unsafe { function(stream, 0, data) };
        Ok(())
    }
    cuProfilerStart() { Ok(()) }
    cuProfilerStop() { Ok(()) }
}
