//! A decoded instruction, the warp it acts on, and how one body serves every host.
//!
//! A register is 32 lanes side by side in a *slot* of 32 words, a 64-bit one in two neighbouring slots.
//! Immediates, special registers and kernel parameters are slots too, filled before the first
//! instruction: an operation never asks where its operands come from.

use super::call::Saved;
use super::fault::FaultKind;
use super::launch::run::Cta;
use super::matrix::wgmma::Pending;
use super::meeting::Meeting;

/// Lanes of a warp.
pub const LANES: usize = 32;
/// Every lane.
pub const ALL: u32 = u32::MAX;

/// The lanes of a mask, in order.
#[inline]
pub fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

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

/// One decoded instruction: destination, sources, guard.
#[derive(Clone, Copy)]
pub struct Op {
    pub run: OpFn,
    /// Slots or predicate numbers, as the operation has it.
    pub d: u16,
    pub a: u16,
    pub b: u16,
    pub c: u16,
    /// A fifth operand.
    pub e: u16,
    /// 0: none; else `1 + 2 · predicate + negated`.
    pub guard: u16,
    /// Line in the PTX text.
    pub line: u32,
    /// Offset, branch target, table index: as the operation has it.
    pub imm: i64,
}

/// Lanes that run together, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub pc: usize,
    pub mask: u32,
}

/// An mbarrier: where it is on the host, and in the shared window.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    pub host: *mut u8,
    pub address: u64,
}

/// A wait that failed.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    pub barrier: Barrier,
    pub pc: usize,
}

/// 32 threads: their registers and where each of them is.
pub struct Warp<'a> {
    pub regs: *mut u32,
    pub preds: *mut u32,
    /// Carry flags of the extended-precision instructions, a lane a bit.
    pub carry: u32,
    /// The lanes that execute the current operation.
    pub mask: u32,
    /// Those, and the lanes whose registers nobody will read again: what arithmetic may overwrite.
    pub writable: u32,
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

    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn lanes<W: Word>(&self, slot: u16) -> [W; LANES] {
        // SAFETY: the caller's; slots are 128-byte aligned, and W is a plain word.
        unsafe { *(self.regs.add(slot as usize * LANES) as *const [W; LANES]) }
    }

    /// Writes the lanes that `writable` has.
    ///
    /// # Safety
    /// The slot is in the register file.
    #[inline(always)]
    pub unsafe fn set_lanes<W: Word>(&mut self, slot: u16, value: [W; LANES]) {
        // SAFETY: the caller's.
        let out = unsafe { &mut *(self.regs.add(slot as usize * LANES) as *mut [W; LANES]) };
        if self.writable == ALL {
            *out = value;
        } else {
            for lane in 0..LANES {
                out[lane] = if self.writable >> lane & 1 != 0 { value[lane] } else { out[lane] };
            }
        }
    }

    /// # Safety
    /// The predicate is in the file.
    #[inline(always)]
    pub unsafe fn pred(&self, index: u16) -> u32 {
        // SAFETY: the caller's. Bit 15 asks for the negation.
        let value = unsafe { *self.preds.add((index & 0x7fff) as usize) };
        if index & 0x8000 != 0 { !value } else { value }
    }

    /// # Safety
    /// The predicate is in the file.
    #[inline(always)]
    pub unsafe fn set_pred(&mut self, index: u16, value: u32) {
        // SAFETY: the caller's.
        let out = unsafe { &mut *self.preds.add(index as usize) };
        *out = *out & !self.mask | value & self.mask;
    }
}

/// A lane's word: registers are u32 or u64; floats are their bits.
pub trait Word: Copy + 'static {}
impl Word for u32 {}
impl Word for u64 {}

// `array::map` would be compiled once, for the plainest host; these are compiled for each.

/// A register's lanes as float32.
#[inline(always)]
pub fn floats(bits: [u32; LANES]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        out[lane] = f32::from_bits(bits[lane]);
    }
    out
}

/// The reverse of [`floats`].
#[inline(always)]
pub fn bits(values: [f32; LANES]) -> [u32; LANES] {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = values[lane].to_bits();
    }
    out
}

/// What an operation does.
pub trait Body {
    /// Whether it is compiled once for each kind of host, or once for all: what goes lane by lane gains nothing.
    const PER_HOST: bool = true;

