//! Programs whose streams or devices do not wait for each other, or may not reach each other's memory.

use cudarc::driver::sys::{self, CUevent, CUresult, CUstream};

use super::{BYTES, Client, N, Outcome, done, free};

/// A stream that waits for no default one, and an event.
fn side() -> Result<(CUstream, CUevent), CUresult> {
    let (mut stream, mut event) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: live locals.
    unsafe {
        done(sys::cuStreamCreate(&mut stream, 1))?;
        done(sys::cuEventCreate(&mut event, 0))?;
    }
    Ok((stream, event))
}

/// One stream waits for what the other has been asked for.
fn order(first: CUstream, second: CUstream, event: CUevent) -> Outcome {
    // SAFETY: handles of the caller's.
    unsafe {
        done(sys::cuEventRecord(event, first))?;
        done(sys::cuStreamWaitEvent(second, event, 0))
    }
}

/// Waits for both streams, destroys one, and frees buffers.
fn end(client: &Client, side: (CUstream, CUevent), buffers: &[u64]) -> Outcome {
    // SAFETY: handles of the caller's.
    unsafe {
        done(sys::cuCtxSynchronize())?;
        done(sys::cuStreamSynchronize(client.stream))?;
        done(sys::cuStreamDestroy_v2(side.0))?;
        done(sys::cuEventDestroy_v2(side.1))?;
    }
    buffers.iter().try_for_each(|&buffer| free(buffer))
}

pub fn missing_event_wait(client: &Client, broken: bool) -> Outcome {
    let (stream, event) = side()?;
    let [inp, mid, out] = [true, true, false].map(|written| client.alloc(BYTES, written));
    let other = Client { module: client.module, stream };
    // SAFETY: waits for the fills, so that the broken one reads something that is written.
    done(unsafe { sys::cuCtxSynchronize() })?;
    client.copy(inp, mid, N as i32)?;
    if !broken {
        order(client.stream, stream, event)?;
    }
    other.copy(mid, out, N as i32)?;
    end(client, (stream, event), &[inp, mid, out])
}

pub fn event_before_record(client: &Client, broken: bool) -> Outcome {
    let (stream, event) = side()?;
    let [inp, mid, out] = [true, true, false].map(|written| client.alloc(BYTES, written));
    let other = Client { module: client.module, stream };
    // SAFETY: handles of this function's.
    unsafe {
        done(sys::cuCtxSynchronize())?;
        if broken {
            done(sys::cuStreamWaitEvent(stream, event, 0))?;
        }
        client.copy(inp, mid, N as i32)?;
        done(sys::cuEventRecord(event, client.stream))?;
        if !broken {
            done(sys::cuStreamWaitEvent(stream, event, 0))?;
        }
    }
    other.copy(mid, out, N as i32)?;
    end(client, (stream, event), &[inp, mid, out])
}

/// Page-locked host memory.
fn pinned() -> Result<*mut u8, CUresult> {
    let mut host = std::ptr::null_mut();
    // SAFETY: a live local; as many bytes.
    unsafe {
        done(sys::cuMemHostAlloc(&mut host, BYTES, 0))?;
        std::ptr::write_bytes(host.cast::<u8>(), 1, BYTES);
    }
    Ok(host.cast())
}

pub fn reused_before_copied(client: &Client, broken: bool) -> Outcome {
    let (stream, event) = side()?;
    let [inp, buffer] = [true, true].map(|written| client.alloc(BYTES, written));
    let (host, other) = (pinned()?, Client { module: client.module, stream });
    // SAFETY: as many bytes on both sides.
    unsafe {
        done(sys::cuCtxSynchronize())?;
        done(sys::cuMemcpyDtoHAsync_v2(host.cast(), buffer, BYTES, client.stream))?;
    }
    if !broken {
        order(client.stream, stream, event)?;
    }
    other.copy(inp, buffer, N as i32)?;
    end(client, (stream, event), &[inp, buffer])?;
    // SAFETY: allocated above.
    done(unsafe { sys::cuMemFreeHost(host.cast()) })
}

pub fn pinned_rewritten(client: &Client, broken: bool) -> Outcome {
    let (buffer, host) = (client.alloc(BYTES, false), pinned()?);
    // SAFETY: as many bytes on both sides; the order is what is tried.
    unsafe {
        done(sys::cuMemcpyHtoDAsync_v2(buffer, host.cast(), BYTES, client.stream))?;
        if !broken {
            done(sys::cuStreamSynchronize(client.stream))?;
        }
        host.write(2);
        done(sys::cuStreamSynchronize(client.stream))?;
        done(sys::cuMemFreeHost(host.cast()))?;
    }
    free(buffer)
}

pub fn freed_elsewhere(client: &Client, broken: bool) -> Outcome {
    let (stream, event) = side()?;
    let (mut buffer, out) = (0, client.alloc(BYTES, false));
    let other = Client { module: client.module, stream };
    // SAFETY: a live local, and as many bytes; the order is what is tried.
    unsafe {
        done(sys::cuMemAllocAsync(&mut buffer, BYTES, client.stream))?;
        done(sys::cuMemsetD8Async(buffer, 1, BYTES, client.stream))?;
        order(client.stream, stream, event)?;
        other.copy(buffer, out, N as i32)?;
        if !broken {
            order(stream, client.stream, event)?;
        }
        done(sys::cuMemFreeAsync(buffer, client.stream))?;
    }
    end(client, (stream, event), &[out])
}

pub fn no_peer_access(client: &Client, broken: bool) -> Outcome {
    let mut peer = std::ptr::null_mut();
    // SAFETY: live locals and handles.
    unsafe {
        done(sys::cuDevicePrimaryCtxRetain(&mut peer, 1))?;
        done(sys::cuCtxPushCurrent_v2(peer))?;
        let inp = client.alloc(BYTES, true);
        done(sys::cuCtxSynchronize())?;
        done(sys::cuCtxPopCurrent_v2(std::ptr::null_mut()))?;
        if !broken {
            done(sys::cuCtxEnablePeerAccess(peer, 0))?;
        }
        let out = client.alloc(BYTES, false);
        client.copy(inp, out, N as i32)?;
        free(out)?;
        free(inp)?;
        done(sys::cuDevicePrimaryCtxRelease_v2(1))
    }
}
