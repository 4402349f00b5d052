//! Matrix instructions: `ldmatrix`, `stmatrix`, `movmatrix`, `mma.sync`, `wgmma`.

use super::*;
use crate::exec::arithmetic::half::{Bf16, F16};
use crate::exec::matrix::fragment::{Halves, Tf32};
use crate::exec::matrix::ldmatrix::{LoadMatrix, MoveMatrix, PointToMatrix, StoreMatrix};
use crate::exec::matrix::mma::{A_SIGNED, B_SIGNED, Bytes, CLAMPED, Double, HalfMma, MmaSummed};
use crate::exec::matrix::warpgroup;
use crate::exec::matrix::wgmma::{Wgmma, WgmmaCommit, WgmmaFence, WgmmaWait};
use crate::exec::space;

/// `ldmatrix`, which perhaps need not load.
fn load<const N: usize, const TRANSPOSED: bool>(to: &mut Lower, slots: [u16; 5], space: u8, offset: i64) {
    to.emit::<LoadMatrix<N, TRANSPOSED>>(slots, space::packed(space, offset));
    if space == SHARED32 {
        to.may_point::<PointToMatrix<N, TRANSPOSED>>(TRANSPOSED);
    }
}

impl Entry<'_> {
    /// The part that names the shape, such as `m16n8k16`, as three numbers.
    pub(super) fn shape(&self) -> Result<[usize; 3], String> {
        let shape = self.parts.iter().find_map(|part| {
            let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
            let (n, k) = rest.split_once('k')?;
            Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
        });
        shape.ok_or_else(|| "no shape".to_string())
    }

    /// The slots of a vector operand, all of one width.
    pub(super) fn vector_slots(&self, to: &mut Lower, index: usize, wide: bool) -> Result<Vec<u16>, String> {
        let all = match self.operand(index)? {
            Operand::Vector(all) => &all[..],
            one => std::slice::from_ref(one),
        };
        all.iter().map(|operand| to.source(operand, wide)).collect()
    }

    pub(super) fn matrix_move(&self, to: &mut Lower) -> Decoded {
        let (store, transposed) = (self.parts[0] == "stmatrix", self.has("trans"));
        if !self.has("m8n8") || self.has("b8") {
            return Err("only 8x8 matrices of 16-bit elements are supported".to_string());
        }
        if self.parts[0] == "movmatrix" {
            let slots = self.slots(to, false)?;
            return done(to.emit::<MoveMatrix>(slots, 0));
        }
        let (address, is_shared) = (!store as usize, self.names_shared());
        let (at, space, offset) = match self.narrow_address(to, address)?.filter(|_| is_shared) {
            Some((base, offset)) => (to.source(base, false)?, SHARED32, offset.into()),
            None => (self.generic(to, self.operand(address)?, is_shared, 0)?, GENERIC, 0),
        };
        let registers = self.vector_slots(to, store as usize, false)?;
        let count = ["x1", "x2", "x4"].iter().position(|count| self.has(count)).map_or(0, |i| 1 << i);
        if registers.len() != count {
            return Err(format!("{} registers for {count} matrices", registers.len()));
        }
        let register = |i: usize| registers.get(i).copied().unwrap_or(0);
        let slots = [register(0), at, register(1), register(2), register(3)];
        let imm = space::packed(space, offset);
        match (store, count, transposed) {
            (false, 1, false) => load::<1, false>(to, slots, space, offset),
            (false, 1, true) => load::<1, true>(to, slots, space, offset),
            (false, 2, false) => load::<2, false>(to, slots, space, offset),
            (false, 2, true) => load::<2, true>(to, slots, space, offset),
            (false, _, false) => load::<4, false>(to, slots, space, offset),
            (false, _, true) => load::<4, true>(to, slots, space, offset),
            (true, 1, false) => to.emit::<StoreMatrix<1, false>>(slots, imm),
            (true, 1, true) => to.emit::<StoreMatrix<1, true>>(slots, imm),
            (true, 2, false) => to.emit::<StoreMatrix<2, false>>(slots, imm),
            (true, 2, true) => to.emit::<StoreMatrix<2, true>>(slots, imm),
            (true, _, false) => to.emit::<StoreMatrix<4, false>>(slots, imm),
            (true, _, true) => to.emit::<StoreMatrix<4, true>>(slots, imm),
        }
        Ok(())
    }

    pub(super) fn mma(&self, to: &mut Lower) -> Decoded {
        if self.parts.get(1) != Some(&"sync") || !self.has("row") || !self.has("col") {
            return Err("only mma.sync with A in rows and B in columns is supported".to_string());
        }
        let [m, n, k] = self.shape()?;
        let types: Vec<&str> = self.parts[1..]
            .iter()
            .copied()
            .filter(|part| Type::from_name(part).is_some() || *part == "tf32")
            .collect();
        let &[d_type, a_type, b_type, c_type] = &types[..] else {
            return Err("four types are expected".to_string());
        };
        let wide = a_type == "f64";
        let mut list = Vec::new();
        for i in 0..4 {
            list.extend(self.vector_slots(to, i, wide)?);
        }
        // Registers of A, by eight rows, and of B: the bytes of k over those of four lanes.
        let bytes = match a_type {
            "f64" => 8,
            "tf32" => 4,
            "f16" | "bf16" => 2,
            _ => 1,
        };
        let (halves, kr) = (m / 8, k * bytes / if wide { 32 } else { 16 });
        let sums = if d_type == "f16" { 2 } else { 2 * halves };
        if list.len() != 2 * sums + halves * kr + kr {
            return Err(format!("{} registers; {} are expected", list.len(), 2 * sums + halves * kr + kr));
        }
        let all = list;
        let list = to.list(&all) as i64;
        let asked =
            [(self.has("satfinite"), CLAMPED), (a_type == "s8", A_SIGNED), (b_type == "s8", B_SIGNED)];
        let flags = asked.iter().filter(|(is_asked, _)| *is_asked).fold(0, |flags, (_, flag)| flags | flag);
        let slots = [0, 0, 0, 0, flags];
        let float = d_type == c_type && n == 8;
        match (m, a_type, k) {
            _ if (a_type != b_type && !matches!((a_type, b_type), ("s8", "u8") | ("u8", "s8"))) || !float => {
                Err("this combination of types is not supported".to_string())
            }
            (16, "f16", 8) if d_type == "f32" => done(to.emit_mma::<Halves<F16>, 1>(list as usize, &all)),
            (16, "f16", 16) if d_type == "f32" => done(to.emit_mma::<Halves<F16>, 2>(list as usize, &all)),
            (16, "f16", 8) if d_type == "f16" => done(to.emit::<HalfMma<1>>(slots, list)),
            (16, "f16", 16) if d_type == "f16" => done(to.emit::<HalfMma<2>>(slots, list)),
            (16, "bf16", 8) if d_type == "f32" => done(to.emit_mma::<Halves<Bf16>, 1>(list as usize, &all)),
            (16, "bf16", 16) if d_type == "f32" => done(to.emit_mma::<Halves<Bf16>, 2>(list as usize, &all)),
            (16, "tf32", 4) if d_type == "f32" => done(to.emit_mma::<Tf32, 1>(list as usize, &all)),
            (16, "tf32", 8) if d_type == "f32" => done(to.emit_mma::<Tf32, 2>(list as usize, &all)),
            (8, "f64", 4) => done(to.emit::<MmaSummed<Double, 8, 1>>(slots, list)),
            (16, "f64", 4) => done(to.emit::<MmaSummed<Double, 16, 1>>(slots, list)),
            (16, "f64", 8) => done(to.emit::<MmaSummed<Double, 16, 2>>(slots, list)),
            (16, "f64", 16) => done(to.emit::<MmaSummed<Double, 16, 4>>(slots, list)),
            (_, "s8" | "u8", _) if d_type == "s32" => {
                match (m, k) {
                    (8, 16) => to.emit::<MmaSummed<Bytes, 8, 1>>(slots, list),
                    (16, 16) => to.emit::<MmaSummed<Bytes, 16, 1>>(slots, list),
                    (16, 32) => to.emit::<MmaSummed<Bytes, 16, 2>>(slots, list),
                    _ => return Err("this shape is not supported".to_string()),
                }
                Ok(())
            }
            _ => Err("this shape of these types is not supported".to_string()),
        }
    }

    pub(super) fn wgmma(&self, to: &mut Lower) -> Decoded {
        match self.parts.get(1).copied().unwrap_or_default() {
            "fence" => return done(to.emit::<WgmmaFence>([0; 5], 0)),
            "commit_group" => return done(to.emit::<WgmmaCommit>([0; 5], 0)),
            "wait_group" => return done(to.emit::<WgmmaWait>([0; 5], self.literal(0)?)),
            "mma_async" if !self.has("sp") => {}
            _ => return Err(String::new()),
        }
        let [m, n, k] = self.shape()?;
        let types: Vec<&str> = self.parts[1..]
            .iter()
            .copied()
            .filter(|part| Type::from_name(part).is_some() || *part == "tf32")
            .collect();
        let (kind, depth) = match types[..] {
            [_, "f16", "f16"] => (warpgroup::FLOAT16, 16),
            ["f32", "bf16", "bf16"] => (warpgroup::BFLOAT16, 16),
            ["f32", "tf32", "tf32"] => (warpgroup::TFLOAT32, 8),
            _ => return Err("this combination of types is not supported".to_string()),
        };
        let half_sums = types[0] == "f16";
        if m != 64 || k != depth || !(8..=256).contains(&n) || !n.is_multiple_of(8) {
            return Err("there is no such shape".to_string());
        }
        let mut list = self.vector_slots(to, 0, false)?;
        let registers = list.len();
        if registers != if half_sums { n / 4 } else { n / 2 } {
            return Err(format!("{registers} registers for 64 x {n} sums"));
        }
        let in_registers = matches!(self.operand(1)?, Operand::Vector(_));
        let a = match in_registers {
            true => {
                list.extend(self.vector_slots(to, 1, false)?);
                if list.len() != registers + 4 {
                    return Err("A has four registers".to_string());
                }
                0
            }
            false => to.source(self.operand(1)?, true)?,
        };
        let b = to.source(self.operand(2)?, true)?;
        let accumulate = match self.operand(3)? {
            Operand::Int(other) if !matches!(other, 0 | 1) => {
                return Err(format!("{other} where 0 or 1 is expected"));
            }
            operand => to.pred(operand)?,
        };
        let mut flags = if in_registers { warpgroup::A_REGISTERS } else { 0 };
        flags |= if half_sums { warpgroup::HALF_SUMS } else { 0 };
        let sign = |index: usize| match self.literal(index)? {
            sign @ (1 | -1) => Ok(sign),
            other => Err(format!("{other} where 1 or -1 is expected")),
        };
        flags |= if sign(4)? < 0 { warpgroup::A_NEGATED } else { 0 };
        flags |= if sign(5)? < 0 { warpgroup::B_NEGATED } else { 0 };
        // Which dimension is contiguous is said of 16-bit elements only; of A only where it is in memory.
        let is_major = |index: usize| match self.literal(index)? {
            bit @ (0 | 1) => Ok(bit != 0),
            other => Err(format!("{other} where 0 or 1 is expected")),
        };
        let majors = &self.operands[self.operands.len().min(6)..];
        let (of_a, of_b) = match majors.len() {
            0 => (false, false),
            1 => (false, is_major(6)?),
            _ => (is_major(6)?, is_major(7)?),
        };
        if (of_a || of_b) && kind == warpgroup::TFLOAT32 {
            return Err("MN-major matrices of 16-bit elements only".to_string());
        }
        flags |= if of_a { warpgroup::A_TRANSPOSED } else { 0 };
        flags |= if of_b { warpgroup::B_TRANSPOSED } else { 0 };
        let list = to.list(&list) as i64;
        done(to.emit::<Wgmma>([registers as u16, a, kind, flags, b], list | i64::from(accumulate) << 32))
    }
}
