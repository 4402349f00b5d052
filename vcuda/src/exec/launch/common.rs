//! What the host threads of a launch share.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::queue::Queue;
use crate::exec::cta::Grid;
use crate::exec::profile::occupancy;

/// A launch, and how far it is.
pub struct Common<'a> {
    pub grid: Grid<'a>,
    /// Groups of CTAs that have yet to come.
    pub queue: Queue,
    /// Groups that are there, on all host threads; host threads that get on; whether any has failed.
    pub groups: AtomicUsize,
    pub at_work: AtomicUsize,
    pub failed: AtomicBool,
}

impl Common<'_> {
    /// Groups that the device has room for at once.
    pub fn most_groups(&self) -> usize {
        occupancy::clusters(self.options.gpu, self.kernel, self.launch).max(1)
    }
}

impl<'a> Deref for Common<'a> {
    type Target = Grid<'a>;

    #[inline]
    fn deref(&self) -> &Grid<'a> {
        &self.grid
    }
}
