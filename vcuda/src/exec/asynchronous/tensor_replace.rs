//! Tensor maps changed on the device, PTX ISA 9.7.9.28: `tensormap.replace` and `tensormap.cp_fenceproxy`.

use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::{LANES, lanes_of};
use crate::exec::space::{GENERIC, GLOBAL};
use crate::exec::warp::Warp;
use crate::tensor_map::{DataType, FIELDS, MAP_ALIGN, MAP_BYTES, TensorMap, value_number};

/// Puts `value` into a field, at `index` where it has several.
///
/// # Errors
/// What the field cannot hold.
fn replace(map: &mut TensorMap, field: usize, index: usize, value: u64) -> Result<(), String> {
    let name = FIELDS[field];
    let invalid = || Err(format!("tensormap.replace of {name} {index} by {value}"));
    match name {
        "global_address" => map.address = value,
        "rank" if value < 5 => map.rank = value as usize + 1,
        "box_dim" if index < 5 => map.extents[index] = value as u32,
        "global_dim" if index < 5 => map.dims[index] = value,
        "global_stride" if index < 4 => map.strides[index] = value,
        "element_stride" if index < 5 => map.steps[index] = value as u32,
        "elemtype" => match DataType::from_ptx(value as u32) {
            Some(ty) => map.ty = ty,
            None => return invalid(),
        },
        "interleave_layout" if value == 0 => {}
        "swizzle_mode" if value < 4 => map.swizzle = value as u32,
        "fill_mode" if value < 2 => map.fills_nan = value == 1,
        _ => return invalid(),
    }
    map.missing &= !(1 << value_number(field, index));
    Ok(())
}

/// `tensormap.replace` of field `imm` in the map at generic address `a`, index `c`; the value is register
/// `b` of 64 (`e` 1) or 32 bits.
pub struct TensormapReplace;
impl Body for TensormapReplace {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the decoder gave every operand a slot of its width.
        let (maps, indices, values): ([u64; LANES], [u32; LANES], [u64; LANES]) = unsafe {
            let values = match op.e {
                0 => warp.wide_lanes(op.b),
                _ => warp.lanes(op.b),
            };
            (warp.lanes(op.a), warp.lanes(op.c), values)
        };
        for lane in lanes_of(warp.mask) {
            let Some(at) = warp.pointer::<GENERIC>(lane, maps[lane], MAP_BYTES as u64, MAP_ALIGN) else {
                return Flow::Fault;
            };
            // SAFETY: checked for as many bytes.
            let bytes = unsafe { &mut *at.cast::<[u8; MAP_BYTES]>() };
            let done = match TensorMap::decode(bytes) {
                None => Err(format!("there is no tensor map at {:#x}", maps[lane])),
                Some(mut map) => replace(&mut map, op.imm as usize, indices[lane] as usize, values[lane])
                    .map(|()| *bytes = map.encode()),
            };
            if let Err(what) = done {
                return warp.fail_lane(lane, FaultKind::IllegalInstruction, what);
            }
        }
        Flow::Next
    }
}

/// `tensormap.cp_fenceproxy`: the warp copies a map from shared `b` to global `a`, generic addresses.
pub struct TensormapCopy;
impl Body for TensormapCopy {
    const PER_HOST: bool = false;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        if !warp.all_here() {
            return warp.wait_for_all();
        }
        // SAFETY: the decoder gave every operand a slot of its width.
        let (to, from): ([u64; LANES], [u64; LANES]) = unsafe { (warp.lanes(op.a), warp.lanes(op.b)) };
        let lane = warp.mask.trailing_zeros() as usize & 31;
        let bytes = MAP_BYTES as u64;
        let Some(to) = warp.pointer::<GLOBAL>(lane, to[lane], bytes, bytes) else { return Flow::Fault };
        let Some(from) = warp.shared_pointer(lane, from[lane], bytes, bytes) else { return Flow::Fault };
        // SAFETY: both are checked, and in different memories.
        unsafe { std::ptr::copy_nonoverlapping(from, to, MAP_BYTES) };
        Flow::Next
    }
}
