//! Runs that differ in nothing but their seeds: how much of a result is the seed's.

use serde::Serialize;
use serde_json::Value;

use super::markdown;
use super::tables::{self, Table, percent};
use crate::metrics::stability::{changed, spread};
use crate::records::{Predictor, Row};

/// A predictor by several seeds, all else alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seeds {
    pub predictor: String,
    /// Files, if there are any.
    pub runs: Vec<String>,
    pub seeds: Vec<Value>,
    /// By each.
    pub accuracies: Vec<f64>,
    pub mean: f64,
    /// Sample standard deviation of the accuracies.
    pub spread: Option<f64>,
    pub min: f64,
    pub max: f64,
    /// Fraction of images that have not one answer by all seeds.
    pub changed: Option<f64>,
}

impl Seeds {
    /// None without images, or without seeds.
    ///
    /// * `answers`: by each seed, as many as there are labels.
    pub fn of(
        predictor: String,
        runs: &[String],
        seeds: &[Value],
        labels: &[u32],
        answers: &[Vec<Option<u32>>],
    ) -> Option<Seeds> {
        let right =
            |answers: &Vec<Option<u32>>| answers.iter().zip(labels).filter(|(a, b)| **a == Some(**b)).count();
        let accuracies: Vec<f64> =
            answers.iter().map(|answers| right(answers) as f64 / labels.len() as f64).collect();
        let (mean, spread) = spread(&accuracies).filter(|(mean, _)| mean.is_finite())?;
        Some(Seeds {
            predictor,
            runs: runs.to_vec(),
            seeds: seeds.to_vec(),
            mean,
            spread,
            min: accuracies.iter().copied().fold(f64::INFINITY, f64::min),
            max: accuracies.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            accuracies,
            changed: changed(&answers.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        })
    }
}

/// What the predictors of one seed answer, as its run goes.
#[derive(Default)]
pub struct Answers {
    predictors: Vec<Predictor>,
    /// Image, class, and the answer of each predictor.
    rows: Vec<(usize, u32, Vec<Option<u32>>)>,
}

impl Answers {
    /// Takes an image's answers, if it is of a class.
    pub fn add(&mut self, row: &Row) {
        let Row::Record(record) = row else { return };
        let Some(label) = record.label else { return };
        if self.predictors.is_empty() {
            self.predictors = record.answers().map(|(predictor, _)| predictor).collect();
        }
        let answers = record.answers().map(|(_, choice)| choice.map(|choice| choice.pred as u32)).collect();
        self.rows.push((record.index, label as u32, answers));
    }
}

/// Several seeds on the same images. As JSON, what scripts read.
#[derive(Serialize)]
pub struct Stability {
    /// Images that every seed has answers for.
    pub images: usize,
    pub seeds: Vec<u64>,
    /// Of the records, a file a seed, if there are any.
    pub runs: Vec<String>,
    pub predictors: Vec<Seeds>,
}

impl Stability {
    /// * `answers`: by each seed, in any order of the images; `rates`: learning rates, for the predictors' names.
    pub fn of(seeds: &[u64], runs: &[String], mut answers: Vec<Answers>, rates: &[f32]) -> Stability {
        answers.iter_mut().for_each(|of_seed| of_seed.rows.sort_by_key(|(index, ..)| *index));
        let has = |of_seed: &Answers, index: usize| {
            of_seed.rows.binary_search_by_key(&index, |(index, ..)| *index).is_ok()
        };
        let first = answers.first().map_or(&[][..], |first| &first.rows);
        let common: Vec<(usize, u32)> = first
            .iter()
            .filter(|(index, ..)| answers.iter().all(|of_seed| has(of_seed, *index)))
            .map(|(index, label, _)| (*index, *label))
            .collect();
        let labels: Vec<u32> = common.iter().map(|(_, label)| *label).collect();
        let is_common = |index: usize| common.binary_search_by_key(&index, |(index, _)| *index).is_ok();
        let values: Vec<Value> = seeds.iter().map(|&seed| seed.into()).collect();
        let predictors = answers.first().map_or(&[][..], |first| &first.predictors);
        let of = |(column, predictor): (usize, &Predictor)| {
            let column = |of_seed: &Answers| -> Vec<Option<u32>> {
                let rows = of_seed.rows.iter().filter(|(index, ..)| is_common(*index));
                rows.map(|(.., answers)| answers[column]).collect()
            };
            let answers: Vec<_> = answers.iter().map(column).collect();
            Seeds::of(predictor.title(rates), runs, &values, &labels, &answers)
        };
        let predictors = predictors.iter().enumerate().filter_map(of).collect();
        Stability { images: labels.len(), seeds: seeds.to_vec(), runs: runs.to_vec(), predictors }
    }

    /// # Errors
    /// It has no form in JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut each = Table::new(format!("Accuracy on {} images by each seed", self.images), &["seed"]);
        each.head.extend(self.predictors.iter().map(|of| of.predictor.clone()));
        for (at, seed) in self.seeds.iter().enumerate() {
            let accuracies = self.predictors.iter().map(|of| percent(of.accuracies.get(at).copied()));
            each.rows.push(std::iter::once(seed.to_string()).chain(accuracies).collect());
        }
        let mut text = String::new();
        markdown::table(&mut text, &each);
        markdown::table(&mut text, &tables::seeds(&self.predictors));
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}
