//! Streams' work that waits for somebody to need it, where a check or a seed is asked for. What the API orders runs in
//! that order: a stream's own work, events, the legacy stream and those that wait for it, a graph's edges, what the host
//! has waited for. Among the rest the seed draws. A fault is the context's then, and of the next call that asks.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::context::Context;
use super::device::devices;
use super::stream::{Key, Place};
use super::work::Work;
use super::{Outcome, Status, event, lock, settings};
use crate::exec::check::Random;
use crate::order::{Clock, When};

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

/// A place in the order: an item, and all that comes before it.
#[derive(Clone)]
pub struct Mark {
    item: u64,
    lane: u32,
    clock: Arc<Clock>,
}

struct Item {
    /// `None` while it runs.
    task: Option<Task>,
    context: &'static Context,
    when: When,
    /// Items that it still waits for, and those that wait for it.
    missing: usize,
    next: Vec<u64>,
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

#[derive(Default)]
struct State {
    last_item: u64,
    /// What is not done, and what of that waits for nothing.
    items: BTreeMap<u64, Item>,
    ready: Vec<u64>,
    running: usize,
    /// Whether what runs now runs though nobody has waited for it.
    is_early: bool,
    lines: BTreeMap<Key, Line>,
    /// The last piece of each lane.
    ticks: Vec<u64>,
    /// Lanes that do more than wait and tell the time.
    busy: BTreeSet<u32>,
    /// What the host has waited for: all that it asks for later comes after that.
    host: Clock,
    random: Random,
    /// When the client last asked for anything.
    asked: Option<Instant>,
}

/// Work that is queued at most, as on hardware: then some of it is done.
const MOST_ITEMS: usize = 1024;
/// If the client asks for nothing for so long, it may be waiting for memory to change.
const PATIENCE: Duration = Duration::from_secs(1);

static DONE: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    let mutex = STATE.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(PATIENCE / 10);
                go_on(state());
            }
        });
        Mutex::new(State { random: Random::new(settings().options.seed), ..State::default() })
    });
    lock(mutex)
}

/// Does what is queued while the client asks for nothing.
fn go_on(mut state: MutexGuard<'static, State>) {
    let is_idle = |state: &State| state.asked.is_none_or(|asked| asked.elapsed() > PATIENCE);
    while state.running == 0 && !state.ready.is_empty() && is_idle(&state) {
        state.is_early = true;
        state = run_one(state);
        state.is_early = false;
    }
}

