//! What is to be done, and what of that comes before what: a stream's own work, events, the legacy stream and those
//! that wait for it, a graph's edges, what the host has waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event;
use super::work::Work;
use crate::api::error::Outcome;
use crate::api::objects::context::Context;
use crate::api::objects::stream::{Key, Place};
use crate::order::{Clock, Mark, When};

pub type Call = dyn FnOnce(&When) -> Outcome + Send;

/// What an item does.
pub enum Task {
    /// It only has a place in the order.
    Nothing,
    Work(Work),
    /// What writes to none of the host's memory.
    Call(Box<Call>),
    /// What touches no memory that others see; done after a fault, too.
    Tell(Box<dyn FnOnce() + Send>),
}

/// Something that is not done.
struct Item {
    /// `None` while it runs.
    task: Option<Task>,
    context: &'static Context,
    when: When,
    /// Items that it still waits for, and those that wait for it.
    missing: usize,
    next: Vec<u64>,
}

/// An item that is about to run.
pub struct Turn {
    pub item: u64,
    pub task: Task,
    pub context: &'static Context,
    pub when: When,
}

/// A stream.
struct Line {
    place: Place,
    name: Arc<str>,
    is_gone: bool,
    /// Of the stream itself, and of graphs' branches in it.
    lanes: Vec<u32>,
    tip: Option<Mark>,
}

/// What all streams have yet to do.
#[derive(Default)]
pub struct Plan {
    last_item: u64,
    /// What is not done, and what of that waits for nothing.
    items: BTreeMap<u64, Item>,
    ready: Vec<u64>,
    running: usize,
    lines: BTreeMap<Key, Line>,
    /// The last piece of each lane.
    ticks: Vec<u64>,
    /// Lanes that do more than wait and tell the time.
    busy: BTreeSet<u32>,
    /// What the host has waited for: all that it asks for later comes after that.
    host: Clock,
}

impl Plan {
    fn line(&mut self, place: &Place) -> &mut Line {
        let ticks = &mut self.ticks;
        self.lines.entry(place.key).or_insert_with(|| Line {
            place: place.clone(),
            name: place.name().into(),
            is_gone: false,
            lanes: vec![new_lane(ticks)],
            tip: None,
        })
    }

    /// What the next work of a stream comes after.
    pub fn before(&mut self, place: &Place) -> Vec<Mark> {
        let mut marks: Vec<Mark> = self.line(place).tip.iter().cloned().collect();
        if place.is_legacy() {
            let own = self.lines.range(Key::all_of(place.context));
            marks.extend(
                own.filter(|(_, line)| line.place.is_blocking).filter_map(|(_, line)| line.tip.clone()),
            );
        } else if place.is_blocking {
            let legacy = self.lines.get(&Key::legacy(place.context));
            marks.extend(legacy.and_then(|line| line.tip.clone()));
        }
        marks
    }

    /// What whoever waits for a stream waits for: for the legacy one also what blocking streams have been asked for.
    pub fn tips_of(&mut self, place: &Place) -> Vec<Mark> {
        match place.is_legacy() {
            true => self.before(place),
            false => self.line(place).tip.iter().cloned().collect(),
        }
    }

    /// The places that a context's streams have come to, or those of all contexts.
    pub fn tips(&self, context: Option<&Context>) -> Vec<Mark> {
        let is_its = |key: &Key| context.is_none_or(|context| Key::all_of(context).contains(key));
        let own = self.lines.iter().filter(|(key, _)| is_its(key));
        own.filter_map(|(_, line)| line.tip.clone()).collect()
    }

    fn add(&mut self, place: &Place, lane: u32, before: &[Mark], task: Task) -> Mark {
        self.last_item += 1;
        let item = self.last_item;
        let tick = &mut self.ticks[lane as usize];
        *tick += 1;
        let mut clock = self.host.clone();
        clock.reach(lane, *tick);
        before.iter().for_each(|mark| clock.join(&mark.clock));
        let clock = Arc::new(clock);
        let (stream, known) = (self.line(place).name.clone(), clock.clone());
        let when = When { lane, tick: self.ticks[lane as usize], known, stream, has_company: false };
        if !matches!(task, Task::Nothing | Task::Tell(_)) {
            self.busy.insert(lane);
        }
        let waits_for: BTreeSet<u64> = before.iter().map(|mark| mark.item).collect();
        let mut missing = 0;
        for before in waits_for {
            if let Some(before) = self.items.get_mut(&before) {
                before.next.push(item);
                missing += 1;
            }
        }
        if missing == 0 {
            self.ready.push(item);
        }
        let new = Item { task: Some(task), context: place.context, when, missing, next: Vec::new() };
        self.items.insert(item, new);
        Mark { item, lane, clock }
    }

    /// The next work of a stream.
    pub fn push(&mut self, place: &Place, task: Task, also_after: &[Mark]) -> Mark {
        let mut before = self.before(place);
        before.extend_from_slice(also_after);
        let lane = self.line(place).lanes[0];
        let mark = self.add(place, lane, &before, task);
        self.line(place).tip = Some(mark.clone());
        mark
    }

