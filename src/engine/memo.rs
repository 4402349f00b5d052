//! A CLIP classifier that adapts to each image, in the precision that it is asked for.

use std::cell::OnceCell;
use std::time::Duration;

use anyhow::Result;
use half::f16;

use super::batch::{Batch, Item, Queued, Raw, Views};
use super::outcome::{Outcome, Precision, Prediction, Settings};
use super::vision::Vision;
use crate::gpu::{Entry, Stream};

/// A classifier.
pub struct Memo(Kind);

enum Kind {
    Fp32(Box<Batch<f32>>),
    /// With float32 for images whose gradients overflow, once there is one.
    Fp16(Box<Batch<f16>>, OnceCell<Box<Batch<f32>>>),
}

impl Memo {
    /// See [`Batch::new`].
    ///
    /// # Errors
    /// Its own.
    pub fn new(
        stream: &Stream,
        vision: Vision,
        weights: &[f32],
        text_features: &[f32],
        batch: usize,
        settings: Settings,
    ) -> Result<Memo> {
        Ok(Memo(match settings.precision {
            Precision::Fp32 => {
                Kind::Fp32(Box::new(Batch::new(stream, vision, weights, text_features, batch, settings)?))
            }
            Precision::Fp16 => Kind::Fp16(
                Box::new(Batch::new(stream, vision, weights, text_features, batch, settings)?),
                OnceCell::new(),
            ),
        }))
    }

    /// See [`Batch::plan`].
    ///
    /// # Errors
    /// Its own.
    pub fn plan(
        vision: &Vision,
        s: usize,
        classes: usize,
        settings: &Settings,
    ) -> Result<(usize, Vec<Entry>)> {
        match settings.precision {
            Precision::Fp32 => Batch::<f32>::plan(vision, s, classes, settings),
            Precision::Fp16 => Batch::<f16>::plan(vision, s, classes, settings),
        }
    }

    /// Images at once, at most.
    pub fn batch(&self) -> usize {
        match &self.0 {
            Kind::Fp32(batch) => batch.images(),
            Kind::Fp16(batch, _) => batch.images(),
        }
    }

    /// Queues the adaptation to each image, all at once, at most [`Memo::batch`] of them, and returns before it is done. Of two
    /// batches that are queued, the first is to be finished before a third is queued.
    ///
    /// # Errors
    /// No image or too many; an image that is too large; the device's own.
    pub fn queue(&self, items: &[Item], views: &Views) -> Result<Queued> {
        match &self.0 {
            Kind::Fp32(batch) => batch.queue(items, views),
            Kind::Fp16(batch, _) => batch.queue(items, views),
        }
    }

    /// Waits for a batch. An image whose gradients overflow in float16 is computed again in float32. An image's own error is that
    /// its predictions are not finite even so.
    ///
    /// * `items`, `views`: what it was queued with.
    ///
    /// # Errors
    /// The device's own.
    pub fn finish(&self, queued: Queued, items: &[Item], views: &Views) -> Result<Vec<Result<Outcome>>> {
        let (batch, exact) = match &self.0 {
            Kind::Fp32(batch) => return Ok(batch.finish(queued)?.into_iter().map(outcome).collect()),
            Kind::Fp16(batch, exact) => (batch, exact),
        };
        let again = |item: &Item| {
            let exact = match exact.get() {
                Some(exact) => exact,
                None => {
                    let made = Box::new(batch.exact()?);
                    exact.get_or_init(|| made)
                }
            };
            let raw = exact.adapt(&[*item], views)?.remove(0);
            outcome(raw).map(|outcome| Outcome { overflow: true, ..outcome })
        };
        let raws = batch.finish(queued)?;
        let each = |(item, raw): (&Item, Raw)| match is_whole(&raw) {
            true => outcome(raw),
            false => again(item),
        };
        Ok(items.iter().zip(raws).map(each).collect())
    }

    /// Both, of one batch.
    ///
    /// # Errors
    /// Theirs.
    pub fn adapt(&self, items: &[Item], views: &Views) -> Result<Vec<Result<Outcome>>> {
        self.finish(self.queue(items, views)?, items, views)
    }

    /// From now on, waits around each stage and keeps its time: for benchmarks, as it costs overlap.
    pub fn keep_stage_times(&mut self) {
        match &mut self.0 {
            Kind::Fp32(batch) => batch.keep_stage_times(),
            Kind::Fp16(batch, _) => batch.keep_stage_times(),
        }
    }

    /// Total time of each stage since [`Memo::keep_stage_times`], in the order of the work.
    pub fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        match &self.0 {
            Kind::Fp32(batch) => batch.stage_times(),
            Kind::Fp16(batch, _) => batch.stage_times(),
        }
    }
}

fn is_whole(raw: &Raw) -> bool {
    !raw.overflow
        && [&raw.zero_shot, &raw.memo, &raw.entropy].iter().all(|all| all.iter().all(|x| x.is_finite()))
}

fn outcome(Raw { zero_shot, memo, entropy, .. }: Raw) -> Result<Outcome> {
    let (zero_shot, memo) = (Prediction::of(&zero_shot)?, Prediction::of(&memo)?);
    Ok(Outcome { zero_shot, memo, entropy, overflow: false })
}
