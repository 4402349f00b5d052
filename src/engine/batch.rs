//! A batch of images, from pixels to logits, in one precision.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Dims;
use super::acts::Acts;
use super::buffers::{Bound, BoundStep, Buffers, StepRoom};
use super::fine::{Fine, Source};
use super::grads::Kept;
use super::graphs::{Graphs, Key};
use super::in_place::{Adapted, InPlace, Tables};
use super::outcome::{Raw, Settings, Update};
use super::slot::{Results, Sizes, Slot};
use super::stages::Stages;
use super::tower::Tower;
use super::views::{Patches, Views};
use super::vision::Vision;
use super::weights::Differentiable;
use crate::data::Rgb8;
use crate::gpu::{self, Kind, Plan, Stream, Tensor, trace};
use crate::ops::Element;
use crate::ops::augmenter::{Augmenter, Images};
use crate::ops::linear::Linear;
use crate::ops::optimizer::Stride;

/// An image of a batch.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub image: &'a Rgb8,
    /// Keys the random numbers of its views.
    pub index: u64,
}

/// A CLIP classifier that adapts to a batch of images at a time, in one precision.
pub struct Batch<E> {
    stream: Stream,
    dims: Dims,
    settings: Settings,
    tower: Tower<E>,
    augmenter: Augmenter,
    /// Of `dims.s` images; none of no image.
    buffers: Option<Buffers<E>>,
    bound: RefCell<HashMap<usize, Rc<Bound<E>>>>,
    graphs: Graphs<Keeps<E>>,
    pixels: RefCell<Tensor<u8>>,
    slots: RefCell<[Slot; 2]>,
    /// Batches so far.
    queued: Cell<usize>,
    stages: Option<Stages>,
}

/// What a graph's launches read and write.
type Keeps<E> = (Rc<Bound<E>>, Tower<E>);

/// Which loss, by its place among the settings', and which of its steps.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    loss: usize,
    step: usize,
}

impl Place {
    const FIRST: Place = Place { loss: 0, step: 0 };
}

/// A batch on its way.
#[derive(Debug)]
pub struct Queued {
    number: usize,
    s: usize,
    /// As many as there were buffers for.
    images: usize,
}

impl<E: Element> Batch<E> {
    /// By a tower of its own: see [`Tower::load`]; with buffers for `batch` images.
    ///
    /// # Errors
    /// Its own, and those of [`Batch::on`].
    pub fn new(
        stream: &Stream,
        vision: Vision,
        weights: &[f32],
        text_features: &[f32],
        batch: usize,
        settings: Settings,
    ) -> Result<Batch<E>> {
        let tower = Tower::load(stream, vision, weights, text_features)?;
        let mut made = Batch::on(stream, tower, settings)?;
        made.resize(batch)?;
        Ok(made)
    }

    /// Without buffers as yet: see [`Batch::resize`].
    ///
    /// # Errors
    /// Steps that are to be implicit and are not a single plain one, or several of several rates; out of device memory.
    pub fn on(stream: &Stream, tower: Tower<E>, settings: Settings) -> Result<Batch<E>> {
        ensure!(
            settings.update == Update::InPlace || settings.is_one_plain_step(),
            "{} steps of {:?} cannot be folded into the prediction: they are taken in place",
            settings.steps,
            settings.optimizer
        );
        ensure!(
            matches!((settings.learning_rates.len(), settings.steps), (1, _) | (1.., 1)),
            "{} learning rates and {} steps: several rates are of one step each",
            settings.learning_rates.len(),
            settings.steps
        );
        let losses = &settings.losses[..];
        ensure!(
            matches!(losses, [_]) || matches!(losses, [a, b] if a != b),
            "the losses are {losses:?}: one is expected, or each once"
        );
        let config = &tower.vision.config;
        let dims = Dims::new(config, 0, settings.views, tower.text.shape()[0]);
        let augmenter =
            Augmenter::new(config.image_size, config.patch_size, config.preprocess, settings.pillow)?
                .policy(&settings.policy);
        let slot = || Slot::new(stream.gpu(), 0, Sizes::new(&dims, &settings));
        Ok(Batch {
            stream: stream.clone(),
            dims,
            tower,
            augmenter,
            buffers: None,
            bound: RefCell::default(),
            graphs: Graphs::default(),
            pixels: RefCell::new(stream.alloc(0)?),
            slots: RefCell::new([slot()?, slot()?]),
            queued: Cell::new(0),
            stages: None,
            settings,
        })
    }

