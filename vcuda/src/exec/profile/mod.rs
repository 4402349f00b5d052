//! Counters, for `VCUDA_PROFILE`: what a launch executed and moved, and how long a GPU would take at least.
//!
//! A module that is loaded for it has operations that count ([`count`]) before straight runs of
//! instructions, before guarded ones and before memory accesses; nothing is counted, and nothing costs,
//! elsewhere. Each host thread counts on its own; the sums are the launch's ([`counters`]). [`occupancy`] and
//! [`roofline`] say what these numbers would mean on a GPU that [`gpu`] describes: a model, not a measurement.

pub mod class;
pub mod count;
pub mod counters;
pub mod gpu;
pub(in crate::exec) mod marks;
pub mod occupancy;
pub mod registers;
pub mod roofline;
pub mod totals;

pub use class::{Class, Unit};
pub use counters::{Action, Counters, Space, Traffic};
pub use gpu::Gpu;
pub use occupancy::Occupancy;
pub use roofline::Roofline;
pub use totals::Totals;
