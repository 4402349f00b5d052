//! Which CTA an access was by: the groups of CTAs that have taken turns, and when each began.

use super::cell::Record;

/// A group of CTAs that take turns.
#[derive(Clone, Copy, Default)]
pub struct Group {
    start: u32,
    first_thread: usize,
    /// Which of the launch's groups it is.
    place: [u32; 3],
}

impl Group {
    /// The CTA of one of its threads, by the threads of a CTA and the CTAs of a group along each axis.
    pub fn cta(&self, thread: usize, threads: usize, [x, y, z]: [u32; 3]) -> [u32; 3] {
        let ([px, py, pz], number) = (self.place, ((thread - self.first_thread) / threads) as u32);
        [px * x + number % x, py * y + number / x % y, pz * z + number / x / y]
    }
}

/// The groups of a launch in the order of their beginnings, of so many threads each.
pub struct Groups {
    threads: usize,
    all: Vec<Group>,
}

impl Groups {
    pub fn new(threads: usize) -> Groups {
        Groups { threads, all: Vec::new() }
    }

    /// The group of this place begins; its threads have numbers from `first_thread` on.
    pub fn begin(&mut self, start: u32, first_thread: usize, place: [u32; 3]) {
        self.all.push(Group { start, first_thread, place });
    }

    /// The group of an access; one that began at 0 if it was before the launch.
    pub fn of(&self, record: Record) -> Group {
        let next = self.all.partition_point(|group| group.start <= record.stamp());
        let is_its = |group: &&Group| record.thread().wrapping_sub(group.first_thread) < self.threads;
        self.all[..next].iter().rev().find(is_its).copied().unwrap_or_default()
    }

    /// When the group of an access began; 0 before the launch.
    pub fn start(&self, record: Record) -> u32 {
        self.of(record).start
    }
}
