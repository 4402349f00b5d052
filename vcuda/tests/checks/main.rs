//! What `VCUDA_CHECK` finds: each broken kernel beside a twin that is right, with several seeds.

mod collective;
mod device;
mod init;
mod race;
mod readers;
#[path = "../isa/rounds.rs"]
mod rounds;
mod spin;
mod sync;
mod tensor;
mod warpgroup;
