//! What a predictor answers: a class, how sure it is, and how that stands to the truth.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::engine::{Guard, Prediction};

/// A predicted class and its probability; all numbers are of float64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Flat", into = "Flat")]
pub struct Choice {
    pub pred: usize,
    pub confidence: f64,
    /// None where the image is of no class.
    pub truth: Option<Truth>,
    /// Of MEMO's: why this is zero-shot's answer.
    pub guard: Option<Guard>,
}

/// A prediction beside the class that is right, `t`. With K probabilities `p`:
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// `-ln p[t]`, nats; none where it is infinite, as that of a vote is for a class without votes.
    pub nll: Option<f64>,
    /// Classes before the right one: those with more probability, and of equals the predicted one and those of smaller
    /// indices. The right one is among the first k where this is below k.
    pub rank: usize,
    /// `Σ (p[j] - [j = t])²`, from 0 to 2.
    pub brier: f64,
}

impl Choice {
    /// * `label`: the right class; none of an image of no class.
    ///
    /// # Panics
    /// A label that is no class.
    pub fn of(prediction: &Prediction, label: Option<usize>) -> Choice {
        let truth = label.map(|label| Truth::of(prediction, label));
        let &Prediction { index: pred, confidence, guard, .. } = prediction;
        Choice { pred, confidence, truth, guard }
    }
}

impl Truth {
    fn of(Prediction { index, logits, .. }: &Prediction, label: usize) -> Truth {
        let wide = || logits.iter().map(|&x| f64::from(x));
        let (top, own) = (wide().fold(f64::NEG_INFINITY, f64::max), f64::from(logits[label]));
        let sum: f64 = wide().map(|x| (x - top).exp()).sum();
        let nll = sum.ln() + (top - own);
        let is_before =
            |(j, x): (usize, f64)| x > own || (x == own && j != label && (j == *index || j < label));
        let rank = if *index == label { 0 } else { wide().enumerate().filter(|&at| is_before(at)).count() };
        let off = |(j, x): (usize, f64)| (x - top).exp() / sum - f64::from(u8::from(j == label));
        let brier = wide().enumerate().map(|at| off(at).powi(2)).sum();
        Truth { nll: nll.is_finite().then_some(nll), rank, brier }
    }
}

/// As it lies in a line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat {
    pred: usize,
    confidence: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nll: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    brier: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
}

impl TryFrom<Flat> for Choice {
    type Error = &'static str;

    fn try_from(Flat { pred, confidence, nll, rank, brier, guard }: Flat) -> Result<Choice, &'static str> {
        let truth = match (rank, brier) {
            (Some(rank), Some(brier)) => Some(Truth { nll, rank, brier }),
            (None, Some(_)) => return Err("missing field `rank` beside `brier`"),
            (Some(_), None) => return Err("missing field `brier` beside `rank`"),
            (None, None) if nll.is_some() => return Err("missing field `rank` beside `nll`"),
            (None, None) => None,
        };
        Ok(Choice { pred, confidence, truth, guard })
    }
}

impl From<Choice> for Flat {
    fn from(Choice { pred, confidence, truth, guard }: Choice) -> Flat {
        let (rank, brier) = (truth.map(|truth| truth.rank), truth.map(|truth| truth.brier));
        Flat { pred, confidence, nll: truth.and_then(|truth| truth.nll), rank, brier, guard }
    }
}

/// What MEMO answers by one learning rate. In JSON the field `error` tells which it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Choice(Choice),
    /// The step has led to no number.
    Failed(Failed),
}

/// Why there is no choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    pub error: String,
}

impl Answer {
    /// See [`Choice::of`].
    pub fn of(prediction: &Result<Prediction, String>, label: Option<usize>) -> Answer {
        match prediction {
            Ok(prediction) => Answer::Choice(Choice::of(prediction, label)),
            Err(error) => Answer::Failed(Failed { error: error.clone() }),
        }
    }

