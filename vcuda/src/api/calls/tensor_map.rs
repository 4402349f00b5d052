//! Tensor maps: checked and encoded as the driver API documents.

use super::export;
use crate::api::error::{Outcome, Status};
use crate::tensor_map::{MAP_ALIGN, MAP_BYTES, TensorMap};

/// `CUtensorMap`.
type Handle = *mut [u8; MAP_BYTES];

/// Values of the API's enumerations that are known, and the first of those that are not supported.
const DATA_TYPES: u32 = 13;
const INTERLEAVES: u32 = 3;
const PROMOTIONS: u32 = 4;

fn map<'a>(handle: Handle) -> Result<&'a mut [u8; MAP_BYTES], Status> {
    if !(handle as u64).is_multiple_of(MAP_ALIGN) {
        return Err(refuse(&format!("the map at {handle:?} is not aligned to {MAP_ALIGN} bytes")));
    }
    // SAFETY: null, or a CUtensorMap of the caller's.
    unsafe { handle.as_mut() }.ok_or(Status::InvalidValue)
}

fn refuse(what: &str) -> Status {
    say!("tensor map: {what}");
    Status::InvalidValue
}

fn unsupported(what: &str) -> Outcome {
    say!("tensor map: {what} is not supported");
    Err(Status::NotSupported)
}

export! {
    cuTensorMapEncodeTiled(
        handle: Handle, data_type: u32, rank: u32, address: u64, dims: *const u64, strides: *const u64,
        extents: *const u32, steps: *const u32, interleave: u32, swizzle: u32, promotion: u32, fill: u32,
    ) {
        let map = map(handle)?;
        if !(1..=5).contains(&rank) {
            return Err(refuse(&format!("rank {rank}: 1 to 5 are possible")));
        }
        let rank = rank as usize;
        if dims.is_null() || extents.is_null() || steps.is_null() || rank > 1 && strides.is_null() {
            return Err(Status::InvalidValue);
        }
        if data_type >= DATA_TYPES || interleave >= INTERLEAVES || promotion >= PROMOTIONS {
            let what = format!("data type {data_type}, interleave {interleave}, L2 promotion {promotion}");
            return Err(refuse(&what));
        }
        if interleave > 0 {
            return unsupported("an interleaved layout");
        }
        // SAFETY: arrays of as many entries as the rank says, and of one less, as the API asks for.
        let (dims, strides, extents, steps) = unsafe {
            let strides = if rank > 1 { std::slice::from_raw_parts(strides, rank - 1) } else { &[] };
            let [extents, steps] = [extents, steps].map(|list| std::slice::from_raw_parts(list, rank));
            (std::slice::from_raw_parts(dims, rank), strides, extents, steps)
        };
        let tiled = TensorMap::tiled(data_type, address, dims, strides, extents, steps, swizzle, fill);
        *map = tiled.map_err(|what| refuse(&what))?.encode();
        Ok(())
    }
    cuTensorMapReplaceAddress(handle: Handle, address: u64) {
        let bytes = map(handle)?;
        let mut map = TensorMap::decode(bytes).ok_or_else(|| refuse("there is none to replace the address of"))?;
        map.address = address;
        map.validate().map_err(|what| refuse(&what))?;
        *bytes = map.encode();
        Ok(())
    }
}