    /// A graph's work, as the next of a stream: steps, and those that each comes after.
    pub fn push_graph(&mut self, place: &Place, steps: Vec<(Work, Vec<usize>)>) {
        let entry = self.before(place);
        let leaves = self.push_steps(place, &entry, steps, &mut 0);
        self.push(place, Task::Nothing, &leaves);
    }

    /// Gives what nothing among the steps comes after. A step goes on with the lane of one that it comes after, unless
    /// another has done so.
    fn push_steps(
        &mut self,
        place: &Place,
        entry: &[Mark],
        steps: Vec<(Work, Vec<usize>)>,
        lanes: &mut usize,
    ) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::with_capacity(steps.len());
        let mut has_next = vec![false; steps.len()];
        for (work, after) in steps {
            let before: Vec<Mark> = match after.is_empty() {
                true => entry.to_vec(),
                false => after.iter().map(|&i| marks[i].clone()).collect(),
            };
            let lane = match after.iter().find(|&&i| !has_next[i]) {
                Some(&i) => marks[i].lane,
                None => self.branch(place, lanes),
            };
            after.iter().for_each(|&i| has_next[i] = true);
            let mark = match work {
                Work::Child(child) => {
                    let leaves = self.push_steps(place, &before, child.steps().unwrap_or_default(), lanes);
                    self.add(place, lane, &[leaves, before].concat(), Task::Nothing)
                }
                Work::Wait(event) => {
                    self.add(place, lane, &[before, event::marks_of(event)].concat(), Task::Nothing)
                }
                Work::Record(event) => {
                    event::record_as(event, |tell| self.add(place, lane, &before, Task::Tell(tell)))
                }
                work => self.add(place, lane, &before, Task::Work(work)),
            };
            marks.push(mark);
        }
        marks.into_iter().zip(has_next).filter(|(_, has_next)| !has_next).map(|(mark, _)| mark).collect()
    }

    /// The next lane for a graph's branch in a stream.
    fn branch(&mut self, place: &Place, lanes: &mut usize) -> u32 {
        *lanes += 1;
        if self.line(place).lanes.len() < *lanes {
            let new = new_lane(&mut self.ticks);
            self.line(place).lanes.push(new);
        }
        self.line(place).lanes[*lanes - 1]
    }

    /// All that a context's streams are asked for later comes after these.
    pub fn hold(&mut self, context: &Context, marks: &[Mark]) {
        let own = self.lines.range(Key::all_of(context));
        let places: Vec<Place> = own.map(|(_, line)| line.place.clone()).collect();
        for place in places {
            self.push(&place, Task::Nothing, marks);
        }
    }

    /// What is not done.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// What of that waits for nothing.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub fn is_running(&self) -> bool {
        self.running > 0
    }

    /// One of those that wait for nothing is to run now; `is_early`, if nobody has waited for it: it may have company
    /// yet.
    pub fn start(&mut self, nth_ready: usize, is_early: bool) -> Option<Turn> {
        let id = self.ready.swap_remove(nth_ready);
        let has_company = self.busy.len() > 1 || is_early;
        let item = self.items.get_mut(&id)?;
        let (task, when) = (item.task.take()?, When { has_company, ..item.when.clone() });
        self.running += 1;
        Some(Turn { item: id, task, context: item.context, when })
    }

    pub fn is_done(&self, mark: &Mark) -> bool {
        !self.items.contains_key(&mark.item)
    }

    /// What was running has come to its end.
    pub fn complete(&mut self, item: u64) {
        self.running -= 1;
        let next = self.items.remove(&item).map(|item| item.next);
        for item in next.unwrap_or_default() {
            let Some(waiting) = self.items.get_mut(&item) else { continue };
            waiting.missing -= 1;
            if waiting.missing == 0 {
                self.ready.push(item);
            }
        }
    }

    /// The host has waited for this. Whether that is all: then nothing need be remembered.
    pub fn observe(&mut self, mark: &Mark) -> bool {
        self.host.join(&mark.clock);
        let has_seen = |(lane, &tick): (usize, &u64)| tick == 0 || self.host.covers(lane as u32, tick);
        let is_all = self.items.is_empty() && self.ticks.iter().enumerate().all(has_seen);
        if is_all {
            self.lines.retain(|_, line| !line.is_gone);
            self.lines.values_mut().for_each(|line| line.tip = None);
        }
        is_all
    }

    /// A stream is destroyed; what it was asked for is done some time.
    pub fn leave(&mut self, place: &Place) {
        if let Some(line) = self.lines.get_mut(&place.key) {
            line.is_gone = true;
        }
    }

    /// A context ends, and its streams with it.
    pub fn forget(&mut self, context: &Context) {
        self.lines.retain(|key, _| !Key::all_of(context).contains(key));
    }

    /// Whether anything may write to the host's memory there.
    pub fn may_write(&self, start: u64, bytes: usize) -> bool {
        self.items.values().any(|item| match &item.task {
            Some(Task::Work(work)) => work.may_write(start, bytes),
            Some(Task::Nothing | Task::Call(_) | Task::Tell(_)) => false,
            None => true,
        })
    }
}

fn new_lane(ticks: &mut Vec<u64>) -> u32 {
    ticks.push(0);
    ticks.len() as u32 - 1
}
