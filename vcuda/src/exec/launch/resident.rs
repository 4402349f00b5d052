//! The groups of CTAs that a host thread has under way: one, and more of them once it waits for others of its grid, as
//! many as the device has room for. If nobody gets on any more, that is a deadlock.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::common::Common;
use super::room::{Room, Site};
use crate::exec::check::MOST_THREADS;
use crate::exec::fault::{Fault, FaultKind};
use crate::exec::profile::Counters;
use crate::exec::random::Random;

/// A host thread's work on a launch: takes groups and runs them until there are none.
///
/// # Errors
/// The first fault, and the group that has it.
pub fn run(common: &Common, counters: &RefCell<Counters>) -> Result<(), (usize, Fault)> {
    let site = Site::new(common);
    let order = common.options.is_unkind().then(|| Random::new(common.options.seed));
    let mut residents = Residents {
        common,
        counters,
        site: &site,
        rooms: Vec::new(),
        free: Vec::new(),
        busy: Vec::new(),
        last: 0,
        order,
        standstill: None,
    };
    common.at_work.fetch_add(1, Relaxed);
    let result = residents.run();
    if result.is_err() {
        common.failed.store(true, Relaxed);
    }
    residents.watch_laps(false);
    common.at_work.fetch_sub(1, Relaxed);
    common.groups.fetch_sub(residents.busy.len(), Relaxed);
    if let Some(room) = residents.rooms.get(residents.last) {
        room.watch.borrow_mut().end(common.memory);
    }
    result
}

struct Residents<'a> {
    common: &'a Common<'a>,
    counters: &'a RefCell<Counters>,
    site: &'a Site<'a>,
    rooms: Vec<Room<'a>>,
    /// Rooms by their place: without a group, with one, and the one that had the last turn.
    free: Vec<usize>,
    busy: Vec<usize>,
    last: usize,
    order: Option<Random>,
    standstill: Option<Standstill>,
}

/// All groups linger, and no other can come. Since when no memory has changed, and since when nobody gets on.
struct Standstill {
    changes: u64,
    stuck: Option<Instant>,
}

/// For so long nobody gets on before it is a deadlock: the host may change memory too.
const PATIENCE: Duration = Duration::from_millis(250);

/// Warps that a deadlock names at most.
const MOST_NAMED: usize = 64;

impl Residents<'_> {
    fn run(&mut self) -> Result<(), (usize, Fault)> {
        while !self.common.failed.load(Relaxed) {
            let waits = self.busy.iter().all(|&room| self.rooms[room].lingers());
            let has_come = waits && self.admit();
            if self.busy.is_empty() {
                break;
            }
            if let Some(random) = &mut self.order {
                random.shuffle(&mut self.busy);
            }
            for i in (0..self.busy.len()).rev() {
                let room = self.busy[i];
                self.turn_to(room);
                let room = &mut self.rooms[room];
                if room.round().map_err(|fault| (room.number, fault))? {
                    self.free.push(self.busy.swap_remove(i));
                    self.common.groups.fetch_sub(1, Relaxed);
                }
            }
            if waits || self.standstill.is_some() {
                self.look(waits && !has_come)?;
            }
        }
        Ok(())
    }

    /// Lets another group come in, if there is one and the device has room for it.
    fn admit(&mut self) -> bool {
        let common = self.common;
        let is_first = self.busy.is_empty();
        let there = common.groups.fetch_add(1, Relaxed);
        if !is_first && there >= common.most_groups() {
            common.groups.fetch_sub(1, Relaxed);
            return false;
        }
        let Some(number) = common.queue.take(!is_first) else {
            common.groups.fetch_sub(1, Relaxed);
            return false;
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(Room::new(common, self.counters, self.site, self.rooms.len()));
            self.rooms.len() - 1
        });
        self.turn_to(place);
        if common.checks.race && (place + 1) * common.threads_in_turn() > MOST_THREADS {
            self.ignore_races();
        }
        self.rooms[place].begin(number, !is_first);
        self.busy.push(place);
        true
    }

    /// The next turn is this room's.
    fn turn_to(&mut self, room: usize) {
        if room != self.last {
            let last = &mut *self.rooms[self.last].watch.borrow_mut();
            self.rooms[room].watch.borrow_mut().follow(last);
            self.last = room;
        }
    }

    #[cold]
    fn ignore_races(&mut self) {
        let races = self.rooms.iter().filter(|room| room.watch.borrow_mut().ignore_races(self.common.memory));
        if races.count() > 1 {
            say!(
                "{}: more than {MOST_THREADS} threads wait for each other: no races are looked for any more",
                self.common.kernel.name
            );
        }
    }

    /// Whether anybody still gets on.
    #[cold]
    fn look(&mut self, is_still: bool) -> Result<(), (usize, Fault)> {
        if !is_still || !self.common.memory.is_watched() {
            if self.standstill.is_some() {
                self.watch_laps(false);
            }
            return Ok(());
        }
        let changes = self.busy.iter().map(|&room| self.rooms[room].changes()).sum();
        let standstill = match &mut self.standstill {
            Some(standstill) if standstill.changes == changes => standstill,
            _ => {
                self.watch_laps(true);
                let changes = self.busy.iter().map(|&room| self.rooms[room].changes()).sum();
                self.standstill = Some(Standstill { changes, stuck: None });
                return Ok(());
            }
        };
        if !self.busy.iter().all(|&room| self.rooms[room].is_stuck()) {
            return Ok(());
        }
        let since = *standstill.stuck.get_or_insert_with(|| {
            self.common.at_work.fetch_sub(1, Relaxed);
            Instant::now()
        });
        if self.common.at_work.load(Relaxed) > 0 {
            standstill.stuck = Some(Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(self.deadlock());
        }
        Ok(())
    }

    /// Begins to ask anew whether anybody gets on, or asks no more.
    fn watch_laps(&mut self, wanted: bool) {
        if self.standstill.take().is_some_and(|standstill| standstill.stuck.is_some()) {
            self.common.at_work.fetch_add(1, Relaxed);
        }
        for &room in &self.busy {
            self.rooms[room].watch_laps(wanted);
        }
    }

    fn deadlock(&mut self) -> (usize, Fault) {
        let common = self.common;
        self.busy.sort_by_key(|&room| self.rooms[room].number);
        let mut message =
            format!("{}: deadlock: every warp waits for what nobody can do any more:", common.kernel.name);
        let lines: Vec<String> = self.busy.iter().flat_map(|&room| self.rooms[room].describe()).collect();
        for line in &lines[..lines.len().min(MOST_NAMED)] {
            message += &format!("\n  {line}");
        }
        if lines.len() > MOST_NAMED {
            message += &format!("\n  and {} more", lines.len() - MOST_NAMED);
        }
        let left = common.queue.left() * common.ctas_in_turn();
        if left > 0 {
            let most = common.most_groups() * common.ctas_in_turn();
            message += &format!("\n  {left} CTAs have not begun: there is room for {most} at once");
        }
        (self.rooms[self.busy[0]].number, Fault { kind: FaultKind::Deadlock, message })
    }
}