    /// None where it has failed.
    pub fn choice(&self) -> Option<&Choice> {
        match self {
            Answer::Choice(choice) => Some(choice),
            Answer::Failed(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Answer {
    /// By hand: of an untagged enum serde says that nothing fits, not what is missing.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Answer, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let answer = match value.get("error") {
            Some(_) => serde_json::from_value(value).map(Answer::Failed),
            None => serde_json::from_value(value).map(Answer::Choice),
        };
        answer.map_err(D::Error::custom)
    }
}

/// A list in JSON where there are several; one by itself is no list.
pub mod one_or_several {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use super::Answer;

    pub fn serialize<S: Serializer>(answers: &[Answer], serializer: S) -> Result<S::Ok, S::Error> {
        match answers {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Answer>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let answers = match value {
            Value::Array(_) => serde_json::from_value(value),
            one => serde_json::from_value(one).map(|answer| vec![answer]),
        };
        answers.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    fn prediction(logits: &[f32], index: usize) -> Prediction {
        Prediction { index, confidence: 0.5, logits: logits.to_vec(), guard: None }
    }

    #[test]
    fn the_truth_is_what_its_definitions_say() {
        for (classes, spread) in [(1, 1.0), (2, 3.0), (7, 2.0), (100, 8.0)] {
            let logits = random(classes, spread, classes as u64);
            let index = (0..classes).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            let all: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let p: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp() / all).collect();
            let mut order: Vec<usize> = (0..classes).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a])); // stable: of equals the first comes first
            for label in 0..classes {
                let Truth { nll, rank, brier } = Truth::of(&prediction(&logits, index), label);
                assert!((nll.unwrap() + p[label].ln()).abs() < 1e-12, "{label} of {classes}");
                assert_eq!(order[rank], label);
                let squares = (0..classes).map(|j| (p[j] - if j == label { 1.0 } else { 0.0 }).powi(2));
                assert!((brier - squares.sum::<f64>()).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn of_equals_the_predicted_one_is_first_then_smaller_indices() {
        let ranks = |logits: &[f32], index: usize| -> Vec<usize> {
            (0..logits.len()).map(|label| Truth::of(&prediction(logits, index), label).rank).collect()
        };
        assert_eq!(ranks(&[1.0, 3.0, 3.0, 3.0, 0.0], 1), [3, 0, 1, 2, 4]);
        // As a vote may break a tie.
        assert_eq!(ranks(&[1.0, 3.0, 3.0, 3.0, 0.0], 3), [3, 1, 2, 0, 4]);
        assert_eq!(ranks(&[2.0, 2.0], 0), [0, 1]);
        assert_eq!(ranks(&[0.0, -0.0], 0), [0, 1], "zeros are equal, whatever their signs");
    }

    #[test]
    fn extremes_have_their_limits() {
        // Past what float64's exp holds: a wrong class of probability 0 still has its logarithm.
        let far = prediction(&[3e38, -3e38], 0);
        let wrong = Truth::of(&far, 1);
        assert_eq!((wrong.nll, wrong.rank, wrong.brier), (Some(2.0 * f64::from(3e38f32)), 1, 2.0));
        assert_eq!(Truth::of(&far, 0), Truth { nll: Some(0.0), rank: 0, brier: 0.0 });
        // No vote at all.
        let votes = prediction(&[3f32.ln(), 0.0, f32::NEG_INFINITY], 0);
        let none = Truth::of(&votes, 2);
        assert_eq!((none.nll, none.rank), (None, 2));
        assert!((none.brier - (0.75f64.powi(2) + 0.25f64.powi(2) + 1.0)).abs() < 1e-7);
        assert!((Truth::of(&votes, 1).nll.unwrap() - 4f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn half_a_truth_is_refused_by_the_field_that_is_missing() {
        for (text, field) in [
            (r#"{"pred":1,"confidence":0.5,"nll":1.0}"#, "`rank`"),
            (r#"{"pred":1,"confidence":0.5,"nll":1.0,"rank":1}"#, "`brier`"),
            (r#"{"pred":1,"confidence":0.5,"brier":1.0}"#, "`rank`"),
            (r#"{"pred":1,"brier":1.0}"#, "`confidence`"),
            (r#"{"pred":1,"confidence":0.5,"top5":1}"#, "`top5`"),
        ] {
            let error = serde_json::from_str::<Choice>(text).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
