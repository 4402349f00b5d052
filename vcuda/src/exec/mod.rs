//! From a syntax tree to results: functions inlined, registers allocated, instructions decoded once,
//! then run 32 lanes at a time.
//!
//! [`inline`] flattens a kernel and the functions it calls, [`allocate`] gives registers their slots,
//! [`lower`] and [`table`] turn instructions into [`op::Op`]s, [`run`](mod@run) runs them.

mod access;
mod allocate;
mod async_copy;
mod atomic;
mod bulk;
mod call;
pub mod check;
mod cluster;
mod collective;
mod control;
mod convert;
mod directed;
mod engine;
mod fault;
mod float;
mod fragment;
mod functions;
mod half;
mod heap;
mod inline;
mod integer;
mod kernel;
mod ldmatrix;
mod lower;
mod matrix_descriptor;
mod mbarrier;
mod mma;
mod module;
pub mod op;
mod pool;
mod print;
pub mod profile;
mod proxy;
mod resident;
mod room;
mod run;
mod scalar_video;
mod schedule;
mod stack;
mod standstill;
mod table;
mod tensor_copy;
mod tensor_replace;
mod uncommon;
mod video;
mod wgmma;
mod wmma;
mod workspace;

pub use bulk::Kind;
pub use cluster::shape as cluster_shape;
pub use fault::{Fault, FaultKind, LoadError};
pub use kernel::{Kernel, Param};
pub use module::Module;
pub use run::{Checks, Launch, Options, run, run_cooperative, run_counted};
pub use workspace::Workspace;
