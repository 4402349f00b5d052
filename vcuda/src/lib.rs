//! A CUDA driver for machines without a GPU: it exports the `cu*` functions and runs PTX on the CPU.
//!
//! PTX text → [`ptx`] → a warp-wide interpreter in [`exec`], over [`memory`].

pub mod api;
pub mod exec;
pub mod memory;
pub mod ptx;
mod shadow;
pub mod tensor_map;
