//! The CUDA driver API over the interpreter: what `libcuda.so` exports, as far as it makes sense here.
//!
//! [`objects`] are what handles stand for, and the memory that is shared among them. [`streams`] have work, which is done
//! when its call returns, or kept where a stream is captured; where a check or a seed is asked for, it is
//! [queued](streams::queue) and done when somebody waits for it. [`calls`] are the exported functions. Each of these
//! knows those before it alone, and within them no two files know each other. An error of a kernel sticks to its
//! context, like on hardware.

mod calls;
mod error;
mod objects;
mod profile;
mod ranges;
mod settings;
mod streams;
mod version;

use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
