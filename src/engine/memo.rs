//! A CLIP classifier that adapts to each image, in the precision that it is asked for.

use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use half::f16;

use super::batch::{self, Batch, Item, Views};
use super::outcome::{Outcome, Precision, Prediction, Raw, Settings};
use super::vision::Vision;
use crate::gpu::{Entry, Stream, is_out_of_memory};

/// A classifier. Where device memory runs out, it goes on with half as many images at once.
pub struct Memo {
    kind: Kind,
    views: usize,
    learning_rates: Vec<f32>,
}

/// A batch on its way, or waiting for memory.
#[derive(Debug)]
pub struct Queued(Option<batch::Queued>);

impl Queued {
    /// Whether there was no memory for it, so that it is done by [`Memo::finish`].
    pub fn waits(&self) -> bool {
        self.0.is_none()
    }
}

enum Kind {
    Fp32(Box<Batch<f32>>),
    /// With buffers in float32 for images whose gradients overflow, once there is one.
    Fp16(Box<Batch<f16>>, Option<Box<Batch<f32>>>),
}

impl Memo {
    /// See [`Batch::new`]; for fewer images than `batch` where the device has no memory for them.
    ///
    /// # Errors
    /// Its own; out of device memory for a single image.
    pub fn new(
        stream: &Stream,
        vision: Vision,
        weights: &[f32],
        text_features: &[f32],
        batch: usize,
        settings: Settings,
    ) -> Result<Memo> {
        let (views, learning_rates) = (settings.views, settings.learning_rates.clone());
        let kind = match settings.precision {
            Precision::Fp32 => {
                Kind::Fp32(Box::new(Batch::load(stream, vision, weights, text_features, settings)?))
            }
            Precision::Fp16 => {
                Kind::Fp16(Box::new(Batch::load(stream, vision, weights, text_features, settings)?), None)
            }
        };
        let mut memo = Memo { kind, views, learning_rates };
        memo.make_room(batch)?;
        Ok(memo)
    }

    /// Buffers for so many images, or for half as many until there is room.
    fn make_room(&mut self, mut images: usize) -> Result<()> {
        loop {
            let made = match &mut self.kind {
                Kind::Fp32(batch) => batch.resize(images),
                Kind::Fp16(batch, exact) => {
                    *exact = None;
                    batch.resize(images)
                }
            };
            match made {
                Err(error) if is_out_of_memory(&error) => images = self.half_of(images, error)?,
                made => return made,
            }
        }
    }

    /// Goes on with half as many images at once.
    fn shrink(&mut self, error: Error) -> Result<()> {
        let half = self.half_of(self.batch(), error)?;
        self.make_room(half)
    }

