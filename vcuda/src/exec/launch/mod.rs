//! A launch: its CTAs on host threads, the warps of a cluster in turn.

mod barriers;
pub mod common;
pub mod pool;
pub mod queue;
pub mod resident;
pub mod resolve;
pub mod room;
pub mod run;
pub mod schedule;
pub mod standstill;
mod stores;
mod turn;
pub mod workspace;
