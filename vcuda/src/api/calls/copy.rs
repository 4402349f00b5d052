//! Copies and fills, as clients describe them.

use std::ffi::c_void;

use super::{export, peer};
use crate::api::error::{Outcome, Status};
use crate::api::objects::context::device;
use crate::api::objects::handles::StreamHandle;
use crate::api::objects::stream::{self, LEGACY};
use crate::api::settings::settings;
use crate::api::streams::copy::{Copy, Fill, Side};
use crate::api::streams::submit::submit;
use crate::api::streams::work::Work;
use crate::api::streams::{capture, queue};

/// `CUmemorytype`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const UNIFIED: u32 = 4;

/// One half of a `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Side2 {
    x_bytes: usize,
    y: usize,
    kind: u32,
    host: usize,
    device: u64,
    array: usize,
    pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct Memcpy2D {
    from: Side2,
    to: Side2,
    width_bytes: usize,
    height: usize,
}

/// One half of a `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Side3 {
    x_bytes: usize,
    y: usize,
    z: usize,
    lod: usize,
    kind: u32,
    host: usize,
    device: u64,
    array: usize,
    reserved: usize,
    pitch: usize,
    height: usize,
}

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Memcpy3D {
    from: Side3,
    to: Side3,
    width_bytes: usize,
    height: usize,
    depth: usize,
}

impl Side3 {
    fn resolve(&self, width_bytes: usize, height: usize) -> Result<Side, Status> {
        let pitch = if self.pitch == 0 { width_bytes } else { self.pitch };
        let rows = if self.height == 0 { height } else { self.height };
        if self.x_bytes.checked_add(width_bytes).is_none_or(|end| end > pitch) && height > 1 {
            return Err(Status::InvalidValue);
        }
        let (base, on_device) = match self.kind {
            HOST => (self.host as u64, false),
            DEVICE => (self.device, true),
            UNIFIED => (self.device, device().memory.owns(self.device)),
            _ => {
                say!("copies to and from CUDA arrays are not supported");
                return Err(Status::NotSupported);
            }
        };
        let layer = pitch.checked_mul(rows).ok_or(Status::InvalidValue)?;
        let offset = |n: usize, bytes: usize| n.checked_mul(bytes).ok_or(Status::InvalidValue);
        let first = [offset(self.z, layer)?, offset(self.y, pitch)?, self.x_bytes];
        let address = first.iter().try_fold(base, |at, &more| at.checked_add(more as u64));
        Ok(Side { address: address.ok_or(Status::InvalidValue)?, pitch, layer, on_device })
    }

    fn of(side: &Side) -> Side3 {
        let Side { address, pitch, layer, on_device } = *side;
        let kind = if on_device { DEVICE } else { HOST };
        let (host, device) = if on_device { (0, address) } else { (address as usize, 0) };
        Side3 { kind, host, device, pitch, height: layer / pitch.max(1), ..Side3::default() }
    }
}

impl Memcpy3D {
    /// # Errors
    /// Arrays, which are not supported, and rows wider than their pitch.
    pub fn resolve(&self) -> Result<Copy, Status> {
        let (width, height, depth) = (self.width_bytes, self.height, self.depth);
        let (to, from) = (self.to.resolve(width, height)?, self.from.resolve(width, height)?);
        let last = |side: &Side| {
            let rows = height.checked_mul(side.pitch)?;
            (side.address as usize).checked_add(depth.checked_mul(side.layer)?)?.checked_add(rows)
        };
        (last(&to).and(last(&from))).ok_or(Status::InvalidValue)?;
        Ok(Copy { to, from, width, height, depth })
    }

    pub fn of(copy: &Copy) -> Memcpy3D {
        let (to, from) = (Side3::of(&copy.to), Side3::of(&copy.from));
        Memcpy3D { from, to, width_bytes: copy.width, height: copy.height, depth: copy.depth }
    }
}

impl Memcpy2D {
    fn resolve(&self) -> Result<Copy, Status> {
        let side = |side: &Side2| {
            let Side2 { x_bytes, y, kind, host, device, array, pitch } = *side;
            Side3 { x_bytes, y, kind, host, device, array, pitch, ..Side3::default() }
        };
        let (width_bytes, height) = (self.width_bytes, self.height);
        Memcpy3D { from: side(&self.from), to: side(&self.to), width_bytes, height, depth: 1 }.resolve()
    }
}

/// Copies that return when they are done: they may not run into a capture.
pub fn now(copy: Copy) -> Outcome {
    capture::forbid()?;
    let owner = |side: &Side| device().memory.range_anywhere(side.address).map(|(.., device)| device);
    let [to, from] = [&copy.to, &copy.from].map(owner);
    // One from device to device comes after all that they have been asked for, and before all else.
    let is_far = to.is_some() && from.is_some() && to != from;
    if is_far {
        queue::wait_for_all();
    }
    submit(LEGACY, Work::Copy(copy))?;
    // The host waits where its memory takes part.
    if settings().defers && (is_far || !(copy.to.on_device && copy.from.on_device)) {
        return queue::wait_for_stream(&stream::place(LEGACY)?);
    }
    Ok(())
}

