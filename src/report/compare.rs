//! Several runs: which are of the same images, what one changes of another's answers, what seeds change.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::figures::Change;
use super::run::{NONE, Run};
use super::seeds::Seeds;
use crate::metrics::paired::Changes;
use crate::records::Predictor;

/// A predictor of a later run beside the same of the first, on images that both have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub predictor: String,
    /// Files.
    pub first: String,
    pub second: String,
    pub change: Change,
}

/// Settings that are not the same in all runs, a row each with a value a run.
pub fn differing(runs: &[Run]) -> Vec<(String, Vec<Value>)> {
    let mut fields: Vec<&String> = Vec::new();
    for field in runs.iter().flat_map(|run| run.settings.keys()) {
        if !fields.contains(&field) && field != "labels" {
            fields.push(field);
        }
    }
    let row = |field: &String| {
        runs.iter().map(|run| run.settings.get(field).cloned().unwrap_or_default()).collect()
    };
    let rows = fields.into_iter().map(|field| (field.clone(), row(field)));
    rows.filter(|(_, values): &(_, Vec<Value>)| values.iter().any(|value| *value != values[0])).collect()
}

/// Rows of images that both have; an error where they are not of the same data.
fn common(first: &Run, second: &Run) -> Result<Vec<(usize, usize)>, String> {
    if first.classes != second.classes {
        return Err("their classes are others".to_string());
    }
    let (mut at, mut rows) = (0, Vec::new());
    for (row, index) in second.indices.iter().enumerate() {
        while first.indices.get(at).is_some_and(|other| other < index) {
            at += 1;
        }
        if first.indices.get(at) == Some(index) {
            let of = |run: &Run, row: usize| (run.digests[row], run.labels[row]);
            if of(first, at) != of(second, row) {
                return Err(format!("image {index} is another"));
            }
            rows.push((at, row));
        }
    }
    if rows.is_empty() { Err("they have no image in common".to_string()) } else { Ok(rows) }
}

/// The first run's column to hold a predictor of the second's against: of one that takes steps, by the same learning rate, or by the
/// only one that each has.
fn counterpart(first: &Run, second: &Run, its: Predictor) -> Option<usize> {
    let alike = |run: &Run| run.columns.iter().filter(|c| c.predictor.field() == its.field()).count();
    let is_only = alike(first) == 1 && alike(second) == 1;
    // Where rates are not known, by their places.
    let rate = |run: &Run, predictor: Predictor| {
        predictor.rate().map(|at| run.rates.get(at).map_or((at, None), |&rate| (0, Some(rate))))
    };
    first.columns.iter().position(|column| {
        let other = column.predictor;
        other.field() == its.field() && (is_only || rate(first, other) == rate(second, its))
    })
}

/// Each later run beside the first, and what cannot be compared.
pub fn pairs(runs: &[Run]) -> (Vec<Pair>, Vec<String>) {
    let (mut pairs, mut notes) = (Vec::new(), Vec::new());
    let Some((first, others)) = runs.split_first() else { return (pairs, notes) };
    for second in others {
        let rows = match common(first, second) {
            Ok(rows) => rows,
            Err(why) => {
                notes.push(format!(
                    "{} and {} are of different data: {why}; their answers are not compared image by image",
                    first.path, second.path
                ));
                continue;
            }
        };
        if rows.len() < first.indices.len().max(second.indices.len()) {
            let (count, a, b) = (rows.len(), &first.path, &second.path);
            notes.push(format!("{a} and {b} are compared on the {count} images that both have"));
        }
        for (column, its) in second.columns.iter().enumerate() {
            let Some(other) = counterpart(first, second, its.predictor) else { continue };
            let mut changes = Changes::default();
            for &(a, b) in &rows {
                changes.add(first.is_right(other, a), second.is_right(column, b));
            }
            let (first, second) = (first.path.clone(), second.path.clone());
            let predictor = its.name.clone();
            pairs.push(Pair { predictor, first, second, change: Change::with_interval(changes) });
        }
    }
    (pairs, notes)
}

/// Each predictor of runs that differ in nothing but their seeds, of each set of such runs; none of a run that is alone.
pub fn seeds(runs: &[Run]) -> Vec<Seeds> {
    let mut sets: Vec<Vec<&Run>> = Vec::new();
    for run in runs {
        match sets
            .iter_mut()
            .find(|set| is_alike(set[0], run) && set.iter().all(|other| seed(other) != seed(run)))
        {
            Some(set) => set.push(run),
            None => sets.push(vec![run]),
        }
    }
    sets.iter().filter(|set| set.len() > 1).flat_map(|set| of_set(set)).collect()
}

fn seed(run: &Run) -> Value {
    run.settings.get("seed").cloned().unwrap_or_default()
}

/// Whether two runs have the same images, predictors and settings, but for the seed. That images are the same is told by their
/// digests, however they were chosen.
fn is_alike(a: &Run, b: &Run) -> bool {
    fn settings(run: &Run) -> BTreeMap<&String, &Value> {
        run.settings.iter().filter(|(field, _)| !["seed", "selection"].contains(&field.as_str())).collect()
    }
    let predictors = |run: &Run| run.columns.iter().map(|column| column.predictor).collect::<Vec<_>>();
    predictors(a) == predictors(b)
        && settings(a) == settings(b)
        && a.indices == b.indices
        && a.digests == b.digests
}

fn of_set(runs: &[&Run]) -> Vec<Seeds> {
    let files: Vec<String> = runs.iter().map(|run| run.path.clone()).collect();
    let seeds: Vec<Value> = runs.iter().map(|run| seed(run)).collect();
    let of = |column: usize| {
        let answers = |run: &&Run| -> Vec<Option<u32>> {
            run.columns[column].answers.iter().map(|&a| Some(a).filter(|&a| a != NONE)).collect()
        };
        let answers: Vec<_> = runs.iter().map(answers).collect();
        let name = runs[0].columns[column].name.clone();
        Seeds::of(name, &files, &seeds, &runs[0].labels, &answers)
    };
    (0..runs[0].columns.len()).filter_map(of).collect()
}
