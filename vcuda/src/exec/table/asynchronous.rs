//! Barriers in shared memory, asynchronous copies, and clusters.

use super::*;
use crate::exec::asynchronous::async_copy::{self, ArriveAfterCopies, AsyncCopy, CommitGroup, WaitCopies};
use crate::exec::asynchronous::bulk::{BulkLoad, BulkStore, BulkWait, StoreAsync};
use crate::exec::asynchronous::mbarrier::{self, Mbarrier, PendingCount, Wait};
use crate::exec::asynchronous::reduce;
use crate::exec::asynchronous::reduce::{Kind, Reduce};
use crate::exec::asynchronous::targets::NO_MASK;
use crate::exec::asynchronous::tensor_copy::{self, TensorLoad, TensorStore};
use crate::exec::asynchronous::tensor_replace::{TensormapCopy, TensormapReplace};
use crate::exec::space::{PARAM_START, PARAM_WINDOW};
use crate::tensor_map::FIELDS;

const REDUCES: [(&str, Reduce); 8] = [
    ("add", Reduce::Add),
    ("min", Reduce::Min),
    ("max", Reduce::Max),
    ("inc", Reduce::Inc),
    ("dec", Reduce::Dec),
    ("and", Reduce::And),
    ("or", Reduce::Or),
    ("xor", Reduce::Xor),
];