    /// Makes the buffers of `images` images, at most so many at once, `S`; no result depends on it. Those that there were are
    /// freed first, when what is queued is done; it can still be finished.
    ///
    /// # Errors
    /// Out of device memory: then there are none.
    pub fn resize(&mut self, images: usize) -> Result<()> {
        self.graphs.clear();
        self.bound.borrow_mut().clear();
        (self.buffers, self.dims.s) = (None, 0);
        self.augmenter.free();
        *self.pixels.borrow_mut() = self.stream.alloc(0)?;
        if images > self.slots.get_mut()[0].images() {
            let slot = || Slot::new(self.stream.gpu(), images, Sizes::new(&self.dims, &self.settings));
            self.slots = RefCell::new([slot()?, slot()?]);
        }
        let dims = Dims { s: images, ..self.dims };
        let plan = |plan: &mut Plan| Buffers::plan(plan, &dims, &self.tower.vision, &self.settings);
        let buffers = self.stream.arena(plan)?;
        if let StepRoom::InPlace(adapted, optimizer, _) = &buffers.step {
            adapted.clear(&self.stream)?;
            optimizer.iter().try_for_each(|room| room.fill(&self.stream, &self.settings))?;
        }
        self.buffers = Some(buffers);
        self.dims = dims;
        Ok(())
    }

    fn buffers(&self) -> Result<&Buffers<E>> {
        self.buffers.as_ref().context("a batch without buffers")
    }

