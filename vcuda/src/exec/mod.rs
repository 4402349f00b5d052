//! From a syntax tree to results: functions inlined, registers allocated, instructions decoded once,
//! then run 32 lanes at a time.
//!
//! [`inline`] flattens a kernel and the functions it calls, [`allocate`] gives registers their slots,
//! [`lower`] and [`table`] turn instructions into [`op::Op`]s, [`launch`] runs them.
//!
//! What operations may see is below them. Those of [`arithmetic`] see [`registers`]; the others a [`warp`], its [`cta`] and
//! the [`kernel`], and what is under way of copies and products. These are in [`matrix`] and [`asynchronous`], and beside
//! them: memory in [`access`], [`load`] and [`atomic`], lanes together in [`collective`] and [`meeting`], branches and
//! barriers in [`control`]. What they do is told to the [`check`]s by [`observe`].

mod access;
mod allocate;
mod apart;
mod arithmetic;
mod asynchronous;
mod atomic;
mod call;
mod calls;
pub mod check;
mod cluster;
mod collective;
mod control;
mod cta;
mod element;
mod engine;
mod fault;
mod functions;
mod groups;
mod heap;
mod host;
mod inline;
mod kernel;
mod launch;
mod load;
mod lower;
mod matrix;
mod meeting;
mod module;
mod observe;
pub mod op;
mod options;
mod output;
mod print;
pub mod profile;
pub mod random;
mod ranges;
mod registers;
mod space;
mod stack;
mod table;
mod underway;
mod warp;

pub use asynchronous::reduce::Kind;
pub use fault::{Fault, FaultKind, LoadError};
pub use kernel::{Kernel, Param};
pub use launch::resolve::resolve;
pub use launch::run::{run, run_cooperative, run_counted};
pub use launch::workspace::Workspace;
pub use module::Module;
pub use options::{Checks, Launch, MAX_CTAS, Options, PORTABLE_CTAS, TensorCore, UNSAID};
