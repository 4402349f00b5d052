//! A sweep over a grid of settings: what each of its points has come to, and which is best.

use std::fmt::Write;

use serde::Serialize;

use super::counted;
use super::figures::Change;
use super::markdown;
use super::table::p_value;
use super::tables::{CHANGED, NOTHING, Table, changed, interval, percent, points, signed};
use crate::metrics::accuracy::Tally;
use crate::metrics::interval::wilson;
use crate::metrics::paired::Changes;
use crate::records::{Choice, Predictor};

/// As JSON, what scripts read. Fractions are from 0 to 1.
#[derive(Serialize)]
pub struct Sweep {
    /// Where its records are.
    pub out: Option<String>,
    /// Images that could not be read, of the run that has most of them.
    pub failed: usize,
    /// Whether the best is chosen on one half of the images, see [`crate::data::chosen_on`], and reported on the other.
    pub holdout: bool,
    /// In the grid's order. With `holdout` on the images that are chosen on.
    pub points: Vec<Point>,
    /// The most accurate, of equals the first; none before every run has ended.
    pub best: Option<Best>,
}

/// A combination of settings.
#[derive(Clone, Serialize)]
pub struct Point {
    pub policy: String,
    pub views: u32,
    pub steps: u32,
    pub lr: f64,
    /// `memo` or `memo_confident`.
    pub predictor: &'static str,
    /// The file of its run, in the folder of the records.
    pub file: String,
    /// Why there are no figures.
    pub error: Option<String>,
    #[serde(flatten)]
    pub figures: Option<PointFigures>,
    /// On the images that nothing is chosen on.
    #[serde(skip)]
    pub held_out: Option<PointFigures>,
}

/// Before and after adapting, on the same images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PointFigures {
    /// Zero-shot's accuracy.
    pub before: Option<f64>,
    pub before_interval: Option<(f64, f64)>,
    pub after: Option<f64>,
    pub after_interval: Option<(f64, f64)>,
    /// Images for which the step has led to no number: not right.
    pub no_answer: usize,
    #[serde(flatten)]
    pub change: Change,
}

#[derive(Serialize)]
pub struct Best {
    /// Its place among the points.
    pub point: usize,
    /// With `holdout` on the images that it was not chosen on.
    #[serde(flatten)]
    pub figures: PointFigures,
    /// What is to be said with it.
    pub warning: Option<&'static str>,
}

/// Of a best point without `holdout`.
const WARNING: &str = "it was chosen on the very images that it is reported on, which flatters it; --holdout chooses on one half of the \
     images and reports on the other";

/// A point's running totals on some images.
#[derive(Clone, Copy, Default)]
pub struct Score {
    before: Tally,
    after: Tally,
    changes: Changes,
    no_answer: usize,
}

impl Score {
    /// One more image of a class.
    pub fn add(&mut self, label: usize, before: &Choice, after: Option<&Choice>) {
        let [was, is] = [Some(before), after].map(|choice| choice.is_some_and(|choice| choice.pred == label));
        self.before.add(was);
        self.after.add(is);
        self.changes.add(was, is);
        self.no_answer += usize::from(after.is_none());
    }

    pub fn figures(&self) -> PointFigures {
        PointFigures {
            before: self.before.accuracy(),
            before_interval: wilson(self.before),
            after: self.after.accuracy(),
            after_interval: wilson(self.after),
            no_answer: self.no_answer,
            change: Change::with_interval(self.changes),
        }
    }
}

