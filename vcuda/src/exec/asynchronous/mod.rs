//! Instructions on copies that land later, and on the barriers that say when.

pub mod async_copy;
pub mod bulk;
pub mod maps;
pub mod mbarrier;
pub mod reduce;
pub mod targets;
pub mod tensor_copy;
pub mod tensor_replace;
mod tile;