    /// Half as many images as have been too many, once that is said; of a single one the error, with what to do about it.
    fn half_of(&self, images: usize, error: Error) -> Result<usize> {
        if images <= 1 {
            let (views, rates) = (self.views, self.learning_rates.len());
            let (of_rates, or_rates) = match rates {
                1 => (String::new(), ""),
                _ => (format!(" and {rates} learning rates"), " or rates (--lr)"),
            };
            return Err(error.context(format!(
                "the device has too little memory for one image of {views} views{of_rates}: fewer views \
                 (--views){or_rates} need less"
            )));
        }
        let half = images / 2;
        crate::notice!(
            "note: the device has too little memory for {images} images at once; it goes on with {half}"
        );
        Ok(half)
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

    /// Images at once, at most; fewer after an [`Memo::adapt`] that has run out of memory.
    pub fn batch(&self) -> usize {
        match &self.kind {
            Kind::Fp32(batch) => batch.images(),
            Kind::Fp16(batch, _) => batch.images(),
        }
    }

    /// Queues the adaptation to each image, all at once, at most [`Memo::batch`] of them, and returns before it is done. Of two
    /// batches that are queued, the first is to be finished before a third is queued. One that there is no memory for waits for
    /// [`Memo::finish`], which is to come before another is queued.
    ///
    /// # Errors
    /// No image; one that is too large; the device's own.
    pub fn queue(&mut self, items: &[Item], views: &Views) -> Result<Queued> {
        if items.len() > self.batch() {
            return Ok(Queued(None));
        }
        Ok(Queued(match &self.kind {
            Kind::Fp32(batch) => fitting(batch.queue(items, views))?,
            Kind::Fp16(batch, _) => fitting(batch.queue(items, views))?,
        }))
    }

    /// Waits for a batch. An image whose gradients overflow in float16 is computed again in float32. Where memory runs out, half
    /// as many at once go on with the images that are left. Returns what becomes of each image, in order; the first that fails is
    /// the last of them: before the step or after it by every learning rate, its predictions are not finite even in float32; or
    /// what was left to do for it and those behind it failed.
    ///
    /// * `items`, `views`: what it was queued with.
    ///
    /// # Errors
    /// The device's own, before there is any outcome; out of its memory for a single image.
    pub fn finish(&mut self, queued: Queued, items: &[Item], views: &Views) -> Result<Vec<Result<Outcome>>> {
        let Some(queued) = queued.0 else { return self.adapt(items, views) };
        let raws = match &self.kind {
            Kind::Fp32(batch) => batch.finish(queued)?,
            Kind::Fp16(batch, _) => batch.finish(queued)?,
        };
        Ok(self.outcomes(raws, items, views))
    }

    /// Adapts to any number of images, one batch after another: see [`Memo::finish`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn adapt(&mut self, items: &[Item], views: &Views) -> Result<Vec<Result<Outcome>>> {
        let mut outcomes = Vec::with_capacity(items.len());
        while outcomes.len() < items.len() && outcomes.last().is_none_or(Result::is_ok) {
            match self.adapt_first(&items[outcomes.len()..], views) {
                Err(error) if !outcomes.is_empty() => outcomes.push(Err(error)),
                more => outcomes.extend(more?),
            }
        }
        Ok(outcomes)
    }

    /// The first of these images, as many as there is memory for at once.
    fn adapt_first(&mut self, items: &[Item], views: &Views) -> Result<Vec<Result<Outcome>>> {
        loop {
            let now = &items[..items.len().min(self.batch())];
            let raws = match &self.kind {
                Kind::Fp32(batch) => batch.adapt(now, views),
                Kind::Fp16(batch, _) => batch.adapt(now, views),
            };
            match raws {
                Err(error) if is_out_of_memory(&error) => self.shrink(error)?,
                raws => return Ok(self.outcomes(raws?, now, views)),
            }
        }
    }

    /// Up to the first that fails.
    fn outcomes(&mut self, raws: Vec<Raw>, items: &[Item], views: &Views) -> Vec<Result<Outcome>> {
        let mut outcomes = Vec::with_capacity(raws.len());
        for (raw, item) in raws.into_iter().zip(items) {
            outcomes.push(match is_whole(&raw) {
                true => outcome(raw, &self.learning_rates),
                false => self.again(item, views, raw),
            });
            if outcomes.last().is_some_and(Result::is_err) {
                break;
            }
        }
        outcomes
    }

    /// In float32, where that is not what it was; of what is finite as it is nothing changes, so that no learning rate's bits
    /// depend on another's.
    fn again(&mut self, item: &Item, views: &Views, raw: Raw) -> Result<Outcome> {
        loop {
            let rates = &self.learning_rates;
            let Kind::Fp16(batch, exact) = &mut self.kind else { return outcome(raw, rates) };
            let made = match exact {
                Some(exact) => Ok(exact),
                None => batch.exact().map(|made| exact.insert(Box::new(made))),
            };
            match made.and_then(|exact| exact.adapt(&[*item], views)) {
                Err(error) if is_out_of_memory(&error) => self.shrink(error)?,
                raws => {
                    let whole = mended(raw, raws?.remove(0));
                    return Ok(Outcome { overflow: true, ..outcome(whole, rates)? });
                }
            }
        }
    }

    /// See [`Batch::keep_stage_times`].
    pub fn keep_stage_times(&mut self) {
        match &mut self.kind {
            Kind::Fp32(batch) => batch.keep_stage_times(),
            Kind::Fp16(batch, _) => batch.keep_stage_times(),
        }
    }

    /// See [`Batch::stage_times`].
    pub fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        match &self.kind {
            Kind::Fp32(batch) => batch.stage_times(),
            Kind::Fp16(batch, _) => batch.stage_times(),
        }
    }
}

