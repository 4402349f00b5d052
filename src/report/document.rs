//! A report: what all its forms say, and as JSON what scripts read.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

use super::compare::{self, Pair};
use super::counted;
use super::figures::{ClassFigures, Curves, Detection, Figures, by_class, curves, detection, figures};
use super::run::{NONE, Run};
use super::seeds::Seeds;
use crate::metrics::calibration::Bin;
use crate::metrics::corruption::{alexnet, mean_corruption_error};
use crate::metrics::mean;
use crate::metrics::selective::Point;
use crate::threads::together;

/// Classes of ImageNet, whose reference is no other data set's.
const IMAGENET: usize = 1000;
/// Bins of the histogram of entropies.
const ENTROPY_BINS: usize = 20;

#[derive(Serialize)]
pub struct Report {
    pub runs: Vec<RunReport>,
    /// Settings that are not the same in all runs.
    pub differing_settings: Vec<(String, Vec<Value>)>,
    pub pairs: Vec<Pair>,
    pub seeds: Vec<Seeds>,
    pub notes: Vec<String>,
}

#[derive(Serialize)]
pub struct RunReport {
    pub file: String,
    /// What it was begun with, but for the classes' names.
    pub settings: Map<String, Value>,
    pub notes: Vec<String>,
    pub classes: Vec<String>,
    pub images: usize,
    pub images_of_no_class: usize,
    pub failed: usize,
    pub predictors: Vec<PredictorReport>,
    pub entropy: Option<Entropy>,
    /// By the first predictor that takes steps.
    pub fixed: Vec<Example>,
    pub broken: Vec<Example>,
}

#[derive(Serialize)]
pub struct PredictorReport {
    /// As records call it.
    pub field: &'static str,
    pub name: String,
    /// Of one that takes steps, where it is known.
    pub lr: Option<f64>,
    #[serde(flatten)]
    pub figures: Figures,
    /// Images for which zero-shot's answer stands: it was so confident, or the step had led to a collapse.
    pub skipped: usize,
    pub rolled_back: usize,
    pub detection: Option<Detection>,
    pub by_class: Vec<ClassFigures>,
    pub by_group: Vec<GroupFigures>,
    /// The mean over groups.
    pub mean_over_groups: Option<f64>,
    /// Against AlexNet, where the groups are ImageNet-C's 15 corruptions at 5 severities.
    pub mean_corruption_error: Option<f64>,
    pub reliability: Vec<Bin>,
    pub risk_coverage: Vec<Point>,
}

impl PredictorReport {
    /// What of its answers is not its own, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let (name, figures) = (&self.name, &self.figures);
        let notes = [
            (figures.no_answer, "has no answer for {}: not right, and in no other figure"),
            (self.skipped, "took no step for {}, of which zero-shot was confident enough"),
            (self.rolled_back, "was rolled back for {}, for which it had collapsed"),
        ];
        let told = notes.into_iter().filter(|(count, _)| *count > 0);
        told.map(|(count, what)| format!("{name} {}", what.replace("{}", &counted(count, "image")))).collect()
    }
}

#[derive(Serialize)]
pub struct GroupFigures {
    pub group: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// The loss before the first step, and before the last where there are several.
#[derive(Serialize)]
pub struct Entropy {
    pub mean_before: f64,
    pub mean_before_last: Option<f64>,
    /// Edges of the histograms' bins, nats.
    pub edges: Vec<f64>,
    /// Images by zero-shot's answer, before the first step.
    pub right: Vec<usize>,
    pub wrong: Vec<usize>,
    /// Images whose answer is fixed or broken.
    pub changed: Vec<usize>,
}

/// An image whose answer was fixed or broken.
#[derive(Clone, Serialize)]
pub struct Example {
    pub index: usize,
    pub file: Option<String>,
    pub group: Option<String>,
    pub label: String,
    pub zero_shot: Said,
    pub adapted: Said,
    /// Its digest, to be found by.
    #[serde(skip)]
    pub digest: u64,
    #[serde(skip)]
    pub picture: Option<Picture>,
}

/// The image itself.
#[derive(Clone)]
pub struct Picture {
    /// Of an `img`: a PNG in base64.
    pub source: String,
    pub width: u32,
    pub height: u32,
    /// Whether its pixels are to be seen.
    pub is_small: bool,
}

#[derive(Clone, Serialize)]
pub struct Said {
    pub class: String,
    pub confidence: Option<f64>,
}

impl Report {
    /// * `examples`: how many fixed and how many broken images to name of each run, evenly over it.
    pub fn of(runs: &[Run], examples: usize) -> Report {
        let (pairs, notes) = compare::pairs(runs);
        Report {
            runs: runs.iter().map(|run| RunReport::of(run, examples)).collect(),
            differing_settings: compare::differing(runs),
            pairs,
            seeds: compare::seeds(runs),
            notes,
        }
    }

