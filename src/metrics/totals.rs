//! Running totals of a comparison on the same images, and whether its difference is more than chance.

use std::collections::BTreeMap;

use super::detection::{auroc, false_positives_at};
use super::paired::Changes;
use crate::engine::Guard;
use crate::records::{Choice, Predictor, Record, Row};

/// What the predictors have done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    images: usize,
    failed: usize,
    of_no_class: usize,
    sums: BTreeMap<Predictor, Sums>,
    /// Of each predictor, the confidences of images of a class and of none; nothing unless they are asked for.
    confidences: Option<BTreeMap<Predictor, [Vec<f64>; 2]>>,
}

/// How well a predictor's confidence tells images of the classes from images of none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// See [`auroc`].
    pub auroc: f64,
    /// See [`false_positives_at`], of 0.95.
    pub fpr95: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    right: usize,
    confidence: f64,
    fixed: usize,
    broken: usize,
    failed: usize,
    skipped: usize,
    rolled_back: usize,
}

/// A predictor beside zero-shot CLIP, on the same images. One that it has no answer for is not right, and has no confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Fraction right.
    pub accuracy: f64,
    /// Mean softmax value of the predictions; none where there are none.
    pub confidence: Option<f64>,
    /// Wrong by zero-shot, right by this.
    pub fixed: usize,
    /// Right by zero-shot, wrong by this.
    pub broken: usize,
    /// Without an answer: the step has led to no number.
    pub failed: usize,
    /// Where zero-shot's answer stands, see [`crate::engine::Guard`].
    pub skipped: usize,
    pub rolled_back: usize,
    /// See [`Changes::mcnemar_p`].
    pub mcnemar_p: f64,
}

impl Totals {
    /// Totals that also keep every confidence, for [`Totals::detection`].
    pub fn with_confidences() -> Totals {
        Totals { confidences: Some(BTreeMap::new()), ..Totals::default() }
    }

    /// None without images of both kinds, or where confidences are not kept.
    pub fn detection(&self, predictor: Predictor) -> Option<Detection> {
        let [inside, outside] = self.confidences.as_ref()?.get(&predictor)?;
        let fpr95 = false_positives_at(0.95, inside, outside)?;
        Some(Detection { auroc: auroc(inside, outside)?, fpr95 })
    }

    /// Rows of one run: as many learning rates in each. One that has failed counts as such, and in nothing else.
    pub fn add(&mut self, row: &Row) {
        match row {
            Row::Record(record) => self.add_record(record),
            Row::Failure(_) => self.failed += 1,
        }
    }

    fn add_record(&mut self, record: &Record) {
        for (predictor, choice) in record.answers() {
            let (Some(all), Some(choice)) = (&mut self.confidences, choice) else { continue };
            all.entry(predictor).or_default()[usize::from(record.label.is_none())].push(choice.confidence);
        }
        if record.label.is_none() {
            self.of_no_class += 1;
            return;
        }
        let is_right = |choice: &Choice| Some(choice.pred) == record.label;
        let before = is_right(&record.zero_shot);
        self.images += 1;
        for (predictor, answer) in record.answers() {
            let sums = self.sums.entry(predictor).or_default();
            let after = answer.is_some_and(is_right);
            sums.confidence += answer.map_or(0.0, |choice| choice.confidence);
            sums.right += after as usize;
            sums.fixed += (after && !before) as usize;
            sums.broken += (before && !after) as usize;
            sums.failed += answer.is_none() as usize;
            let guard = answer.and_then(|choice| choice.guard);
            sums.skipped += (guard == Some(Guard::Skipped)) as usize;
            sums.rolled_back += (guard == Some(Guard::RolledBack)) as usize;
        }
    }

    /// Images of a class, with a prediction.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Images that could not be read.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Images of no class, which no other figure counts.
    pub fn of_no_class(&self) -> usize {
        self.of_no_class
    }

    /// Fraction right by zero-shot CLIP; none before the first image of a class.
    pub fn clip_accuracy(&self) -> Option<f64> {
        self.clip().map(|clip| clip.accuracy)
    }

    /// Mean softmax value of zero-shot predictions; none before the first.
    pub fn clip_confidence(&self) -> Option<f64> {
        self.clip()?.confidence
    }

    fn clip(&self) -> Option<Comparison> {
        self.sums.get(&Predictor::ZeroShot).map(|sums| self.compare(sums))
    }

    /// MEMO by each learning rate; none before the first record.
    pub fn memo(&self) -> Vec<Comparison> {
        let memo = self.all().into_iter().filter(|(who, _)| matches!(who, Predictor::Memo { .. }));
        memo.map(|(_, comparison)| comparison).collect()
    }

    /// Each predictor of the run, in their order; none before the first record.
    pub fn all(&self) -> Vec<(Predictor, Comparison)> {
        self.sums.iter().map(|(&predictor, sums)| (predictor, self.compare(sums))).collect()
    }

    /// Sums are there of predictors that have been asked of an image at least.
    fn compare(&self, sums: &Sums) -> Comparison {
        let &Sums { right, confidence, fixed, broken, failed, skipped, rolled_back } = sums;
        Comparison {
            accuracy: right as f64 / self.images as f64,
            confidence: (self.images > failed).then(|| confidence / (self.images - failed) as f64),
            fixed,
            broken,
            failed,
            skipped,
            rolled_back,
            mcnemar_p: Changes { images: self.images, fixed, broken }.mcnemar_p(),
        }
    }

