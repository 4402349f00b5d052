//! Tensor-core instructions: fragments, and the products of `mma`, `wmma` and `wgmma`.

pub mod descriptor;
pub mod fragment;
pub mod group;
pub mod ldmatrix;
pub mod mma;
pub mod product;
pub mod wgmma;
pub mod wmma;
