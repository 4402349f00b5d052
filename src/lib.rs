//! MEMO test-time adaptation of CLIP (arXiv 2110.09506) with hand-written CUDA kernels.

#[doc(hidden)]
pub mod check;
pub mod clip;
pub mod gpu;
pub mod ops;
pub mod policy;
