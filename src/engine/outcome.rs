//! What an adaptation is asked to do, and what comes of it.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use half::f16;
use serde::Serialize;

use crate::ops::pillow::Pillow;
use crate::ops::{Element, Optimizer};
use crate::policy::Policy;

/// What an adaptation does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Views an image and step, `N`.
    pub views: usize,
    /// One or more: each is a step of its own from the same weights, and has its own prediction. Several of one
    /// step alone.
    pub learning_rates: Vec<f32>,
    /// Steps, each on fresh views.
    pub steps: usize,
    pub optimizer: Optimizer,
    /// Of the views' random numbers, with the image's index and the view's.
    pub seed: u64,
    pub policy: Policy,
    /// Whose resize views and pictures go through.
    pub pillow: Pillow,
    pub update: Update,
    pub precision: Precision,
    /// What gradients are scaled by on their way: a power of two.
    pub loss_scale: f32,
}

impl Settings {
    /// Whether all that is done is a step of plain SGD, which can be [`Update::Implicit`].
    pub fn is_one_plain_step(&self) -> bool {
        self.steps == 1 && self.optimizer.is_plain(1)
    }

    /// Predictions of an image: as the weights were loaded, and by each learning rate.
    pub fn passes(&self) -> usize {
        1 + self.learning_rates.len()
    }

    /// Of each of them, what gradients are multiplied by: 0, then the learning rates over the loss scale.
    pub fn rates(&self) -> Vec<f32> {
        std::iter::once(0.0).chain(self.learning_rates.iter().map(|rate| rate / self.loss_scale)).collect()
    }
}

/// The arithmetic of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// float16 operands, float32 sums, on tensor cores
    Fp16,
    /// float32 throughout, as the notebook computes
    Fp32,
}

impl Precision {
    /// What gradients are scaled by, unless told otherwise.
    pub fn loss_scale(self) -> f32 {
        match self {
            Precision::Fp16 => f16::LOSS_SCALE,
            Precision::Fp32 => f32::LOSS_SCALE,
        }
    }
}

/// How the step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// Fold the step into the prediction; weights stay as they are
    Implicit,
    /// Change the weights, each image's own, and predict
    InPlace,
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
    pub(super) fn of(logits: &[f32]) -> Result<Prediction> {
        ensure!(logits.iter().all(|v| v.is_finite()), "a logit is not finite");
        let index =
            (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).context("no classes")?;
        let top = f64::from(logits[index]);
        let sum: f64 = logits.iter().map(|&v| (f64::from(v) - top).exp()).sum();
        Ok(Prediction { index, confidence: 1.0 / sum, logits: logits.to_vec() })
    }
}

/// What a batch gives of an image, as it is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub zero_shot: Vec<f32>, // (K,) logits
    pub memo: Vec<Vec<f32>>, // the same by each learning rate
    pub entropy: Vec<f32>,   // (steps,)
    /// Whether a gradient was past the largest number of its type.
    pub overflow: bool,
}

/// What MEMO did to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub zero_shot: Prediction,
    /// By each learning rate: why there is none, where it is not finite. By one of them at least there is.
    pub memo: Vec<Result<Prediction, String>>,
    /// Marginal entropy of the views before each step, nats.
    pub entropy: Vec<f32>,
    /// In float16 something was past its largest number, a gradient first of all, so that this was computed again in float32.
    pub overflow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_the_first_largest_logit_and_its_softmax() {
        let p = Prediction::of(&[1.0, 3.0, 3.0, -200.0]).unwrap();
        assert_eq!(p.index, 1);
        let want = 1.0 / (2.0 + (-2.0f64).exp() + (-203.0f64).exp());
        assert!((p.confidence - want).abs() < 1e-15);
        assert!(Prediction::of(&[0.0, f32::NAN]).is_err());
        assert!(Prediction::of(&[]).is_err());
    }
}
