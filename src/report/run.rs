//! A run as a report reads it: columns of what was answered, a row an image.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use super::counted;
use crate::engine::Guard;
use crate::records::{Choice, End, Predictor, Record, Row, begun_with, scan};

/// In a column of classes: none.
pub const NONE: u32 = u32::MAX;

/// Of numbers without names.
const MOST_CLASSES: usize = 1 << 20;

/// The answers of a run. Columns have a row for each image of a class, in the order of the file.
pub struct Run {
    /// Its file, as it was named.
    pub path: String,
    /// What it was begun with; empty where that is not known.
    pub settings: Map<String, Value>,
    pub classes: Vec<String>,
    /// Learning rates, as many as a predictor that takes steps has columns.
    pub rates: Vec<f32>,
    /// Groups of images, in the order in which they come.
    pub groups: Vec<String>,
    pub indices: Vec<u32>,
    /// The first 64 bits of each image's SHA-256.
    pub digests: Vec<u64>,
    pub labels: Vec<u32>,
    /// Of [`Run::groups`], or [`NONE`].
    pub group_of: Vec<u32>,
    /// Before the first and before the last step, nats.
    pub entropies: Vec<[f32; 2]>,
    pub columns: Vec<Column>,
    /// Names of images whose answer the run's first adaptation has fixed or broken, by rows.
    pub files: HashMap<usize, String>,
    /// Images that could not be read.
    pub failed: usize,
    /// Images of no class.
    pub of_no_class: usize,
    /// What a reader is to know first.
    pub notes: Vec<String>,
}

/// What one predictor answers.
pub struct Column {
    pub predictor: Predictor,
    /// What people call it.
    pub name: String,
    /// [`NONE`] where the step has led to no number.
    pub answers: Vec<u32>,
    /// NaN there.
    pub confidences: Vec<f64>,
    /// Classes before the right one; [`NONE`] there.
    pub ranks: Vec<u32>,
    /// By group, behind those of images of none.
    pub scores: Vec<Scores>,
    /// Confidences in images of no class.
    pub outside: Vec<f64>,
    /// Images for which zero-shot's answer stands, see [`Guard`].
    pub skipped: usize,
    pub rolled_back: usize,
}

/// Sums over images that have an answer.
#[derive(Clone, Copy, Default)]
pub struct Scores {
    pub images: usize,
    pub nll: f64,
    /// Images whose likelihood is 0.
    pub infinite: usize,
    pub brier: f64,
}

impl Run {
    /// Reads a run's file and what lies beside it.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged, with the line; one without a record.
    pub fn read(path: &Path) -> Result<Run> {
        let settings = begun_with(path)?;
        let is_known = settings.is_some();
        let settings = settings.unwrap_or_default();
        let texts = |field: &str| settings.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let classes = texts("labels").iter().filter_map(|name| name.as_str().map(str::to_string)).collect();
        let rates = texts("lr").iter().filter_map(|rate| rate.as_f64().map(|rate| rate as f32)).collect();
        let mut run = Run {
            path: path.display().to_string(),
            settings,
            classes,
            rates,
            groups: Vec::new(),
            indices: Vec::new(),
            digests: Vec::new(),
            labels: Vec::new(),
            group_of: Vec::new(),
            entropies: Vec::new(),
            columns: Vec::new(),
            files: HashMap::new(),
            failed: 0,
            of_no_class: 0,
            notes: Vec::new(),
        };
        let end = scan(path, |row| match row {
            Row::Record(record) => run.add(&record, is_known),
            Row::Failure(_) => {
                run.failed += 1;
                Ok(())
            }
        })?;
        ensure!(
            !run.columns.is_empty(),
            "{}: it has no record of an image that could be read",
            path.display()
        );
        run.finish(end, is_known);
        Ok(run)
    }

    fn add(&mut self, record: &Record, is_known: bool) -> Result<()> {
        if self.columns.is_empty() {
            self.columns =
                record.answers().map(|(predictor, _)| Column::new(predictor, &self.rates)).collect();
        }
        let same =
            record.answers().map(|(predictor, _)| predictor).eq(self.columns.iter().map(|c| c.predictor));
        ensure!(
            same,
            "image {} has answers of other predictors than the image of the first line",
            record.index
        );
        let Some(label) = record.label else {
            self.of_no_class += 1;
            for (column, (_, choice)) in self.columns.iter_mut().zip(record.answers()) {
                column.outside.extend(choice.map(|choice| choice.confidence));
            }
            return Ok(());
        };
        let answers = record.answers().filter_map(|(_, choice)| choice.map(|choice| choice.pred));
        let most = answers.chain([label]).max().unwrap_or(label);
        ensure!(most < MOST_CLASSES, "image {} has class {most}, of more than there can be", record.index);
        if is_known {
            let classes = self.classes.len();
            ensure!(
                most < classes,
                "image {} has class {most}, but the settings name {classes}",
                record.index
            );
        }
        while self.classes.len() <= most {
            self.classes.push(format!("class {}", self.classes.len()));
        }
        let group = record.group.as_deref().map_or(NONE, |group| self.group(group));
        let row = self.indices.len();
        self.indices.push(record.index as u32);
        self.digests.push(u64::from_str_radix(&record.digest, 16).unwrap_or(0));
        self.labels.push(label as u32);
        self.group_of.push(group);
        let entropy = if record.entropy.is_empty() { &record.confident_entropy } else { &record.entropy };
        let ends = [entropy.first(), entropy.last()];
        self.entropies.push(ends.map(|entropy| entropy.copied().unwrap_or(f32::NAN)));
        for (column, (_, choice)) in self.columns.iter_mut().zip(record.answers()) {
            column.add(choice, group);
        }
        if let (Some(file), Some(after)) = (&record.file, self.first_adapted()) {
            let is_right = |column: &Column| column.answers[row] == label as u32;
            if is_right(&self.columns[0]) != is_right(&self.columns[after]) {
                self.files.insert(row, file.clone());
            }
        }
        Ok(())
    }

