//! One small case per PTX instruction form, against references that never call the code under test.
//!
//! The same cases run on a GPU: `VCUDA_ISA_DRIVER=libcuda.so.1 cargo test --release -p vcuda --test isa`.

mod approximate;
mod async_copy;
mod atomic;
mod call;
mod cluster;
mod collective;
mod compare;
mod control;
mod convert;
mod device;
mod driver;
mod files;
mod float;
mod half;
mod integer;
mod lanes;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
mod mma_load;
mod mma_run;
mod operands;
mod print;
mod rounding;
mod rounds;
mod scalar_video;
mod sums;
mod tensor_copy;
mod tensor_replace;
mod video;
mod warp;
mod wgmma;
mod wgmma_run;
mod wide;
mod wmma;
