//! What `VCUDA_CHECK` finds: each broken kernel beside a twin that is right, with several seeds.

mod device;
mod init;
mod race;
mod readers;
mod spin;
mod sync;
mod tensor;
