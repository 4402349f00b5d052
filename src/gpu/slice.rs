//! Typed device memory.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use cudarc::driver::{CudaContext, result, sys::CUdeviceptr};

use super::cuda_error;

/// A range of a device allocation, which lives as long as any of its slices.
///
/// Slices of one allocation may overlap and be written through a shared reference: the host never
/// holds a reference to device memory, all access is queued on one stream, and lengths are checked
/// where kernels are launched. Rust's aliasing rules have nothing to guard here.
pub struct Slice<T> {
    allocation: Arc<Allocation>,
    offset: usize,
    len: usize,
    element: PhantomData<T>,
}

struct Allocation {
    context: Arc<CudaContext>,
    /// 0 for an empty allocation.
    address: CUdeviceptr,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.address != 0 && self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated in `Slice::new` and freed only here, when no slice is left. An error
            // can only be an earlier failure of the device, reported where it happened.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl<T> Slice<T> {
    pub(super) fn new(context: Arc<CudaContext>, bytes: usize, len: usize) -> Result<Slice<T>> {
        context.bind_to_thread().map_err(cuda_error)?;
        let address = match bytes {
            0 => 0,
            // SAFETY: the memory is handed out as not initialised; T is Pod, any bits will do.
            _ => unsafe { result::malloc_sync(bytes) }.map_err(cuda_error)?,
        };
        Ok(Slice {
            allocation: Arc::new(Allocation { context, address }),
            offset: 0,
            len,
            element: PhantomData,
        })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements `range` of this slice, sharing its memory.
    ///
    /// # Panics
    /// If the range is not inside the slice: a bug in the caller, like any index.
    pub fn slice(&self, range: Range<usize>) -> Slice<T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        Slice {
            allocation: self.allocation.clone(),
            offset: self.offset + range.start,
            len: range.len(),
            element: PhantomData,
        }
    }

    /// Whether the first element's address is a multiple of `bytes`.
    pub fn is_aligned(&self, bytes: u64) -> bool {
        self.address().is_multiple_of(bytes)
    }

    /// Device address of the first element.
    pub(super) fn address(&self) -> CUdeviceptr {
        self.allocation.address + (self.offset * size_of::<T>()) as CUdeviceptr
    }
}

impl<T> Clone for Slice<T> {
    fn clone(&self) -> Self {
        self.slice(0..self.len)
    }
}
