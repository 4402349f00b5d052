//! A batch of images, from pixels to predictions.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Dims;
use super::acts::Acts;
use super::grads::{Grads, Kept};
use super::implicit::{Implicit, Room};
use super::in_place::{Adapted, Snapshot, step_in_place};
use super::outcome::{LOGIT_SCALE, Outcome, Prediction, Settings, Update};
use super::vision::Vision;
use super::weights::{Differentiable, Params, Weights};
use crate::data::Rgb8;
use crate::gpu::{self, Entry, Plan, Stream, Tensor, trace};
use crate::ops::Element;
use crate::ops::augmenter::{Augmenter, Images};
use crate::ops::draw::{ViewParams, draw_views};
use crate::ops::entropy::entropy_forward_backward;
use crate::ops::linear::Linear;

/// An image of a batch.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub image: &'a Rgb8,
    /// Keys the random numbers of its views.
    pub index: u64,
}

/// Where views come from.
pub enum Views {
    /// Drawn from the policy.
    Drawn,
    /// The user's own, `(N·(T - 1), P)` normalised patches, the same for every image and step.
    Given(Tensor<f32>),
}

/// A CLIP classifier that adapts to each image.
pub struct Memo<E> {
    stream: Stream,
    dims: Dims,
    settings: Settings,
    vision: Vision,
    params: Params<E>,
    text: Tensor<f32>, // (K, D): unit text features times the logit scale
    augmenter: Augmenter,
    buffers: Buffers<E>,
    stage_times: Option<RefCell<Vec<(&'static str, Duration)>>>,
}

/// All that a batch writes.
struct Buffers<E> {
    view_params: Tensor<ViewParams>, // (S, N)
    acts: Acts<E>,
    grads: Grads<E>,
    logits: Tensor<f32>,  // (S·(N + 1), K)
    dlogits: Tensor<f32>, // (S·N, K)
    entropy: Tensor<f32>, // (S,)
    flags: Tensor<u32>,   // (S,)
    step: StepBuffers<E>,
}

enum StepBuffers<E> {
    Implicit(Room<E>),
    InPlace(Adapted<E>),
}

impl<E: Element> Buffers<E> {
    fn plan(plan: &mut Plan, dims: &Dims, vision: &Vision, settings: &Settings) -> Result<Buffers<E>> {
        let &Dims { s, n, t, k, .. } = dims;
        // From the second step on the views pass through the adapted weights as well.
        let rows = if settings.steps > 1 { s * n * t } else { s * t };
        let layers = vision.config.vision.layers;
        Ok(Buffers {
            view_params: plan.tensor("view_params", [s, n])?,
            acts: Acts::plan(plan, dims, layers)?,
            grads: Grads::plan(plan, dims, layers)?,
            logits: plan.tensor("logits", [dims.sequences(), k])?,
            dlogits: plan.tensor("dlogits", [dims.views(), k])?,
            entropy: plan.tensor("entropy", s)?,
            flags: plan.tensor("flags", s)?,
            step: match settings.update {
                Update::Implicit => StepBuffers::Implicit(Room::plan(plan, dims, &vision.layout)?),
                Update::InPlace => StepBuffers::InPlace(Adapted::plan(plan, dims, &vision.layout, rows)?),
            },
        })
    }
}

impl<E: Element> Memo<E> {
    /// * `weights`: the vision tower's parameters in the layout's order.
    /// * `text_features`: `(K, D)`, of unit norm.
    /// * `batch`: images at once, at most, `S`; no result depends on it.
    ///
    /// # Errors
    /// Several steps that are to be implicit; out of device memory.
    pub fn new(
        stream: &Stream,
        vision: Vision,
        weights: &[f32],
        text_features: &[f32],
        batch: usize,
        settings: Settings,
    ) -> Result<Memo<E>> {
        ensure!(
            settings.update == Update::InPlace || settings.steps == 1,
            "{} steps cannot be folded into the prediction: they are taken in place",
            settings.steps
        );
        let config = &vision.config;
        let dims = Dims::new(config, batch, settings.views, text_features.len() / config.embed_dim);
        let scaled: Vec<f32> = text_features.iter().map(|v| v * LOGIT_SCALE).collect();
        Ok(Memo {
            stream: stream.clone(),
            dims,
            params: Params::new(stream, weights)?,
            text: stream.upload([dims.k, dims.d], &scaled)?,
            augmenter: Augmenter::new(config.image_size, config.patch_size)?,
            buffers: stream.arena(|plan| Buffers::plan(plan, &dims, &vision, &settings))?,
            stage_times: None,
            vision,
            settings,
        })
    }

