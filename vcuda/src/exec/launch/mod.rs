//! A launch: its CTAs on host threads, the warps of a cluster in turn.

pub mod cluster;
pub mod pool;
pub mod ranges;
pub mod resident;
pub mod room;
pub mod run;
pub mod schedule;
pub mod standstill;
pub mod workspace;