    /// A group's number; most images are of the group of the image before.
    fn group(&mut self, name: &str) -> u32 {
        let last = self.group_of.last().copied().filter(|&last| last != NONE);
        if let Some(last) = last.filter(|&last| self.groups[last as usize] == name) {
            return last;
        }
        let found = self.groups.iter().position(|other| other == name);
        found.unwrap_or_else(|| {
            self.groups.push(name.to_string());
            self.groups.len() - 1
        }) as u32
    }

    /// The first column of a predictor that takes steps.
    pub fn first_adapted(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.predictor.rate().is_some())
    }

    fn finish(&mut self, end: End, is_known: bool) {
        let done = self.indices.len() + self.of_no_class + self.failed;
        // A shard's own, or the whole run's.
        let images = |of: &str| self.settings.get(of).and_then(|selection| selection.get("images")?.as_u64());
        let asked = images("shard").or_else(|| images("selection"));
        let of =
            asked.filter(|&asked| asked > done as u64).map_or(String::new(), |asked| format!(" of {asked}"));
        match end {
            End::Running => {
                self.note(format!("the run is still going on: these are its first {done}{of} images"))
            }
            End::Cut => {
                self.note(format!("the run was ended in its line {}: {done}{of} images are there", done + 1))
            }
            End::Whole if !of.is_empty() => {
                self.note(format!("the run was ended after {done}{of} images; memo eval --resume goes on"));
            }
            End::Whole => {}
        }
        if !is_known {
            self.note(format!(
                "{}.run.json is missing: classes and learning rates are called by their numbers",
                self.path
            ));
        }
        if self.failed > 0 {
            self.note(format!("{} could not be read: left out", counted(self.failed, "image")));
        }
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Whether a column's answer to the image of a row is right.
    pub fn is_right(&self, column: usize, row: usize) -> bool {
        self.columns[column].answers[row] == self.labels[row]
    }

    /// A class by its number.
    pub fn class(&self, number: u32) -> &str {
        self.classes.get(number as usize).map_or("no answer", String::as_str)
    }
}

impl Column {
    fn new(predictor: Predictor, rates: &[f32]) -> Column {
        let mut name = predictor.title(rates);
        if let (Some(rate), true) = (predictor.rate(), rates.is_empty()) {
            name += &format!(" rate {}", rate + 1);
        }
        Column {
            predictor,
            name,
            answers: Vec::new(),
            confidences: Vec::new(),
            ranks: Vec::new(),
            scores: Vec::new(),
            outside: Vec::new(),
            skipped: 0,
            rolled_back: 0,
        }
    }

    fn add(&mut self, choice: Option<&Choice>, group: u32) {
        self.answers.push(choice.map_or(NONE, |choice| choice.pred as u32));
        self.confidences.push(choice.map_or(f64::NAN, |choice| choice.confidence));
        let guard = choice.and_then(|choice| choice.guard);
        self.skipped += usize::from(guard == Some(Guard::Skipped));
        self.rolled_back += usize::from(guard == Some(Guard::RolledBack));
        let truth = choice.and_then(|choice| choice.truth);
        self.ranks.push(truth.map_or(NONE, |truth| truth.rank as u32));
        let place = if group == NONE { 0 } else { group as usize + 1 };
        if self.scores.len() <= place {
            self.scores.resize(place + 1, Scores::default());
        }
        if let Some(truth) = truth {
            let scores = &mut self.scores[place];
            scores.images += 1;
            scores.nll += truth.nll.unwrap_or(0.0);
            scores.infinite += usize::from(truth.nll.is_none());
            scores.brier += truth.brier;
        }
    }

    /// Of a group, or of all.
    pub fn scores(&self, group: Option<usize>) -> Scores {
        let of = |group: usize| self.scores.get(group + 1).copied().unwrap_or_default();
        let sum = |a: Scores, b: &Scores| Scores {
            images: a.images + b.images,
            nll: a.nll + b.nll,
            infinite: a.infinite + b.infinite,
            brier: a.brier + b.brier,
        };
        group.map_or_else(|| self.scores.iter().fold(Scores::default(), sum), of)
    }
}
