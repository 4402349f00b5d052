//! What an adaptation is asked to do, and what comes of it.

use clap::ValueEnum;
use half::f16;
use serde::{Deserialize, Serialize};

use super::prediction::{Guards, Prediction};
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
    /// Which share of the views is confident: see [`Settings::confident_views`].
    pub confident: f64,
    /// Each takes steps of its own from the same weights, and has its own predictions.
    pub losses: Vec<Loss>,
    pub guards: Guards,
}

impl Settings {
    /// The notebook's: 50 views, one plain step of rate 1e-5, folded into the prediction, in float16; all else as the flags have
    /// it by default.
    pub fn one_step(policy: Policy) -> Settings {
        Settings {
            views: 50,
            learning_rates: vec![1e-5],
            steps: 1,
            optimizer: Optimizer::PLAIN,
            seed: 0,
            policy,
            pillow: Pillow::default(),
            update: Update::Implicit,
            precision: Precision::Fp16,
            loss_scale: Precision::Fp16.loss_scale(),
            confident: Settings::CONFIDENT,
            losses: vec![Loss::All],
            guards: Guards::default(),
        }
    }

    /// TPT's share of views that are confident.
    pub const CONFIDENT: f64 = 0.1;

    /// Whether all that is done is a step of plain SGD, which can be [`Update::Implicit`].
    pub fn is_one_plain_step(&self) -> bool {
        self.steps == 1 && self.optimizer.is_plain(1)
    }

    /// Passes of an image through the tower by one loss: as the weights were loaded, and by each learning rate.
    pub fn passes(&self) -> usize {
        1 + self.learning_rates.len()
    }

    /// Predictions of an image: as the weights were loaded, and by each loss and learning rate.
    pub fn predictions(&self) -> usize {
        1 + self.losses.len() * self.learning_rates.len()
    }

    /// How many views are confident, as TPT has it: so many of N as the product has whole ones, in float64, but one at least.
    pub fn confident_views(&self) -> usize {
        ((self.views as f64 * self.confident) as usize).clamp(1, self.views.max(1))
    }

    /// Of each pass, what gradients are multiplied by: 0, then the learning rates over the loss scale.
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

/// What a step makes smaller: the entropy of an average prediction over an image's views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Of all views: MEMO's.
    All,
    /// Of those whose predictions have the smallest entropies: TPT's.
    Confident,
}

impl Loss {
    pub fn other(self) -> Loss {
        match self {
            Loss::All => Loss::Confident,
            Loss::Confident => Loss::All,
        }
    }
}

/// What a batch gives of an image, as it is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub zero_shot: Vec<f32>, // (K,) logits
    pub views: RawViews,
    /// By each of the settings' losses.
    pub by_loss: Vec<Stepped>,
}

/// What the views of an image predict, before any step.
#[derive(Clone, Debug, PartialEq)]
pub struct RawViews {
    /// Logarithms of the average prediction over all views, and over the confident ones.
    pub average: Vec<f32>, // (K,)
    pub confident_average: Vec<f32>, // (K,)
    /// The class with each view's largest logit.
    pub choices: Vec<usize>, // (N,)
    pub confident: Vec<bool>,        // (N,)
}

/// What comes of the steps by one loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    pub memo: Vec<Vec<f32>>, // (K,) logits, by each learning rate
    pub entropy: Vec<f32>,   // (steps,)
    /// Whether a gradient was past the largest number of its type.
    pub overflow: bool,
}

/// What the predictors answer for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub zero_shot: Prediction,
    /// Of the views' average prediction.
    pub view_average: Prediction,
    /// Of the confident views' average prediction.
    pub confident_average: Prediction,
    /// What most of the confident views predict.
    pub vote: Prediction,
    /// By each learning rate: why there is none, where it is not finite. None at all where [`Loss::All`] is not among the losses.
    pub memo: Vec<Result<Prediction, String>>,
    /// Marginal entropy of the views before each step, nats; NaN where a step before it has led to no number.
    pub entropy: Vec<f32>,
    /// Both by [`Loss::Confident`], where that is among the losses.
    pub memo_confident: Vec<Result<Prediction, String>>,
    pub confident_entropy: Vec<f32>,
    /// In float16 something was past its largest number, a gradient first of all, so that this was computed again in float32.
    pub overflow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn as_many_views_are_confident_as_in_tpt() {
        // What Python's max(1, int(N * rho)) gives.
        for (views, confident, want) in [
            (64, 0.1, 6),
            (50, 0.1, 5),
            (9, 0.1, 1),
            (1, 0.1, 1),
            (100, 0.29, 28),
            (100, 0.57, 56),
            (10, 0.3, 3),
            (7, 1.0, 7),
            (2048, 0.1, 204),
        ] {
            let settings = Settings { views, confident, ..Settings::one_step(Policy::notebook()) };
            assert_eq!(settings.confident_views(), want, "{views} * {confident}");
        }
    }
}