    /// The same model in float32, for one image at a time: it shares the weights.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn exact(&self) -> Result<Batch<f32>> {
        let settings = Settings { loss_scale: f32::LOSS_SCALE, ..self.settings.clone() };
        let mut exact = Batch::on(&self.stream, self.tower.exact(&self.stream)?, settings)?;
        exact.resize(1)?;
        Ok(exact)
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
    ) -> Result<(usize, Vec<gpu::Entry>)> {
        let dims = Dims::new(&vision.config, s, settings.views, classes);
        gpu::measure(|plan| Buffers::<E>::plan(plan, &dims, vision, settings))
    }

    /// Images at once, at most: none before [`Batch::resize`], or after it has failed.
    pub fn images(&self) -> usize {
        self.dims.s
    }

    /// Queues the adaptation to each image, all at once, at most [`Batch::images`] of them. Of two batches that are queued, the
    /// first is to be finished before a third is queued, by [`Batch::finish`].
    ///
    /// # Errors
    /// No image or too many; an image that is too large; the device's own.
    pub fn queue(&self, items: &[Item], views: &Views) -> Result<Queued> {
        let _range = trace::range("batch");
        let s = items.len();
        ensure!((1..=self.dims.s).contains(&s), "adapting to {s} images, of {} at once", self.dims.s);
        let buffers = self.buffers()?;
        let queued = Queued { number: self.queued.get(), s, images: self.dims.s };
        self.queued.set(queued.number + 1);
        let (stream, bound) = (&self.stream, self.bound(s)?);
        let slot = &mut self.slots.borrow_mut()[queued.number % 2];
        let images = slot.send(stream, items, &buffers.descs, &mut self.pixels.borrow_mut())?;
        self.work(&bound, &images, views)?;
        let Buffers { entropy, flags, .. } = buffers;
        slot.fetch(stream, &Results { logits: &bound.predicted, seen: &bound.seen, entropy, flags })?;
        Ok(queued)
    }

    /// Waits for a batch.
    ///
    /// # Errors
    /// Those of its work.
    pub fn finish(&self, queued: Queued) -> Result<Vec<Raw>> {
        ensure!(queued.number + 2 >= self.queued.get(), "a batch's results were overwritten by later ones");
        let _range = trace::range("wait");
        let finished = self.slots.borrow()[queued.number % 2].wait(queued.s, queued.images);
        let raws = finished.with_context(|| self.stream.blame("adapting"))?;
        if let Some(stages) = &self.stages {
            stages.settle(queued.number)?;
        }
        Ok(raws)
    }

    /// Both, of one batch.
    ///
    /// # Errors
    /// Theirs.
    pub fn adapt(&self, items: &[Item], views: &Views) -> Result<Vec<Raw>> {
        self.finish(self.queue(items, views)?)
    }

    /// Queues all of a batch: nothing waits on the host, but where stages are timed.
    fn work(&self, bound: &Rc<Bound<E>>, images: &Images, views: &Views) -> Result<()> {
        let (stream, settings) = (&self.stream, &self.settings);
        let patches = Patches { stream, augmenter: &self.augmenter, settings, dims: self.dims };
        for place in 0..settings.losses.len() {
            for step in 0..settings.steps {
                let at = Place { loss: place, step };
                if !self.is_known(at) {
                    // Not recorded: its scratch memory grows with the images.
                    self.time("views", || {
                        if at == Place::FIRST {
                            patches.originals(bound, images)?;
                        }
                        patches.views(bound, images, views, step)
                    })?;
                }
                // What else is another at each step is copied to where all read it, and from where all write it.
                if let BoundStep::InPlace(in_place) = &bound.step {
                    in_place.optimizer.iter().try_for_each(|room| room.turn_to(stream, step))?;
                }
                self.recorded(bound, at)?;
                if step + 1 < settings.steps {
                    stream.copy(&self.entropies(bound, at)?, &self.last_entropies(bound, place)?)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the views at hand have passed through the tower, as the weights are then, for a loss before this one.
    fn is_known(&self, at: Place) -> bool {
        at.loss > 0 && self.settings.steps == 1
    }

    /// Where each image's entropy at this step is kept.
    fn entropies(&self, bound: &Bound<E>, Place { loss, step }: Place) -> Result<Tensor<f32>> {
        let row = loss * self.settings.steps + step;
        Ok(self.buffers()?.entropy.rows(row..row + 1).slice(0..bound.images()))
    }

    /// Where each step writes it.
    fn last_entropies(&self, bound: &Bound<E>, loss: usize) -> Result<Tensor<f32>> {
        self.entropies(bound, Place { loss, step: self.settings.steps - 1 })
    }

    /// Queues a step as a graph from the second time on, but where ranges are read or stages timed.
    fn recorded(&self, bound: &Rc<Bound<E>>, at: Place) -> Result<()> {
        let (stream, work) = (&self.stream, || self.step(bound, at));
        if trace::is_heard() || self.stages.is_some() || stream.is_rehearsal() {
            return work();
        }
        let Place { loss, step } = at;
        let (is_first, is_last) = (step == 0, step + 1 == self.settings.steps);
        let key = Key { images: bound.images(), loss, is_first, is_last };
        let keeps = || (bound.clone(), self.tower.clone());
        // SAFETY: the launches use the batch's buffers, of which `bound` holds the one allocation, and the rest; what else is another
        // at each step is not among them.
        unsafe { self.graphs.run(stream, key, self.dims.s, keeps, work) }
    }

    /// Queues a step of all images behind their views; with the first of all the predictions before it, with the last of a loss
    /// those after it.
    fn step(&self, bound: &Bound<E>, at: Place) -> Result<()> {
        let (stream, step, flags) = (&self.stream, at.step, &bound.flags[at.loss]);
        let (is_first, is_last) = (step == 0, step + 1 == self.settings.steps);
        if is_first {
            stream.fill_bytes(flags, 0)?;
        }
        match &bound.step {
            BoundStep::Implicit(implicit) => {
                self.views(&self.tower.params, bound, at)?;
                self.time("step", || implicit.step(stream, flags))?;
                let all = 0..self.settings.passes();
                self.predict("predict", Source::Implicit(&self.tower.loaded, implicit), bound, (at.loss, all))
            }
            BoundStep::InPlace(in_place) => {
                let adapted = &in_place.adapted;
                if at == Place::FIRST {
                    self.predict("zero-shot", Source::Loaded(&self.tower.loaded), bound, (0, 0..1))?;
                }
                match is_first {
                    true => self.views(&self.tower.params, bound, at)?,
                    false => self.views(adapted, bound, at)?,
                }
                let loss_scale = self.settings.loss_scale;
                for (pass, &learning_rate) in (1..).zip(&self.settings.learning_rates) {
                    self.time("step", || {
                        if pass == 1 {
                            in_place.gradients(stream)?;
                        }
                        let stride = Stride { number: step, learning_rate, loss_scale };
                        in_place.step(stream, flags, (pass, !is_last), stride)
                    })?;
                    if is_last {
                        let passes = (at.loss, pass..pass + 1);
                        self.predict("predict", Source::Adapted(adapted), bound, passes)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Logits of the originals in these passes by a loss, but for those before any step, pass 0, where an earlier loss had them.
    fn predict(
        &self,
        stage: &'static str,
        source: Source<E>,
        bound: &Bound<E>,
        (loss, passes): (usize, Range<usize>),
    ) -> Result<()> {
        let (s, rates) = (bound.images(), self.settings.learning_rates.len());
        let had = usize::from(loss > 0 && passes.start == 0);
        let row = |pass: usize| if pass == 0 { 0 } else { (loss * rates + pass) * s };
        let logits = bound.predicted.rows(row(passes.start + had)..row(passes.end - 1) + s);
        let unit = bound.originals.unit.rows(had * s..passes.len() * s);
        let weights = Fine { source, room: &self.buffers()?.fine };
        self.time(stage, || {
            self.tower.vision.forward(&self.stream, &weights, &bound.originals)?;
            Linear::nt(&unit, &self.tower.text, &logits).run(&self.stream)
        })
    }

    /// The views through the tower, their loss, and every parameter's gradient.
    fn views(&self, weights: &impl Differentiable<E>, bound: &Bound<E>, at: Place) -> Result<()> {
        let (stream, Bound { views, grads, seen, logits: both, .. }) = (&self.stream, bound);
        let [logits, dlogits] = both;
        let &[s, n, k] = logits.shape() else { unreachable!("logits are (s, N, K)") };
        let rows = |tensor: &Tensor<f32>| tensor.view([s * n, k]);
        if !self.is_known(at) {
            self.time("forward", || {
                self.tower.vision.forward(stream, weights, views)?;
                Linear::nt(&views.unit, &self.tower.text, &rows(logits)).run(stream)
            })?;
        }
        self.time("backward", || {
            let (loss, entropy) = (self.settings.losses[at.loss], self.last_entropies(bound, at.loss)?);
            let scaled = (self.settings.loss_scale, &grads.way.scratch);
            match at {
                Place::FIRST => seen.look(stream, loss, both, &entropy, scaled)?,
                _ => seen.look_again(stream, (loss, self.is_known(at)), both, &entropy, scaled)?,
            }
            Linear::nn(&rows(dlogits), &self.tower.text, &grads.dunit).run(stream)?;
            self.tower.vision.backward(stream, weights, views, grads)
        })
    }

    /// The buffers of `s` images, made when as many are first adapted to.
    fn bound(&self, s: usize) -> Result<Rc<Bound<E>>> {
        if let Some(bound) = self.bound.borrow().get(&s) {
            return Ok(bound.clone());
        }
        let (stream, flat) = (&self.stream, &self.tower.params.flat);
        let bound = self.buffers()?.bind(stream, s, flat, &self.tower.vision, &self.settings)?;
        let bound = Rc::new(bound);
        self.bound.borrow_mut().insert(s, bound.clone());
        Ok(bound)
    }

    /// The gradient of every parameter, `(S, total)` in the layout's order, of the first `s` images of the last batch that
    /// was adapted to in place, by its last step: for tests and comparisons.
    ///
    /// # Errors
    /// Out of device memory; the launches' own.
    pub fn gradients(&self, s: usize) -> Result<Tensor<f32>> {
        ensure!(
            self.settings.update == Update::InPlace,
            "an implicit step has no gradient of every parameter"
        );
        let (stream, layout, dims) = (&self.stream, &self.tower.vision.layout, Dims { s, ..self.dims });
        let (views, grads) = (self.views_of(s)?, self.buffers()?.grads.images(s, dims.n));
        let kept = Kept::new(layout, &views, &grads);
        let room = |plan: &mut Plan| Ok((Adapted::plan(plan, s, layout)?, Tables::plan(plan, &kept, false)?));
        let (adapted, tables) = stream.arena(room)?;
        adapted.clear(stream)?;
        let zeros = stream.zeros(layout.total)?;
        let in_place = InPlace::new(stream, &zeros, adapted, kept, None, &tables)?;
        let ascent = Stride { number: 0, learning_rate: -1.0, loss_scale: self.settings.loss_scale };
        in_place.step(stream, &stream.zeros(s)?, (1, true), ascent)?;
        Ok(in_place.adapted.flat)
    }

    /// What the last pass over the views of the first `s` images has left.
    ///
    /// # Errors
    /// No buffers: see [`Batch::resize`].
    pub fn views_of(&self, s: usize) -> Result<Acts<E>> {
        Ok(self.buffers()?.views.sequences(0..s * self.dims.n))
    }

    /// Queues a stage, as a range of its name, between events where its time is kept.
    fn time<T>(&self, name: &'static str, queue: impl FnOnce() -> Result<T>) -> Result<T> {
        let _range = trace::range(name);
        self.stream.span(name, Kind::Stage, || match &self.stages {
            Some(stages) => stages.time(&self.stream, self.queued.get() - 1, name, queue),
            None => queue(),
        })
    }

    /// From now on, keeps each stage's time: for benchmarks, as then no graph is launched.
    pub fn keep_stage_times(&mut self) {
        self.stages = Some(Stages::default());
    }

    /// Total time on the device of each stage since [`Batch::keep_stage_times`], in the order of the work.
    pub fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        self.stages.as_ref().map_or_else(Vec::new, Stages::totals)
    }
}
