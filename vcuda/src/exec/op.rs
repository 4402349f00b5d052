//! A decoded instruction, what an operation does, and how one body serves every host.

use std::ops::Deref;

use super::host::Host;
use super::registers::{Compute, Operands};
use super::warp::Warp;

/// What the warp does after an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    Next,
    /// The warp's `pc` has been set.
    Jump,
    /// The lanes in `mask` wait at barrier `wait.0` for `wait.1` threads (0: all of the CTA).
    Barrier,
    /// The lanes in `mask` arrive at the cluster's barrier, or wait for it.
    ClusterBarrier,
    /// The lanes in `mask` are done.
    Exit,
    /// All lanes wait.
    Idle,
    /// Let another warp run: a spin loop may wait for it.
    Yield,
    /// Let another warp run first, then do this.
    Pause,
    /// The same after a wait that has failed, at the mbarrier that `missed` names.
    Miss,
    /// `fault` has been set.
    Fault,
}

/// An operation on a warp.
///
/// # Safety
/// The warp's register file has every slot and predicate that the operation names, and the host has
/// the instructions that this version was compiled for.
pub type OpFn = unsafe fn(&mut Warp, &Op) -> Flow;

/// One decoded instruction.
#[derive(Clone, Copy)]
pub struct Op {
    pub run: OpFn,
    pub operands: Operands,
}

impl Deref for Op {
    type Target = Operands;

    #[inline(always)]
    fn deref(&self) -> &Operands {
        &self.operands
    }
}

/// What an operation does.
pub trait Body {
    /// Whether it is compiled once for each kind of host, or once for all: what goes lane by lane gains nothing.
    const PER_HOST: bool = true;

    /// # Safety
    /// As [`OpFn`].
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow;
}

impl<C: Compute> Body for C {
    const PER_HOST: bool = C::PER_HOST;

    #[inline(always)]
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the caller's.
        unsafe { C::compute(&mut warp.registers, &op.operands) };
        Flow::Next
    }
}

/// An operation as each kind of host runs it best. All versions give the same bits: the arithmetic is IEEE's, and a fused
/// multiply-add is one everywhere. Methods of `B`, so that the compiler has them, and what they call, in one unit with
/// the rest of `B`'s module; as functions of this one they would all be in a single unit, which takes longer than all others.
///
/// # Safety
/// As [`OpFn`].
trait Versions: Body {
    unsafe fn baseline(warp: &mut Warp, op: &Op) -> Flow;

    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(warp: &mut Warp, op: &Op) -> Flow;

    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(warp: &mut Warp, op: &Op) -> Flow;
}

impl<B: Body> Versions for B {
    unsafe fn baseline(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the caller's.
        unsafe { B::run(warp, op) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn avx2(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the caller's; the body is inlined here and so compiled for AVX2.
        unsafe { B::run(warp, op) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn avx512(warp: &mut Warp, op: &Op) -> Flow {
        // SAFETY: the caller's; the body is inlined here and so compiled for AVX-512.
        unsafe { B::run(warp, op) }
    }
}

impl Host {
    /// `B` as this host runs it best.
    pub fn version<B: Body>(self) -> OpFn {
        // `PER_HOST` is a constant: what it leaves out is not compiled.
        if !B::PER_HOST {
            return B::baseline;
        }
        match self {
            Host::Baseline => B::baseline,
            #[cfg(target_arch = "x86_64")]
            Host::Avx2 => B::avx2,
            #[cfg(target_arch = "x86_64")]
            Host::Avx512 => B::avx512,
        }
    }
}
