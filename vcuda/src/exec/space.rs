//! State spaces, where they are among the generic addresses, and how an access names its own.

use super::registers::Operands;

/// Where shared and local memory and the kernel's parameters appear among generic addresses: above any
/// host address.
pub const SHARED_WINDOW: u64 = 1 << 60;
pub const LOCAL_WINDOW: u64 = 2 << 60;
pub const PARAM_WINDOW: u64 = 3 << 60;
/// Where the kernel's parameters begin in their own space: past all local memory, since `ld.param` also reads the
/// parameters of functions that are called, which are there; 32 bits hold it.
pub const PARAM_START: u64 = 1 << 30;
/// Where the addresses of functions are, above any other window.
pub const FUNCTION_WINDOW: u64 = 4 << 60;

/// Local memory of a thread for the variables of what it calls.
pub const STACK_BYTES: usize = 16 << 10;

/// Memory that nobody has written holds this: NaN as a float, far out of range as an index.
pub const POISON: u8 = 0xff;

/// State spaces: with 64-bit addresses but for `SHARED32`.
pub const GLOBAL: u8 = 0;
pub const SHARED32: u8 = 1;
pub const SHARED64: u8 = 2;
pub const LOCAL: u8 = 3;
pub const GENERIC: u8 = 4;
pub const PARAM: u8 = 5;

const SPACE_BITS: u32 = 3;

/// Whether an access may be at this offset.
pub fn is_offset(offset: i64) -> bool {
    offset << SPACE_BITS >> SPACE_BITS == offset
}

/// Space and offset of an access, as its operation has them in `imm`.
pub fn packed(space: u8, offset: i64) -> i64 {
    offset << SPACE_BITS | i64::from(space)
}

/// The space of an access.
#[inline(always)]
pub fn space(op: &Operands) -> u8 {
    op.imm as u8 & ((1 << SPACE_BITS) - 1)
}

/// Its offset.
#[inline(always)]
pub fn offset(op: &Operands) -> u64 {
    (op.imm >> SPACE_BITS) as u64
}
