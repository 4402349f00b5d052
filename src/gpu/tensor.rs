//! Device memory with a shape.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cudarc::driver::{CudaContext, result, sys::CUdeviceptr};
use half::f16;

use super::error::CudaError;

/// Dimensions that a tensor can have.
const MAX_RANK: usize = 5;

/// Sizes of a tensor's dimensions, the slowest first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    sizes: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    fn sizes(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }

    /// Elements; `None` where they are more than can be counted.
    pub(super) fn len(&self) -> Option<usize> {
        self.sizes().iter().try_fold(1usize, |len, &size| len.checked_mul(size))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes().iter().map(usize::to_string).collect();
        write!(f, "({})", sizes.join(", "))
    }
}

impl From<&[usize]> for Shape {
    /// # Panics
    /// More than five dimensions: none here has them.
    fn from(given: &[usize]) -> Shape {
        let mut sizes = [0; MAX_RANK];
        sizes[..given.len()].copy_from_slice(given);
        Shape { sizes, rank: given.len() }
    }
}

impl<const RANK: usize> From<[usize; RANK]> for Shape {
    fn from(sizes: [usize; RANK]) -> Shape {
        sizes.as_slice().into()
    }
}

impl From<usize> for Shape {
    fn from(len: usize) -> Shape {
        [len].into()
    }
}

/// A part of a device allocation, which lives as long as any of its tensors. Row-major, without gaps.
///
/// Tensors of one allocation may overlap and be written through a shared reference: the host never holds a reference to
/// device memory, all access is queued on streams, and shapes are checked where kernels are launched. Rust's aliasing
/// rules have nothing to guard here.
pub struct Tensor<T> {
    memory: Arc<Memory>,
    offset_bytes: usize,
    shape: Shape,
    element: PhantomData<fn() -> T>,
}

/// An allocation.
pub(super) struct Memory {
    context: Option<Arc<CudaContext>>,
    /// 0 where there is none.
    address: CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// `bytes` of the context's device, not initialised.
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Memory, CudaError> {
        context.bind_to_thread()?;
        let address = match bytes {
            0 => 0,
            // SAFETY: handed out as not initialised, to elements for which any bits will do.
            _ => unsafe { result::malloc_sync(bytes) }?,
        };
        Ok(Memory { context: Some(context.clone()), address, bytes })
    }

    /// What a plan is measured with: as much as anyone asks for.
    pub(super) fn nowhere() -> Memory {
        Memory { context: None, address: 0, bytes: usize::MAX }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bound = self.context.as_ref().is_some_and(|context| context.bind_to_thread().is_ok());
        if self.address != 0 && bound {
            // SAFETY: allocated in `new` and freed only here, when no tensor is left; the driver waits for queued work
            // first. An error can only be an earlier failure of the device, reported where it happened.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl<T> Tensor<T> {
    pub(super) fn new(memory: Arc<Memory>, offset_bytes: usize, shape: Shape) -> Tensor<T> {
        Tensor { memory, offset_bytes, shape, element: PhantomData }
    }

    /// Sizes of the dimensions, the slowest first.
    pub fn shape(&self) -> &[usize] {
        self.shape.sizes()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places `range` of the first dimension, sharing the memory.
    ///
    /// # Panics
    /// If the range is not inside the tensor: a bug in the caller, like any index.
    pub fn rows(&self, range: Range<usize>) -> Tensor<T> {
        let count = self.shape()[0];
        assert!(range.start <= range.end && range.end <= count, "{range:?} of {count}");
        let row_len: usize = self.shape()[1..].iter().product();
        let mut shape = self.shape;
        shape.sizes[0] = range.len();
        Tensor::new(self.memory.clone(), self.offset_bytes + range.start * row_len * size_of::<T>(), shape)
    }

    /// The same elements in another shape.
    ///
    /// # Panics
    /// If that has not as many: a bug in the caller.
    pub fn view(&self, shape: impl Into<Shape>) -> Tensor<T> {
        let shape = shape.into();
        assert_eq!(shape.len(), Some(self.len()), "{:?} as {shape:?}", self.shape);
        Tensor::new(self.memory.clone(), self.offset_bytes, shape)
    }

    /// Elements `range`, as one dimension, sharing the memory.
    ///
    /// # Panics
    /// If the range is not inside the tensor.
    pub fn slice(&self, range: Range<usize>) -> Tensor<T> {
        self.view(self.len()).rows(range)
    }

    /// Refuses another shape, before a kernel runs past it: `linear: out is (3, 4), not (3, 5)`.
    ///
    /// # Errors
    /// That.
    pub fn expect(&self, what: &str, shape: impl Into<Shape>) -> Result<()> {
        let want = shape.into();
        ensure!(self.shape == want, "{what} is {:?}, not {want:?}", self.shape);
        Ok(())
    }

    /// Whether the first element's address is a multiple of `bytes`.
    pub fn is_aligned(&self, bytes: u64) -> bool {
        self.address().is_multiple_of(bytes)
    }

    /// Device address of the first element.
    pub fn address(&self) -> CUdeviceptr {
        self.memory.address + self.offset_bytes as CUdeviceptr
    }
}

impl Tensor<f32> {
    /// The same memory as float16: rows twice as long.
    ///
    /// # Panics
    /// Without a dimension: a bug in the caller.
    pub fn halves(&self) -> Tensor<f16> {
        let mut shape = self.shape;
        let last = self.shape().len() - 1;
        shape.sizes[last] *= 2;
        Tensor::new(self.memory.clone(), self.offset_bytes, shape)
    }
}

impl<T> Clone for Tensor<T> {
    fn clone(&self) -> Self {
        Tensor::new(self.memory.clone(), self.offset_bytes, self.shape)
    }
}

impl<T> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} at {:#x}", std::any::type_name::<T>(), self.shape, self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor<f32> {
        Tensor::new(Arc::new(Memory::nowhere()), 0, shape.into())
    }

    #[test]
    fn parts_lie_where_their_elements_do() {
        let t = tensor(&[4, 3, 5]);
        assert_eq!((t.rows(2..4).address(), t.rows(2..4).shape()), (2 * 15 * 4, &[2, 3, 5][..]));
        assert_eq!((t.slice(7..60).address(), t.slice(7..60).shape()), (7 * 4, &[53][..]));
        assert_eq!(t.rows(1..4).view([9, 5]).rows(8..9).address(), (3 + 8) * 5 * 4);
        assert!(t.rows(4..4).is_empty());
        assert!(std::panic::catch_unwind(|| t.rows(2..5)).is_err());
        assert!(std::panic::catch_unwind(|| t.view([61])).is_err());
    }

    #[test]
    fn another_shape_is_refused_by_name() {
        let error = tensor(&[3, 4]).expect("sum: out", [3, 5]).unwrap_err();
        assert_eq!(error.to_string(), "sum: out is (3, 4), not (3, 5)");
        assert!(tensor(&[12]).expect("sum: out", [3, 4]).is_err());
        tensor(&[3, 4]).expect("sum: out", [3, 4]).unwrap();
    }
}