    /// Images that a predictor has no answer for.
    pub fn failures(&self, predictor: Predictor) -> usize {
        self.sums.get(&predictor).map_or(0, |sums| sums.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Answer, Failed, Failure};

    fn choice(pred: usize, confidence: f64) -> Choice {
        Choice { pred, confidence, truth: None, guard: None }
    }

    /// One that all but MEMO agree on.
    fn record(label: Option<usize>, zero_shot: usize, memo: Vec<Answer>) -> Record {
        let before = choice(zero_shot, 0.75);
        let [view_average, confident_average, vote] = [&before; 3].map(Choice::clone);
        Record {
            index: 0,
            file: None,
            group: None,
            digest: String::new(),
            label,
            zero_shot: before,
            view_average,
            confident_average,
            vote,
            memo,
            entropy: vec![],
            memo_confident: vec![],
            confident_entropy: vec![],
            overflow: false,
        }
    }

    #[test]
    fn each_rate_is_compared_with_zero_shot() {
        let mut totals = Totals::default();
        for (label, zero_shot, first, second) in [(1, 1, 2, 1), (2, 1, 2, 3), (3, 3, 3, 3), (4, 4, 4, 4)] {
            // By the second rate the fourth image has no answer.
            let second = match label {
                4 => Answer::Failed(Failed { error: "a logit is not finite".to_string() }),
                _ => Answer::Choice(choice(second, 0.25)),
            };
            let memo = vec![Answer::Choice(choice(first, 0.5)), second];
            totals.add(&Row::Record(record(Some(label), zero_shot, memo)));
        }
        let (label, error) = (Some(1), "it is cut".to_string());
        totals.add(&Row::Failure(Failure { index: 4, file: None, group: None, label, error }));
        totals.add(&Row::Record(record(None, 1, vec![Answer::Choice(choice(1, 1.0)); 2])));
        assert_eq!((totals.failed(), totals.of_no_class()), (1, 1));
        assert_eq!(
            (totals.images(), totals.clip_accuracy(), totals.clip_confidence()),
            (4, Some(0.75), Some(0.75))
        );
        let got: Vec<_> =
            totals.memo().iter().map(|c| (c.accuracy, c.confidence, c.fixed, c.broken, c.failed)).collect();
        assert_eq!(got, [(0.75, Some(0.5), 1, 1, 0), (0.5, Some(0.25), 0, 1, 1)]);
        let all = totals.all();
        let fields: Vec<_> = all.iter().map(|(who, _)| who.field()).collect();
        assert_eq!(fields, ["zero_shot", "view_average", "confident_average", "vote", "memo", "memo"]);
        assert_eq!((all[3].1.accuracy, all[3].1.fixed, all[3].1.mcnemar_p), (0.75, 0, 1.0));
        assert_eq!(totals.failures(Predictor::Memo { rate: 1 }), 1);
    }

    #[test]
    fn of_no_image_there_is_no_accuracy() {
        let mut totals = Totals::default();
        let none = |totals: &Totals| (totals.clip_accuracy(), totals.clip_confidence(), totals.all().len());
        assert_eq!(none(&totals), (None, None, 0));
        let error = "it is cut".to_string();
        totals.add(&Row::Failure(Failure { index: 0, file: None, group: None, label: Some(1), error }));
        totals.add(&Row::Record(record(None, 1, vec![Answer::Choice(choice(1, 1.0))])));
        assert_eq!(none(&totals), (None, None, 0));
        // One that is wrong is another thing.
        totals.add(&Row::Record(record(Some(0), 1, vec![Answer::Choice(choice(1, 1.0))])));
        assert_eq!(none(&totals), (Some(0.0), Some(0.75), 5));
    }

    #[test]
    fn images_of_no_class_are_told_by_confidence() {
        let add = |mut totals: Totals| {
            for (label, confidence) in [(Some(1), 0.9), (Some(0), 0.4), (None, 0.5), (None, 0.3)] {
                let memo = vec![Answer::Choice(choice(1, confidence))];
                totals.add(&Row::Record(record(label, 1, memo)));
            }
            totals
        };
        let totals = add(Totals::with_confidences());
        assert_eq!((totals.images(), totals.of_no_class()), (2, 2));
        let got = totals.detection(Predictor::Memo { rate: 0 });
        assert_eq!(got, Some(Detection { auroc: 0.75, fpr95: 0.5 }));
        assert_eq!(totals.detection(Predictor::Vote), Some(Detection { auroc: 0.5, fpr95: 1.0 }));
        assert_eq!(add(Totals::default()).detection(Predictor::Vote), None);
    }

    #[test]
    fn where_zero_shot_stands_is_counted() {
        let mut totals = Totals::default();
        let guarded = |guard| Answer::Choice(Choice { guard, ..choice(1, 0.75) });
        for guard in [None, Some(Guard::Skipped), Some(Guard::RolledBack), Some(Guard::Skipped)] {
            let record = record(Some(1), 1, vec![guarded(guard), guarded(None)]);
            totals.add(&Row::Record(record));
        }
        let got: Vec<_> = totals.memo().iter().map(|c| (c.skipped, c.rolled_back, c.accuracy)).collect();
        assert_eq!(got, [(2, 1, 1.0), (0, 0, 1.0)]);
    }
}
