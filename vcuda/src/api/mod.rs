//! The CUDA driver API over the interpreter: what `libcuda.so` exports, as far as it makes sense here.
//!
//! [`work`] is done when its call returns, or kept where a stream is captured; where a check or a seed is asked for, it is
//! [queued](queue) and done when somebody waits for it. An error of a kernel sticks to its context, like on hardware.

mod allocation;
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
mod handles;
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
mod profile;
mod queue;
mod refused;
mod settings;
mod staging;
mod stream;
mod tensor_map;
mod touch;
mod version;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use device::device;
pub use error::Status;
use settings::settings;

type Outcome = Result<(), Status>;

/// The body of an exported function: a panic ends here, and a context that has failed stays so.
fn guarded(body: impl FnOnce() -> Outcome) -> i32 {
    caught(|| match context::fault() {
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
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        say!("this is a bug in the virtual driver; the call failed");
        Status::Unknown as i32
    })
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exports functions of the driver API: `export! { cuInit(flags: u32) { … } }`.
macro_rules! export {
    ($($body:tt)*) => { $crate::api::export_with! { guarded $($body)* } };
}
use export;

/// The same for functions that answer also after a fault.
macro_rules! export_always {
    ($($body:tt)*) => { $crate::api::export_with! { guarded_always $($body)* } };
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
            $crate::api::$guard(|| $body)
        }
    )*};
}
use export_with;
