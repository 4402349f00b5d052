//! A CLIP classifier that adapts to each image, in the precision that it is asked for.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use half::f16;

use super::batch::{self, Batch, Item};
use super::outcome::{Loss, Outcome, Precision, Raw, RawViews, Settings, Stepped};
use super::prediction::{Guard, Prediction};
use super::tower::Model;
use super::views::Views;
use super::vision::Vision;
use crate::gpu::{Entry, Stream, is_out_of_memory};

/// A classifier. Where device memory runs out, it goes on with half as many images at once.
pub struct Memo {
    kind: Kind,
    settings: Settings,
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
    /// By a model of its own: see [`Model::load`] and [`Memo::on`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn new(
        stream: &Stream,
        vision: Vision,
        weights: &[f32],
        text_features: &[f32],
        batch: usize,
        settings: Settings,
    ) -> Result<Memo> {
        let model = Model::load(stream, vision, weights, text_features, settings.precision)?;
        Memo::on(stream, &model, batch, settings)
    }

    /// By a model that is on the device, in its precision: see [`Batch::on`]; for fewer images than `batch` where the device has no
    /// memory for them.
    ///
    /// # Errors
    /// Its own; settings of another precision; out of device memory for a single image.
    pub fn on(stream: &Stream, model: &Model, batch: usize, settings: Settings) -> Result<Memo> {
        let own = settings.clone();
        let kind = match (model, settings.precision) {
            (Model::Fp32(tower), Precision::Fp32) => {
                Kind::Fp32(Box::new(Batch::on(stream, tower.clone(), own)?))
            }
            (Model::Fp16(tower), Precision::Fp16) => {
                Kind::Fp16(Box::new(Batch::on(stream, tower.clone(), own)?), None)
            }
            (_, precision) => bail!("the model on the device is not in {precision:?}"),
        };
        let mut memo = Memo { kind, settings };
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
            let (views, rates) = (self.settings.views, self.settings.learning_rates.len());
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
                true => outcome(raw, &self.settings),
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
            let settings = &self.settings;
            let Kind::Fp16(batch, exact) = &mut self.kind else { return outcome(raw, settings) };
            let made = match exact {
                Some(exact) => Ok(exact),
                None => batch.exact().map(|made| exact.insert(Box::new(made))),
            };
            match made.and_then(|exact| exact.adapt(&[*item], views)) {
                Err(error) if is_out_of_memory(&error) => self.shrink(error)?,
                raws => {
                    let whole = mended(raw, raws?.remove(0));
                    return Ok(Outcome { overflow: true, ..outcome(whole, settings)? });
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

fn is_whole(Raw { zero_shot, views, by_loss }: &Raw) -> bool {
    let steps = by_loss.iter().flat_map(|stepped| stepped.memo.iter().chain([&stepped.entropy]));
    let mut all = [zero_shot, &views.average, &views.confident_average].into_iter().chain(steps).flatten();
    by_loss.iter().all(|stepped| !stepped.overflow) && all.all(|x| x.is_finite())
}

/// With a gradient that overflowed nothing is right that its loss gives, and by the first loss nothing at all; else what is not
/// finite alone is taken from `exact`.
fn mended(raw: Raw, exact: Raw) -> Raw {
    if raw.by_loss.first().is_some_and(|stepped| stepped.overflow) {
        let others = raw.by_loss.into_iter().zip(exact.by_loss).enumerate();
        let by_loss = others.map(|(loss, (raw, exact))| if loss == 0 { exact } else { stepped(raw, exact) });
        return Raw { by_loss: by_loss.collect(), ..exact };
    }
    let is_finite = |all: &[f32]| all.iter().all(|x| x.is_finite());
    let seen = is_finite(&raw.views.average) && is_finite(&raw.views.confident_average);
    Raw {
        zero_shot: finite(raw.zero_shot, exact.zero_shot),
        views: if seen { raw.views } else { exact.views },
        by_loss: raw.by_loss.into_iter().zip(exact.by_loss).map(|(raw, exact)| stepped(raw, exact)).collect(),
    }
}

fn finite(raw: Vec<f32>, exact: Vec<f32>) -> Vec<f32> {
    if raw.iter().all(|x| x.is_finite()) { raw } else { exact }
}

fn stepped(raw: Stepped, exact: Stepped) -> Stepped {
    if raw.overflow {
        return exact;
    }
    let memo = raw.memo.into_iter().zip(exact.memo).map(|(raw, exact)| finite(raw, exact)).collect();
    Stepped { memo, entropy: finite(raw.entropy, exact.entropy), overflow: false }
}

fn outcome(Raw { zero_shot, views, by_loss }: Raw, settings: &Settings) -> Result<Outcome> {
    let before = "predicting before the step, whatever the learning rate";
    let zero_shot = Prediction::of(&zero_shot).context(before)?;
    let [mut memo, mut memo_confident] = [const { Vec::new() }; 2];
    let [mut entropy, mut confident_entropy] = [const { Vec::new() }; 2];
    for (loss, stepped) in settings.losses.iter().zip(by_loss) {
        let answers = answers(&stepped, &zero_shot, &views, settings);
        match loss {
            Loss::All => (memo, entropy) = (answers, stepped.entropy),
            Loss::Confident => (memo_confident, confident_entropy) = (answers, stepped.entropy),
        }
    }
    Ok(Outcome {
        view_average: Prediction::of(&views.average).context(before)?,
        confident_average: Prediction::of(&views.confident_average).context(before)?,
        vote: Prediction::vote(&views, zero_shot.logits.len()).context(before)?,
        zero_shot,
        memo,
        entropy,
        memo_confident,
        confident_entropy,
        overflow: false,
    })
}

/// By each learning rate.
fn answers(
    Stepped { memo, overflow, .. }: &Stepped,
    zero_shot: &Prediction,
    views: &RawViews,
    Settings { learning_rates: rates, guards, .. }: &Settings,
) -> Vec<Result<Prediction, String>> {
    if guards.skip(zero_shot) {
        let stands = Prediction { guard: Some(Guard::Skipped), ..zero_shot.clone() };
        return vec![Ok(stands); rates.len()];
    }
    if *overflow {
        return vec![Err("stepping: a gradient is not finite, in float32 either".to_string()); rates.len()];
    }
    let after = |(logits, rate): (&Vec<f32>, &f32)| {
        let why = || format!("predicting after a step of learning rate {rate:e}; a smaller one may help");
        let after = Prediction::of(logits).with_context(why).map_err(|error| format!("{error:#}"))?;
        Ok(guards.judge(after, zero_shot, &views.choices))
    };
    memo.iter().zip(rates).map(after).collect()
}

#[cfg(test)]
mod tests {
    use super::super::prediction::Guards;
    use super::*;
    use crate::policy::Policy;

    /// Of two classes: one view, whose average is this.
    fn views(average: f32) -> RawViews {
        let average = vec![average, -0.1];
        let confident_average = average.clone();
        RawViews { average, confident_average, choices: vec![1], confident: vec![true] }
    }

    fn by(memo: Vec<Vec<f32>>, entropy: f32, overflow: bool) -> Stepped {
        Stepped { memo, entropy: vec![entropy], overflow }
    }

    fn settings(learning_rates: &[f32], losses: &[Loss]) -> Settings {
        let (learning_rates, losses) = (learning_rates.to_vec(), losses.to_vec());
        Settings { learning_rates, losses, ..Settings::one_step(Policy::notebook()) }
    }

    #[test]
    fn what_is_finite_stays_unless_a_gradient_is_not() {
        let raw = |x: f32, y: f32, overflow| {
            let memo = vec![vec![x; 2], vec![0.0, y]];
            Raw { zero_shot: vec![x, 1.0], views: views(-x), by_loss: vec![by(memo, x, overflow)] }
        };
        let exact = raw(3.0, 4.0, false);
        assert_eq!(mended(raw(2.0, f32::NAN, false), exact.clone()), raw(2.0, 4.0, false));
        assert_eq!(mended(raw(2.0, 5.0, true), exact.clone()), exact);
        let failed = outcome(raw(2.0, 5.0, true), &settings(&[1.0, 2.0], &[Loss::All])).unwrap().memo;
        assert!(
            failed.iter().all(|after| after.as_ref().is_err_and(|why| why.contains("in float32 either")))
        );
        let nowhere = Raw { views: views(f32::NAN), ..raw(2.0, 5.0, false) };
        assert_eq!(mended(nowhere, exact.clone()), Raw { views: views(-3.0), ..raw(2.0, 5.0, false) });
    }

    #[test]
    fn what_one_loss_overflows_in_is_nothing_to_the_other() {
        let raw = |x: f32, overflow: [bool; 2]| {
            let by_loss = overflow.map(|overflow| by(vec![vec![x; 2]], x, overflow)).to_vec();
            Raw { zero_shot: vec![x, 1.0], views: views(-x), by_loss }
        };
        let (fast, exact) = (|overflow| raw(2.0, overflow), raw(3.0, [false; 2]));
        let second = mended(fast([false, true]), exact.clone());
        assert_eq!(second.by_loss, [fast([false; 2]).by_loss[0].clone(), exact.by_loss[1].clone()]);
        assert_eq!((second.zero_shot, second.views), (vec![2.0, 1.0], views(-2.0)));
        let first = mended(fast([true, false]), exact.clone());
        assert_eq!(first.by_loss, [exact.by_loss[0].clone(), fast([false; 2]).by_loss[1].clone()]);
        assert_eq!((first.zero_shot, first.views), (exact.zero_shot.clone(), exact.views.clone()));
        assert_eq!(mended(fast([true; 2]), exact.clone()), exact);
    }

    #[test]
    fn a_rate_without_a_finite_prediction_takes_none_from_the_others() {
        let of = |zero_shot: f32, memo: &[f32]| {
            let logits = |last: f32| vec![0.0, last];
            let (zero_shot, memo) = (logits(zero_shot), memo.iter().map(|&last| logits(last)).collect());
            let raw = Raw { zero_shot, views: views(-2.0), by_loss: vec![by(memo, 0.0, false)] };
            outcome(raw, &settings(&[1e-5, 0.25], &[Loss::All])).map_err(|error| format!("{error:#}"))
        };
        let why = |rate| {
            format!(
                "predicting after a step of learning rate {rate}; a smaller one may help: a logit is not finite"
            )
        };
        let one = of(1.0, &[2.0, f32::NAN]).unwrap();
        assert_eq!(one.memo, [Prediction::of(&[0.0, 2.0]).map_err(|_| String::new()), Err(why("2.5e-1"))]);
        // An image without any is one image: the others go on.
        assert_eq!(of(1.0, &[f32::NAN, f32::INFINITY]).unwrap().memo, [Err(why("1e-5")), Err(why("2.5e-1"))]);
        assert_eq!(of(1.0, &[f32::NAN]).unwrap().memo, [Err(why("1e-5"))]);
        // A smaller rate is no advice about what it does not change.
        let before = of(f32::INFINITY, &[1.0, f32::NAN]).unwrap_err();
        assert!(before.contains("before the step") && !before.contains("smaller"), "{before}");
    }

    #[test]
    fn where_no_step_is_to_be_nothing_of_it_counts() {
        let raw = Raw {
            zero_shot: vec![0.0, 2.0],
            views: views(-2.0),
            by_loss: vec![by(vec![vec![9.0, 0.0], vec![f32::NAN; 2]], 0.5, true)],
        };
        let skipping = |above| Settings {
            guards: Guards { skip_above: Some(above), roll_back: true },
            ..settings(&[1e-5, 1e-3], &[Loss::Confident])
        };
        let skipped = outcome(raw.clone(), &skipping(0.8)).unwrap();
        let stands = Prediction { guard: Some(Guard::Skipped), ..skipped.zero_shot.clone() };
        assert_eq!(skipped.memo_confident, [Ok(stands.clone()), Ok(stands)]);
        assert_eq!((skipped.memo, skipped.entropy, skipped.confident_entropy), (vec![], vec![], vec![0.5]));
        assert!(outcome(raw, &skipping(0.9)).unwrap().memo_confident.iter().all(Result::is_err));
    }
}
