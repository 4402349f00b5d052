//! The table from opcode to implementation: one entry an instruction, in the order of the PTX ISA's
//! chapters. An empty error is an opcode that is not here at all.

use super::arithmetic::approximate::*;
use super::arithmetic::astray::{self, Astray};
use super::arithmetic::convert::{self, Convert, Rounding};
use super::arithmetic::directed::Directed64;
use super::arithmetic::float::{self, *};
use super::arithmetic::integer::*;
use super::arithmetic::lane::NEGATED;
use super::arithmetic::predicate::*;
use super::atomic::{Atomic, Atomic32, Atomic64, Atomic128, AtomicVector, Element, Update};
use super::call::Return;
use super::cluster::{ClusterBarrier, Mapa32, Mapa64, Rank32, Rank64};
use super::collective::*;
use super::control::*;
use super::heap::{Free, Malloc};
use super::lower::{Location, Lower};
use super::observe::ProxyFence;
use super::observe::sync::{Fence, WarpSync};
use super::print::{AssertFail, Print};
use super::registers::NO_PRED;
use super::space::{GENERIC, GLOBAL, LOCAL, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, SHARED32, SHARED64};
use crate::ptx::ast::{Instruction, Operand, Type};

type Decoded = Result<(), String>;

/// Decodes one instruction to the operations that do it.
pub fn decode(to: &mut Lower, instruction: &Instruction) -> Decoded {
    let parts: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
    let at = Entry { parts: &parts, operands: &instruction.operands };
    let ty = at.ty();
    if let Some(what) = instruction.opcode.refused() {
        return Err(format!("{what}: not supported here"));
    }
    if to.counts {
        at.count(to)?;
    }
    match (parts[0], ty) {
        (
            "add" | "sub" | "mul" | "fma" | "neg" | "abs" | "min" | "max" | "ex2" | "tanh",
            Some(ty @ (Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2)),
        ) => at.half(to, ty),
        ("add" | "min" | "max", _) if at.has("u16x2") || at.has("s16x2") => at.integer_pair(to),
        ("add" | "sub" | "mul" | "mad" | "fma" | "div" | "rcp" | "sqrt", Some(Type::F32)) => {
            at.arithmetic32(to)
        }
        ("add" | "sub" | "mul" | "mad" | "fma" | "div" | "rcp" | "sqrt" | "rsqrt", Some(Type::F64)) => {
            at.arithmetic64(to)
        }
        ("min" | "max" | "abs" | "neg" | "copysign", Some(Type::F32 | Type::F64)) => at.simple_float(to),
        ("ex2" | "lg2" | "sin" | "cos" | "tanh" | "rsqrt", Some(Type::F32)) => at.approximate(to),
        ("add" | "sub" | "addc" | "subc" | "madc", _) if parts[0].ends_with('c') || at.has("cc") => {
            at.carry(to)
        }
        ("mad", _) if at.has("cc") => at.carry(to),
        ("add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "abs" | "neg", Some(ty)) => {
            at.integer(to, ty)
        }
        ("and" | "or" | "xor" | "not" | "shl" | "shr", Some(ty)) => at.logic(to, ty),
        (
            "popc" | "clz" | "brev" | "bfind" | "bfe" | "bfi" | "sad" | "shf" | "prmt" | "lop3" | "bmsk"
            | "szext" | "fns",
            _,
        ) => at.bits(to),
        ("dp2a", _) => at.dp2a(to),
        ("vadd" | "vsub" | "vabsdiff" | "vmin" | "vmax" | "vshl" | "vshr" | "vset" | "vmad", _) => {
            at.scalar_video(to)
        }
        ("vadd2" | "vsub2" | "vavrg2" | "vabsdiff2" | "vmin2" | "vmax2", _) => at.video(to, 2),
        ("vadd4" | "vsub4" | "vavrg4" | "vabsdiff4" | "vmin4" | "vmax4", _) => at.video(to, 4),
        ("setp", Some(ty)) => at.setp(to, ty),
        ("selp", Some(ty)) => at.selp(to, ty),
        ("mov" | "cvta", _) => at.mov(to),
        ("cvt", _) => at.cvt(to),
        ("ld" | "ldu", Some(ty)) => at.load(to, ty),
        ("st" | "red", Some(ty)) if at.has("async") => at.store_async(to, ty),
        ("st", Some(ty)) => at.store(to, ty),
        ("atom" | "red", Some(ty)) => at.atomic(to, ty),
        ("shfl", _) => at.shuffle(to),
        ("vote", _) => at.vote(to),
        ("match", Some(ty)) => at.matching(to, ty),
        ("redux", Some(ty)) => at.redux(to, ty),
        ("elect", _) => at.elect(to),
        ("activemask", _) => {
            let d = to.destination(at.operand(0)?, false)?;
            done(to.emit::<ActiveMask>([d, 0, 0, 0, 0], 0))
        }
        ("bra", _) => match at.operand(0)? {
            Operand::Label(target) => done(to.emit_branch(*target)),
            _ => Err("a target that is not a label".to_string()),
        },
        ("brx", _) => at.branch_indexed(to),
        ("barrier", _) if at.has("cluster") => at.cluster_barrier(to),
        ("bar" | "barrier", _) => at.barrier(to),
        ("mapa" | "getctarank", Some(ty)) => at.cluster_address(to, ty),
        ("mbarrier", _) => at.mbarrier(to),
        ("cp", _) => at.asynchronous_copy(to),
        ("tensormap", _) => at.tensormap(to),
        ("createpolicy", _) => {
            let slots = [to.destination(at.operand(0)?, true)?, to.constant(0, true), 0, 0, 0];
            done(to.emit::<Copy64>(slots, 0))
        }
        ("call", _) => to.emit_call(at.operands),
        ("return", _) => done(to.emit::<Return>([0; 5], 0)),
        ("alloca" | "stacksave" | "stackrestore", Some(Type::U32 | Type::U64)) => at.stack(to),
        ("ret" | "exit", _) => done(to.emit::<Exit>([0; 5], 0)),
        ("trap" | "brkpt", _) => done(to.emit::<Trap>([0; 5], 0)),
        ("__assertfail", _) => {
            let [a, b, c, e] = at.variables(to)?;
            done(to.emit::<AssertFail>([0, a, b, c, e], 0))
        }
        ("membar" | "fence", _) if to.is_watched() && parts.get(1) != Some(&"proxy") => {
            let is_wide = at.has("gl") || at.has("sys") || at.has("gpu");
            done(to.emit::<Fence>([0; 5], is_wide as i64))
        }
        ("fence", _) if parts.starts_with(&["fence", "proxy", "async"]) && !at.has("global") => {
            done(to.emit::<ProxyFence>([0; 5], 0))
        }
        ("malloc", _) => {
            let [a, b] = at.variables(to)?;
            done(to.emit::<Malloc>([0, a, b, 0, 0], 0))
        }
        ("free", _) => {
            let [a] = at.variables(to)?;
            done(to.emit::<Free>([0, a, 0, 0, 0], 0))
        }
        ("vprintf", _) => {
            let [a, b, c] = at.variables(to)?;
            done(to.emit::<Print>([0, a, b, c, 0], 0))
        }
        (
            "membar" | "fence" | "prefetch" | "prefetchu" | "nanosleep" | "discard" | "applypriority"
            | "pmevent",
            _,
        ) => done(to.emit::<Nothing>([0; 5], 0)),
        ("griddepcontrol" | "setmaxnreg", _) => done(to.emit::<Nothing>([0; 5], 0)),
        ("ldmatrix" | "stmatrix" | "movmatrix", _) => at.matrix_move(to),
        ("mma", _) => at.mma(to),
        ("wgmma", _) => at.wgmma(to),
        ("wmma", _) => at.wmma(to),
        _ => at.uncommon(to),
    }
}

