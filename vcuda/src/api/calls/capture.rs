//! Stream capture: begun, ended and asked about.

use std::ffi::c_void;

use super::{export, list, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::handles::StreamHandle;
use crate::api::streams::capture::{self, Mode};
use crate::api::streams::graph::live;
use crate::api::streams::work::{GraphHandle, NodeHandle};

/// What `cuStreamGetCaptureInfo` may write to; each may be null but the status.
struct Info {
    status: *mut u32,
    number: *mut u64,
    graph: *mut GraphHandle,
    dependencies: *mut *const NodeHandle,
    edges: *mut *const c_void,
    count: *mut usize,
}

fn info(stream: StreamHandle, to: &Info) -> Outcome {
    let (status, found) = capture::info(stream)?;
    // SAFETY: the caller's.
    unsafe { put(to.status, status)? };
    let Some(found) = found else { return Ok(()) };
    // SAFETY: the caller's.
    unsafe {
        let optional = |ok: Outcome, null: bool| if null { Ok(()) } else { ok };
        optional(put(to.number, found.number), to.number.is_null())?;
        optional(put(to.graph, found.graph), to.graph.is_null())?;
        optional(put(to.dependencies, found.tips), to.dependencies.is_null())?;
        optional(put(to.edges, std::ptr::null()), to.edges.is_null())?;
        optional(put(to.count, found.tip_count), to.count.is_null())
    }
}

export! {
    cuStreamBeginCapture_v2(stream: StreamHandle, mode: u32) { capture::begin(stream, None, mode) }
    cuStreamBeginCaptureToGraph(
        stream: StreamHandle, graph: GraphHandle, dependencies: *const NodeHandle, _edges: *const c_void, count: usize,
        mode: u32,
    ) {
        let nodes = list(dependencies, count)?;
        live(graph)?.own(nodes)?;
        capture::begin(stream, Some((graph, nodes.to_vec())), mode)
    }
    cuStreamEndCapture(stream: StreamHandle, graph: *mut GraphHandle) {
        // SAFETY: the caller's.
        unsafe { put(graph, std::ptr::null_mut())? };
        let ended = capture::end(stream)?;
        // SAFETY: the caller's.
        unsafe { put(graph, ended) }
    }
    cuStreamIsCapturing(stream: StreamHandle, out: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(out, capture::status(stream)?) }
    }
    cuStreamGetCaptureInfo_v2(
        stream: StreamHandle, status: *mut u32, number: *mut u64, graph: *mut GraphHandle,
        dependencies: *mut *const NodeHandle, count: *mut usize,
    ) {
        info(stream, &Info { status, number, graph, dependencies, edges: std::ptr::null_mut(), count })
    }
    cuStreamGetCaptureInfo_v3(
        stream: StreamHandle, status: *mut u32, number: *mut u64, graph: *mut GraphHandle,
        dependencies: *mut *const NodeHandle, edges: *mut *const c_void, count: *mut usize,
    ) {
        info(stream, &Info { status, number, graph, dependencies, edges, count })
    }
    cuStreamUpdateCaptureDependencies_v2(
        stream: StreamHandle, dependencies: *const NodeHandle, _edges: *const c_void, count: usize, flags: u32,
    ) {
        let replace = match flags {
            0 => false,
            1 => true,
            _ => return Err(Status::InvalidValue),
        };
        capture::set_tips(stream, list(dependencies, count)?, replace)
    }
    cuThreadExchangeStreamCaptureMode(mode: *mut u32) {
        // SAFETY: the caller's.
        let mode = unsafe { mode.as_mut() }.ok_or(Status::InvalidValue)?;
        *mode = capture::exchange_mode(Mode::new(*mode)?) as u32;
        Ok(())
    }
}
