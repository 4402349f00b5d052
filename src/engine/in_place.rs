//! Steps taken in place: weights of each image's own, the snapshot that they start from, and how gradients change them.

use std::ops::Range;

use anyhow::Result;

use super::grads::{Kept, KeptLayer};
use super::outcome::Settings;
use super::weights::{Differentiable, Layer, Weights, joined};
use crate::clip::{Activation, VisionLayout};
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::linear::{Linear, Matrix, Output};
use crate::ops::optimizer::{Step, Steps, Stride, step, step_plain, table_bytes};
use crate::ops::{Element, Optimizer, Param};

/// Each image's own weights.
pub struct Adapted<E> {
    pub flat: Tensor<f32>, // (S, total)
    /// For the same in terms: rounded to the digits of one float16, a step would be lost.
    room: Vec<Tensor<E>>,
}

impl<E: Element> Adapted<E> {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, s: usize, layout: &VisionLayout) -> Result<Adapted<E>> {
        let flat = plan.tensor("adapted", [s, layout.total])?;
        Ok(Adapted { flat, room: E::room(plan, "adapted", s * layout.total)? })
    }

    /// Makes zeros of what lies between parameters, which no step writes.
    ///
    /// # Errors
    /// The driver's.
    pub fn clear(&self, stream: &Stream) -> Result<()> {
        stream.fill_bytes(&self.flat, 0)
    }

    /// That of the first `s` images.
    pub fn first(&self, s: usize) -> Adapted<E> {
        Adapted { flat: self.flat.rows(0..s), room: self.room.clone() }
    }

    /// `S`
    pub fn images(&self) -> usize {
        self.flat.shape()[0]
    }

    /// `(S, total)` each, the first of them what products take alone.
    pub fn terms(&self) -> Vec<Tensor<E>> {
        E::terms(&self.flat, &self.room)
    }
}

/// What a step that is not a plain one needs besides, of each image.
pub struct OptimizerRoom {
    rule: Optimizer,
    grads: Tensor<f32>,       // (S, total), of matrices
    states: Vec<Tensor<f32>>, // (S, total) each
    /// [`Optimizer::pace`] of the step at hand where there are several, then of each step, or of each rate.
    paces: Tensor<f32>, // (1 + rates or steps, 2)
    steps: usize,
}

impl OptimizerRoom {
    /// `None` where all steps are plain.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(
        plan: &mut Plan,
        s: usize,
        layout: &VisionLayout,
        settings: &Settings,
    ) -> Result<Option<OptimizerRoom>> {
        let &Settings { optimizer, steps, ref learning_rates, .. } = settings;
        if optimizer.is_plain(steps) {
            return Ok(None);
        }
        let mut of_images = |name: &str| plan.tensor(name, [s, layout.total]);
        let grads = of_images("grads")?;
        let states = (0..optimizer.states(steps)).map(|i| of_images(&format!("state {i}")));
        let states = states.collect::<Result<_>>()?;
        let paces = plan.tensor("paces", [1 + steps * learning_rates.len(), 2])?;
        Ok(Some(OptimizerRoom { rule: optimizer, grads, states, paces, steps }))
    }

    /// Writes all paces.
    ///
    /// # Errors
    /// The driver's.
    pub fn fill(&self, stream: &Stream, settings: &Settings) -> Result<()> {
        let of_steps = (0..settings.steps).flat_map(|step| {
            settings.learning_rates.iter().flat_map(move |&rate| self.rule.pace(rate, step))
        });
        let paces: Vec<f32> = [0.0; 2].into_iter().chain(of_steps).collect();
        stream.write(&self.paces.view(self.paces.len()), &paces)
    }

    /// Before a step: its pace takes the place that is read of several steps, so that these are the same work.
    ///
    /// # Errors
    /// The driver's.
    pub fn turn_to(&self, stream: &Stream, step: usize) -> Result<()> {
        if self.steps == 1 {
            return Ok(());
        }
        stream.copy(&self.paces.rows(0..1), &self.paces.rows(1 + step..2 + step))
    }

    /// Of the step at hand, by the rate of this pass, 1 of the first.
    fn pace(&self, pass: usize) -> Tensor<f32> {
        let place = if self.steps == 1 { pass } else { 0 };
        self.paces.rows(place..place + 1).view(2)
    }

    /// That of the first `s` images.
    pub fn first(&self, s: usize) -> OptimizerRoom {
        let states = self.states.iter().map(|state| state.rows(0..s)).collect();
        let (grads, paces) = (self.grads.rows(0..s), self.paces.clone());
        OptimizerRoom { grads, states, paces, ..*self }
    }
}

