//! Host memory that stays where it is, so that the device copies to and from it while the host goes on.

use anyhow::{Context, Result, ensure};
use bytemuck::Pod;
use cudarc::driver::result;

use super::error::CudaError;
use super::timeline::Kind;
use super::{Gpu, Stream, Tensor, human_bytes};

/// An array in such memory. Zeros at first.
pub struct Pinned<T> {
    gpu: Gpu,
    first: *mut T,
    len: usize,
}

// SAFETY: it owns its memory, as a Vec does.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T: Pod> Pinned<T> {
    /// # Errors
    /// Out of host memory that can be pinned.
    pub fn new(gpu: &Gpu, len: usize) -> Result<Pinned<T>> {
        gpu.bind()?;
        let bytes = len * size_of::<T>();
        // SAFETY: plain memory; all its bits are set below. CUDA's default flags are none.
        let first = unsafe { result::malloc_host(bytes.max(1), 0) }
            .map_err(CudaError::from)
            .with_context(|| format!("pinning {} of host memory", human_bytes(bytes)))?
            .cast::<T>();
        // SAFETY: that many bytes were allocated, at a page's boundary; all zeros are a T.
        unsafe { std::ptr::write_bytes(first, 0, len) };
        Ok(Pinned { gpu: gpu.clone(), first, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements; of those that a copy is on its way to, what it has brought so far.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `len` elements, all initialised in `new`, and alive as long as this.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: allocated in `new` and freed only here; an error can only be an earlier failure of the device.
            let _ = unsafe { result::free_host(self.first.cast()) };
        }
    }
}

impl Stream {
    /// Queues a copy of the first elements of `src` to all of `dst`.
    ///
    /// # Errors
    /// Fewer of them; the driver's.
    ///
    /// # Safety
    /// Until the copy is done, as an event behind it tells, `src` stays as it is.
    pub unsafe fn send<T: Pod>(&self, dst: &Tensor<T>, src: &Pinned<T>) -> Result<()> {
        ensure!(dst.len() <= src.len, "copying to the device: {} elements of {}", dst.len(), src.len);
        if dst.is_empty() || self.is_rehearsal() {
            return Ok(());
        }
        let data = &src.as_slice()[..dst.len()];
        self.span("copy to the device", Kind::Copy, || {
            // SAFETY: dst is a live allocation of as many elements; that data outlives the copy is the caller's promise.
            unsafe { result::memcpy_htod_async(dst.address(), data, self.raw()?) }
                .map_err(CudaError::from)
                .context("copying to the device")
        })
    }

    /// Queues a copy of all of `src` to the elements of `dst` from number `at` on.
    ///
    /// # Errors
    /// Fewer of them; the driver's.
    ///
    /// # Safety
    /// Until the copy is done, as an event behind it tells, `dst` stays alive and nobody looks at it.
    pub unsafe fn fetch<T: Pod>(&self, dst: &Pinned<T>, at: usize, src: &Tensor<T>) -> Result<()> {
        let end = at.checked_add(src.len()).filter(|&end| end <= dst.len);
        ensure!(end.is_some(), "copying from the device: {at} + {} elements of {}", src.len(), dst.len);
        if src.is_empty() || self.is_rehearsal() {
            return Ok(());
        }
        // SAFETY: inside dst's memory, checked above, which nobody looks at: the caller's promise.
        let to = unsafe { std::slice::from_raw_parts_mut(dst.first.add(at), src.len()) };
        self.span("copy from the device", Kind::Copy, || {
            // SAFETY: src is a live allocation of as many elements; that `to` outlives the copy is the caller's promise.
            unsafe { result::memcpy_dtoh_async(to, src.address(), self.raw()?) }
                .map_err(CudaError::from)
                .with_context(|| self.blame("copying from the device"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;
    use crate::gpu::Event;

    device_test!(what_is_sent_comes_back, |stream| {
        let (mut out, back) = (Pinned::new(stream.gpu(), 1000)?, Pinned::new(stream.gpu(), 1001)?);
        assert_eq!(out.as_slice(), [0u32; 1000]);
        out.as_mut_slice().iter_mut().zip(0..).for_each(|(x, i)| *x = i);
        let (there, done) = (stream.zeros::<u32>(990)?, Event::new(stream.gpu())?);
        // SAFETY: both are left alone until the event is reached.
        unsafe {
            stream.send(&there, &out)?;
            stream.fetch(&back, 11, &there)?;
        }
        done.record(&stream)?;
        done.synchronize()?;
        assert_eq!(back.as_slice()[..11], [0; 11]);
        assert_eq!(back.as_slice()[11..], out.as_slice()[..990]);
        // SAFETY: neither is queued.
        let (short, past) = unsafe {
            let more = stream.zeros::<u32>(1001)?;
            (stream.send(&more, &out), stream.fetch(&back, 12, &there))
        };
        assert!(short.is_err() && past.is_err());
    });
}
