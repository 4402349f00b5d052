//! MEMO test-time adaptation of CLIP (arXiv 2110.09506) with hand-written CUDA kernels.
//!
//! The modules in the order in which data flows: [`data`] is read, [`policy`] says how its views are
//! drawn, [`clip`] is the model, [`gpu`] the device, [`ops`] what runs on it, [`engine`] MEMO itself;
//! [`records`], [`metrics`] and [`report`] are what comes of it, [`output`] writes it, [`notice`] and [`interrupt`] are
//! between it and a person, [`cli`] the commands.

#[doc(hidden)]
pub mod check;
pub mod cli;
pub mod clip;
pub mod data;
pub mod engine;
pub mod gpu;
pub mod interrupt;
pub mod metrics;
pub mod notice;
pub mod ops;
pub mod output;
mod plain_file;
pub mod policy;
pub mod records;
pub mod report;
mod threads;
