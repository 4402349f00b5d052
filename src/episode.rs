//! MEMO on one image (arXiv 2110.09506), in place:
//!
//! 1. draw `N` random views of it, on the device;
//! 2. run the vision tower on all of them, the original riding along, and get logits;
//! 3. take the entropy of the views' average prediction;
//! 4. back-propagate through the whole tower, and make one SGD step;
//! 5. predict the original with the adapted weights;
//! 6. put the weights back.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::clip::{Activation, VisionTower};
use crate::data::Rgb8;
use crate::gpu::{Gpu, ModuleKey, Stream, Tensor};
use crate::ops::augment::Augmenter;
use crate::ops::draw::{Key, ViewParams};
use crate::ops::entropy::{self, entropy_forward_backward};
use crate::ops::linear::{self, Linear};
use crate::policy::Policy;

/// CLIP's logit scale at the end of its training, where it was clipped.
pub const LOGIT_SCALE: f32 = 100.0;

/// What an adaptation does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Views an image and step, `N`.
    pub views: usize,
    /// Of plain SGD.
    pub learning_rate: f32,
    /// SGD steps, each on fresh views.
    pub steps: usize,
    /// Of the views' random numbers, with the image's index and the view's.
    pub seed: u64,
    pub policy: Policy,
}

/// A class distribution's summary, and the logits it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Index of the largest logit; the first of equals.
    pub index: usize,
    /// Its softmax value.
    pub confidence: f64,
    pub logits: Vec<f32>, // (K,)
}

impl Prediction {
    /// The softmax in float64, so that confidences add up.
    fn of(logits: Vec<f32>) -> Result<Prediction> {
        let finite = logits.iter().all(|v| v.is_finite());
        ensure!(finite, "predicting: a logit is not finite; a smaller learning rate may help");
        let index =
            (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).context("no classes")?;
        let top = f64::from(logits[index]);
        let sum: f64 = logits.iter().map(|&v| (f64::from(v) - top).exp()).sum();
        Ok(Prediction { index, confidence: 1.0 / sum, logits })
    }
}

/// What MEMO did to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub zero_shot: Prediction,
    pub memo: Prediction,
    /// Marginal entropy of the views before each step, nats.
    pub entropy: Vec<f32>,
}

/// Where an episode's views come from.
pub enum Views<'a> {
    /// Drawn from the policy; the index keys the random numbers.
    Drawn { image_index: u64 },
    /// The user's own, `(N, T-1, 3·P·P)` normalised patches, the same for every step.
    Given(&'a Tensor<f32>),
}

/// The kernels' sources that this needs for a vision tower of this width, and most of what the text tower does, for [`Gpu::load`].
///
/// # Errors
/// A width past 32 bits.
pub fn modules(gpu: &Gpu, activation: Activation, width: usize) -> Result<Vec<ModuleKey>> {
    let plain = [
        "attention",
        "augment",
        "draw",
        "entropy",
        "head",
        "layernorm",
        "patch_embed",
        "reduce",
        "sgd",
        "token_embed",
    ];
    let mut all: Vec<ModuleKey> = plain.map(|stem| (stem, Vec::new())).into();
    all.extend(linear::modules::<f32>(gpu, activation, width)?);
    Ok(all)
}

/// A CLIP classifier that adapts to each image.
pub struct Memo {
    stream: Stream,
    vision: VisionTower,
    text: Tensor<f32>, // (K, D): unit text features times the logit scale
    classes: usize,
    augmenter: Augmenter,
    settings: Settings,
    params: Tensor<ViewParams>, // (N,)
    logits: Tensor<f32>,        // (N + 1, K)
    dlogits: Tensor<f32>,       // (N, K)
    dunit: Tensor<f32>,         // (N, D)
    entropy: Tensor<f32>,       // (1,)
    stage_times: Option<RefCell<Vec<(&'static str, Duration)>>>,
}

impl Memo {
    /// * `vision`: with room for `N + 1` images.
    /// * `text_features`: `(K, D)`, of unit norm.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn new(
        stream: &Stream,
        vision: VisionTower,
        augmenter: Augmenter,
        text_features: &[f32],
        settings: Settings,
    ) -> Result<Memo> {
        let (n, d) = (settings.views, vision.embed_dim());
        let classes = text_features.len() / d;
        let scaled: Vec<f32> = text_features.iter().map(|v| v * LOGIT_SCALE).collect();
        Ok(Memo {
            stream: stream.clone(),
            vision,
            text: stream.vector(&scaled)?,
            classes,
            augmenter,
            params: stream.alloc(n)?,
            logits: stream.alloc((n + 1) * classes)?,
            dlogits: stream.alloc(n * classes)?,
            dunit: stream.alloc(n * d)?,
            entropy: stream.alloc(1)?,
            stage_times: None,
            settings,
        })
    }

    /// Adapts to one image, predicts it, and forgets: the weights end as they began, bit for bit,
    /// also where an error ends it.
    pub fn adapt(&self, image: &Rgb8, views: Views) -> Result<Outcome> {
        let outcome = self.adapt_and_predict(image, views);
        self.vision.restore(&self.stream)?;
        outcome
    }

