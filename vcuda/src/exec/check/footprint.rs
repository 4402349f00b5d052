//! Which bytes of global memory a piece of work has touched, how, and at which PTX line: of a kernel in maps of pages,
//! of a copy as ranges.

use std::collections::HashMap;
use std::ops::Range;

use super::span::Kind;

const PAGE_BYTES: usize = 4096;
const WORDS: usize = PAGE_BYTES / 64;
/// Bytes of which one line is remembered: those of the largest access.
const LINE_BYTES: usize = 16;

/// What accesses may conflict about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Class {
    Read,
    Write,
    StrongRead,
    StrongWrite,
}

const CLASSES: [Class; 4] = [Class::Read, Class::Write, Class::StrongRead, Class::StrongWrite];

impl Class {
    pub fn of(kind: Kind) -> Class {
        match kind {
            Kind::Read => Class::Read,
            Kind::Write => Class::Write,
            Kind::StrongRead => Class::StrongRead,
            Kind::StrongWrite | Kind::Atomic => Class::StrongWrite,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Class::Write | Class::StrongWrite)
    }

    fn is_strong(self) -> bool {
        matches!(self, Class::StrongRead | Class::StrongWrite)
    }

    /// Whether two accesses that nothing orders are a race.
    fn minds(self, other: Class) -> bool {
        (self.writes() || other.writes()) && !(self.is_strong() && other.is_strong())
    }

    pub fn name(self) -> &'static str {
        if self.writes() { "write" } else { "read" }
    }
}

/// What is known of one page and class: a bit for each byte, and the last line of each few.
#[derive(Clone)]
struct Map {
    bits: [u64; WORDS],
    lines: [u32; PAGE_BYTES / LINE_BYTES],
}

type Page = [Option<Box<Map>>; 4];

#[derive(Clone, Default)]
pub struct Footprint {
    pages: HashMap<usize, Page>,
    ranges: Vec<(Range<usize>, Class)>,
}

/// The words of a page's map that a range has bits in, and which.
fn words(range: &Range<usize>, page: usize) -> impl Iterator<Item = (usize, u64)> {
    let start = range.start.max(page * PAGE_BYTES) - page * PAGE_BYTES;
    let end = range.end.min((page + 1) * PAGE_BYTES) - page * PAGE_BYTES;
    (start / 64..end.div_ceil(64)).map(move |word| {
        let (low, high) = (start.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64);
        (word, (u64::MAX >> (64 - (high - low))) << low)
    })
}

fn pages(range: &Range<usize>) -> Range<usize> {
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

impl Footprint {
    /// Notes an access of a kernel; whether any of it is new.
    pub fn mark(&mut self, range: &Range<usize>, class: Class, line: u32) -> bool {
        let mut is_new = false;
        for page in pages(range) {
            let map = self.pages.entry(page).or_default()[class as usize].get_or_insert_with(|| {
                Box::new(Map { bits: [0; WORDS], lines: [0; PAGE_BYTES / LINE_BYTES] })
            });
            for (word, mask) in words(range, page) {
                is_new |= map.bits[word] & mask != mask;
                map.bits[word] |= mask;
            }
            if is_new {
                let first = range.start.max(page * PAGE_BYTES) - page * PAGE_BYTES;
                let last = range.end.min((page + 1) * PAGE_BYTES) - page * PAGE_BYTES - 1;
                map.lines[first / LINE_BYTES..=last / LINE_BYTES].fill(line);
            }
        }
        is_new
    }

    /// Notes a range that a copy touches.
    pub fn add(&mut self, range: Range<usize>, class: Class) {
        match self.ranges.last_mut() {
            Some((last, same)) if *same == class && last.end == range.start => last.end = range.end,
            _ => self.ranges.push((range, class)),
        }
    }

    /// An access here that races with one of this range: where, what it is, and its line.
    pub fn conflict(&self, range: &Range<usize>, class: Class) -> Option<(usize, Class, u32)> {
        let minded = |&other: &Class| other.minds(class);
        let in_ranges = self.ranges.iter().find_map(|(other, kind)| {
            let at = other.start.max(range.start);
            (minded(kind) && at < other.end.min(range.end)).then_some((at, *kind, 0))
        });
        let in_page = |page: usize| {
            let maps = self.pages.get(&page)?;
            CLASSES.iter().filter(|kind| minded(kind)).find_map(|&kind| {
                let map = maps[kind as usize].as_ref()?;
                let hit = words(range, page).find(|&(word, mask)| map.bits[word] & mask != 0);
                let (word, mask) = hit?;
                let byte = word * 64 + (map.bits[word] & mask).trailing_zeros() as usize;
                Some((page * PAGE_BYTES + byte, kind, map.lines[byte / LINE_BYTES]))
            })
        };
        in_ranges.or_else(|| {
            let range = pages(range);
            // The shorter of the two lists of pages.
            match range.len() > self.pages.len() {
                // The lowest, whatever the order of the map: every run says the same.
                true => {
                    let inside = self.pages.keys().filter(|page| range.contains(page));
                    inside.filter_map(|&page| in_page(page)).min_by_key(|&(at, ..)| at)
                }
                false => range.into_iter().find_map(in_page),
            }
        })
    }

    /// Nothing of it matters any more where whole pages are somebody else's now.
    pub fn forget(&mut self, range: &Range<usize>) {
        let gone = pages(range);
        match gone.len() > self.pages.len() {
            true => self.pages.retain(|page, _| !gone.contains(page)),
            false => gone.for_each(|page| drop(self.pages.remove(&page))),
        }
        self.ranges.retain(|(other, _)| other.end <= range.start || range.end <= other.start);
    }

    /// How much it takes to remember, in maps.
    pub fn weight(&self) -> usize {
        self.pages.values().map(|page| page.iter().flatten().count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_to_the_byte() {
        let mut print = Footprint::default();
        assert!(print.mark(&(4090..4100), Class::Write, 7) && !print.mark(&(4091..4099), Class::Write, 8));
        assert_eq!(print.conflict(&(4000..4090), Class::Read), None);
        assert_eq!(print.conflict(&(4000..4091), Class::Read), Some((4090, Class::Write, 7)));
        assert_eq!(print.conflict(&(4099..5000), Class::Write), Some((4099, Class::Write, 7)));
        assert_eq!(print.conflict(&(4100..1 << 30), Class::Write), None);
        assert_eq!(print.conflict(&(0..1 << 30), Class::StrongRead), Some((4090, Class::Write, 7)));
        print.forget(&(4096..8192));
        assert_eq!(print.conflict(&(4096..8192), Class::Write), None);
        assert!(print.conflict(&(4095..8192), Class::Write).is_some());
    }

    #[test]
    fn reads_do_not_mind_reads_nor_atomics_each_other() {
        let mut print = Footprint::default();
        print.mark(&(0..64), Class::Read, 1);
        print.mark(&(64..128), Class::StrongWrite, 2);
        print.add(128..192, Class::Read);
        print.add(192..256, Class::Read);
        let find = |range, class| print.conflict(&range, class).map(|(at, ..)| at);
        assert_eq!([Class::Read, Class::StrongRead].map(|class| find(0..64, class)), [None; 2]);
        assert_eq!(find(0..64, Class::StrongWrite), Some(0));
        assert_eq!([Class::StrongRead, Class::StrongWrite].map(|class| find(64..128, class)), [None; 2]);
        assert_eq!([Class::Read, Class::Write].map(|class| find(64..128, class)), [Some(64); 2]);
        assert_eq!((find(128..256, Class::Read), find(250..300, Class::Write)), (None, Some(250)));
    }
}
