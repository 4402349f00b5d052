//! Each device's primary context, and how many use it.

use std::sync::{Mutex, OnceLock};

use super::context::reset;
use super::{export, export_always, put};
use crate::api::error::Status;
use crate::api::lock;
use crate::api::objects::context::Context;
use crate::api::objects::device::{Device, device_of};
use crate::api::objects::handles::Handle;
use crate::memory::MOST_DEVICES;

static USERS: Mutex<[usize; MOST_DEVICES]> = Mutex::new([0; MOST_DEVICES]);

fn primary(device: &'static Device) -> &'static Context {
    static ALL: [OnceLock<&Context>; MOST_DEVICES] = [const { OnceLock::new() }; MOST_DEVICES];
    ALL[device.ordinal].get_or_init(|| Context::new(device, true))
}

export! {
    cuDevicePrimaryCtxSetFlags_v2(ordinal: i32, flags: u32) { primary(device_of(ordinal)?).set_flags(flags) }
    cuDevicePrimaryCtxGetState(ordinal: i32, flags: *mut u32, active: *mut i32) {
        let device = device_of(ordinal)?;
        // SAFETY: the caller's.
        unsafe {
            put(flags, primary(device).flags())?;
            put(active, i32::from(lock(&USERS)[device.ordinal] > 0))
        }
    }
}

export_always! {
    cuDevicePrimaryCtxRetain(context: *mut Handle, ordinal: i32) {
        let device = device_of(ordinal)?;
        // SAFETY: the caller's.
        unsafe { put(context, primary(device).handle() as Handle)? };
        lock(&USERS)[device.ordinal] += 1;
        Ok(())
    }
    cuDevicePrimaryCtxRelease_v2(ordinal: i32) {
        let device = device_of(ordinal)?;
        let left = {
            let users = &mut lock(&USERS)[device.ordinal];
            *users = users.checked_sub(1).ok_or(Status::InvalidContext)?;
            *users
        };
        if left == 0 {
            reset(primary(device));
        }
        Ok(())
    }
    cuDevicePrimaryCtxReset_v2(ordinal: i32) {
        reset(primary(device_of(ordinal)?));
        Ok(())
    }
}
