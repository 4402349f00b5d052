//! What a cooperative grid has besides: a few bytes of device memory where its CTAs meet.

use crate::memory::Memory;

/// Its size in bytes, and the word that `grid.sync()` of CUDA C++ counts CTAs in: `%envreg1` (the upper half)
/// and `%envreg2` hold its address, as `cooperative_groups.h` has it.
type Words = [u32; 2];

/// One grid's, for one launch.
pub struct Workspace<'a> {
    memory: &'a Memory,
    pub(in crate::exec) address: u64,
}

impl Workspace<'_> {
    /// `None` where the device has no memory left.
    pub fn new(memory: &Memory) -> Option<Workspace<'_>> {
        let address = memory.alloc(size_of::<Words>())?;
        // SAFETY: allocated just now, and known to nobody else.
        unsafe { *(address as *mut Words) = [size_of::<Words>() as u32, 0] };
        memory.mark_written(address, size_of::<Words>());
        Some(Workspace { memory, address })
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        self.memory.free(self.address);
    }
}
