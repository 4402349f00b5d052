//! What a run's columns come to: every figure of a report.

use serde::Serialize;

use super::run::{NONE, Run};
use crate::metrics::accuracy::{Class, Tally, mean_per_class, per_class};
use crate::metrics::calibration::{BINS, Bin, equal_mass, equal_width, expected_error};
use crate::metrics::detection::{auroc, false_positives_at};
use crate::metrics::interval::wilson;
use crate::metrics::mean;
use crate::metrics::paired::Changes;
use crate::metrics::selective::{Point, area, risk_coverage};

/// Of the bootstrap, so that a run has one report.
const SEED: u64 = 0;

/// One predictor on some images. Fractions are from 0 to 1; what is not defined is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    pub images: usize,
    pub right: usize,
    pub accuracy: Option<f64>,
    /// Wilson's 95 % interval.
    pub accuracy_interval: Option<(f64, f64)>,
    /// Where there are more than five classes.
    pub top5: Option<f64>,
    pub mean_per_class: Option<f64>,
    /// Mean.
    pub confidence: Option<f64>,
    /// None also where `nll_infinite` images have none.
    pub nll: Option<f64>,
    pub nll_infinite: usize,
    pub brier: Option<f64>,
    pub ece: Option<f64>,
    pub ece_equal_mass: Option<f64>,
    pub aurc: Option<f64>,
    /// Images for which the step has led to no number: not right, and in no other figure.
    pub no_answer: usize,
    /// From zero-shot to this; none of zero-shot itself.
    pub change: Option<Change>,
}

/// One predictor's answers beside another's to the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    pub images: usize,
    pub fixed: usize,
    pub broken: usize,
    /// Of accuracies.
    pub difference: Option<f64>,
    /// The bootstrap's 95 % interval; none of a group's.
    pub difference_interval: Option<(f64, f64)>,
    pub mcnemar_p: f64,
}

impl Change {
    fn of(changes: Changes) -> Change {
        let Changes { images, fixed, broken } = changes;
        let (difference, mcnemar_p) = (changes.difference(), changes.mcnemar_p());
        Change { images, fixed, broken, difference, difference_interval: None, mcnemar_p }
    }

    /// The same with its interval, which takes a millisecond.
    pub fn with_interval(changes: Changes) -> Change {
        Change { difference_interval: changes.bootstrap(SEED), ..Change::of(changes) }
    }
}

/// Answers in columns of their own, of those images that have one.
struct Answered {
    confidences: Vec<f64>,
    right: Vec<bool>,
}

fn answered(run: &Run, column: usize, rows: &[u32]) -> Answered {
    let answers = &run.columns[column].answers;
    let with = || rows.iter().map(|&row| row as usize).filter(|&row| answers[row] != NONE);
    Answered {
        confidences: with().map(|row| run.columns[column].confidences[row]).collect(),
        right: with().map(|row| run.is_right(column, row)).collect(),
    }
}

/// What a predictor has done on some images.
///
/// * `group`: whose these are; none for all.
pub fn figures(run: &Run, column: usize, rows: &[u32], group: Option<usize>) -> Figures {
    let Answered { confidences, right } = answered(run, column, rows);
    let its = &run.columns[column];
    let tally = Tally { images: rows.len(), right: right.iter().filter(|&&right| right).count() };
    let within_five = rows.iter().filter(|&&row| its.ranks[row as usize] < 5).count();
    let labels: Vec<u32> = rows.iter().map(|&row| run.labels[row as usize]).collect();
    let answers: Vec<_> =
        rows.iter().map(|&row| Some(its.answers[row as usize]).filter(|&a| a != NONE)).collect();
    let scores = its.scores(group);
    let per_image = |sum: f64| (scores.images > 0).then(|| sum / scores.images as f64);
    Figures {
        images: tally.images,
        right: tally.right,
        accuracy: tally.accuracy(),
        accuracy_interval: wilson(tally),
        top5: (run.classes.len() > 5 && !rows.is_empty()).then(|| within_five as f64 / rows.len() as f64),
        mean_per_class: mean_per_class(&per_class(&labels, &answers, run.classes.len())),
        confidence: mean(confidences.iter().copied()),
        nll: per_image(scores.nll).filter(|_| scores.infinite == 0),
        nll_infinite: scores.infinite,
        brier: per_image(scores.brier),
        ece: expected_error(&equal_width(&confidences, &right, BINS)),
        ece_equal_mass: expected_error(&equal_mass(&confidences, &right, BINS)),
        aurc: area(&risk_coverage(&confidences, &right)),
        no_answer: rows.len() - confidences.len(),
        change: (column > 0).then(|| match group {
            None => Change::with_interval(changes(run, column, rows)),
            Some(_) => Change::of(changes(run, column, rows)),
        }),
    }
}

fn changes(run: &Run, column: usize, rows: &[u32]) -> Changes {
    let mut changes = Changes::default();
    for row in rows.iter().map(|&row| row as usize) {
        changes.add(run.is_right(0, row), run.is_right(column, row));
    }
    changes
}

/// One class by one predictor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassFigures {
    pub class: String,
    pub images: usize,
    pub right: usize,
    pub accuracy: Option<f64>,
    /// How often it is the answer, rightly or not.
    pub answered: usize,
}

/// A row for each class.
pub fn by_class(run: &Run, column: usize) -> Vec<ClassFigures> {
    let answers: Vec<_> =
        run.columns[column].answers.iter().map(|&a| Some(a).filter(|&a| a != NONE)).collect();
    let rows = per_class(&run.labels, &answers, run.classes.len());
    let row = |(class, name): (_, &String)| {
        let Class { tally, answered } = class;
        let (class, images, right) = (name.clone(), tally.images, tally.right);
        ClassFigures { class, images, right, accuracy: tally.accuracy(), answered }
    };
    rows.into_iter().zip(&run.classes).map(row).collect()
}

/// What confidences are worth.
pub struct Curves {
    /// How well they are what they say: a bin a row.
    pub reliability: Vec<Bin>,
    /// The risk of the surest answers, at up to [`POINTS`] coverages.
    pub risk_coverage: Vec<Point>,
}

/// Points of a curve, as many as can be seen.
const POINTS: usize = 100;

pub fn curves(run: &Run, column: usize, rows: &[u32]) -> Curves {
    let Answered { confidences, right } = answered(run, column, rows);
    let all = risk_coverage(&confidences, &right);
    let risk_coverage = match all.len() {
        ..=POINTS => all,
        len => (1..=POINTS).map(|i| all[len * i / POINTS - 1]).collect(),
    };
    Curves { reliability: equal_width(&confidences, &right, BINS), risk_coverage }
}

/// How well confidences tell images of the classes from images of none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Detection {
    pub images_of_no_class: usize,
    pub auroc: Option<f64>,
    /// At 95 % of the images of the classes taken.
    pub fpr95: Option<f64>,
}

/// None where the run has no images of no class.
pub fn detection(run: &Run, column: usize) -> Option<Detection> {
    let its = &run.columns[column];
    let inside: Vec<f64> =
        its.confidences.iter().copied().filter(|confidence| !confidence.is_nan()).collect();
    (run.of_no_class > 0).then(|| Detection {
        images_of_no_class: its.outside.len(),
        auroc: auroc(&inside, &its.outside),
        fpr95: false_positives_at(0.95, &inside, &its.outside),
    })
}
