//! Streams' work that waits for somebody to need it, where a check or a seed is asked for. What the API orders runs in
//! that order ([`plan`](super::plan)), among the rest the seed draws. A fault is the context's then, and of the next call
//! that asks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::plan::{Plan, Task, Turn};
use super::work::Work;
use crate::api::error::{Outcome, Status};
use crate::api::lock;
use crate::api::objects::context::Context;
use crate::api::objects::device::devices;
use crate::api::objects::stream::Place;
use crate::api::settings::settings;
use crate::exec::random::Random;
use crate::order::Mark;

struct Queue {
    plan: Plan,
    random: Random,
    /// Whether what runs now runs though nobody has waited for it.
    is_early: bool,
    /// When the client last asked for anything.
    asked: Option<Instant>,
}

type Held = MutexGuard<'static, Queue>;

/// Work that is queued at most, as on hardware: then some of it is done.
const MOST_ITEMS: usize = 1024;
/// If the client asks for nothing for so long, it may be waiting for memory to change.
const PATIENCE: Duration = Duration::from_secs(1);

static DONE: Condvar = Condvar::new();

/// Starts the thread that does what is queued while the client asks for nothing, once, where work is queued at all.
///
/// # Errors
/// The host starts no thread.
pub fn start() -> Outcome {
    static STARTED: OnceLock<bool> = OnceLock::new();
    let wait = || {
        loop {
            std::thread::sleep(PATIENCE / 10);
            go_on(queue());
        }
    };
    let started = || !settings().defers || std::thread::Builder::new().spawn(wait).is_ok();
    if *STARTED.get_or_init(started) { Ok(()) } else { Err(Status::OutOfMemory) }
}

fn queue() -> Held {
    static QUEUE: OnceLock<Mutex<Queue>> = OnceLock::new();
    lock(QUEUE.get_or_init(|| {
        let random = Random::new(settings().options.seed);
        Mutex::new(Queue { plan: Plan::default(), random, is_early: false, asked: None })
    }))
}

/// The same, for a client that asks for something.
fn asked() -> Held {
    let mut queue = queue();
    queue.asked = Some(Instant::now());
    queue
}

/// Does what is queued while the client asks for nothing.
fn go_on(mut queue: Held) {
    let is_idle = |queue: &Queue| queue.asked.is_none_or(|asked| asked.elapsed() > PATIENCE);
    while !queue.plan.is_running() && queue.plan.ready_count() > 0 && is_idle(&queue) {
        queue.is_early = true;
        queue = run_one(queue);
        queue.is_early = false;
    }
}

/// Does one item of those that wait for nothing.
fn run_one(mut queue: Held) -> Held {
    let count = queue.plan.ready_count() as u32;
    let (drawn, is_early) = (queue.random.below(count) as usize, queue.is_early);
    let Some(Turn { item, task, context, when }) = queue.plan.start(drawn, is_early) else { return queue };
    drop(queue);
    // After a fault nothing is done but to keep the books.
    if context.fault() == 0 || matches!(task, Task::Tell(_)) {
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
    let mut queue = self::queue();
    queue.plan.complete(item);
    DONE.notify_all();
    queue
}

/// Does one item, or waits for one that another thread does.
fn get_on(queue: Held) -> Held {
    match queue.plan.ready_count() {
        0 => DONE.wait(queue).unwrap_or_else(PoisonError::into_inner),
        _ => run_one(queue),
    }
}

fn observe(queue: &mut Held, mark: &Mark) {
    if queue.plan.observe(mark) {
        devices()[0].memory.shadow.pieces.settle();
    }
}

/// Waits for places in the order.
fn wait_for(mut queue: Held, marks: &[Mark]) {
    for mark in marks {
        while !queue.plan.is_done(mark) {
            queue = get_on(queue);
            queue.asked = Some(Instant::now());
        }
        observe(&mut queue, mark);
    }
}

/// # Errors
/// The context has failed.
pub fn outcome_of(context: &Context) -> Outcome {
    match context.fault() {
        0 => Ok(()),
        fault => Err(Status::of(fault)),
    }
}

/// Queues work, after others besides the stream's own.
pub fn push(place: &Place, task: Task, also_after: &[Mark]) -> Mark {
    let mut queue = asked();
    while queue.plan.count() >= MOST_ITEMS && queue.plan.ready_count() > 0 {
        queue = run_one(queue);
    }
    queue.plan.push(place, task, also_after)
}

/// Queues a graph's work: steps, and those that each comes after.
pub fn push_graph(place: &Place, steps: Vec<(Work, Vec<usize>)>) {
    asked().plan.push_graph(place, steps);
}

/// Waits for places in the order.
///
/// # Errors
/// The context has failed.
pub fn wait(context: &Context, marks: &[Mark]) -> Outcome {
    wait_for(queue(), marks);
    outcome_of(context)
}

/// Whether a place in the order has been reached; if not, something is done on the way there.
pub fn has_come(mark: &Mark) -> bool {
    let mut queue = asked();
    if !queue.plan.is_done(mark) && queue.plan.ready_count() > 0 {
        queue = run_one(queue);
    }
    let is_done = queue.plan.is_done(mark);
    if is_done {
        observe(&mut queue, mark);
    }
    is_done
}

/// What whoever waits for a stream waits for.
pub fn tips_of(place: &Place) -> Vec<Mark> {
    if settings().defers { queue().plan.tips_of(place) } else { Vec::new() }
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
    if settings().defers { queue().plan.tips(Some(context)) } else { Vec::new() }
}

/// Waits for all that a context's streams have been asked for.
///
/// # Errors
/// It has failed.
pub fn wait_for_context(context: &Context) -> Outcome {
    let tips = tips(context);
    if !tips.is_empty() {
        wait_for(queue(), &tips);
    }
    outcome_of(context)
}

/// The same of all contexts: what is queued may use anything.
pub fn wait_for_all() {
    if settings().defers {
        let queue = queue();
        let tips = queue.plan.tips(None);
        wait_for(queue, &tips);
    }
}

/// All that a context's streams are asked for later comes after these.
pub fn hold(context: &Context, marks: &[Mark]) {
    if !marks.is_empty() {
        asked().plan.hold(context, marks);
    }
}

/// Does all that is queued, though the host waits for none of it.
pub fn drain() {
    let mut queue = queue();
    while queue.plan.count() > 0 {
        queue = get_on(queue);
    }
}

/// A context ends: its work is over, done or dropped.
pub fn finish(context: &Context) {
    let _ = wait_for_context(context);
    if settings().defers {
        queue().plan.forget(context);
    }
}

/// A stream is destroyed; what it was asked for is done some time.
pub fn leave(place: &Place) {
    if settings().defers {
        queue().plan.leave(place);
    }
}

/// Whether anything that is queued may write to the host's memory there.
pub fn may_write(start: u64, bytes: usize) -> bool {
    queue().plan.may_write(start, bytes)
}
