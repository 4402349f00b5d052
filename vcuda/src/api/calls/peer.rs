//! Access to the memory of other devices: every two of them can have it, and each way is asked for by itself.

use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::lock;
use crate::api::objects::context::{self, Context};
use crate::api::objects::device::{check, device_of, devices};
use crate::api::objects::handles::Handle;

/// `CUdevice_P2PAttribute`.
const PERFORMANCE_RANK: u32 = 1;
const ACCESS_SUPPORTED: u32 = 2;
const NATIVE_ATOMIC_SUPPORTED: u32 = 3;
const ARRAY_ACCESS_SUPPORTED: u32 = 4;

export! {
    cuDeviceCanAccessPeer(can: *mut i32, ordinal: i32, peer: i32) {
        check(ordinal)?;
        check(peer)?;
        // SAFETY: the caller's.
        unsafe { put(can, i32::from(ordinal != peer)) }
    }
    cuDeviceGetP2PAttribute(value: *mut i32, attribute: u32, from: i32, to: i32) {
        check(from)?;
        check(to)?;
        if from == to {
            return Err(Status::InvalidDevice);
        }
        let found = match attribute {
            ACCESS_SUPPORTED | NATIVE_ATOMIC_SUPPORTED => 1,
            PERFORMANCE_RANK | ARRAY_ACCESS_SUPPORTED => 0, // all alike; there are no arrays
            _ => return Err(Status::InvalidValue),
        };
        // SAFETY: the caller's.
        unsafe { put(value, found) }
    }
    cuCtxEnablePeerAccess(peer: Handle, flags: u32) {
        let (own, peer) = (context::require()?, context::of(peer)?);
        if flags != 0 {
            return Err(Status::InvalidValue);
        }
        if std::ptr::eq(own, peer) {
            return Err(Status::InvalidContext);
        }
        if own.device.ordinal == peer.device.ordinal {
            return Err(Status::PeerAccessUnsupported);
        }
        if !lock(&own.peers).insert(peer.handle()) {
            return Err(Status::PeerAccessAlreadyEnabled);
        }
        own.device.memory.set_peer(peer.device.ordinal, true);
        Ok(())
    }
    cuCtxDisablePeerAccess(peer: Handle) {
        let (own, peer) = (context::require()?, context::of(peer)?);
        if !lock(&own.peers).remove(&peer.handle()) {
            return Err(Status::PeerAccessNotEnabled);
        }
        renew(own)
    }
}

/// Contexts of one device share its memory, and what it may access.
fn renew(own: &Context) -> Outcome {
    let peers = lock(&own.peers).clone();
    let still = |ordinal: usize| {
        peers.iter().any(|&peer| context::of(peer as Handle).is_ok_and(|peer| peer.device.ordinal == ordinal))
    };
    for device in devices().iter().filter(|device| device.ordinal != own.device.ordinal) {
        own.device.memory.set_peer(device.ordinal, still(device.ordinal));
    }
    Ok(())
}

/// A context ends, and what it may access with it.
pub fn end(own: &Context) {
    lock(&own.peers).clear();
    let _ = renew(own);
}

/// Refuses a copy's address that is not on the device of the context that it is said to be of.
///
/// # Errors
/// Another device's, or no context.
pub fn check_side(context: Handle, address: u64) -> Outcome {
    let context = context::of(context)?;
    match device_of(0)?.memory.range_anywhere(address) {
        Some((.., device)) if device != context.device.ordinal => {
            say!(
                "memory: {address:#x} is on device {device}, and the copy says that it is on {}",
                context.device.ordinal
            );
            Err(Status::InvalidValue)
        }
        _ => Ok(()),
    }
}
