//! All device memory of a batch: planned for the most images at once, and bound to as many as there are.

use anyhow::Result;

use super::Dims;
use super::acts::Acts;
use super::fine::FineRoom;
use super::grads::{Grads, Kept};
use super::implicit::{Implicit, Room};
use super::in_place::{Adapted, InPlace, OptimizerRoom, Tables};
use super::outcome::{Settings, Update};
use super::seen::Seen;
use super::vision::Vision;
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::Element;
use crate::ops::view::{ImageDesc, ViewParams};

/// All that a batch writes.
pub struct Buffers<E> {
    pub descs: Tensor<ImageDesc>,        // (S,)
    pub view_params: Tensor<ViewParams>, // (S, N)
    pub views: Acts<E>,                  // S·N sequences
    pub originals: Acts<f32>,            // S sequences, or passes·S
    pub grads: Grads<E>,
    pub logits: Tensor<f32>,    // (S·N, K)
    pub dlogits: Tensor<f32>,   // (S·N, K)
    pub predicted: Tensor<f32>, // (predictions·S, K): zero-shot, then by each loss and learning rate
    pub seen: Seen,
    pub entropy: Tensor<f32>, // (losses·steps, S), of which each step writes its loss's last row
    pub flags: Tensor<u32>,   // (losses, S)
    pub fine: FineRoom<E>,
    pub step: StepRoom<E>,
}

pub enum StepRoom<E> {
    Implicit(Room<E>),
    InPlace(Adapted<E>, Option<OptimizerRoom>, Tables),
}

impl<E: Element> Buffers<E> {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, vision: &Vision, settings: &Settings) -> Result<Buffers<E>> {
        let &Dims { s, n, k, .. } = dims;
        let (layers, layout) = (vision.config.vision.layers, &vision.layout);
        let passes = settings.passes();
        let is_in_place = settings.update == Update::InPlace;
        let at_once = if is_in_place { 1 } else { passes };
        let views = plan.part("views", |plan| Acts::plan(plan, dims, layers, s * n, true))?;
        let grads = plan.part("gradients", |plan| Grads::plan(plan, dims, layers, is_in_place))?;
        let kept = Kept::new(layout, &views, &grads);
        Ok(Buffers {
            descs: plan.tensor("descs", s)?,
            view_params: plan.tensor("view_params", [s, n])?,
            views,
            originals: plan.part("originals", |plan| Acts::plan(plan, dims, layers, at_once * s, false))?,
            grads,
            logits: plan.tensor("logits", [s * n, k])?,
            dlogits: plan.tensor("dlogits", [s * n, k])?,
            predicted: plan.tensor("predicted", [settings.predictions() * s, k])?,
            seen: plan.part("seen", |plan| Seen::plan(plan, dims, settings))?,
            entropy: plan.tensor("entropy", [settings.losses.len() * settings.steps, s])?,
            flags: plan.tensor("flags", [settings.losses.len(), s])?,
            fine: plan.part("fine", |plan| FineRoom::plan(plan, at_once * s * (dims.t - 1) * dims.p))?,
            step: plan.part("step", |plan| {
                Ok(match settings.update {
                    Update::Implicit => StepRoom::Implicit(Room::plan(plan, dims, layout, &kept, passes)?),
                    Update::InPlace => {
                        let adapted = Adapted::plan(plan, s, layout)?;
                        let optimizer = OptimizerRoom::plan(plan, s, layout, settings)?;
                        let tables = Tables::plan(plan, &kept, optimizer.is_some())?;
                        StepRoom::InPlace(adapted, optimizer, tables)
                    }
                })
            })?,
        })
    }

    /// Those of `s` images.
    ///
    /// * `flat`: the tower's parameters, `(total,)`.
    ///
    /// # Errors
    /// The driver's.
    pub fn bind(
        &self,
        stream: &Stream,
        s: usize,
        flat: &Tensor<f32>,
        vision: &Vision,
        settings: &Settings,
    ) -> Result<Bound<E>> {
        let &[most, n] = self.view_params.shape() else { unreachable!("view_params are (S, N)") };
        let k = self.logits.shape()[1];
        let (views, grads) = (self.views.sequences(0..s * n), self.grads.images(s, n));
        let kept = Kept::new(&vision.layout, &views, &grads);
        grads.norms.clear(stream)?;
        let at_once = self.originals.norm.len() / most;
        Ok(Bound {
            view_params: self.view_params.rows(0..s),
            originals: self.originals.sequences(0..at_once * s),
            logits: [&self.logits, &self.dlogits].map(|logits| logits.rows(0..s * n).view([s, n, k])),
            predicted: self.predicted.rows(0..settings.predictions() * s),
            seen: self.seen.first(s),
            flags: (0..settings.losses.len())
                .map(|loss| self.flags.rows(loss..loss + 1).slice(0..s))
                .collect(),
            step: match &self.step {
                StepRoom::Implicit(room) => {
                    let implicit = Implicit::new(stream, flat, kept, room, settings.rates())?;
                    BoundStep::Implicit(Box::new(implicit))
                }
                StepRoom::InPlace(adapted, optimizer, tables) => {
                    let optimizer = optimizer.as_ref().map(|room| room.first(s));
                    let in_place = InPlace::new(stream, flat, adapted.first(s), kept, optimizer, tables)?;
                    BoundStep::InPlace(Box::new(in_place))
                }
            },
            views,
            grads,
        })
    }
}

/// The buffers of as many images as a batch has.
pub struct Bound<E> {
    pub view_params: Tensor<ViewParams>,
    pub views: Acts<E>,
    pub originals: Acts<f32>,
    pub grads: Grads<E>,
    /// `(s, N, K)`
    pub logits: [Tensor<f32>; 2],
    /// `(predictions·s, K)`
    pub predicted: Tensor<f32>,
    pub seen: Seen,
    /// Of each loss, `(s,)`
    pub flags: Vec<Tensor<u32>>,
    pub step: BoundStep<E>,
}

impl<E> Bound<E> {
    /// `s`
    pub fn images(&self) -> usize {
        self.view_params.shape()[0]
    }
}

pub enum BoundStep<E> {
    Implicit(Box<Implicit<E>>),
    InPlace(Box<InPlace<E>>),
}