impl Entry<'_> {
    /// A slot with the generic address of a memory operand, which is in the shared window or generic (global
    /// addresses are); made in temporary `temp` if need be.
    pub(super) fn generic(
        &self,
        to: &mut Lower,
        at: &Operand,
        is_shared: bool,
        temp: usize,
    ) -> Result<u16, String> {
        let (base, offset) = match at {
            Operand::Address(base, offset) => (base, *offset as u64),
            Operand::TensorAddress(base, _) => (base, 0),
            _ => return Err("an operand that is no address".to_string()),
        };
        let start = if is_shared { SHARED_WINDOW } else { 0 }.wrapping_add(offset);
        let temp = to.temp(temp);
        match &**base {
            Operand::Symbol(name, addend) => {
                let at = match to.locate(name)? {
                    Location::Shared(at) => SHARED_WINDOW + at,
                    Location::Param(at) => PARAM_WINDOW + PARAM_START + at as u64,
                    Location::Global(at) => at,
                    Location::Local(_) | Location::Frame(_) => {
                        return Err(format!("{name} is in local memory"));
                    }
                };
                Ok(to.constant(at.wrapping_add(offset).wrapping_add(*addend as u64), true))
            }
            Operand::Int(at) => Ok(to.constant(start.wrapping_add(*at as u64), true)),
            base if to.is_wide(base) => {
                let base = to.source(base, true)?;
                if start == 0 {
                    return Ok(base);
                }
                let start = to.constant(start, true);
                to.emit::<w64::Add>([temp, base, start, 0, 0], 0);
                Ok(temp)
            }
            base if is_shared => {
                let (base, start) = (to.source(base, false)?, to.constant(start, true));
                to.emit::<convert::WidenU32>([temp, base, 0, 0, 0], 0);
                to.emit::<w64::Add>([temp, temp, start, 0, 0], 0);
                Ok(temp)
            }
            _ => Err("a 32-bit address in this space".to_string()),
        }
    }

    /// Base and offset of an address in a register of 32 bits, which hold their sum too.
    pub(super) fn narrow_address(&self, to: &Lower, index: usize) -> Result<Option<(&Operand, i32)>, String> {
        Ok(match self.operand(index)? {
            Operand::Address(base, offset) if matches!(**base, Operand::Reg(_)) && !to.is_wide(base) => {
                i32::try_from(*offset).ok().map(|offset| (&**base, offset))
            }
            _ => None,
        })
    }

    pub(super) fn names_shared(&self) -> bool {
        self.parts.iter().any(|part| part.starts_with("shared"))
    }

    /// A constant operand.
    pub(super) fn literal(&self, index: usize) -> Result<i64, String> {
        match self.operand(index)? {
            Operand::Int(value) => Ok(*value),
            _ => Err("an operand that is no constant".to_string()),
        }
    }

    pub(super) fn mbarrier(&self, to: &mut Lower) -> Decoded {
        let action = self.parts.get(1).copied().unwrap_or_default();
        if action == "pending_count" {
            let slots =
                [to.destination(self.operand(0)?, false)?, to.source(self.operand(1)?, true)?, 0, 0, 0];
            return done(to.emit::<PendingCount>(slots, 0));
        }
        let is_shared = self.names_shared();
        let one = to.constant(1, false);
        match action {
            "init" | "expect_tx" | "complete_tx" | "inval" => {
                let a = self.generic(to, self.operand(0)?, is_shared, 0)?;
                let (kind, b) = match action {
                    "init" => (mbarrier::INIT, to.source(self.operand(1)?, false)?),
                    "expect_tx" => (mbarrier::EXPECT, to.source(self.operand(1)?, false)?),
                    "complete_tx" => (mbarrier::COMPLETE, to.source(self.operand(1)?, false)?),
                    _ => (mbarrier::INVALIDATE, one),
                };
                done(to.emit::<Mbarrier>([0, a, b, one, 0], kind))
            }
            "arrive" | "arrive_drop" => {
                let a = self.generic(to, self.operand(1)?, is_shared, 0)?;
                let last = match self.operands.get(2) {
                    Some(operand) => to.source(operand, false)?,
                    None => one,
                };
                let mut kind = mbarrier::ARRIVE;
                kind |= if action == "arrive_drop" { mbarrier::DROP } else { 0 };
                kind |= if self.has("noComplete") { mbarrier::NO_COMPLETE } else { 0 };
                let (b, c) = match self.has("expect_tx") {
                    true => (one, last),
                    false => (last, one),
                };
                kind |= if self.has("expect_tx") { mbarrier::EXPECT_TX } else { 0 };
                let d = to.destination(self.operand(0)?, true)?;
                done(to.emit::<Mbarrier>([d, a, b, c, 0], kind))
            }
            "test_wait" | "try_wait" => {
                let a = self.generic(to, self.operand(1)?, is_shared, 0)?;
                let parity = self.has("parity");
                let slots =
                    [to.pred_destination(self.operand(0)?)?, a, to.source(self.operand(2)?, !parity)?, 0, 0];
                done(to.emit::<Wait>(slots, parity as i64))
            }
            _ => Err(String::new()),
        }
    }

    /// Everything that starts with `cp`.
    pub(super) fn asynchronous_copy(&self, to: &mut Lower) -> Decoded {
        let is_bulk = self.has("bulk");
        match () {
            () if self.has("prefetch") => done(to.emit::<Nothing>([0; 5], 0)),
            () if self.has("commit_group") => done(to.emit::<CommitGroup>([0; 5], is_bulk as i64)),
            () if self.has("wait_all") => done(to.emit::<WaitCopies>([0; 5], -1)),
            () if self.has("wait_group") && is_bulk => {
                done(to.emit::<BulkWait>([0, 0, 0, 0, self.has("read") as u16], self.literal(0)?))
            }
            () if self.has("wait_group") => done(to.emit::<WaitCopies>([0; 5], self.literal(0)?)),
            () if !self.has("async") => Err(String::new()),
            () if self.has("mbarrier") => {
                let a = self.generic(to, self.operand(0)?, self.names_shared(), 0)?;
                done(to.emit::<ArriveAfterCopies>([0, a, 0, 0, 0], self.has("noinc") as i64))
            }
            () if self.has("tensor") => self.tensor_copy(to),
            () if is_bulk => self.bulk_copy(to),
            () => self.small_copy(to),
        }
    }

    fn small_copy(&self, to: &mut Lower) -> Decoded {
        let bytes = self.literal(2)?;
        if !(matches!(bytes, 4 | 8) && self.has("ca") || bytes == 16) {
            return Err(format!("a copy of {bytes} bytes"));
        }
        let (a, after_a) = match self.narrow_address(to, 0)? {
            Some((base, offset)) => (to.source(base, false)?, Some(offset)),
            None => (self.generic(to, self.operand(0)?, true, 0)?, None),
        };
        let (b, after_b) = match self.operand(1)? {
            Operand::Address(base, offset) if to.is_wide(base) && i32::try_from(*offset).is_ok() => {
                (to.source(base, true)?, *offset as i32)
            }
            at => (self.generic(to, at, false, 1)?, 0),
        };
        let (c, e) = match self.operands.get(3) {
            Some(_) if self.operands.len() == 4 && self.has("L2::cache_hint") => (0, async_copy::WHOLE),
            None => (0, async_copy::WHOLE),
            Some(size @ Operand::Int(_)) => (to.source(size, false)?, async_copy::SIZED),
            Some(operand) => match to.pred(operand) {
                Ok(ignored) => (ignored, async_copy::IGNORED),
                Err(_) => (to.source(operand, false)?, async_copy::SIZED),
            },
        };
        let d = bytes as u16 | if after_a.is_some() { async_copy::NARROW } else { 0 };
        done(to.emit::<AsyncCopy>([d, a, b, c, e], async_copy::packed(after_a.unwrap_or(0), after_b)))
    }

    /// What a copy does with its elements: stores them, unless it is a reduction.
    fn reduction(&self) -> Reduce {
        let named = REDUCES.iter().find(|(name, _)| self.has(name)).map(|&(_, reduce)| reduce);
        named.unwrap_or(Reduce::Store)
    }

    fn kind(&self, ty: Option<Type>) -> Result<Kind, String> {
        Ok(match ty {
            None => Kind::U8,
            Some(Type::U32 | Type::B32) => Kind::U32,
            Some(Type::S32) => Kind::S32,
            Some(Type::U64 | Type::B64) => Kind::U64,
            Some(Type::S64) => Kind::S64,
            Some(Type::F16) => Kind::F16,
            Some(Type::Bf16) => Kind::Bf16,
            Some(Type::F32) => Kind::F32,
            Some(Type::F64) => Kind::F64,
            Some(_) => return Err("elements of this type".to_string()),
        })
    }

    /// The mask of CTAs that a multicast goes to.
    fn cta_mask(&self, to: &mut Lower, index: usize) -> Result<u16, String> {
        if !self.has("multicast::cluster") {
            return Ok(NO_MASK);
        }
        to.source(self.operand(index)?, false)
    }

    fn bulk_copy(&self, to: &mut Lower) -> Decoded {
        let (reduce, kind) = (self.reduction(), self.kind(self.ty())?);
        tensor_copy::allowed(reduce, kind)?;
        let imm = reduce::encode(reduce, kind);
        let c = to.source(self.operand(2)?, false)?;
        if self.has("cp_mask") {
            return Err("a byte mask is not supported".to_string());
        }
        if self.has("bulk_group") {
            let a = self.generic(to, self.operand(0)?, false, 0)?;
            let b = self.generic(to, self.operand(1)?, true, 1)?;
            return done(to.emit::<BulkStore>([0, a, b, c, 0], imm));
        }
        let a = self.generic(to, self.operand(0)?, true, 0)?;
        let b = self.generic(to, self.operand(1)?, !self.has("global"), 1)?;
        let d = self.generic(to, self.operand(3)?, true, 2)?;
        let e = self.cta_mask(to, 4)?;
        done(to.emit::<BulkLoad>([d, a, b, c, e], imm))
    }

    fn tensor_copy(&self, to: &mut Lower) -> Decoded {
        if let Some(mode) =
            self.parts.iter().find(|part| part.starts_with("im2col") || part.starts_with("tile::"))
        {
            return Err(format!("{mode} is not supported"));
        }
        let is_store = self.has("bulk_group");
        let map = self.operand(!is_store as usize)?;
        let Operand::TensorAddress(_, coordinates) = map else { return Err("no coordinates".to_string()) };
        let dims = format!("{}d", coordinates.len());
        if !self.has(&dims) || coordinates.len() > 5 {
            return Err(format!("{} coordinates", coordinates.len()));
        }
        let slots =
            coordinates.iter().map(|at| to.source(at, false)).collect::<Result<Vec<u16>, String>>()?;
        let imm = tensor_copy::pack(to.list(&slots), slots.len(), self.reduction());
        if is_store {
            let a = self.generic(to, map, false, 0)?;
            let b = self.generic(to, self.operand(1)?, true, 1)?;
            return done(to.emit::<TensorStore>([0, a, b, 0, 0], imm));
        }
        let a = self.generic(to, self.operand(0)?, true, 0)?;
        let b = self.generic(to, map, false, 1)?;
        let d = self.generic(to, self.operand(2)?, true, 2)?;
        let e = self.cta_mask(to, 3)?;
        done(to.emit::<TensorLoad>([d, a, b, 0, e], imm))
    }

    /// `st.async` and `red.async`.
    pub(super) fn store_async(&self, to: &mut Lower, ty: Type) -> Decoded {
        let kind = self.kind(Some(ty))?;
        let reduce = if self.parts[0] == "red" { self.reduction() } else { Reduce::Store };
        tensor_copy::allowed(reduce, kind)?;
        let a = self.generic(to, self.operand(0)?, true, 0)?;
        let values = match self.operand(1)? {
            Operand::Vector(all) => &all[..],
            one => std::slice::from_ref(one),
        };
        let wide = kind.bytes() == 8;
        if !matches!(kind.bytes(), 4 | 8) || !matches!(values.len(), 1 | 2 | 4) {
            return Err("elements of this type and number".to_string());
        }
        let slots =
            values.iter().map(|value| to.source(value, wide)).collect::<Result<Vec<u16>, String>>()?;
        let d = self.generic(to, self.operand(2)?, true, 1)?;
        let imm = reduce::encode(reduce, kind) | (to.list(&slots) as i64) << 8;
        done(to.emit::<StoreAsync>([d, a, 0, 0, slots.len() as u16], imm))
    }

    pub(super) fn tensormap(&self, to: &mut Lower) -> Decoded {
        if self.has("cp_fenceproxy") {
            let a = self.generic(to, self.operand(0)?, false, 0)?;
            let b = self.generic(to, self.operand(1)?, true, 1)?;
            return done(to.emit::<TensormapCopy>([0, a, b, 0, 0], 0));
        }
        let Some(field) = FIELDS.iter().position(|field| self.has(field)) else {
            return Err(String::new());
        };
        let a = self.generic(to, self.operand(0)?, self.names_shared(), 0)?;
        let (index, value) = match self.operands.len() {
            3 => (to.source(self.operand(1)?, false)?, self.operand(2)?),
            _ => (to.constant(0, false), self.operand(1)?),
        };
        let wide = self.ty() == Some(Type::B64);
        let b = to.source(value, wide)?;
        done(to.emit::<TensormapReplace>([0, a, b, index, wide as u16], field as i64))
    }

    pub(super) fn cluster_barrier(&self, to: &mut Lower) -> Decoded {
        done(to.emit::<ClusterBarrier>([0; 5], if self.has("arrive") { ARRIVE } else { SYNC }))
    }

    pub(super) fn cluster_address(&self, to: &mut Lower, ty: Type) -> Decoded {
        let wide = self.parts[0] == "mapa" && ty.size_bytes() == 8 || to.is_wide(self.operand(1)?);
        let a = to.source(self.operand(1)?, wide)?;
        if self.parts[0] == "getctarank" {
            let slots = [to.destination(self.operand(0)?, false)?, a, 0, 0, 0];
            return done(if wide { to.emit::<Rank64>(slots, 0) } else { to.emit::<Rank32>(slots, 0) });
        }
        let d = to.destination(self.operand(0)?, wide)?;
        let slots = [d, a, to.source(self.operand(2)?, false)?, 0, 0];
        done(if wide { to.emit::<Mapa64>(slots, 0) } else { to.emit::<Mapa32>(slots, 0) })
    }
}