    /// # Errors
    /// It has no form in JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl RunReport {
    fn of(run: &Run, examples: usize) -> RunReport {
        let mut settings = run.settings.clone();
        settings.shift_remove("labels");
        let all: Vec<u32> = (0..run.indices.len() as u32).collect();
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); run.groups.len()];
        for (row, &group) in all.iter().zip(&run.group_of).filter(|(_, group)| **group != NONE) {
            groups[group as usize].push(*row);
        }
        // Two at once: each takes some 60 bytes an image on the way.
        let columns = Mutex::new(0..run.columns.len());
        let next = || columns.lock().unwrap_or_else(PoisonError::into_inner).next();
        let of = |column| (column, PredictorReport::of(run, column, &all, &groups));
        let mut predictors: Vec<_> = together(2, || std::iter::from_fn(next).map(of).collect::<Vec<_>>())
            .into_iter()
            .flatten()
            .collect();
        predictors.sort_unstable_by_key(|(column, _)| *column);
        let (fixed, broken) = changed(run, examples);
        RunReport {
            file: run.path.clone(),
            settings,
            notes: run.notes.clone(),
            classes: run.classes.clone(),
            images: run.indices.len(),
            images_of_no_class: run.of_no_class,
            failed: run.failed,
            predictors: predictors.into_iter().map(|(_, predictor)| predictor).collect(),
            entropy: Entropy::of(run),
            fixed,
            broken,
        }
    }

    /// The predictor that examples and headlines are of.
    pub fn first_adapted(&self) -> Option<&PredictorReport> {
        self.predictors.iter().find(|predictor| predictor.field.starts_with("memo"))
    }
}

impl PredictorReport {
    fn of(run: &Run, column: usize, all: &[u32], groups: &[Vec<u32>]) -> PredictorReport {
        let its = &run.columns[column];
        let Curves { reliability, risk_coverage } = curves(run, column, all);
        let by_group = groups.iter().zip(&run.groups).enumerate().map(|(number, (rows, name))| {
            GroupFigures { group: name.clone(), figures: figures(run, column, rows, Some(number)) }
        });
        let by_group: Vec<GroupFigures> = by_group.collect();
        let error = |corruption: &str, severity: usize| {
            let name = format!("{corruption}/{severity}");
            let found = by_group.iter().find(|group| group.group == name)?;
            found.figures.accuracy.map(|accuracy| 1.0 - accuracy)
        };
        PredictorReport {
            field: its.predictor.field(),
            name: its.name.clone(),
            lr: its.predictor.rate().and_then(|rate| run.rates.get(rate)).map(|&rate| super::decimal(rate)),
            figures: figures(run, column, all, None),
            skipped: its.skipped,
            rolled_back: its.rolled_back,
            detection: detection(run, column),
            by_class: by_class(run, column),
            mean_over_groups: mean(by_group.iter().filter_map(|group| group.figures.accuracy)),
            mean_corruption_error: mean_corruption_error(alexnet(), error)
                .filter(|_| run.classes.len() == IMAGENET),
            by_group,
            reliability,
            risk_coverage,
        }
    }
}

/// Images that the first adaptation fixes and that it breaks, up to so many of each.
fn changed(run: &Run, most: usize) -> (Vec<Example>, Vec<Example>) {
    let Some(after) = run.first_adapted() else { return (Vec::new(), Vec::new()) };
    let said = |column: usize, row: usize| Said {
        class: run.class(run.columns[column].answers[row]).to_string(),
        confidence: Some(run.columns[column].confidences[row]).filter(|confidence| !confidence.is_nan()),
    };
    let example = |row: usize| Example {
        index: run.indices[row] as usize,
        file: run.files.get(&row).cloned(),
        group: run.groups.get(run.group_of[row] as usize).cloned(),
        label: run.class(run.labels[row]).to_string(),
        zero_shot: said(0, row),
        adapted: said(after, row),
        digest: run.digests[row],
        picture: None,
    };
    let evenly = |is_right_after: bool| -> Vec<Example> {
        let rows = (0..run.indices.len()).filter(|&row| {
            run.is_right(after, row) == is_right_after && run.is_right(0, row) != is_right_after
        });
        let rows: Vec<usize> = rows.collect();
        let count = rows.len().min(most);
        (0..count).map(|i| example(rows[i * rows.len() / count])).collect()
    };
    (evenly(true), evenly(false))
}

impl Entropy {
    /// None where the run took no steps.
    fn of(run: &Run) -> Option<Entropy> {
        let known = || (0..run.indices.len()).filter(|&row| !run.entropies[row][0].is_nan());
        let at = |end: usize| {
            let there = known().map(|row| f64::from(run.entropies[row][end]));
            mean(there.filter(|entropy| !entropy.is_nan()))
        };
        let after = run.first_adapted()?;
        let top = known().map(|row| run.entropies[row][0]).fold(0f32, f32::max).max(1e-6);
        let mut entropy = Entropy {
            mean_before: at(0)?,
            mean_before_last: at(1).filter(|&last| Some(last) != at(0)),
            edges: (0..=ENTROPY_BINS).map(|i| f64::from(top) * i as f64 / ENTROPY_BINS as f64).collect(),
            right: vec![0; ENTROPY_BINS],
            wrong: vec![0; ENTROPY_BINS],
            changed: vec![0; ENTROPY_BINS],
        };
        for row in known() {
            let share = run.entropies[row][0].max(0.0) / top;
            let bin = ((share * ENTROPY_BINS as f32) as usize).min(ENTROPY_BINS - 1);
            let before = run.is_right(0, row);
            if before {
                entropy.right[bin] += 1
            } else {
                entropy.wrong[bin] += 1
            }
            entropy.changed[bin] += usize::from(before != run.is_right(after, row));
        }
        Some(entropy)
    }
}
