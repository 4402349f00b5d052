//! What the checks are told: of accesses, of barriers and fences, of products and of copies under way. [`words`] has what
//! they find in words, for the fault.

pub mod access;
mod copies;
mod products;
pub mod sync;
mod words;

pub use access::Check;
pub use copies::ProxyFence;