/// Room for the tables of what steps, from the snapshot and from each image's own.
pub struct Tables([Tensor<u8>; 2]);

impl Tables {
    /// * `matrices`: they step by a gradient that is stored.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan<E: Element>(plan: &mut Plan, kept: &Kept<E>, matrices: bool) -> Result<Tables> {
        let layers = kept.layers.iter().filter(|_| matrices).map(|layer| &layer.weight);
        let ranges = kept.vectors_and_biases().map(|(range, _)| range).chain(layers);
        let bytes = table_bytes(ranges.map(Range::len));
        Ok(Tables([plan.tensor("from_snapshot", bytes)?, plan.tensor("from_own", bytes)?]))
    }
}

/// Steps of each image.
pub struct InPlace<E> {
    pub adapted: Adapted<E>,
    kept: Kept<E>,
    pub optimizer: Option<OptimizerRoom>,
    snapshot: Tensor<f32>, // (total,)
    from_snapshot: Steps,
    from_own: Steps,
}

impl<E: Element> InPlace<E> {
    /// * `snapshot`: `(total,)`, the weights that the first step starts from, in the layout's order.
    /// * `optimizer`: none where steps are plain ones. `tables`: overwritten, with the same for any number of images.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(
        stream: &Stream,
        snapshot: &Tensor<f32>,
        adapted: Adapted<E>,
        kept: Kept<E>,
        optimizer: Option<OptimizerRoom>,
        Tables(tables): &Tables,
    ) -> Result<InPlace<E>> {
        let &[images, total] = adapted.flat.shape() else { unreachable!("weights are (S, total)") };
        let steps = |table: &Tensor<u8>, from: &dyn Fn(&Range<usize>) -> Param| {
            let step = |range: &Range<usize>, grad| Step { param: from(range), grad, column: range.start };
            let mut steps: Vec<Step> =
                kept.vectors_and_biases().map(|(range, grad)| step(range, grad.clone())).collect();
            if let Some(OptimizerRoom { grads, .. }) = &optimizer {
                let matrices = kept.layers.iter().map(|layer| &layer.weight);
                steps.extend(matrices.map(|range| step(range, Param::each(grads, range.clone()))));
            }
            Steps::new(stream, table, [images, total], steps)
        };
        let from_snapshot = steps(&tables[0], &|range| (&snapshot.slice(range.clone())).into())?;
        let from_own = steps(&tables[1], &|range| adapted.vector(range))?;
        Ok(InPlace { adapted, kept, optimizer, snapshot: snapshot.clone(), from_snapshot, from_own })
    }

    /// Of a layer's weight, each image's gradient, still scaled: to be finished, and written to its place in `(S, total)`.
    fn gradient(&self, layer: &KeptLayer<E>, out: &Tensor<f32>) -> Linear<E, f32> {
        let [dout, inp] = [&layer.dout, &layer.inp].map(|rows| Matrix::from(rows).batched(self.kept.images));
        Linear::tn(dout, inp, Matrix::each(out, layer.weight.clone(), layer.inp.shape()[1]))
    }

    /// The gradients that steps take, whatever their rate: none where these are plain.
    ///
    /// # Errors
    /// The launches' own.
    pub fn gradients(&self, stream: &Stream) -> Result<()> {
        let Some(OptimizerRoom { grads, .. }) = &self.optimizer else { return Ok(()) };
        self.kept.layers.iter().try_for_each(|layer| self.gradient(layer, grads).run(stream))
    }

    /// A step of every parameter and image, from the snapshot at the first step, then from what the step before has left; so
    /// there is nothing to restore. That of plain SGD, `W' = W - rate · g`, is the end of the products of the gradients: these
    /// start from W and write W' at once, in the terms that products take, into no buffer of gradients. Any other is behind
    /// [`InPlace::gradients`].
    ///
    /// * `flags`: `(S,)`, `|= 1` where a gradient is not finite; of a plain step, that of a vector. `pass`: 1 by the first rate.
    /// * `goes_on`: a later step starts from what this one leaves. If none does, matrices are left in the terms alone that products
    ///   take, where these are two.
    ///
    /// # Errors
    /// The launches' own.
    pub fn step(
        &self,
        stream: &Stream,
        flags: &Tensor<u32>,
        (pass, goes_on): (usize, bool),
        stride: Stride,
    ) -> Result<()> {
        let InPlace { adapted, kept, optimizer, snapshot, from_snapshot, from_own } = self;
        let is_first = stride.number == 0;
        let steps = if is_first { from_snapshot } else { from_own };
        match optimizer {
            None => {
                let rate = stride.learning_rate / stride.loss_scale;
                for layer in &kept.layers {
                    let (n, k) = (layer.dout.shape()[1], layer.inp.shape()[1]);
                    let from = match is_first {
                        true => (&snapshot.slice(layer.weight.clone()).view([n, k])).into(),
                        false => Matrix::each(&adapted.flat, layer.weight.clone(), k),
                    };
                    let product = self.gradient(layer, &adapted.flat).scale(-rate, 1.0).addend(from);
                    match &adapted.terms()[..] {
                        [first, second] => {
                            let terms =
                                [first, second].map(|term| Matrix::each(term, layer.weight.clone(), k));
                            product.in_terms(terms, goes_on).run(stream)?;
                        }
                        _ => product.run(stream)?,
                    }
                }
                step_plain(stream, steps, &adapted.flat, flags, rate)
            }
            Some(room) => {
                let pace = &room.pace(pass);
                let to = (&adapted.flat, &adapted.terms()[..]);
                step(stream, room.rule, steps, to, &room.states, flags, (stride, pace))
            }
        }
    }
}

