//! Copies that land later, the barriers that say when, and the fences between.

pub mod async_copy;
pub mod barrier;
pub mod bulk;
pub mod engine;
pub mod mbarrier;
pub mod proxy;
pub mod reduce;
pub mod targets;
pub mod tensor_copy;
pub mod tensor_replace;
pub mod work;