    /// Bytes of device memory that a batch of `s` images takes, and all its tensors.
    ///
    /// # Errors
    /// More than can be counted.
    pub fn plan(
        vision: &Vision,
        s: usize,
        classes: usize,
        settings: &Settings,
    ) -> Result<(usize, Vec<Entry>)> {
        let dims = Dims::new(&vision.config, s, settings.views, classes);
        gpu::measure(|plan| Buffers::<E>::plan(plan, &dims, vision, settings))
    }

    /// Images at once, at most.
    pub fn batch(&self) -> usize {
        self.dims.s
    }

    /// Adapts to each image, all at once, at most [`Memo::batch`] of them. An image's own error is that its predictions are
    /// not finite.
    ///
    /// # Errors
    /// No image or too many; an image that is too large; the device's own.
    pub fn adapt(&self, items: &[Item], views: &Views) -> Result<Vec<Result<Outcome>>> {
        let _range = trace::range("batch");
        let s = items.len();
        ensure!((1..=self.dims.s).contains(&s), "adapting to {s} images, of {} at once", self.dims.s);
        let Dims { n, k, .. } = self.dims;
        let (b, Buffers { acts, grads, logits, flags, .. }) = (s * n, &self.buffers);
        let (all, of_views, originals) =
            (acts.sequences(0..b + s), acts.sequences(0..b), acts.sequences(b..b + s));
        let grads = grads.images(s, n);
        let kept = Kept::new(&self.vision.layout, &of_views, &grads);
        let rate = self.settings.learning_rate;
        let packed: Vec<_> = items
            .iter()
            .map(|Item { image, index }| {
                (*index, (image.width as usize, image.height as usize), &image.pixels[..])
            })
            .collect();
        let images = Images::upload(&self.stream, &packed)?;
        self.stream.fill_bytes(flags, 0)?;
        let flags = flags.rows(0..s);

        let mut zero_shot = Vec::new(); // (S, K)
        let mut entropies = vec![Vec::new(); s];
        for step in 0..self.settings.steps {
            self.time("views", || {
                self.fill_views(&images, views, step, &of_views.patches)?;
                match step {
                    0 => self.augmenter.make(
                        &self.stream,
                        &images,
                        None,
                        Some(&self.items(&originals.patches)),
                    ),
                    _ => Ok(()),
                }
            })?;
            if step == 0 {
                self.time("forward", || self.forward(&self.params, &all, &logits.rows(0..b + s)))?;
                zero_shot = self.stream.read(&logits.rows(b..b + s))?;
                self.time("backward", || self.backward(&self.params, &of_views, &grads))?;
            } else if let StepBuffers::InPlace(adapted) = &self.buffers.step {
                let adapted = adapted.images(s);
                self.time("forward", || self.forward(&adapted, &of_views, &logits.rows(0..b)))?;
                self.time("backward", || self.backward(&adapted, &of_views, &grads))?;
            }
            if let StepBuffers::InPlace(adapted) = &self.buffers.step {
                let snapshot = if step == 0 { Snapshot::Loaded(&self.params) } else { Snapshot::Own };
                self.time("step", || {
                    step_in_place(&self.stream, &adapted.images(s), snapshot, &kept, &flags, rate)
                })?;
            }
            let entropy = self.stream.read(&self.buffers.entropy.rows(0..s))?;
            entropies.iter_mut().zip(entropy).for_each(|(all, entropy)| all.push(entropy));
        }
        let adapted = logits.rows(b..b + s);
        match &self.buffers.step {
            StepBuffers::Implicit(room) => {
                // The originals' patches are still there; all else of theirs is overwritten.
                let weights = Implicit::new(&self.stream, &self.params, &kept, room, rate)?;
                self.time("step", || weights.step(&self.stream, &flags))?;
                self.time("predict", || self.forward(&weights, &originals, &adapted))?;
            }
            StepBuffers::InPlace(weights) => {
                self.time("predict", || self.forward(&weights.images(s), &originals, &adapted))?;
            }
        }
        let memo = self.stream.read(&adapted)?;
        let outcomes = zero_shot.chunks(k).zip(memo.chunks(k)).zip(entropies);
        let outcome = |((zero_shot, memo), entropy): ((&[f32], &[f32]), Vec<f32>)| {
            Ok(Outcome { zero_shot: Prediction::of(zero_shot)?, memo: Prediction::of(memo)?, entropy })
        };
        Ok(outcomes.map(outcome).collect())
    }

