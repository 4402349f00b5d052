//! The names of errors, and what they say.

use std::ffi::c_char;

use super::{export_always, put};
use crate::api::error::{Status, describe};

export_always! {
    cuGetErrorName(code: i32, text: *mut *const c_char) {
        let (name, _) = describe(code).ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's.
        unsafe { put(text, name.as_ptr()) }
    }
    cuGetErrorString(code: i32, text: *mut *const c_char) {
        let (_, description) = describe(code).ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's.
        unsafe { put(text, description.as_ptr()) }
    }
}
