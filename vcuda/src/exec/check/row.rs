//! Accesses of a row: lanes of a warp that touch neighbouring granules, one lane after the other. What is known of them
//! is mostly alike, and is asked and told of all at once.

use super::cell::{Cells, Record};
use super::members::Layout;
use super::race::Race;
use super::span::{Access, Kind, Span};
use crate::exec::registers::{ALL, LANES};

/// Fewer granules are asked one by one.
const LEAST_GRANULES: usize = 4;

/// Neighbouring granules, and the first lane that accesses them.
#[derive(Clone, Copy)]
struct Row {
    layout: Layout,
    count: usize,
    lane: usize,
}

impl Span {
    /// The lanes that access what comes right after what the lane before them does.
    #[inline(always)]
    pub fn followers(&self) -> u32 {
        if self.contiguous {
            return ALL << 1;
        }
        if self.uniform {
            return 0;
        }
        let mut follows = 0;
        for lane in 1..LANES {
            let is_next = self.at[lane].wrapping_sub(self.at[lane - 1]) == self.bytes;
            follows |= u32::from(is_next) << lane;
        }
        follows & self.mask & self.mask << 1
    }
}

impl Race {
    /// Checks and records the accesses of so many lanes from this one on, a row, of which none is suspect: false, and
    /// nothing done, if it is otherwise.
    #[inline(always)]
    pub(super) fn access_row(&mut self, cells: &Cells, access: &Access, lane: usize, lanes: usize) -> bool {
        let Access { span, kind, first_thread, pc, .. } = *access;
        let (at, granule) = (span.at[lane], 1usize << self.shift);
        let per_lane = span.bytes.trailing_zeros().wrapping_sub(self.shift);
        let count = lanes << (per_lane & 31);
        let is_whole = span.bytes.is_power_of_two() && span.bytes >= granule && at & (granule - 1) == 0;
        if !is_whole || count < LEAST_GRANULES || kind == Kind::StrongRead {
            return false;
        }
        let first = (at - cells.origin) >> self.shift;
        let layout = Layout { first: (first as u32).wrapping_sub((lane << per_lane) as u32), per_lane };
        let row = Row { layout, count, lane };
        // SAFETY: the addresses have been checked, and each granule of theirs has a cell.
        let (writes, since) = unsafe {
            let writes = std::slice::from_raw_parts_mut(cells.writes.add(first), count);
            (writes, std::slice::from_raw_parts_mut(cells.since.add(first), count))
        };
        let clocks = &self.clocks;
        let first_new = Record::new(clocks.now, first_thread + lane, pc);
        let is_shared = cells.is_shared;
        // Loops, no closures, and the commonest question alone: all is over.
        let (mut is_ordered, mut is_over) = (true, true);
        for write in writes.iter() {
            is_ordered &= clocks.is_ordered(*write);
        }
        for since in since.iter() {
            is_over &= self.is_over(*since, is_shared);
        }
        if !is_ordered {
            let thread = |k: usize| first_thread + lane + (k >> per_lane);
            let mut is_free = true;
            for (k, write) in writes.iter().enumerate() {
                is_free &= clocks.is_free(*write, thread(k));
            }
            // A lane's granules, as a rule, were written together: they are asked about once.
            let is_alike = |k: usize| k > 0 && thread(k) == thread(k - 1) && writes[k] == writes[k - 1];
            if !is_free && !(0..count).all(|k| is_alike(k) || clocks.has_seen(thread(k), writes[k])) {
                return false;
            }
        }
        if !is_over {
            let mut is_quiet = matches!(kind, Kind::Read | Kind::Write);
            for (k, since) in since.iter().enumerate() {
                let thread = first_thread + lane + (k >> per_lane);
                let is_own = since.is_plain() & clocks.is_free(*since, thread);
                let is_kept = (kind == Kind::Read) & since.is_read() & clocks.is_secret(*since);
                is_quiet &= self.is_over(*since, is_shared) | is_own | is_kept;
            }
            if !is_quiet {
                return kind == Kind::Read && self.join_row(since, row, first_new, is_shared);
            }
        }
        let clocks = &self.clocks;
        match kind {
            Kind::Write => fill(writes, per_lane, first_new),
            Kind::Read if is_over => fill(since, per_lane, first_new),
            Kind::Read => {
                for (k, since) in since.iter_mut().enumerate() {
                    let is_kept = since.is_read() & clocks.is_secret(*since);
                    *since = if is_kept { *since } else { first_new.lanes_on(k >> per_lane) };
                }
            }
            _ => fill(since, per_lane, first_new.strong()),
        }
        true
    }

    /// One more read of a row that others have read since it was written, each granule by the same. `new` is the
    /// first lane's. False, and nothing done, if it is otherwise.
    #[inline(never)]
    fn join_row(&mut self, since: &mut [Record], row: Row, new: Record, is_shared: bool) -> bool {
        let (old, per_lane) = (since[0], row.layout.per_lane);
        let mut is_alike = old.is_reads();
        match old.is_several() {
            true => since.iter().for_each(|&other| is_alike &= other == old),
            false => {
                is_alike &= old.is_plain() && old.thread() % LANES == row.lane;
                for (k, &other) in since.iter().enumerate() {
                    is_alike &= other == old.lanes_on(k >> per_lane);
                }
            }
        }
        let members = &mut self.members[is_shared as usize];
        if is_shared {
            members.begin_after(self.clocks.base_alone());
        }
        let Some(last) = is_alike.then(|| members.last_of_row(old, row.layout)).flatten() else {
            return false;
        };
        if self.clocks.is_secret(old) {
            return true; // whoever conflicts with the new one does with that
        }
        let new = new.of_lane(0);
        if last == new {
            return true;
        }
        let lanes = row.lane..row.lane + (row.count >> per_lane);
        let mut ordered = 0;
        for lane in lanes.clone() {
            let is_seen = self.clocks.has_seen(new.thread() + lane, last.of_lane(lane));
            ordered += usize::from(is_seen);
        }
        let is_first = ordered == lanes.len();
        if !is_first && ordered > 0 {
            return false;
        }
        if is_first && !old.is_several() {
            fill(since, per_lane, new.of_lane(row.lane));
            return true;
        }
        match members.join_row(old, new, row.layout, row.count, is_first) {
            Some(place) => since.fill(new.several(place, false)),
            None => return false,
        }
        true
    }
}

