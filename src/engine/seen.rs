//! What a batch takes of its views' logits: which views are confident, what each predicts, the averages, and the loss.

use anyhow::Result;

use super::Dims;
use super::outcome::{Loss, Settings};
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::entropy::entropy_forward_backward;
use crate::ops::select::select_confident;

/// Of S images; as they were before any step, but for what is noted.
pub struct Seen {
    pub choices: Tensor<i32>,       // (S, N)
    pub confident: Tensor<f32>,     // (S, N): 1 or 0
    pub averages: [Tensor<f32>; 2], // (S, K): of all views, of the confident; logarithms
    confident_later: Tensor<f32>,   // (S, N): at later steps
    entropies: Tensor<f32>,         // (S, N): each view's, at the step at hand
    other_entropy: Tensor<f32>,     // (S,): of the average that is not the loss's
    /// Of each image's views, how many are confident.
    count: usize,
}

impl Seen {
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, settings: &Settings) -> Result<Seen> {
        let &Dims { s, n, k, .. } = dims;
        Ok(Seen {
            choices: plan.tensor("choices", [s, n])?,
            confident: plan.tensor("confident", [s, n])?,
            averages: [plan.tensor("average", [s, k])?, plan.tensor("confident average", [s, k])?],
            confident_later: plan.tensor("confident later", [s, n])?,
            entropies: plan.tensor("entropies", [s, n])?,
            other_entropy: plan.tensor("other entropy", s)?,
            count: settings.confident_views(),
        })
    }

    /// That of the first `s` images.
    pub fn first(&self, s: usize) -> Seen {
        let [confident, confident_later, entropies] =
            [&self.confident, &self.confident_later, &self.entropies].map(|tensor| tensor.rows(0..s));
        Seen {
            choices: self.choices.rows(0..s),
            averages: [&self.averages[0], &self.averages[1]].map(|tensor| tensor.rows(0..s)),
            other_entropy: self.other_entropy.rows(0..s),
            count: self.count,
            confident,
            confident_later,
            entropies,
        }
    }

    /// Of the views as they are before any step: all that is here, the loss and its gradient.
    ///
    /// * `logits`, `dlogits`: `(s, N, K)`. `entropy`: `(s,)`, of the loss. `scratch`: see [`entropy_forward_backward`].
    ///
    /// # Errors
    /// The launches' own.
    pub fn look(
        &self,
        stream: &Stream,
        loss: Loss,
        [logits, dlogits]: &[Tensor<f32>; 2],
        entropy: &Tensor<f32>,
        (scale, scratch): (f32, &Tensor<f32>),
    ) -> Result<()> {
        let (choices, confident) = (Some(&self.choices), &self.confident);
        select_confident(stream, confident, &self.entropies, choices, logits, self.count)?;
        // The loss comes last, and leaves its gradient.
        for of in [loss.other(), loss] {
            let (weights, average) = match of {
                Loss::All => (None, &self.averages[0]),
                Loss::Confident => (Some(confident), &self.averages[1]),
            };
            let entropy = if of == loss { entropy } else { &self.other_entropy };
            let average = Some(average);
            entropy_forward_backward(stream, dlogits, entropy, average, logits, weights, scale, scratch)?;
        }
        Ok(())
    }

    /// The loss and its gradient alone.
    ///
    /// * `is_known`: these are the views and the weights that were looked at, so that it is known which are confident.
    ///
    /// # Errors
    /// The launches' own.
    pub fn look_again(
        &self,
        stream: &Stream,
        (loss, is_known): (Loss, bool),
        [logits, dlogits]: &[Tensor<f32>; 2],
        entropy: &Tensor<f32>,
        (scale, scratch): (f32, &Tensor<f32>),
    ) -> Result<()> {
        let confident = if is_known { &self.confident } else { &self.confident_later };
        if loss == Loss::Confident && !is_known {
            select_confident(stream, confident, &self.entropies, None, logits, self.count)?;
        }
        let weights = (loss == Loss::Confident).then_some(confident);
        entropy_forward_backward(stream, dlogits, entropy, None, logits, weights, scale, scratch)
    }
}

#[cfg(test)]
impl Seen {
    /// Of what is copied out alone.
    pub fn of(choices: Tensor<i32>, confident: Tensor<f32>, averages: [Tensor<f32>; 2]) -> Seen {
        let (entropies, other_entropy) = (confident.clone(), confident.view(confident.len()));
        let confident_later = confident.clone();
        Seen { choices, confident, averages, confident_later, entropies, other_entropy, count: 1 }
    }
}
