//! A CUDA driver for machines without a GPU: it exports the `cu*` functions and runs PTX on the CPU.
//!
//! PTX text → [`ptx`] → typed instructions → a warp-wide interpreter.

pub mod ptx;