impl State {
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
    fn before(&mut self, place: &Place) -> Vec<Mark> {
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

    fn add(&mut self, place: &Place, lane: u32, before: &[Mark], task: Task) -> Mark {
        self.asked = Some(Instant::now());
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
    fn push(&mut self, place: &Place, task: Task, also_after: &[Mark]) -> Mark {
        let mut before = self.before(place);
        before.extend_from_slice(also_after);
        let lane = self.line(place).lanes[0];
        let mark = self.add(place, lane, &before, task);
        self.line(place).tip = Some(mark.clone());
        mark
    }

    /// A graph's work: each step after others. Gives what nothing in it comes after. A step goes on with the lane of one
    /// that it comes after, unless another has done so.
    fn push_graph(
        &mut self,
        place: &Place,
        entry: &[Mark],
        steps: Vec<(Task, Vec<usize>)>,
        lanes: &mut usize,
    ) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::with_capacity(steps.len());
        let mut has_next = vec![false; steps.len()];
        for (task, after) in steps {
            let before: Vec<Mark> = match after.is_empty() {
                true => entry.to_vec(),
                false => after.iter().map(|&i| marks[i].clone()).collect(),
            };
            let lane = match after.iter().find(|&&i| !has_next[i]) {
                Some(&i) => marks[i].lane,
                None => self.branch(place, lanes),
            };
            after.iter().for_each(|&i| has_next[i] = true);
            let mark = match task {
                Task::Work(Work::Child(child)) => {
                    let steps = tasks(child.steps().unwrap_or_default());
                    let leaves = self.push_graph(place, &before, steps, lanes);
                    self.add(place, lane, &[leaves, before].concat(), Task::Nothing)
                }
                Task::Work(Work::Wait(event)) => {
                    self.add(place, lane, &[before, event::marks_of(event)].concat(), Task::Nothing)
                }
                Task::Work(Work::Record(event)) => {
                    event::record_as(event, |tell| self.add(place, lane, &before, Task::Tell(tell)))
                }
                task => self.add(place, lane, &before, task),
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

    fn is_done(&self, mark: &Mark) -> bool {
        !self.items.contains_key(&mark.item)
    }

    fn complete(&mut self, item: u64) {
        self.running -= 1;
        let next = self.items.remove(&item).map(|item| item.next);
        for item in next.unwrap_or_default() {
            let Some(waiting) = self.items.get_mut(&item) else { continue };
            waiting.missing -= 1;
            if waiting.missing == 0 {
                self.ready.push(item);
            }
        }
        DONE.notify_all();
    }

    /// The host has waited for this: if that is all, nothing need be remembered.
    fn observe(&mut self, mark: &Mark) {
        self.host.join(&mark.clock);
        let has_seen = |(lane, &tick): (usize, &u64)| tick == 0 || self.host.covers(lane as u32, tick);
        if self.items.is_empty() && self.ticks.iter().enumerate().all(has_seen) {
            self.lines.retain(|_, line| !line.is_gone);
            self.lines.values_mut().for_each(|line| line.tip = None);
            devices()[0].memory.shadow.pieces.settle();
        }
    }
}

fn tasks(steps: Vec<(Work, Vec<usize>)>) -> Vec<(Task, Vec<usize>)> {
    steps.into_iter().map(|(work, after)| (Task::Work(work), after)).collect()
}

fn new_lane(ticks: &mut Vec<u64>) -> u32 {
    ticks.push(0);
    ticks.len() as u32 - 1
}

/// Does one item of those that wait for nothing.
fn run_one(mut state: MutexGuard<'static, State>) -> MutexGuard<'static, State> {
    let count = state.ready.len() as u32;
    let drawn = state.random.below(count) as usize;
    let id = state.ready.swap_remove(drawn);
    state.running += 1;
    // What is early may have company yet.
    let has_company = state.busy.len() > 1 || state.is_early;
    let found = state
        .items
        .get_mut(&id)
        .map(|item| (item.task.take(), item.context, When { has_company, ..item.when.clone() }));
    drop(state);
    // After a fault nothing is done but to keep the books.
    if let Some((Some(task), context, when)) = found
        && (context.fault() == 0 || matches!(task, Task::Tell(_)))
    {
        let run = || match task {
            Task::Nothing => Ok(()),
            Task::Work(work) => work.run(Some(&when)),
            Task::Call(call) => call(&when),
            Task::Tell(tell) => {
                tell();
                Ok(())
            }
        };
        let outcome = context.within(|| catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Status::Unknown)));
        if let Err(status) = outcome {
            context.fail(status);
        }
    }
    let mut state = self::state();
    state.complete(id);
    state
}

/// # Errors
/// The context has failed.
pub fn outcome_of(context: &Context) -> Outcome {
    match context.fault() {
        0 => Ok(()),
        fault => Err(Status::of(fault)),
    }
}

/// Waits for places in the order.
fn wait_for(mut state: MutexGuard<'static, State>, marks: &[Mark]) {
    for mark in marks {
        while !state.is_done(mark) {
            state = match state.ready.is_empty() {
                true => DONE.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
                false => run_one(state),
            };
            state.asked = Some(Instant::now());
        }
        state.observe(mark);
    }
}

/// Queues work, after others besides the stream's own.
pub fn push(place: &Place, task: Task, also_after: &[Mark]) -> Mark {
    let mut state = state();
    while state.items.len() >= MOST_ITEMS && !state.ready.is_empty() {
        state = run_one(state);
    }
    state.push(place, task, also_after)
}

/// Queues a graph's work: steps, and those that each comes after.
pub fn push_graph(place: &Place, steps: Vec<(Work, Vec<usize>)>) {
    let mut state = state();
    let entry = state.before(place);
    let leaves = state.push_graph(place, &entry, tasks(steps), &mut 0);
    state.push(place, Task::Nothing, &leaves);
}

/// Waits for places in the order.
///
/// # Errors
/// The context has failed.
pub fn wait(context: &Context, marks: &[Mark]) -> Outcome {
    wait_for(state(), marks);
    outcome_of(context)
}

/// Whether a place in the order has been reached; if not, something is done on the way there.
pub fn has_come(mark: &Mark) -> bool {
    let mut state = state();
    state.asked = Some(Instant::now());
    if !state.is_done(mark) && !state.ready.is_empty() {
        state = run_one(state);
    }
    let is_done = state.is_done(mark);
    if is_done {
        state.observe(mark);
    }
    is_done
}

/// What whoever waits for a stream waits for: for the legacy one also what blocking streams have been asked for.
pub fn tips_of(place: &Place) -> Vec<Mark> {
    if !settings().defers {
        return Vec::new();
    }
    let mut state = state();
    match place.is_legacy() {
        true => state.before(place),
        false => state.line(place).tip.iter().cloned().collect(),
    }
}

/// Waits for all that a stream has been asked for.
///
/// # Errors
/// Its context has failed.
pub fn wait_for_stream(place: &Place) -> Outcome {
    let tips = tips_of(place);
    if tips.is_empty() { Ok(()) } else { wait(place.context, &tips) }
}

/// The places that a context's streams have come to.
pub fn tips(context: &Context) -> Vec<Mark> {
    if !settings().defers {
        return Vec::new();
    }
    state().lines.range(Key::all_of(context)).filter_map(|(_, line)| line.tip.clone()).collect()
}

/// Waits for all that a context's streams have been asked for.
///
/// # Errors
/// It has failed.
pub fn wait_for_context(context: &Context) -> Outcome {
    let tips = tips(context);
    if !tips.is_empty() {
        wait_for(state(), &tips);
    }
    outcome_of(context)
}

/// The same of all contexts: what is queued may use anything.
pub fn wait_for_all() {
    if settings().defers {
        let state = state();
        let tips: Vec<Mark> = state.lines.values().filter_map(|line| line.tip.clone()).collect();
        wait_for(state, &tips);
    }
}

/// All that a context's streams are asked for later comes after these.
pub fn hold(context: &Context, marks: &[Mark]) {
    if marks.is_empty() {
        return;
    }
    let mut state = state();
    let places: Vec<Place> =
        state.lines.range(Key::all_of(context)).map(|(_, line)| line.place.clone()).collect();
    for place in places {
        state.push(&place, Task::Nothing, marks);
    }
}

/// Does all that is queued, though the host waits for none of it.
pub fn drain() {
    let mut state = state();
    while !state.items.is_empty() {
        state = match state.ready.is_empty() {
            true => DONE.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            false => run_one(state),
        };
    }
}

/// A context ends: its work is over, done or dropped.
pub fn finish(context: &Context) {
    let _ = wait_for_context(context);
    if settings().defers {
        state().lines.retain(|key, _| !Key::all_of(context).contains(key));
    }
}

/// A stream is destroyed; what it was asked for is done some time.
pub fn leave(place: &Place) {
    if settings().defers
        && let Some(line) = state().lines.get_mut(&place.key)
    {
        line.is_gone = true;
    }
}

/// Whether anything that is queued may write to the host's memory there.
pub fn may_write(start: u64, bytes: usize) -> bool {
    state().items.values().any(|item| match &item.task {
        Some(Task::Work(work)) => work.may_write(start, bytes),
        Some(Task::Nothing | Task::Call(_) | Task::Tell(_)) => false,
        None => true,
    })
}
