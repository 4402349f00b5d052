//! A CUDA driver for machines without a GPU: it exports the `cu*` functions and runs PTX on the CPU.
//!
//! PTX text → [`ptx`] → a warp-wide interpreter in [`exec`], over [`memory`].

/// Says something to the user on stderr, if that is open: a driver must not fail for it.
macro_rules! say {
    ($($message:tt)*) => { $crate::say(format_args!($($message)*)) };
}

fn say(message: std::fmt::Arguments) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "vcuda: {message}");
}

pub mod api;
pub mod exec;
pub mod memory;
pub mod order;
pub mod ptx;
mod shadow;
pub mod tensor_map;