    /// The gradient of every parameter, `(S, total)` in the layout's order, of the first `s` images of the last batch that
    /// was adapted to, by its last step: for tests and comparisons.
    ///
    /// # Errors
    /// Out of device memory; the launches' own.
    pub fn gradients(&self, s: usize) -> Result<Tensor<f32>> {
        let (stream, layout) = (&self.stream, &self.vision.layout);
        let dims = Dims { s, ..self.dims };
        let adapted = stream.arena(|plan| Adapted::<E>::plan(plan, &dims, layout, 0))?;
        stream.fill_bytes(&adapted.flat, 0)?;
        let of_views = self.buffers.acts.sequences(0..s * self.dims.n);
        let kept = Kept::new(layout, &of_views, &self.buffers.grads.images(s, self.dims.n));
        step_in_place(stream, &adapted, Snapshot::Own, &kept, &stream.zeros(s)?, -1.0)?;
        Ok(adapted.flat)
    }

    /// What the passes over the last batch of `s` images have left: the views, then the originals, which the prediction
    /// overwrites.
    pub fn acts(&self, s: usize) -> Acts<E> {
        self.buffers.acts.sequences(0..s * (self.dims.n + 1))
    }

    /// The tower.
    pub fn vision(&self) -> &Vision {
        &self.vision
    }

    /// Views of all images, in the order of their random numbers.
    fn fill_views(&self, images: &Images, views: &Views, step: usize, patches: &Tensor<E>) -> Result<()> {
        let (s, Dims { n, .. }) = (images.descs().len(), self.dims);
        match views {
            Views::Given(given) => {
                let of_image = patches.shape()[0] / s;
                let given = E::rounded(&self.stream, &given.view(given.len()))?.view(given.shape());
                (0..s).try_for_each(|i| {
                    self.stream.copy(&patches.rows(i * of_image..(i + 1) * of_image), &given)
                })
            }
            Views::Drawn => {
                let Settings { policy, seed, .. } = &self.settings;
                let params = self.buffers.view_params.rows(0..s);
                draw_views(&self.stream, policy, (*seed, (step * n) as u32), images.descs(), &params)?;
                let drawn = Some((&params, &self.items(patches)));
                self.augmenter.make(&self.stream, images, drawn, None)
            }
        }
    }

    /// Patches by sequence, as the augmentation makes them: `(items, T - 1, P)`.
    fn items(&self, patches: &Tensor<E>) -> Tensor<E> {
        let Dims { t, p, .. } = self.dims;
        patches.view([patches.shape()[0] / (t - 1), t - 1, p])
    }

    /// Unit features and logits of all sequences of `acts`.
    fn forward(&self, weights: &impl Weights<E>, acts: &Acts<E>, logits: &Tensor<f32>) -> Result<()> {
        self.vision.forward(&self.stream, weights, acts)?;
        Linear::nt(&acts.unit, &self.text, logits).run(&self.stream)
    }

    /// The loss of the views' logits, and every parameter's gradient.
    fn backward(&self, weights: &impl Differentiable<E>, acts: &Acts<E>, grads: &Grads<E>) -> Result<()> {
        let (s, Dims { n, k, .. }) = (grads.class.shape()[0], self.dims);
        let Buffers { logits, dlogits, entropy, .. } = &self.buffers;
        let of_views = |tensor: &Tensor<f32>| tensor.rows(0..s * n);
        let [by_image, dby_image] = [logits, dlogits].map(|tensor| of_views(tensor).view([s, n, k]));
        entropy_forward_backward(&self.stream, &dby_image, &entropy.rows(0..s), &by_image, None, 1.0)?;
        Linear::nn(&of_views(dlogits), &self.text, &grads.dunit).run(&self.stream)?;
        self.vision.backward(&self.stream, weights, acts, grads)
    }

    /// Runs a stage, as a range of its name, and adds its time to [`Memo::stage_times`] where these are kept.
    fn time<T>(&self, stage: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let _range = trace::range(stage);
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
}
