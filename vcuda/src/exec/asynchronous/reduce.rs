//! What copies do with their elements: stores and reductions.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What a copy does with its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reduce {
    Store,
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
}

const REDUCES: [Reduce; 9] = [
    Reduce::Store,
    Reduce::Add,
    Reduce::Min,
    Reduce::Max,
    Reduce::Inc,
    Reduce::Dec,
    Reduce::And,
    Reduce::Or,
    Reduce::Xor,
];

/// An element of a reduction, or of a tensor, in the order of `CUtensorMapDataType`. Bits are the unsigned integers
/// of their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    F32,
    F64,
    Bf16,
}

const KINDS: [Kind; 10] = [
    Kind::U8,
    Kind::U16,
    Kind::U32,
    Kind::S32,
    Kind::U64,
    Kind::S64,
    Kind::F16,
    Kind::F32,
    Kind::F64,
    Kind::Bf16,
];

/// Both in a number, for `Op::imm`.
pub fn encode(reduce: Reduce, kind: Kind) -> i64 {
    reduce as i64 | (kind as i64) << 4
}

pub fn decode(imm: i64) -> (Reduce, Kind) {
    (REDUCES[imm as usize & 15], KINDS[imm as usize >> 4 & 15])
}

impl Kind {
    /// By its place in the list.
    pub fn from_number(number: usize) -> Option<Kind> {
        KINDS.get(number).copied()
    }

    pub fn bytes(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::U16 | Kind::F16 | Kind::Bf16 => 2,
            Kind::U32 | Kind::S32 | Kind::F32 => 4,
            Kind::U64 | Kind::S64 | Kind::F64 => 8,
        }
    }
}

macro_rules! integer_reduce {
    ($name:ident, $word:ty, $signed:ty) => {
        fn $name(reduce: Reduce, signed: bool, old: $word, new: $word) -> $word {
            match reduce {
                Reduce::Store => new,
                Reduce::Add => old.wrapping_add(new),
                Reduce::Min if signed => (old as $signed).min(new as $signed) as $word,
                Reduce::Max if signed => (old as $signed).max(new as $signed) as $word,
                Reduce::Min => old.min(new),
                Reduce::Max => old.max(new),
                Reduce::Inc if old >= new => 0,
                Reduce::Inc => old + 1,
                Reduce::Dec if old == 0 || old > new => new,
                Reduce::Dec => old - 1,
                Reduce::And => old & new,
                Reduce::Or => old | new,
                Reduce::Xor => old ^ new,
            }
        }
    };
}
integer_reduce!(reduce32, u32, i32);
integer_reduce!(reduce64, u64, i64);

/// Halves are summed in float32 and rounded once more, which is exact enough to give the rounded sum:
/// 24 bits are at least twice 11, and 2. Of a number and a NaN the number is the lesser and the greater.
fn reduce_half(reduce: Reduce, old: f32, new: f32) -> f32 {
    let is_less = old.total_cmp(&new).is_lt();
    match reduce {
        Reduce::Min | Reduce::Max if old.is_nan() => new,
        Reduce::Min | Reduce::Max if new.is_nan() => old,
        Reduce::Min => {
            if is_less {
                old
            } else {
                new
            }
        }
        Reduce::Max => {
            if is_less {
                new
            } else {
                old
            }
        }
        _ => old + new,
    }
}

/// Subnormals are zero to a reduction of float32.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// Applies `reduce` with `bytes` at `from` to those at `to`, element by element.
///
/// # Safety
/// Both have as many bytes, whole elements, and `to` is aligned for them; what others do there in this
/// launch meanwhile is atomic, or a race of the kernel's.
pub unsafe fn apply(reduce: Reduce, kind: Kind, to: *mut u8, from: *const u8, bytes: usize) {
    if reduce == Reduce::Store {
        // SAFETY: the caller's; a copy goes from one memory to another.
        return unsafe { std::ptr::copy(from, to, bytes) };
    }
    for at in (0..bytes).step_by(kind.bytes()) {
        // SAFETY: the caller's.
        unsafe {
            let (to, from) = (to.add(at), from.add(at));
            match kind.bytes() {
                1 | 2 => {
                    let new = *from.cast::<u16>();
                    let combine = |old: u16| match kind {
                        Kind::Bf16 => {
                            let value = |bits| half::bf16::from_bits(bits).to_f32();
                            half::bf16::from_f32(reduce_half(reduce, value(old), value(new))).to_bits()
                        }
                        _ => {
                            let value = |bits| half::f16::from_bits(bits).to_f32();
                            half::f16::from_f32(reduce_half(reduce, value(old), value(new))).to_bits()
                        }
                    };
                    let _ = AtomicU16::from_ptr(to.cast())
                        .fetch_update(Relaxed, Relaxed, |old| Some(combine(old)));
                }
                4 => {
                    let new = *from.cast::<u32>();
                    let combine = |old: u32| match kind {
                        Kind::F32 => {
                            let value = |bits| flushed(f32::from_bits(bits));
                            flushed(value(old) + value(new)).to_bits()
                        }
                        _ => reduce32(reduce, kind == Kind::S32, old, new),
                    };
                    let _ = AtomicU32::from_ptr(to.cast())
                        .fetch_update(Relaxed, Relaxed, |old| Some(combine(old)));
                }
                _ => {
                    let new = *from.cast::<u64>();
                    let combine = |old: u64| match kind {
                        Kind::F64 => (f64::from_bits(old) + f64::from_bits(new)).to_bits(),
                        _ => reduce64(reduce, kind == Kind::S64, old, new),
                    };
                    let _ = AtomicU64::from_ptr(to.cast())
                        .fetch_update(Relaxed, Relaxed, |old| Some(combine(old)));
                }
            }
        }
    }
}