fn done(_: ()) -> Decoded {
    Ok(())
}

/// Whether a type is a 16-bit float or a pair of them.
fn is_half(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2)
}

/// Whether it is a pair.
fn is_pair(ty: Type) -> bool {
    matches!(ty, Type::F16x2 | Type::Bf16x2)
}

/// An instruction being decoded.
struct Entry<'a> {
    parts: &'a [&'a str],
    operands: &'a [Operand],
}

/// Emits `$module::$name` of the register width that `$ty` has.
macro_rules! by_width {
    ($to:expr, $ty:expr, $name:ident, $slots:expr, $imm:expr) => {
        match $ty.size_bytes() {
            2 => $to.emit::<w16::$name>($slots, $imm),
            8 => $to.emit::<w64::$name>($slots, $imm),
            _ => $to.emit::<w32::$name>($slots, $imm),
        }
    };
}

/// The same where 16 bits are the low half of a 32-bit result.
macro_rules! by_register {
    ($to:expr, $ty:expr, $name:ident, $slots:expr, $imm:expr) => {
        match $ty.size_bytes() {
            8 => $to.emit::<w64::$name>($slots, $imm),
            _ => $to.emit::<w32::$name>($slots, $imm),
        }
    };
}

impl Entry<'_> {
    fn has(&self, part: &str) -> bool {
        self.parts[1..].contains(&part)
    }

    /// The instruction's type: the last part that is one.
    fn ty(&self) -> Option<Type> {
        self.parts[1..].iter().rev().find_map(|part| Type::from_name(part))
    }

    fn operand(&self, index: usize) -> Result<&Operand, String> {
        self.operands.get(index).ok_or_else(|| format!("{} operands are too few", self.operands.len()))
    }

    /// Destination and up to three sources, all of one width.
    fn slots(&self, to: &mut Lower, wide: bool) -> Result<[u16; 5], String> {
        let mut slots = [to.destination(self.operand(0)?, wide)?, 0, 0, 0, 0];
        for (slot, operand) in slots[1..4].iter_mut().zip(&self.operands[1..]) {
            *slot = to.source(operand, wide)?;
        }
        Ok(slots)
    }

    /// Slots with the places in local memory of the first operands, which are variables of a call.
    fn variables<const N: usize>(&self, to: &mut Lower) -> Result<[u16; N], String> {
        let mut slots = [0; N];
        for (i, slot) in slots.iter_mut().enumerate() {
            let Operand::Symbol(name, 0) = self.operand(i)? else {
                return Err("an argument that is not a .param variable".to_string());
            };
            *slot = match to.locate(name)? {
                Location::Local(at) => to.constant(at, false),
                Location::Frame(at) => to.frame_address(at, i, false),
                _ => return Err(format!("{name} is not a .param variable")),
            };
        }
        Ok(slots)
    }

    /// 1 toward zero, 2 down, 3 up, 0 to nearest.
    fn direction(&self) -> i64 {
        ["rz", "rm", "rp"].iter().position(|mode| self.has(mode)).map_or(0, |i| i as i64 + 1)
    }
}

mod arithmetic;
mod asynchronous;
mod count;
mod cvt;
mod half;
mod matrix;
mod memory;
mod moves;
mod scalar_video;
mod stack;
mod uncommon;
mod video;
mod warp;
mod wmma;