    /// # Safety
    /// As [`OpFn`].
    unsafe fn run(warp: &mut Warp, op: &Op) -> Flow;
}

/// The instruction sets that operations are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Host {
    /// The best that this machine has; `VCUDA_HOST=baseline|avx2` asks for less.
    pub fn detect() -> Host {
        let wanted = std::env::var("VCUDA_HOST").unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && wanted != "baseline" && wanted != "avx2" {
                return Host::Avx512;
            }
            if avx2 && wanted != "baseline" {
                return Host::Avx2;
            }
        }
        let _ = wanted;
        Host::Baseline
    }

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

/// `d = f(a, b, c)`, lane by lane: `lane!(AddU32, (a: u32, b: u32) -> u32 { a.wrapping_add(b) });`; `scalar` before
/// the name where no host has it for vectors.
#[macro_export]
#[doc(hidden)]
macro_rules! lane {
    (scalar $name:ident, $($lane:tt)*) => { lane!(@ false, $name, $($lane)*); };
    ($name:ident, $($lane:tt)*) => { lane!(@ true, $name, $($lane)*); };
    (@ $per_host:literal, $name:ident, ($($arg:ident : $ty:ty),*) -> $out:ty $body:block) => {
        pub struct $name;
        impl $crate::exec::op::Body for $name {
            const PER_HOST: bool = $per_host;

            #[inline(always)]
            unsafe fn run(warp: &mut $crate::exec::op::Warp, op: &$crate::exec::op::Op) -> $crate::exec::op::Flow {
                // SAFETY: the decoder gave every operand a slot of its width.
                unsafe {
                    let mut _slots = [op.a, op.b, op.c].into_iter();
                    $(let $arg: [$ty; $crate::exec::op::LANES] = warp.lanes(_slots.next().unwrap_unchecked());)*
                    let mut out: [$out; $crate::exec::op::LANES] = [0; $crate::exec::op::LANES];
                    for lane in 0..$crate::exec::op::LANES {
                        $(let $arg = $arg[lane];)*
                        out[lane] = $body;
                    }
                    warp.set_lanes(op.d, out);
                }
                $crate::exec::op::Flow::Next
            }
        }
    };
}

/// `p = f(a, b)`, lane by lane, then combined with predicate `c`: `imm` 0 none, 1 and, 2 or, 3 xor;
/// predicate `e` gets the combined negation unless it is [`NO_PRED`].
#[macro_export]
#[doc(hidden)]
macro_rules! compare {
    ($name:ident, ($a:ident : $ty:ty, $b:ident) $body:block) => {
        pub struct $name;
        impl $crate::exec::op::Body for $name {
            #[inline(always)]
            unsafe fn run(
                warp: &mut $crate::exec::op::Warp,
                op: &$crate::exec::op::Op,
            ) -> $crate::exec::op::Flow {
                // SAFETY: as for `lane!`.
                unsafe {
                    let ($a, $b): ([$ty; 32], [$ty; 32]) = (warp.lanes(op.a), warp.lanes(op.b));
                    let mut bits = 0u32;
                    for lane in 0..$crate::exec::op::LANES {
                        let ($a, $b) = ($a[lane], $b[lane]);
                        let holds: bool = $body;
                        bits |= (holds as u32) << lane;
                    }
                    $crate::exec::op::finish_compare(warp, op, bits);
                }
                $crate::exec::op::Flow::Next
            }
        }
    };
}

/// "There is no such predicate."
pub const NO_PRED: u16 = u16::MAX;

/// # Safety
/// The predicates are in the file.
#[inline(always)]
pub unsafe fn finish_compare(warp: &mut Warp, op: &Op, bits: u32) {
    let combine = |bits: u32, with: u32| match op.imm {
        1 => bits & with,
        2 => bits | with,
        3 => bits ^ with,
        _ => bits,
    };
    // SAFETY: the caller's.
    unsafe {
        let with = if op.imm == 0 { 0 } else { warp.pred(op.c) };
        if op.d != NO_PRED {
            warp.set_pred(op.d, combine(bits, with));
        }
        if op.e != NO_PRED {
            warp.set_pred(op.e, combine(!bits, with));
        }
    }
}
