//! Batches of pictures, one after another, and how long each takes.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::pictures::Pictures;
use crate::engine::{Item, Memo, Queued, Views};
use crate::gpu::Stream;

/// Takes picture after picture, in turn.
pub struct Batches<'a> {
    pub memo: &'a mut Memo,
    pictures: &'a Pictures,
    /// The next picture.
    turn: usize,
    /// On a GPU one batch is queued while the one before is computed; the virtual one computes on the cores that queue.
    overlaps: bool,
}

/// A batch that is queued, and since when.
type UnderWay<'a> = (Queued, Vec<Item<'a>>, Instant);

impl<'a> Batches<'a> {
    pub fn new(stream: &Stream, memo: &'a mut Memo, pictures: &'a Pictures) -> Batches<'a> {
        Batches { memo, pictures, turn: 0, overlaps: !stream.gpu().driver().is_virtual() }
    }

    /// Goes through what only the first batches do: kernels are loaded with the first, and a graph is recorded with the second,
    /// which takes a part of a batch's time that counts on a GPU alone.
    ///
    /// # Errors
    /// Those of the work.
    pub fn warm_up(&mut self) -> Result<()> {
        let batches = if self.overlaps { 2 } else { 1 };
        self.run(|done| done >= batches).map(|_| ())
    }

    fn queue(&mut self) -> Result<UnderWay<'a>> {
        let (now, turns) = (Instant::now(), self.turn..self.turn + self.memo.batch());
        self.turn = turns.end;
        let items: Vec<Item> = turns.map(|i| Item { image: self.pictures.get(i), index: i as u64 }).collect();
        Ok((self.memo.queue(&items, &Views::Drawn)?, items, now))
    }

    /// Seconds from when it was queued.
    fn finish(&mut self, (queued, items, since): UnderWay) -> Result<f64> {
        for outcome in self.memo.finish(queued, &items, &Views::Drawn)? {
            let outcome = outcome?;
            ensure!(outcome.entropy.iter().all(|h| h.is_finite()), "timing: the entropy is not finite");
            let failed =
                outcome.memo.iter().chain(&outcome.memo_confident).find_map(|after| after.as_ref().err());
            ensure!(failed.is_none(), "timing: {}", failed.map_or("", String::as_str));
        }
        Ok(since.elapsed().as_secs_f64())
    }

    /// Runs batches until there are enough: of each the seconds since the one before was done, and those from when it was
    /// queued to its results.
    ///
    /// # Errors
    /// Those of the work; a batch that there is no memory for any more.
    pub fn run(&mut self, is_enough: impl Fn(usize) -> bool) -> Result<(Vec<f64>, Vec<f64>)> {
        let batch = self.memo.batch();
        let (mut seconds, mut latency) = (Vec::new(), Vec::new());
        let mut under_way = if self.overlaps { Some(self.queue()?) } else { None };
        let mut done = Instant::now();
        while !is_enough(seconds.len()) {
            let is_last = is_enough(seconds.len() + 1);
            let first = match under_way.take() {
                Some(first) => first,
                None => self.queue()?,
            };
            if self.overlaps && !is_last {
                under_way = Some(self.queue()?);
            }
            latency.push(self.finish(first)?);
            let now = self.memo.batch();
            ensure!(now == batch, "timing: device memory ran out midway; try --batch {now}");
            seconds.push(done.elapsed().as_secs_f64());
            done = Instant::now();
        }
        if let Some(more) = under_way {
            self.finish(more)?;
        }
        Ok((seconds, latency))
    }
}