impl Sweep {
    /// Chooses the best of all points.
    pub fn choose(&mut self) {
        // A rate that leads to no number has no place among them, whatever the others come to.
        let answers = |figures: &&PointFigures| figures.no_answer < figures.change.images;
        let after = |point: &Point| point.figures.as_ref().filter(answers).and_then(|figures| figures.after);
        let mut best: Option<(usize, f64)> = None;
        for (place, accuracy) in self.points.iter().enumerate().filter_map(|(i, p)| Some((i, after(p)?))) {
            if best.is_none_or(|(_, so_far)| accuracy > so_far) {
                best = Some((place, accuracy));
            }
        }
        self.best = best.and_then(|(point, _)| {
            let Point { figures, held_out, .. } = &self.points[point];
            let figures = if self.holdout { held_out } else { figures };
            let warning = (!self.holdout).then_some(WARNING);
            Some(Best { point, figures: figures.clone()?, warning })
        });
    }

    /// # Errors
    /// It has no form in JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// A row a point.
    pub fn table(&self) -> Table {
        let of = match self.holdout {
            true => "Before and after adapting, on the images that are chosen on",
            false => "Before and after adapting",
        };
        let own = ["policy", "predictor", "views", "steps", "rate", "images", "before", "after"];
        let head = [&own, &CHANGED[..]].concat();
        let mut table = Table::new(of, &head);
        for point in &self.points {
            let Point { policy, views, steps, lr, .. } = point;
            let mut row = vec![policy.clone(), point.title(), views.to_string(), steps.to_string()];
            row.push(format!("{lr:e}"));
            match &point.figures {
                None => row.resize(head.len(), NOTHING.to_string()),
                Some(PointFigures { before, after, change, .. }) => {
                    row.extend([change.images.to_string(), percent(*before), percent(*after)]);
                    row.extend(changed(change));
                }
            }
            table.rows.push(row);
        }
        // Who answers need be told only where there are several.
        if self.points.iter().all(|point| point.predictor == self.points[0].predictor) {
            table.head.remove(1);
            table.rows.iter_mut().for_each(|row| drop(row.remove(1)));
        }
        table
    }

    /// The best in words, and what is to be said with it.
    pub fn verdict(&self) -> Vec<String> {
        let Some(Best { point, figures, warning }) = &self.best else { return Vec::new() };
        let point = &self.points[*point];
        let mut lines = match &point.figures {
            Some(chosen) if self.holdout => vec![
                format!("Best on the {} images that are chosen on: {point}.", chosen.change.images),
                format!(
                    "On the {} others, which had no part in that: {}.",
                    figures.change.images,
                    said(figures)
                ),
            ],
            _ => {
                let images = counted(figures.change.images, "image");
                vec![format!("Best on {images}: {point}: {}.", said(figures))]
            }
        };
        if figures.change.images == 0 {
            lines.push("That says nothing: no image is among them.".to_string());
        } else if figures.change.fixed <= figures.change.broken {
            lines.push("That is no better than zero-shot.".to_string());
        }
        lines.extend(warning.map(|warning| format!("Warning: {warning}.")));
        lines
    }

    /// What points lack, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for point in &self.points {
            match (&point.error, &point.figures) {
                (Some(error), _) => notes.push(format!("{point} has no figures: {error}")),
                (None, Some(figures)) if figures.no_answer > 0 => {
                    let images = counted(figures.no_answer, "image");
                    notes.push(format!("{point} has no answer for {images}: counted as wrong"));
                }
                _ => {}
            }
        }
        if self.failed > 0 {
            notes.push(format!("{} could not be read: left out", counted(self.failed, "image")));
        }
        let mut chosen_on = self.points.iter().filter_map(|point| point.figures.as_ref()).peekable();
        if self.holdout && chosen_on.peek().is_some() && chosen_on.all(|figures| figures.change.images == 0) {
            notes.push(
                "nothing is chosen: no image is of the half that is chosen on, as where --shard leaves one half alone"
                    .to_string(),
            );
        }
        notes
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        markdown::table(&mut text, &self.table());
        for line in self.notes().iter().map(|note| format!("Note: {note}.")).chain(self.verdict()) {
            let _ = writeln!(text, "{}", markdown::line(&line));
        }
        text
    }

    /// Points that differ in nothing but their rate, in the order in which they come: a name and (rate, accuracy) of each.
    pub fn curves(&self) -> Vec<(String, Vec<(f64, f64)>)> {
        let is_one = self.points.iter().all(|point| point.predictor == self.points[0].predictor);
        let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for point in &self.points {
            let name = match is_one {
                true => point.setting(),
                false => format!("{}, {}", point.setting(), point.title()),
            };
            let at = curves.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
                curves.push((name, Vec::new()));
                curves.len() - 1
            });
            let after = point.figures.as_ref().and_then(|figures| figures.after);
            curves[at].1.extend(after.map(|after| (point.lr, after)));
        }
        curves.iter_mut().for_each(|(_, curve)| curve.sort_by(|a, b| a.0.total_cmp(&b.0)));
        curves
    }
}

