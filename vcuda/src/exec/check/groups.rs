//! Which CTA an access was by: the groups of CTAs that have taken turns, and when each began.

use super::cell::Record;

struct Group {
    start: u32,
    first_thread: usize,
    /// Which of the launch's groups it is.
    place: [u32; 3],
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

    fn of(&self, record: Record) -> Option<&Group> {
        let next = self.all.partition_point(|group| group.start <= record.stamp());
        let is_its = |group: &&Group| record.thread().wrapping_sub(group.first_thread) < self.threads;
        self.all[..next].iter().rev().find(is_its)
    }

    /// When the group of an access began; 0 before the launch.
    pub fn start(&self, record: Record) -> u32 {
        self.of(record).map_or(0, |group| group.start)
    }

    /// The CTA of an access, by the threads of one and the CTAs of a group along each axis.
    pub fn cta(&self, record: Record, threads: usize, [x, y, z]: [u32; 3]) -> [u32; 3] {
        let (first, place) = self.of(record).map_or((0, [0; 3]), |group| (group.first_thread, group.place));
        let number = ((record.thread() - first) / threads) as u32;
        [place[0] * x + number % x, place[1] * y + number / x % y, place[2] * z + number / x / y]
    }
}