/// The record of each granule's lane, given the first one's.
#[inline(always)]
fn fill(records: &mut [Record], per_lane: u32, first: Record) {
    for (k, record) in records.iter_mut().enumerate() {
        *record = first.lanes_on(k >> per_lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::check::race::Conflict;
    use crate::exec::check::span::Place;
    use crate::exec::random::Random;
    use crate::memory::Memory;

    const ORIGIN: usize = 1 << 20;
    const BYTES: usize = 1024;
    const WARPS: usize = 6;
    const THREADS: usize = WARPS * LANES;

    /// A race check, and the cells of some memory.
    struct Side {
        race: Race,
        is_shared: bool,
        writes: Vec<Record>,
        since: Vec<Record>,
    }

    type Found = (usize, usize, &'static str, usize, usize, bool);

    impl Side {
        fn new(memory: &Memory, is_shared: bool) -> Side {
            let cells = || vec![Record::NONE; BYTES / 4];
            let race = Race::new(memory, 0, THREADS);
            let mut side = Side { race, is_shared, writes: cells(), since: cells() };
            side.begin(0);
            side
        }

        fn begin(&mut self, cta: usize) {
            self.race.begin([cta as u32, 0, 0], cta..cta + 1, (ORIGIN, BYTES), 4, false);
        }

        fn access(&mut self, span: &Span, warp: usize, pc: usize, kind: Kind) -> Option<Found> {
            let (writes, since) = (self.writes.as_mut_ptr(), self.since.as_mut_ptr());
            let cells = match self.is_shared {
                true => self.race.shared_cells(),
                false => Cells { origin: ORIGIN, is_shared: false, writes, since },
            };
            let place = if self.is_shared { Place::Shared } else { Place::Global };
            let access = Access { span, place, kind, first_thread: warp * LANES, pc, line: 0 };
            let found = self.race.access(&cells, &access, |_, _| false);
            found.map(|Conflict { lane, at, name, thread, pc, is_foreign, .. }| {
                (lane, at, name, thread, pc, is_foreign)
            })
        }

        /// The same, one granule after the other.
        fn access_by_granules(&mut self, span: &Span, warp: usize, pc: usize, kind: Kind) -> Option<Found> {
            let lanes = (0..LANES).filter(|lane| span.mask >> lane & 1 != 0);
            let granules = lanes.flat_map(|lane| (0..span.bytes / 4).map(move |k| (lane, k)));
            granules
                .map(|(lane, k)| Span::one(span.at[lane] + k * 4, 4, lane))
                .find_map(|one| self.access(&one, warp, pc, kind))
        }
    }

    /// Rows of all lanes or some, now and then a step apart; or one place for all.
    fn draw_span(random: &mut Random) -> Span {
        let bytes = 4 << random.below(3);
        let step = match random.below(8) {
            0 => 0,
            1 => bytes * 2,
            _ => bytes,
        };
        let places = (BYTES - step * (LANES - 1)) / bytes;
        let start = ORIGIN + random.below(places.min(4) as u32) as usize * bytes;
        let host = std::array::from_fn(|lane| (start + lane * step) as *mut u8);
        let mask = match random.below(4) {
            0 => random.draw() as u32 | 1,
            1 => 0xffff << random.below(16),
            _ => ALL,
        };
        Span::new(host, bytes as u64, mask)
    }

    #[test]
    fn a_row_is_what_its_granules_are() {
        let memory = Memory::new(1 << 16);
        let (mut found, mut fine) = (0, 0);
        for seed in 0..400 {
            let mut random = Random::new(seed);
            let mut sides = [(); 2].map(|()| Side::new(&memory, seed % 2 == 0));
            for step in 0..300 {
                let (warp, other) =
                    (random.below(WARPS as u32) as usize, random.below(WARPS as u32) as usize);
                match random.below(40) {
                    0 if seed % 3 == 0 => sides.iter_mut().for_each(|side| side.begin(step)),
                    1..3 => sides.iter_mut().for_each(|side| side.race.clocks.join_all()),
                    3..6 => sides.iter_mut().for_each(|Side { race: Race { clocks, .. }, .. }| {
                        let mask = if step % 2 == 0 { ALL } else { 0xff00 };
                        clocks.publish(7, warp * LANES, mask);
                        clocks.observe(7, other * LANES, ALL);
                    }),
                    _ => {}
                }
                let kind = match random.below(30) {
                    0 => Kind::Write,
                    1 => Kind::Atomic,
                    2 => Kind::StrongRead,
                    _ => Kind::Read,
                };
                let (span, pc) = (draw_span(&mut random), random.below(3) as usize);
                let [whole, parts] = &mut sides;
                let is = whole.access(&span, warp, pc, kind);
                assert_eq!(is, parts.access_by_granules(&span, warp, pc, kind), "seed {seed}, step {step}");
                *(if is.is_some() { &mut found } else { &mut fine }) += 1;
            }
        }
        assert!(found > 1000 && fine > 10_000, "{found} found, {fine} fine");
    }
}
