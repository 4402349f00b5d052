//! Tensor-core instructions: fragments, and the products of `mma`, `wmma` and `wgmma`.

pub mod descriptor;
pub mod fragment;
pub mod gemm;
pub mod grid;
pub mod group;
pub mod ldmatrix;
pub mod mma;
pub mod panel;
pub mod product;
pub mod run;
pub mod scratch;
pub mod siblings;
pub mod simd;
pub mod sums;
pub mod warpgroup;
pub mod wgmma;
pub mod wmma;
