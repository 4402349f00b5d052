//! The host threads that run CTAs: started once, woken for a launch.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

type Work = dyn Fn() + Sync;

#[derive(Default)]
struct State {
    /// The work under way, and how many more helpers may join it.
    work: Option<(&'static Work, usize)>,
    running: usize,
    helpers: usize,
    panic: Option<Box<dyn Any + Send>>,
}

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    /// Held by the launch that has the helpers; another one runs on its own thread meanwhile.
    busy: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `work` on this thread and on up to `threads - 1` others, and returns when all have returned.
pub fn run(threads: usize, work: &(dyn Fn() + Sync + '_)) {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = POOL.get_or_init(Pool::default);
    let helpers = threads.saturating_sub(1);
    let busy = if helpers > 0 { pool.busy.try_lock().ok() } else { None };
    if busy.is_none() {
        return work();
    }
    // SAFETY: the helpers are waited for below, also when `work` panics, before the borrow ends.
    let lent: &'static Work = unsafe { std::mem::transmute::<&(dyn Fn() + Sync + '_), &'static Work>(work) };
    {
        let mut state = lock(&pool.state);
        // Where the host starts no more threads, those that there are do the work.
        while state.helpers < helpers && std::thread::Builder::new().spawn(move || help(pool)).is_ok() {
            state.helpers += 1;
        }
        state.work = Some((lent, helpers));
        pool.wake.notify_all();
    }
    let own = catch_unwind(AssertUnwindSafe(work));
    let mut state = lock(&pool.state);
    state.work = None; // nobody may join any more
    while state.running > 0 {
        state = pool.done.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let panic = state.panic.take().or(own.err());
    drop(state);
    drop(busy);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

fn help(pool: &'static Pool) {
    let mut state = lock(&pool.state);
    loop {
        match &mut state.work {
            Some((work, places)) if *places > 0 => {
                *places -= 1;
                let work = *work;
                state.running += 1;
                drop(state);
                let result = catch_unwind(AssertUnwindSafe(work));
                state = lock(&pool.state);
                state.running -= 1;
                if let Err(panic) = result {
                    state.panic = Some(panic);
                }
                if state.running == 0 {
                    pool.done.notify_all();
                }
            }
            _ => state = pool.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}
