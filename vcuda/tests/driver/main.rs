//! The driver API as clients see it: the built library, called through `cudarc`.

mod capture;
mod capture_graph;
mod client;
mod cooperative;
mod devices;
mod external;
mod graph;
mod graph_memory;
mod graph_nodes;
mod handles;
mod kernels;
mod launch;
mod memory;
mod module;
mod process;
mod streams;
mod stress;
mod symbols;
mod version;
