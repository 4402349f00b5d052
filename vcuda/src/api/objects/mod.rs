//! What there is: devices, contexts, memory, modules and streams, with the handles that stand for them.

pub mod allocation;
pub mod context;
pub mod device;
pub mod graph_memory;
pub mod handles;
pub mod memory;
pub mod module;
pub mod pool;
pub mod stream;
