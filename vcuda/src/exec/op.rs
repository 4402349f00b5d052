//! A decoded instruction, the warp it acts on, and how one body serves every host.

use std::ops::{Deref, DerefMut};

use super::calls::Saved;
use super::fault::FaultKind;
use super::groups::{Group, Meeting};
use super::host::Host;
use super::launch::run::Cta;
use super::registers::{Compute, Operands, Registers};
use crate::exec::asynchronous::barrier::Missed;
use crate::exec::matrix::warpgroup::Pending;

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

/// 32 threads: their registers and where each of them is.
pub struct Warp<'a> {
    pub registers: Registers<'a>,
    /// The running group.
    pub pc: usize,
    pub active: u32,
    /// Groups that wait to run, and the lowest `pc` among them.
    pub waiting: Vec<Group>,
    pub merge_pc: usize,
    /// Groups that run again when all of those have had their turn.
    pub spent: Vec<Group>,
    /// Groups that wait for lanes of the warp.
    pub meetings: Vec<Meeting>,
    /// Groups at a barrier, with its number.
    pub blocked: Vec<(Group, u32)>,
    /// Lanes that have exited or never were.
    pub dead: u32,
    pub index: u32,
    pub wait: (u32, u32),
    /// Lanes that have arrived in the current phase of the cluster's barrier, and lanes that have not
    /// waited since they arrived.
    pub cluster_arrived: u32,
    pub cluster_owed: u32,
    /// The last wait in vain, and whether there has been one since the last yield.
    pub missed: Option<Missed>,
    pub misses: bool,
    /// What it has polled last while it was watched: the host address, and where.
    pub polled: Option<(usize, usize)>,
    /// Backward branches until the next yield, and whether it has polled memory, or may have, since the last one.
    pub budget: u32,
    pub polls: bool,
    pub local: *mut u8,
    /// What each lane comes back to from its calls, the last one last; empty before the first call.
    pub calls: Vec<Vec<Saved>>,
    pub cta: &'a Cta<'a>,
    pub fault: Option<(FaultKind, String)>,
    /// Matrix products under way.
    pub products: Pending,
}

impl Warp<'_> {
    /// Stops the launch.
    #[cold]
    pub fn fail(&mut self, kind: FaultKind, message: String) -> Flow {
        self.fault = Some((kind, message));
        Flow::Fault
    }
}

impl<'a> Deref for Warp<'a> {
    type Target = Registers<'a>;

    #[inline(always)]
    fn deref(&self) -> &Registers<'a> {
        &self.registers
    }
}

impl DerefMut for Warp<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.registers
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

impl Host {
    /// `B` as this host runs it best. All versions give the same bits: the arithmetic is IEEE's, and
    /// a fused multiply-add is one everywhere.
    pub fn version<B: Body>(self) -> OpFn {
        // `PER_HOST` is a constant: what it leaves out is not compiled.
        if !B::PER_HOST {
            return baseline::<B>;
        }
        match self {
            Host::Baseline => baseline::<B>,
            #[cfg(target_arch = "x86_64")]
            Host::Avx2 => avx2::<B>,
            #[cfg(target_arch = "x86_64")]
            Host::Avx512 => avx512::<B>,
        }
    }
}

unsafe fn baseline<B: Body>(warp: &mut Warp, op: &Op) -> Flow {
    // SAFETY: the caller's.
    unsafe { B::run(warp, op) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<B: Body>(warp: &mut Warp, op: &Op) -> Flow {
    // SAFETY: the caller's; the body is inlined here and so compiled for AVX2.
    unsafe { B::run(warp, op) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx512<B: Body>(warp: &mut Warp, op: &Op) -> Flow {
    // SAFETY: the caller's; the body is inlined here and so compiled for AVX-512.
    unsafe { B::run(warp, op) }
}
