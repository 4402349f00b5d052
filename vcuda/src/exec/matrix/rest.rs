//! Sums that stay what they are: where a factor is all zeros and the other has no infinity or NaN, products are zeros of either
//! sign, which change none but -0. Such are the rows of a tile that are past the end of a tensor.

use super::gemm::stride;
use crate::exec::registers::LANES;

/// What is above the magnitude of a number.
const INFINITY: i32 = f32::INFINITY.to_bits() as i32;
const MAGNITUDE: i32 = i32::MAX;
const MINUS_ZERO: i32 = i32::MIN;

/// Whether so many columns of a panel of B, of this depth, are numbers, and what is left between them from others: it is seldom
/// anything else, and a loop over all is one.
#[inline(always)]
pub fn are_finite(b: &[f32], columns: usize, depth: usize) -> bool {
    let mut greatest = 0;
    for x in &b[..columns * stride(depth)] {
        greatest = (x.to_bits() as i32 & MAGNITUDE).max(greatest);
    }
    greatest < INFINITY
}

/// Whether the sums of a register of D are what they are to be when zeros are added to what is there, or, where D does not begin
/// with that, to zeros, as they then are.
///
/// # Safety
/// It has 32 elements.
#[inline(always)]
pub unsafe fn rest(register: *mut f32, accumulates: bool) -> bool {
    // SAFETY: the caller's.
    let sums = unsafe { &mut *register.cast::<[i32; LANES]>() };
    if !accumulates {
        *sums = [0; LANES];
        return true;
    }
    // An addition makes -0 of no zeros but two that are negative, and NaN quiet.
    let mut changes = false;
    for &mut sum in sums {
        changes |= (sum == MINUS_ZERO) | (sum & MAGNITUDE > INFINITY);
    }
    !changes
}
