//! Operations on numbers: one type, one width or one rounding a file.

pub mod approximate;
pub mod astray;
pub mod convert;
pub mod directed;
pub mod float;
pub mod half;
pub mod integer;
pub mod lane;
pub mod predicate;
pub mod scalar_video;
pub mod uncommon;
pub mod video;
