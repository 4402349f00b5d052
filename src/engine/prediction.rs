//! What predictors answer, each a function of what a batch gives of an image.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::outcome::RawViews;

/// A class distribution's summary, and the logits it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Index of the largest logit; the first of equals, but see [`Prediction::vote`].
    pub index: usize,
    /// Its softmax value.
    pub confidence: f64,
    pub logits: Vec<f32>, // (K,)
    /// Why this stands where MEMO's own prediction would.
    pub guard: Option<Guard>,
}

/// Why zero-shot's answer stands instead of MEMO's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Zero-shot was so confident that there was no step.
    Skipped,
    /// The step had led to a collapse.
    RolledBack,
}

/// Where MEMO's answer is not to be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guards {
    /// Above this confidence of zero-shot there is no step.
    pub skip_above: Option<f64>,
    /// What has collapsed is taken back: a prediction of next to no entropy, [`Guards::COLLAPSED_NATS`], for a class that no view
    /// chose before the first step, nor zero-shot.
    pub roll_back: bool,
}

impl Guards {
    /// A prediction of less entropy has left no doubt: of two classes the other has some 0.1 %.
    pub const COLLAPSED_NATS: f64 = 0.01;

    /// Whether there is to be no step behind this.
    pub fn skip(&self, zero_shot: &Prediction) -> bool {
        self.skip_above.is_some_and(|above| zero_shot.confidence > above)
    }

    /// MEMO's answer: its own, or zero-shot's.
    pub(super) fn judge(&self, own: Prediction, zero_shot: &Prediction, choices: &[usize]) -> Prediction {
        let is_news = own.index != zero_shot.index && !choices.contains(&own.index);
        match self.roll_back && is_news && own.entropy() < Guards::COLLAPSED_NATS {
            true => Prediction { guard: Some(Guard::RolledBack), ..zero_shot.clone() },
            false => own,
        }
    }
}

impl Prediction {
    /// The softmax in float64, so that confidences add up.
    pub(super) fn of(logits: &[f32]) -> Result<Prediction> {
        ensure!(logits.iter().all(|v| v.is_finite()), "a logit is not finite");
        let index =
            (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).context("no classes")?;
        let top = f64::from(logits[index]);
        let sum: f64 = logits.iter().map(|&v| (f64::from(v) - top).exp()).sum();
        Ok(Prediction { index, confidence: 1.0 / sum, logits: logits.to_vec(), guard: None })
    }

    /// What most confident views predict, each its class with the largest logit: a class's probability is its share of them, whose
    /// logarithm is its logit. Of classes with equally many, that which the first of the views from place M on predicts, where
    /// M are confident, as ZERO's code breaks ties; where none of these predicts any of them, the first class.
    pub(super) fn vote(views: &RawViews, classes: usize) -> Result<Prediction> {
        let mut votes = vec![0usize; classes];
        let choices = || views.choices.iter().copied().zip(&views.confident);
        choices().filter(|(_, confident)| **confident).for_each(|(class, _)| votes[class] += 1);
        let all: usize = votes.iter().sum();
        let most = votes.iter().copied().max().context("no classes")?;
        ensure!(all > 0, "no view is confident");
        let mut later = views.choices.iter().copied().skip(all);
        let index = later.find(|&class| votes[class] == most);
        let index = index.or_else(|| votes.iter().position(|&count| count == most)).context("no classes")?;
        let share = |count: usize| count as f64 / all as f64;
        let logits = votes.iter().map(|&count| share(count).ln() as f32).collect();
        Ok(Prediction { index, confidence: share(most), logits, guard: None })
    }

