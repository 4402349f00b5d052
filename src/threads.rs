//! Work that several threads share.

use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// Calls `work` on this thread and on up to `threads - 1` others, as many as the host starts, and returns what each returned; this
/// thread's is the last. Work is shared by whatever `work` takes it from, so that it is done however many there are.
pub fn together<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    scope(|scope| {
        let started = (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, &work).ok());
        let started: Vec<_> = started.collect();
        let own = work();
        let others =
            started.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        others.chain([own]).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::together;

    #[test]
    fn all_work_is_done_by_any_number_of_threads() {
        for threads in [0, 1, 2, 7] {
            let next = AtomicUsize::new(0);
            let own = together(threads, || {
                (0..).map(|_| next.fetch_add(1, Relaxed)).take_while(|&i| i < 1000).sum::<usize>()
            });
            assert_eq!((own.len(), own.iter().sum::<usize>()), (threads.max(1), 999 * 500));
        }
    }
}
