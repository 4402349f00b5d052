//! Where a batch's time goes: a pair of events around each stage, read once the batch is done, so that nothing waits.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;

use crate::gpu::{Event, Stream};

/// Stages, in the order in which they were first come to.
#[derive(Default)]
pub struct Stages {
    under_way: RefCell<Vec<Stage>>,
    totals: RefCell<Vec<(&'static str, Duration)>>,
}

struct Stage {
    /// The batch that it is part of.
    batch: usize,
    name: &'static str,
    start: Event,
    end: Event,
}

impl Stages {
    /// Queues a stage of a batch between two events.
    ///
    /// # Errors
    /// Those of `queue`; the driver's.
    pub fn time<T>(
        &self,
        stream: &Stream,
        batch: usize,
        name: &'static str,
        queue: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let [start, end] = [Event::new(stream.gpu())?, Event::new(stream.gpu())?];
        start.record(stream)?;
        let queued = queue()?;
        end.record(stream)?;
        self.under_way.borrow_mut().push(Stage { batch, name, start, end });
        Ok(queued)
    }

    /// Adds up the stages of a batch that is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn settle(&self, batch: usize) -> Result<()> {
        let mut totals = self.totals.borrow_mut();
        let mut under_way = self.under_way.borrow_mut();
        for Stage { name, start, end, .. } in under_way.extract_if(.., |stage| stage.batch == batch) {
            let time = Duration::from_secs_f64(end.elapsed_us(&start)? * 1e-6);
            match totals.iter_mut().find(|(known, _)| *known == name) {
                Some((_, total)) => *total += time,
                None => totals.push((name, time)),
            }
        }
        Ok(())
    }

    /// Total time of each stage.
    pub fn totals(&self) -> Vec<(&'static str, Duration)> {
        self.totals.borrow().clone()
    }
}