impl<E: Element> Adapted<E> {
    /// `inp · Wᵀ + bias`, of each image's rows by its own weight.
    fn product<O: Element + Output<E>>(
        &self,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<O>,
    ) -> Linear<E, O> {
        let (s, terms) = (self.images(), self.terms());
        let weight = |term| Matrix::each(term, layer.weight.clone(), inp.shape()[1]);
        let product =
            Linear::nt(Matrix::from(inp).batched(s), weight(&terms[0]), Matrix::from(out).batched(s))
                .second_terms(None, terms.get(1).map(weight), E::SECOND_TERM);
        match layer.bias {
            Some(bias) => product.bias(self.vector(bias)),
            None => product,
        }
    }
}

impl<E: Element> Weights<E> for Adapted<E> {
    const STREAM_IN_TERMS: bool = E::TERMS > 1;
    const INPUTS_IN_TERMS: bool = false;

    fn vector(&self, range: &Range<usize>) -> Param {
        Param::each(&self.flat, range.clone())
    }

    fn branch(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<E>,
        act: Option<(Activation, Option<&Tensor<E>>)>,
    ) -> Result<()> {
        let product = self.product(layer, inp, out);
        match act {
            None => product,
            Some((kind, None)) => product.activation(kind),
            Some((kind, Some(kept))) => product.keeping(kind, Matrix::from(kept).batched(self.images())),
        }
        .run(stream)
    }

    fn join(
        &self,
        stream: &Stream,
        layer: Layer,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
        addend: &Tensor<f32>,
    ) -> Result<()> {
        joined(self.product(layer, inp, out), out, addend, Some(self.images())).run(stream)
    }

    fn project(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        inp: &Tensor<E>,
        out: &Tensor<f32>,
    ) -> Result<()> {
        self.product(Layer::without_bias(weight), inp, out).run(stream)
    }
}

impl<E: Element> Differentiable<E> for Adapted<E> {
    fn backward(
        &self,
        stream: &Stream,
        weight: &Range<usize>,
        dout: &Tensor<E>,
        dinp: &Tensor<E>,
        kept: Option<(Activation, &Tensor<E>)>,
    ) -> Result<()> {
        let s = self.images();
        // By the first terms alone: a gradient has no more digits itself.
        let weight = Matrix::each(&self.terms()[0], weight.clone(), dinp.shape()[1]);
        let product = Linear::nn(Matrix::from(dout).batched(s), weight, Matrix::from(dinp).batched(s));
        match kept {
            Some((kind, kept)) => product.backward(kind, Matrix::from(kept).batched(s)),
            None => product,
        }
        .run(stream)
    }
}
