//! Slots that hold the same in every operation, and are filled before a warp's first: constants, bytes of kernel
//! parameters, special registers (PTX ISA 10).

use super::Lower;
use crate::exec::kernel::{Constant, ParamSlot, Special};
use crate::exec::profile::occupancy::RESERVED_SHARED_BYTES;
use crate::exec::registers::NO_PRED;

impl Lower<'_> {
    fn new_slot(&mut self, wide: bool) -> u16 {
        let slot = self.next_slot;
        self.next_slot += 1 + wide as usize;
        slot.min(NO_PRED as usize) as u16 // past the end: `finish` refuses
    }

    /// A slot that always holds `value`.
    pub fn constant(&mut self, value: u64, wide: bool) -> u16 {
        let value = if wide { value } else { value as u32 as u64 };
        if let Some(&slot) = self.constants.get(&(value, wide)) {
            return slot;
        }
        let slot = self.new_slot(wide);
        self.constants.insert((value, wide), slot);
        self.kernel.constants.push(Constant { slot, wide, value });
        slot
    }

    /// Whether a slot is that of a constant of 32 bits.
    pub fn is_constant(&self, slot: u16) -> bool {
        self.constants.iter().any(|(&(_, wide), &of)| of == slot && !wide)
    }

    /// A slot that always holds bytes of a kernel parameter.
    pub fn param(&mut self, offset: usize, bytes: usize, signed: bool, wide: bool) -> Result<u16, String> {
        if offset + bytes > self.kernel.param_bytes {
            return Err(format!(
                "parameter bytes {offset}..{} of {}",
                offset + bytes,
                self.kernel.param_bytes
            ));
        }
        if let Some(&slot) = self.params.get(&(offset, bytes, signed, wide)) {
            return Ok(slot);
        }
        let slot = self.new_slot(wide);
        self.params.insert((offset, bytes, signed, wide), slot);
        self.kernel.param_slots.push(ParamSlot { slot, wide, offset, bytes, signed });
        Ok(slot)
    }

    /// The same of the special register of this name.
    pub(super) fn special(&mut self, name: &str, wide: bool) -> Result<u16, String> {
        if let Some(value) = fixed(name) {
            return Ok(self.constant(value, wide));
        }
        let (base, axis) = match name.rsplit_once('.') {
            Some((base, "x")) => (base, 0),
            Some((base, "y")) => (base, 1),
            Some((base, "z")) => (base, 2),
            _ => (name, 0),
        };
        let special = match base {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            "cluster_ctaid" => Special::ClusterCtaid(axis),
            "cluster_nctaid" => Special::ClusterNctaid(axis),
            "clusterid" => Special::ClusterId(axis),
            "nclusterid" => Special::Nclusterid(axis),
            "cluster_ctarank" => Special::ClusterCtarank,
            "cluster_nctarank" => Special::ClusterNctarank,
            "is_explicit_cluster" => Special::IsExplicitCluster,
            "laneid" => Special::LaneId,
            "warpid" => Special::WarpId,
            "nwarpid" => Special::WarpCount,
            "lanemask_eq" => Special::LaneMaskEq,
            "lanemask_lt" => Special::LaneMaskLt,
            "lanemask_le" => Special::LaneMaskLe,
            "lanemask_gt" => Special::LaneMaskGt,
            "lanemask_ge" => Special::LaneMaskGe,
            "dynamic_smem_size" => Special::DynamicSharedBytes,
            "envreg1" => Special::Workspace(32),
            "envreg2" => Special::Workspace(0),
            "total_smem_size" => Special::SharedBytes,
            "aggr_smem_size" => Special::AllSharedBytes,
            _ => return Err(format!("special register %{name} is not supported")),
        };
        if wide {
            return Err(format!("special register %{name} as a 64-bit source"));
        }
        Ok(self.special_slot(special))
    }

    /// The slot that holds a special register.
    pub fn special_slot(&mut self, special: Special) -> u16 {
        if let Some(&slot) = self.specials.get(&special) {
            return slot;
        }
        let slot = self.new_slot(false);
        self.specials.insert(special, slot);
        self.kernel.specials.push((special, slot));
        slot
    }
}

/// Special registers that are the same everywhere here: every CTA is on the one multiprocessor of the one
/// grid, reserved shared memory comes first, and nothing is counted or set from outside but a grid's workspace.
fn fixed(name: &str) -> Option<u64> {
    match name {
        "envreg1" | "envreg2" => None,
        "nsmid" => Some(1),
        "smid" | "gridid" | "current_graph_exec" => Some(0),
        "reserved_smem_offset_end" | "reserved_smem_offset_cap" => Some(RESERVED_SHARED_BYTES as u64),
        "reserved_smem_offset_1" => Some(RESERVED_SHARED_BYTES as u64 / 2),
        "reserved_smem_offset_begin" | "reserved_smem_offset_0" => Some(0),
        _ if name.starts_with("envreg") || name.starts_with("pm") => Some(0),
        _ => None,
    }
}