    fn adapt_and_predict(&self, image: &Rgb8, views: Views) -> Result<Outcome> {
        let Settings { views: n, learning_rate, steps, .. } = self.settings;
        let source = self.stream.vector(&image.pixels)?;
        let mut zero_shot = None;
        let mut entropy = Vec::with_capacity(steps);
        for step in 0..steps {
            self.time("augment", || {
                self.fill_views(&source, image, &views, step)?;
                self.fill_original(&source, image, n)
            })?;
            // The original is the last of the first batch: it takes no part in the loss.
            let batch = if step == 0 { n + 1 } else { n };
            self.time("forward", || self.forward(batch))?;
            if step == 0 {
                zero_shot = Some(self.prediction(n)?);
            }
            self.time("backward", || self.backward(n))?;
            self.time("step", || self.vision.step(&self.stream, learning_rate))?;
            entropy.extend(self.stream.read(&self.entropy)?);
        }
        self.time("predict", || {
            self.fill_original(&source, image, 0)?;
            self.forward(1)
        })?;
        let memo = self.prediction(0)?;
        Ok(Outcome { zero_shot: zero_shot.context("no step was made")?, memo, entropy })
    }

    /// Views `0..n` of the batch, in the order of their random numbers.
    fn fill_views(&self, source: &Tensor<u8>, image: &Rgb8, views: &Views, step: usize) -> Result<()> {
        let n = self.settings.views;
        let patches = self.vision.patches.slice(0..n * self.vision.image_len());
        match views {
            Views::Given(given) => self.stream.copy(&patches, given),
            Views::Drawn { image_index } => {
                let Settings { policy, seed, .. } = &self.settings;
                let (w, h) = (image.width as usize, image.height as usize);
                let key = Key { seed: *seed, image: *image_index, view: (step * n) as u32 };
                self.augmenter.draw(policy, key, (w, h), &self.params)?;
                self.augmenter.views(source, (w, h), &self.params, &patches)
            }
        }
    }

    /// The original, preprocessed as CLIP does, as number `place` of the batch.
    fn fill_original(&self, source: &Tensor<u8>, image: &Rgb8, place: usize) -> Result<()> {
        let len = self.vision.image_len();
        let patches = self.vision.patches.slice(place * len..(place + 1) * len);
        self.augmenter.original(source, (image.width as usize, image.height as usize), &patches)
    }

    /// Logits of the first `b` images of the batch.
    fn forward(&self, b: usize) -> Result<()> {
        let unit = self.vision.forward(&self.stream, b)?;
        let logits = self.logits.slice(0..b * self.classes);
        let (d, k) = (self.vision.embed_dim(), self.classes);
        let text = self.text.view([k, d]);
        Linear::nt(&unit.view([b, d]), &text, &logits.view([b, k])).run(&self.stream)
    }

    /// The loss of the first `n` images' logits, and every parameter's gradient.
    fn backward(&self, n: usize) -> Result<()> {
        let (d, k) = (self.vision.embed_dim(), self.classes);
        let logits = self.logits.slice(0..n * k);
        let shape = entropy::Shape { b: 1, n, k };
        entropy_forward_backward(&self.stream, &self.dlogits, &self.entropy, &logits, shape, 1.0)?;
        let text = self.text.view([k, d]);
        Linear::nn(&self.dlogits.view([n, k]), &text, &self.dunit.view([n, d])).run(&self.stream)?;
        self.vision.backward(&self.stream, &self.dunit, n)
    }

    fn prediction(&self, place: usize) -> Result<Prediction> {
        let k = self.classes;
        Prediction::of(self.stream.read(&self.logits.slice(place * k..(place + 1) * k))?)
    }

    /// Runs a stage, and adds its time to [`Memo::stage_times`] where these are kept.
    fn time<T>(&self, stage: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(times) = &self.stage_times else { return run() };
        self.stream.synchronize()?;
        let start = Instant::now();
        let result = run()?;
        self.stream.synchronize()?;
        let mut times = times.borrow_mut();
        match times.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, total)) => *total += start.elapsed(),
            None => times.push((stage, start.elapsed())),
        }
        Ok(result)
    }

    /// From now on, waits around each stage and keeps its time: for benchmarks, as it costs overlap.
    pub fn keep_stage_times(&mut self) {
        self.stage_times = Some(RefCell::default());
    }

    /// Total time of each stage since [`Memo::keep_stage_times`], in the order of the work.
    pub fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        self.stage_times.as_ref().map_or_else(Vec::new, |times| times.borrow().clone())
    }

    /// The tower, for tests that look inside.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_the_first_largest_logit_and_its_softmax() {
        let p = Prediction::of(vec![1.0, 3.0, 3.0, -200.0]).unwrap();
        assert_eq!(p.index, 1);
        let want = 1.0 / (2.0 + (-2.0f64).exp() + (-203.0f64).exp());
        assert!((p.confidence - want).abs() < 1e-15);
        assert!(Prediction::of(vec![0.0, f32::NAN]).is_err());
        assert!(Prediction::of(vec![]).is_err());
    }
}
