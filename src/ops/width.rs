//! Neighbours that a thread reads and writes at once.

use anyhow::{Result, ensure};
use bytemuck::Pod;

use crate::gpu::Tensor;

/// How many neighbours of a row of `n` one access takes: the largest power of two up to `most` that divides it. By the
/// shape alone, since the order of sums depends on it.
pub(super) fn width(n: usize, most: usize) -> usize {
    (0..).map(|i| 1 << i).take_while(|&w| w <= most && n.is_multiple_of(w)).last().unwrap_or(1)
}

/// Refuses a tensor that does not begin where accesses of `width` neighbours may, of 16 bytes at most.
pub(super) fn expect_aligned<T: Pod>(what: &str, tensor: &Tensor<T>, width: usize) -> Result<()> {
    aligned_for::<T>(what, tensor.address(), width)
}

/// The same of an address, or of the bytes between two.
pub(super) fn aligned_for<T>(what: &str, address: u64, width: usize) -> Result<()> {
    let bytes = (width * size_of::<T>()).min(16);
    ensure!(
        address.is_multiple_of(bytes as u64),
        "{what} begins at {address:#x}, no multiple of {bytes} bytes"
    );
    Ok(())
}

#[test]
fn a_width_divides_the_row() {
    assert_eq!([768, 2304, 33, 1, 6, 12].map(|n| width(n, 8)), [8, 8, 1, 1, 2, 4]);
    assert_eq!(width(768, 4), 4);
}
