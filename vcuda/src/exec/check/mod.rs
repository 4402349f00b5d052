//! `VCUDA_CHECK`: what a kernel may not do and yet gets away with. [`crate::exec::observe`] tells a [`Watch`] what it does;
//! what is found is handed back, without words.
//!
//! [`init`] knows what somebody has written, and [`race`] whether anything orders an access with those of other threads,
//! by what [`order`] and [`reading`] are told of barriers, fences, atomics and products; of neighbouring places [`row`] asks
//! it at once. [`pieces`] are launches and copies that nothing orders.

mod cell;
mod clock;
mod footprint;
mod groups;
mod init;
pub mod key;
mod members;
mod order;
pub mod pieces;
mod probe;
mod race;
mod reading;
mod row;
mod span;
mod watch;

pub use cell::MOST_THREADS;
pub use order::{OBSERVES, RELEASES};
pub use probe::Probe;
pub use race::Conflict;
pub use reading::Reading;
pub use span::{Access, KINDS, Kind, Place, Span};
pub use watch::{Beginning, Trouble, Watch};