    /// Of the softmax, nats.
    fn entropy(&self) -> f64 {
        let top = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let below = || self.logits.iter().map(|&x| f64::from(top) - f64::from(x));
        let sum: f64 = below().map(|d| (-d).exp()).sum();
        // No term is negative, so that nothing cancels; e^-d d vanishes where d is past what exp holds.
        sum.ln() + below().map(|d| (-d).exp() * d.min(1e3)).sum::<f64>() / sum
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::check::{Tolerance, assert_close, fixtures, widen};
    use crate::ops::select::select_reference;

    #[test]
    fn a_prediction_is_the_first_largest_logit_and_its_softmax() {
        let p = Prediction::of(&[1.0, 3.0, 3.0, -200.0]).unwrap();
        assert_eq!(p.index, 1);
        let want = 1.0 / (2.0 + (-2.0f64).exp() + (-203.0f64).exp());
        assert!((p.confidence - want).abs() < 1e-15);
        assert!(Prediction::of(&[0.0, f32::NAN]).is_err());
        assert!(Prediction::of(&[]).is_err());
    }

    fn views(choices: &[usize], confident: &[usize]) -> RawViews {
        let confident = (0..choices.len()).map(|i| confident.contains(&i)).collect();
        RawViews { average: vec![], confident_average: vec![], choices: choices.to_vec(), confident }
    }

    #[test]
    fn the_confident_vote_and_ties_are_broken_as_zero_does() {
        for (choices, confident, want, confidence) in [
            (&[2, 2, 0, 1, 1, 1][..], &[0, 1, 2][..], 2, 2.0 / 3.0),
            // One each for 0 and 3: of the views from the second place on the first that says either says 3.
            (&[0, 1, 3, 0], &[0, 2], 3, 0.5),
            (&[0, 1, 0, 3], &[0, 3], 0, 0.5),
            // Those behind say neither.
            (&[3, 0, 1, 1], &[0, 1], 0, 0.5),
            // All are confident, and none is behind.
            (&[3, 1], &[0, 1], 1, 0.5),
            (&[4], &[0], 4, 1.0),
        ] {
            let vote = Prediction::vote(&views(choices, confident), 5).unwrap();
            assert_eq!((vote.index, vote.confidence), (want, confidence), "{choices:?}, {confident:?}");
            let sum: f64 = vote.logits.iter().map(|&x| f64::from(x).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }

    /// Of random logits by `make_predictors.py`: which views are confident, and their vote.
    #[test]
    fn selection_and_vote_are_tpts_and_zeros() {
        let bytes = std::fs::read(fixtures().join("models/odd.predictors.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for case in ["one", "two", "fifty", "tie", "far tie", "all"] {
            let tensor = |what: &str| file.tensor(&format!("select.{case}.{what}")).unwrap();
            let values = |what: &str| -> Vec<f32> { bytemuck::pod_collect_to_vec(tensor(what).data()) };
            let (k, count) = (tensor("logits").shape()[1], values("count")[0] as usize);
            let (entropies, choices, confident) = select_reference(&widen(&values("logits")), k, count);
            assert_close(&entropies, &values("entropies"), Tolerance::FP32);
            let selected: Vec<f32> = confident.iter().map(|&is| f32::from(u8::from(is))).collect();
            assert_eq!(selected, values("selected"), "{case}");
            let views = RawViews { average: vec![], confident_average: vec![], choices, confident };
            assert_eq!(Prediction::vote(&views, k).unwrap().index, values("vote")[0] as usize, "{case}");
        }
    }

    #[test]
    fn a_collapse_is_no_entropy_for_a_class_that_nobody_chose() {
        let zero_shot = Prediction::of(&[1.0, 0.0, 0.5, 0.0]).unwrap();
        let judged = |logits: &[f32], roll_back: bool| {
            let guards = Guards { skip_above: None, roll_back };
            guards.judge(Prediction::of(logits).unwrap(), &zero_shot, &[2, 0, 2])
        };
        let (sure, unsure) = ([0.0, 30.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]);
        let back = Prediction { guard: Some(Guard::RolledBack), ..zero_shot.clone() };
        assert_eq!(judged(&sure, true), back);
        assert_eq!(judged(&sure, false), Prediction::of(&sure).unwrap());
        assert_eq!(judged(&unsure, true), Prediction::of(&unsure).unwrap());
        for chosen in [0, 2] {
            let mut logits = [0.0; 4];
            logits[chosen] = 30.0;
            assert_eq!(judged(&logits, true), Prediction::of(&logits).unwrap(), "some view, or zero-shot");
        }
        // Either side of the bound: of two classes at a distance d the entropy is ln(1 + e^-d) + d / (1 + e^d).
        let entropy = |d: f32| Prediction::of(&[d, 0.0]).unwrap().entropy();
        for d in [0.0f32, 0.5, 6.0, 40.0, 700.0, 3e38] {
            let wide = f64::from(d);
            let want = (-wide).exp().ln_1p() + wide.min(1e3) / (1.0 + wide.exp());
            assert!((entropy(d) - want).abs() < 1e-12, "{d}");
        }
        assert!(entropy(6.6) > Guards::COLLAPSED_NATS && entropy(6.7) < Guards::COLLAPSED_NATS);
    }

    #[test]
    fn zero_shot_is_confident_above_the_bound_alone() {
        let zero_shot = Prediction::of(&[0.0, 0.0]).unwrap();
        let skips = |skip_above| Guards { skip_above, roll_back: false }.skip(&zero_shot);
        assert!(skips(Some(0.49)) && !skips(Some(0.5)) && !skips(None));
    }
}
