//! The functions that are exported, `cu*`: what clients give is checked here, and what they want to know is written
//! where they say.

mod capture;
mod context;
mod copy;
mod device;
mod error;
mod event;
mod external;
mod graph;
mod graph_attribute;
mod graph_dot;
mod graph_exec;
mod graph_memory;
mod graph_node;
mod jit;
mod launch;
mod library;
mod memory;
mod module;
mod occupancy;
mod peer;
mod pointer;
mod pool;
mod primary;
mod proc_address;
mod refused;
mod stream;
mod tensor_map;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::{Outcome, Status};
use super::objects::context::fault;
use super::settings::settings;
use super::version;

/// The body of an exported function: a panic ends here, and a context that has failed stays so.
fn guarded(body: impl FnOnce() -> Outcome) -> i32 {
    caught(|| match fault() {
        0 => code(body()),
        fault => fault,
    })
}

/// The same for functions that answer also after a fault.
fn guarded_always(body: impl FnOnce() -> Outcome) -> i32 {
    caught(|| code(body()))
}

/// A `CUresult`.
fn code(outcome: Outcome) -> i32 {
    outcome.map_or_else(|status| status as i32, |()| 0)
}

fn caught(call: impl FnOnce() -> i32) -> i32 {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| bug())
}

#[cold]
#[inline(never)]
fn bug() -> i32 {
    say!("this is a bug in the virtual driver; the call failed");
    Status::Unknown as i32
}

/// Writes an output parameter.
///
/// # Safety
/// `to` is null or may be written.
unsafe fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: not null, and the caller's.
    unsafe { to.write(value) };
    Ok(())
}

/// A client's array.
///
/// # Errors
/// Null with a length.
fn list<'a, T>(from: *const T, count: usize) -> Result<&'a [T], Status> {
    match count {
        0 => Ok(&[]),
        _ if from.is_null() => Err(Status::InvalidValue),
        // SAFETY: not null, and as long as the caller says.
        _ => Ok(unsafe { std::slice::from_raw_parts(from, count) }),
    }
}

/// Whether the driver that is played has the function: a program that calls a later one does not run there, and is told so once.
fn is_known(name: &str) -> bool {
    let (since, driver) = (version::since(name), settings().driver_version);
    if since > driver {
        let [since, driver] = [since, driver].map(version::name);
        say!("{name} came with CUDA {since}; a driver of {driver} has no function of this name");
    }
    since <= driver
}

/// Exports functions of the driver API: `export! { cuInit(flags: u32) { … } }`.
macro_rules! export {
    ($($body:tt)*) => { $crate::api::calls::export_with! { guarded $($body)* } };
}
use export;

/// The same for functions that answer also after a fault.
macro_rules! export_always {
    ($($body:tt)*) => { $crate::api::calls::export_with! { guarded_always $($body)* } };
}
use export_always;

macro_rules! export_with {
    ($guard:ident $($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        /// As in NVIDIA's CUDA driver API.
        ///
        /// # Safety
        /// Pointers are null or as the CUDA driver API asks for.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
            static IS_KNOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
            match IS_KNOWN.get_or_init(|| $crate::api::calls::is_known(stringify!($name))) {
                true => $crate::api::calls::$guard(|| $body),
                false => $crate::api::error::Status::NotFound as i32,
            }
        }
    )*};
}
use export_with;
