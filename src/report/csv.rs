//! A report as one table: a row for each run and predictor, over all images, by group and by class.

use anyhow::Result;

use super::document::{PredictorReport, Report};
use super::figures::Figures;

const HEADER: [&str; 26] = [
    "run",
    "predictor",
    "lr",
    "of",
    "name",
    "images",
    "right",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "top5",
    "mean_per_class",
    "confidence",
    "nll",
    "brier",
    "ece",
    "ece_equal_mass",
    "aurc",
    "no_answer",
    "fixed",
    "broken",
    "difference",
    "difference_low",
    "difference_high",
    "mcnemar_p",
    "answered",
];

/// `of` is all, group or class, and `name` which. What is not defined is empty.
///
/// # Errors
/// None that a string has.
pub fn csv(report: &Report) -> Result<String> {
    let mut table = ::csv::Writer::from_writer(Vec::new());
    table.write_record(HEADER)?;
    for run in &report.runs {
        for predictor in &run.predictors {
            let mut row = |of: &str, name: &str, figures: &Figures, answered: Option<usize>| -> Result<()> {
                Ok(table.write_record(fields(&run.file, predictor, of, name, figures, answered))?)
            };
            row("all", "", &predictor.figures, None)?;
            for group in &predictor.by_group {
                row("group", &group.group, &group.figures, None)?;
            }
            for class in &predictor.by_class {
                let (images, right, accuracy) = (class.images, class.right, class.accuracy);
                let figures = Figures { images, right, accuracy, ..Figures::default() };
                row("class", &class.class, &figures, Some(class.answered))?;
            }
        }
    }
    Ok(String::from_utf8(table.into_inner()?)?)
}

fn fields(
    run: &str,
    predictor: &PredictorReport,
    of: &str,
    name: &str,
    figures: &Figures,
    answered: Option<usize>,
) -> [String; HEADER.len()] {
    let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    let count = |x: Option<usize>| x.map_or(String::new(), |x| x.to_string());
    let (low, high) = figures.accuracy_interval.unzip();
    let change = figures.change;
    let (difference_low, difference_high) = change.and_then(|change| change.difference_interval).unzip();
    let of_class = of == "class";
    [
        run.to_string(),
        predictor.field.to_string(),
        number(predictor.lr),
        of.to_string(),
        name.to_string(),
        figures.images.to_string(),
        figures.right.to_string(),
        number(figures.accuracy),
        number(low),
        number(high),
        number(figures.top5),
        number(figures.mean_per_class),
        number(figures.confidence),
        number(figures.nll),
        number(figures.brier),
        number(figures.ece),
        number(figures.ece_equal_mass),
        number(figures.aurc),
        count((!of_class).then_some(figures.no_answer)),
        count(change.map(|change| change.fixed)),
        count(change.map(|change| change.broken)),
        number(change.and_then(|change| change.difference)),
        number(difference_low),
        number(difference_high),
        number(change.map(|change| change.mcnemar_p)),
        count(answered),
    ]
}