fn given<'a, T>(params: *const T) -> Result<&'a T, Status> {
    // SAFETY: null, or the caller's.
    unsafe { params.as_ref() }.ok_or(Status::InvalidValue)
}

fn fill(
    stream: StreamHandle,
    to: u64,
    pitch: usize,
    value: u32,
    element_bytes: u32,
    size: [usize; 2],
) -> Outcome {
    let [width, height] = size;
    let row = width.checked_mul(element_bytes as usize);
    if height > 1 && row.is_none_or(|row| row > pitch) || pitch.checked_mul(height).is_none() {
        return Err(Status::InvalidValue);
    }
    submit(stream, Work::Fill(Fill { to, pitch, value, element_bytes, width, height }))
}

export! {
    cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) { now(Copy::linear(to, from as u64, bytes, [true, false])) }
    cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) { now(Copy::linear(to as u64, from, bytes, [false, true])) }
    cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) { now(Copy::linear(to, from, bytes, [true, true])) }
    cuMemcpy(to: u64, from: u64, bytes: usize) { now(Copy::linear(to, from, bytes, [to, from].map(|at| device().memory.owns(at)))) }
    cuMemcpyPeer(to: u64, to_context: *mut c_void, from: u64, from_context: *mut c_void, bytes: usize) {
        peer::check_side(to_context, to)?;
        peer::check_side(from_context, from)?;
        now(Copy::linear(to, from, bytes, [true, true]))
    }
    cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: StreamHandle) {
        submit(stream, Work::Copy(Copy::linear(to, from as u64, bytes, [true, false])))
    }
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: StreamHandle) {
        submit(stream, Work::Copy(Copy::linear(to as u64, from, bytes, [false, true])))
    }
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: StreamHandle) {
        submit(stream, Work::Copy(Copy::linear(to, from, bytes, [true, true])))
    }
    cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: StreamHandle) {
        submit(stream, Work::Copy(Copy::linear(to, from, bytes, [to, from].map(|at| device().memory.owns(at)))))
    }
    cuMemcpyPeerAsync(
        to: u64, to_context: *mut c_void, from: u64, from_context: *mut c_void, bytes: usize, stream: StreamHandle,
    ) {
        peer::check_side(to_context, to)?;
        peer::check_side(from_context, from)?;
        submit(stream, Work::Copy(Copy::linear(to, from, bytes, [true, true])))
    }
    cuMemcpy2D_v2(params: *const Memcpy2D) { now(given(params)?.resolve()?) }
    cuMemcpy2DUnaligned_v2(params: *const Memcpy2D) { now(given(params)?.resolve()?) }
    cuMemcpy2DAsync_v2(params: *const Memcpy2D, stream: StreamHandle) {
        submit(stream, Work::Copy(given(params)?.resolve()?))
    }
    cuMemcpy3D_v2(params: *const Memcpy3D) { now(given(params)?.resolve()?) }
    cuMemcpy3DAsync_v2(params: *const Memcpy3D, stream: StreamHandle) {
        submit(stream, Work::Copy(given(params)?.resolve()?))
    }
    cuMemsetD8_v2(to: u64, value: u8, count: usize) { fill(LEGACY, to, 0, value.into(), 1, [count, 1]) }
    cuMemsetD8Async(to: u64, value: u8, count: usize, stream: StreamHandle) { fill(stream, to, 0, value.into(), 1, [count, 1]) }
    cuMemsetD16_v2(to: u64, value: u16, count: usize) { fill(LEGACY, to, 0, value.into(), 2, [count, 1]) }
    cuMemsetD16Async(to: u64, value: u16, count: usize, stream: StreamHandle) { fill(stream, to, 0, value.into(), 2, [count, 1]) }
    cuMemsetD32_v2(to: u64, value: u32, count: usize) { fill(LEGACY, to, 0, value, 4, [count, 1]) }
    cuMemsetD32Async(to: u64, value: u32, count: usize, stream: StreamHandle) { fill(stream, to, 0, value, 4, [count, 1]) }
    cuMemsetD2D8_v2(to: u64, pitch: usize, value: u8, width: usize, height: usize) {
        fill(LEGACY, to, pitch, value.into(), 1, [width, height])
    }
    cuMemsetD2D8Async(to: u64, pitch: usize, value: u8, width: usize, height: usize, stream: StreamHandle) {
        fill(stream, to, pitch, value.into(), 1, [width, height])
    }
    cuMemsetD2D16_v2(to: u64, pitch: usize, value: u16, width: usize, height: usize) {
        fill(LEGACY, to, pitch, value.into(), 2, [width, height])
    }
    cuMemsetD2D16Async(to: u64, pitch: usize, value: u16, width: usize, height: usize, stream: StreamHandle) {
        fill(stream, to, pitch, value.into(), 2, [width, height])
    }
    cuMemsetD2D32_v2(to: u64, pitch: usize, value: u32, width: usize, height: usize) {
        fill(LEGACY, to, pitch, value, 4, [width, height])
    }
    cuMemsetD2D32Async(to: u64, pitch: usize, value: u32, width: usize, height: usize, stream: StreamHandle) {
        fill(stream, to, pitch, value, 4, [width, height])
    }
}