impl Point {
    fn title(&self) -> String {
        let rate = 0;
        let who = match self.predictor {
            "memo_confident" => Predictor::MemoConfident { rate },
            _ => Predictor::Memo { rate },
        };
        who.title(&[])
    }

    /// All but its rate.
    fn setting(&self) -> String {
        let [views, steps] =
            [(self.views, "view"), (self.steps, "step")].map(|(count, of)| counted(count as usize, of));
        format!("{}, {views}, {steps}", self.policy)
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}, rate {:e}", self.title(), self.setting(), self.lr)
    }
}

fn said(PointFigures { before, after, change, .. }: &PointFigures) -> String {
    format!(
        "{} before, {} after, {} points ({}), fixed {}, broke {}, McNemar p = {}",
        percent(*before),
        percent(*after),
        points(change.difference),
        interval(change.difference_interval, |x| signed(100.0 * x)),
        change.fixed,
        change.broken,
        p_value(change.mcnemar_p)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(pred: usize) -> Choice {
        Choice { pred, confidence: 0.5, truth: None, guard: None }
    }

    /// Of ten images, of which zero-shot has five right: so many fixed, broken, and without an answer.
    fn score(fixed: usize, broken: usize, no_answer: usize) -> Score {
        let mut score = Score::default();
        for image in 0..10 {
            let right = image < 5;
            let changed = if right { image < broken } else { image - 5 < fixed };
            let after = choice(usize::from(right != changed));
            let after = Some(&after).filter(|_| !(right && image >= 5 - no_answer));
            score.add(1, &choice(usize::from(right)), after);
        }
        score
    }

    fn point(views: u32, lr: f64, predictor: &'static str, score: Option<Score>) -> Point {
        Point {
            policy: "mild".to_string(),
            views,
            steps: 1,
            lr,
            predictor,
            file: String::new(),
            error: score.is_none().then(|| "no number".to_string()),
            figures: score.map(|score| score.figures()),
            held_out: None,
        }
    }

    fn sweep(holdout: bool, points: Vec<Point>) -> Sweep {
        let mut sweep = Sweep { out: None, failed: 0, holdout, points, best: None };
        sweep.choose();
        sweep
    }

    #[test]
    fn a_point_is_counted_image_by_image() {
        let PointFigures { before, after, no_answer, change, .. } = score(3, 1, 2).figures();
        // Right before: 0 to 4. After: 0 is broken, 3 and 4 have no answer, 5 to 7 are fixed.
        assert_eq!((before, after, no_answer), (Some(0.5), Some(0.5), 2));
        assert_eq!((change.images, change.fixed, change.broken), (10, 3, 3));
    }

    #[test]
    fn the_best_is_the_first_of_the_most_accurate() {
        let all = |scores: [Option<Score>; 4]| {
            let rates = [1e-2, 1e-3, 1e-4, 1e-5];
            rates.into_iter().zip(scores).map(|(lr, score)| point(8, lr, "memo", score)).collect()
        };
        let four =
            sweep(false, all([None, Some(score(1, 0, 0)), Some(score(3, 1, 0)), Some(score(2, 0, 0))]));
        let best = four.best.as_ref().unwrap();
        assert_eq!((best.point, best.figures.after), (2, Some(0.7)));
        assert!(best.warning.is_some() && four.verdict().last().unwrap().starts_with("Warning: "));
        assert_eq!(four.notes(), ["MEMO by mild, 8 views, 1 step, rate 1e-2 has no figures: no number"]);
        assert!(four.table().rows[0].ends_with(&[NOTHING.to_string(), NOTHING.to_string()]));
        assert!(sweep(false, all([None; 4])).best.is_none());
        let none = sweep(false, all([Some(score(0, 1, 0)), None, None, None]));
        assert!(none.verdict().contains(&"That is no better than zero-shot.".to_string()));

        // Chosen by one half, reported by the other.
        let mut points: Vec<Point> = all([Some(score(1, 0, 0)), Some(score(2, 0, 0)), None, None]);
        points[0].held_out = Some(score(5, 0, 0).figures());
        points[1].held_out = Some(score(0, 2, 0).figures());
        let half = sweep(true, points);
        let best = half.best.as_ref().unwrap();
        assert_eq!((best.point, best.figures.after, best.warning), (1, Some(0.3), None));
        assert!(
            half.verdict()[1].contains("50.00 % before, 30.00 % after, −20.00 points"),
            "{:?}",
            half.verdict()
        );

        // A rate that leads to no number is not the best, even where others are never right.
        let [mut lost, mut wrong] = [Score::default(); 2];
        lost.add(1, &choice(0), None);
        wrong.add(1, &choice(0), Some(&choice(0)));
        let two = sweep(false, all([Some(lost), Some(wrong), None, None]));
        assert_eq!(two.best.as_ref().unwrap().point, 1);
        assert!(two.notes()[0].ends_with("has no answer for 1 image: counted as wrong"), "{:?}", two.notes());
        assert!(sweep(false, all([Some(lost), None, None, None])).best.is_none());

        // Where there is none to choose on, that is said.
        let mut points: Vec<Point> = all([Some(Score::default()), None, None, None]);
        points[0].held_out = Some(score(5, 0, 0).figures());
        let blind = sweep(true, points);
        assert!(blind.best.is_none() && blind.notes().last().unwrap().starts_with("nothing is chosen"));

        // Of no image nothing is said.
        let mut points: Vec<Point> = all([Some(score(1, 0, 0)), None, None, None]);
        points[0].held_out = Some(Score::default().figures());
        let said = sweep(true, points).verdict();
        assert_eq!(said.last().unwrap(), "That says nothing: no image is among them.");
    }

    #[test]
    fn a_curve_is_of_all_but_the_rate() {
        let both = ["memo", "memo_confident"];
        let points = [16, 8].into_iter().flat_map(|views| {
            both.into_iter()
                .flat_map(move |who| [1e-3, 1e-4].map(|lr| point(views, lr, who, Some(score(1, 0, 0)))))
        });
        let all = sweep(false, points.collect());
        let curves = all.curves();
        let names: Vec<&str> = curves.iter().map(|(name, _)| name.as_str()).collect();
        let [memo, confident] = ["MEMO", "MEMO confident"];
        let want = [(16, memo), (16, confident), (8, memo), (8, confident)];
        assert_eq!(names, want.map(|(views, who)| format!("mild, {views} views, 1 step, {who}")));
        assert!(curves.iter().all(|(_, curve)| *curve == [(1e-4, 0.6), (1e-3, 0.6)]), "{curves:?}");
        assert_eq!(all.table().head[1], "predictor");
        let one = sweep(false, vec![point(8, 0.1, "memo", Some(score(0, 0, 0)))]);
        assert_eq!(
            (one.table().head[1].as_str(), one.curves()[0].0.as_str()),
            ("views", "mild, 8 views, 1 step")
        );
    }
}