/// A batch that the device had memory for.
fn fitting(queued: Result<batch::Queued>) -> Result<Option<batch::Queued>> {
    match queued {
        Err(error) if is_out_of_memory(&error) => Ok(None),
        queued => queued.map(Some),
    }
}

fn is_whole(Raw { zero_shot, memo, entropy, overflow }: &Raw) -> bool {
    let mut all = [zero_shot, entropy].into_iter().chain(memo).flatten();
    !overflow && all.all(|x| x.is_finite())
}

/// With a gradient that overflowed nothing is right; else what is not finite alone is taken from `exact`.
fn mended(raw: Raw, exact: Raw) -> Raw {
    if raw.overflow {
        return exact;
    }
    let of = |raw: Vec<f32>, exact| if raw.iter().all(|x| x.is_finite()) { raw } else { exact };
    let memo = raw.memo.into_iter().zip(exact.memo).map(|(raw, exact)| of(raw, exact)).collect();
    let (zero_shot, entropy) = (of(raw.zero_shot, exact.zero_shot), of(raw.entropy, exact.entropy));
    Raw { zero_shot, memo, entropy, overflow: false }
}

fn outcome(Raw { zero_shot, memo, entropy, overflow }: Raw, rates: &[f32]) -> Result<Outcome> {
    ensure!(!overflow, "stepping: a gradient is not finite, in float32 either");
    let zero_shot =
        Prediction::of(&zero_shot).context("predicting before the step, whatever the learning rate")?;
    let after = |(logits, rate): (&Vec<f32>, &f32)| {
        let why = || format!("predicting after a step of learning rate {rate:e}; a smaller one may help");
        Prediction::of(logits).with_context(why)
    };
    let mut memo: Vec<Result<Prediction>> = memo.iter().zip(rates).map(after).collect();
    if memo.iter().all(Result::is_err) {
        memo.swap_remove(0)?;
    }
    let memo = memo.into_iter().map(|after| after.map_err(|error| format!("{error:#}"))).collect();
    Ok(Outcome { zero_shot, memo, entropy, overflow: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finite_stays_unless_a_gradient_is_not() {
        let raw = |x: f32, y: f32, overflow| {
            let (zero_shot, memo, entropy) = (vec![x, 1.0], vec![vec![x; 2], vec![0.0, y]], vec![x]);
            Raw { zero_shot, memo, entropy, overflow }
        };
        let exact = raw(3.0, 4.0, false);
        assert_eq!(mended(raw(2.0, f32::NAN, false), exact.clone()), raw(2.0, 4.0, false));
        assert_eq!(mended(raw(2.0, 5.0, true), exact.clone()), exact);
        assert!(outcome(raw(2.0, 5.0, true), &[1.0, 2.0]).is_err());
    }

    #[test]
    fn a_rate_without_a_finite_prediction_takes_none_from_the_others() {
        let of = |zero_shot: f32, memo: &[f32]| {
            let logits = |last: f32| vec![0.0, last];
            let (zero_shot, memo) = (logits(zero_shot), memo.iter().map(|&last| logits(last)).collect());
            let raw = Raw { zero_shot, memo, entropy: vec![0.0], overflow: false };
            outcome(raw, &[1e-5, 0.25]).map_err(|error| format!("{error:#}"))
        };
        let why = |rate| {
            format!(
                "predicting after a step of learning rate {rate}; a smaller one may help: a logit is not finite"
            )
        };
        let one = of(1.0, &[2.0, f32::NAN]).unwrap();
        assert_eq!(one.memo, [Prediction::of(&[0.0, 2.0]).map_err(|_| String::new()), Err(why("2.5e-1"))]);
        // Without any there is no outcome, be it of one rate or of several.
        assert_eq!(of(1.0, &[f32::NAN, f32::INFINITY]), Err(why("1e-5")));
        assert_eq!(of(1.0, &[f32::NAN]), Err(why("1e-5")));
        // A smaller rate is no advice about what it does not change.
        let before = of(f32::INFINITY, &[1.0, f32::NAN]).unwrap_err();
        assert!(before.contains("before the step") && !before.contains("smaller"), "{before}");
    }
}
