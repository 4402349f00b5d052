//! Running totals of a comparison on the same images, and whether its difference is more than chance.

use super::paired::Changes;
use crate::records::{Answer, Record, Row};

/// What zero-shot CLIP and MEMO, by each learning rate, have done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    images: usize,
    failed: usize,
    clip: Sums,
    memo: Vec<Sums>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    right: usize,
    confidence: f64,
    fixed: usize,
    broken: usize,
    failed: usize,
}

/// MEMO by one learning rate beside zero-shot CLIP, on the same images. One that it has no answer for is not right, and has no
/// confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Fraction right after adapting.
    pub accuracy: f64,
    /// Mean softmax value of the predictions.
    pub confidence: f64,
    /// Wrong before, right after.
    pub fixed: usize,
    /// Right before, wrong after.
    pub broken: usize,
    /// Without an answer after: the step has led to no number.
    pub failed: usize,
    /// See [`Changes::mcnemar_p`].
    pub mcnemar_p: f64,
}

impl Totals {
    /// Rows of one run: as many learning rates in each. One that has failed counts as such, and in nothing else.
    pub fn add(&mut self, row: &Row) {
        match row {
            Row::Record(record) => self.add_record(record),
            Row::Failure(_) => self.failed += 1,
        }
    }

    fn add_record(&mut self, record: &Record) {
        let clip = Some(record.zero_shot.pred) == record.label;
        self.images += 1;
        self.clip.right += clip as usize;
        self.clip.confidence += record.zero_shot.confidence;
        self.memo.resize(record.memo.len(), Sums::default());
        for (sums, answer) in self.memo.iter_mut().zip(&record.memo) {
            let memo = match answer {
                Answer::Choice(choice) => {
                    sums.confidence += choice.confidence;
                    Some(choice.pred) == record.label
                }
                Answer::Failed(_) => {
                    sums.failed += 1;
                    false
                }
            };
            sums.right += memo as usize;
            sums.fixed += (memo && !clip) as usize;
            sums.broken += (clip && !memo) as usize;
        }
    }

    /// Those with a prediction.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Images that could not be read.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Fraction right by zero-shot CLIP.
    pub fn clip_accuracy(&self) -> f64 {
        fraction(self.clip.right as f64, self.images)
    }

    /// Mean softmax value of zero-shot predictions.
    pub fn clip_confidence(&self) -> f64 {
        fraction(self.clip.confidence, self.images)
    }

    /// By each learning rate; none before the first record.
    pub fn memo(&self) -> Vec<Comparison> {
        let compare = |&Sums { right, confidence, fixed, broken, failed }: &Sums| Comparison {
            accuracy: fraction(right as f64, self.images),
            confidence: fraction(confidence, self.images - failed),
            fixed,
            broken,
            failed,
            mcnemar_p: Changes { images: self.images, fixed, broken }.mcnemar_p(),
        };
        self.memo.iter().map(compare).collect()
    }
}

fn fraction(sum: f64, of: usize) -> f64 {
    if of == 0 { 0.0 } else { sum / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Choice, Failed, Failure};

    #[test]
    fn each_rate_is_compared_with_zero_shot() {
        let choice = |pred, confidence| Choice { pred, confidence, truth: None };
        let mut totals = Totals::default();
        for (label, zero_shot, first, second) in [(1, 1, 2, 1), (2, 1, 2, 3), (3, 3, 3, 3), (4, 4, 4, 4)] {
            // By the second rate the fourth image has no answer.
            let second = match label {
                4 => Answer::Failed(Failed { error: "a logit is not finite".to_string() }),
                _ => Answer::Choice(choice(second, 0.25)),
            };
            let memo = vec![Answer::Choice(choice(first, 0.5)), second];
            let zero_shot = choice(zero_shot, 0.75);
            let (digest, label, entropy) = (String::new(), Some(label), vec![]);
            let (file, group, overflow) = (None, None, false);
            let record = Record { index: 0, file, group, digest, label, zero_shot, memo, entropy, overflow };
            totals.add(&Row::Record(record));
        }
        let (label, error) = (Some(1), "it is cut".to_string());
        totals.add(&Row::Failure(Failure { index: 4, file: None, group: None, label, error }));
        assert_eq!(totals.failed(), 1);
        assert_eq!((totals.images(), totals.clip_accuracy(), totals.clip_confidence()), (4, 0.75, 0.75));
        let got: Vec<_> =
            totals.memo().iter().map(|c| (c.accuracy, c.confidence, c.fixed, c.broken, c.failed)).collect();
        assert_eq!(got, [(0.75, 0.5, 1, 1, 0), (0.5, 0.25, 0, 1, 1)]);
    }
}
