//! A report as Markdown, whose tables can be read as they are; its head is what `memo report` prints.

use std::fmt::Write;

use super::counted;
use super::document::{Example, Report, RunReport, Said};
use super::tables::{self, Table, percent};

/// What the figures are: the same words in every form.
pub const DEFINITIONS: &[(&str, &str)] = &[
    (
        "accuracy",
        "fraction of images whose answer is right, with Wilson's 95 % interval; an image without an answer is not right",
    ),
    (
        "points",
        "accuracy less zero-shot's on the same images, in hundredths, with the 95 % interval of 10,000 resamples (percentiles, seed 0)",
    ),
    (
        "McNemar p",
        "how likely fixed and broken would be at least as unequal if each change were a coin's toss (exact, two-sided)",
    ),
    ("mean per class", "mean of the classes' accuracies, over classes that have images"),
    (
        "NLL",
        "mean of −ln of the right class's probability, nats; ∞ where that is 0 for some images, which are counted",
    ),
    ("Brier", "mean over images of the squared distance of all probabilities from the truth, 0 to 2"),
    (
        "ECE",
        "expected calibration error over 15 bins of one width, [i/15, (i+1)/15) in float32, 1 in the last",
    ),
    ("ECE, equal mass", "the same over 15 bins between quantiles of the confidences"),
    ("AURC", "mean risk of answering only the surest images, over all coverages"),
    (
        "AUROC, FPR95",
        "how well the confidence tells images of the classes from images of none; FPR95 is the share of the latter above a threshold that takes 95 % of the former",
    ),
    ("mCE", "mean over ImageNet-C's corruptions of the error over AlexNet's; 100 % is AlexNet"),
];

/// The head of a report: notes, headlines, comparisons.
pub fn head(report: &Report) -> String {
    let mut text = String::new();
    for run in &report.runs {
        let _ = writeln!(text, "# {}\n", line(&run.file));
        notes(&mut text, &run.notes);
        text += &format!("{}\n", verdict(run));
        table(&mut text, &tables::headline(run));
        run.predictors.iter().for_each(|predictor| notes(&mut text, &predictor.notes()));
        table(&mut text, &tables::calibration(run));
        if let Some(groups) = tables::by_group(run).first() {
            table(&mut text, groups);
        }
    }
    if report.runs.len() > 1 {
        text += "# Runs side by side\n\n";
        notes(&mut text, &report.notes);
        for of in [
            tables::comparison(report),
            tables::differing(report),
            tables::pairs(report),
            tables::seeds(&report.seeds),
        ] {
            table(&mut text, &of);
        }
    }
    text
}

/// All of it.
pub fn markdown(report: &Report) -> String {
    let mut text = head(report);
    for run in &report.runs {
        let _ = writeln!(text, "# {}: details\n", line(&run.file));
        for of in tables::by_group(run).iter().skip(1).chain([&tables::by_class(run)]) {
            table(&mut text, of);
        }
        for (title, examples) in [("Fixed", &run.fixed), ("Broken", &run.broken)] {
            table(&mut text, &examples_table(title, examples));
        }
    }
    text += "# What the figures are\n\n";
    for (name, what) in DEFINITIONS {
        let _ = writeln!(text, "- **{name}**: {what}");
    }
    text
}

/// One sentence of what the first adaptation has done.
pub fn verdict(run: &RunReport) -> String {
    let images = run.images;
    let Some((name, change)) = run.first_adapted().and_then(|p| Some((&p.name, p.figures.change?))) else {
        return format!("{}.\n", counted(images, "image"));
    };
    let Some((low, high)) = change.difference_interval else {
        return "No image of a class could be read.\n".to_string();
    };
    let is_chance = change.mcnemar_p >= 0.05;
    format!(
        "{name} fixed {} and broke {} of {images} images: {} points ({} to {}), which is {} chance (p = {}).\n",
        change.fixed,
        change.broken,
        tables::points(change.difference),
        tables::points(Some(low)),
        tables::points(Some(high)),
        if is_chance { "within" } else { "more than" },
        super::table::p_value(change.mcnemar_p)
    )
}

fn notes(text: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "> Note: {}\n", line(note));
    }
}

pub fn examples_table(title: &str, examples: &[Example]) -> Table {
    let head = ["image", "class", "zero-shot", "adapted"].map(str::to_string).to_vec();
    let said = |said: &Said| format!("{} ({})", said.class, percent(said.confidence));
    let row = |example: &Example| {
        let name = example.file.clone().unwrap_or_else(|| example.index.to_string());
        let name = example.group.as_ref().map_or(name.clone(), |group| format!("{name}, {group}"));
        vec![name, example.label.clone(), said(&example.zero_shot), said(&example.adapted)]
    };
    Table { title: title.to_string(), head, rows: examples.iter().map(row).collect() }
}

/// Nothing of a table without rows.
pub fn table(text: &mut String, Table { title, head, rows }: &Table) {
    if rows.is_empty() {
        return;
    }
    let cell = |text: &str| line(text).replace('|', "\\|").replace('<', "&lt;");
    let lines: Vec<Vec<String>> =
        [head].into_iter().chain(rows).map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    let width = |at: usize| lines.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let _ = writeln!(text, "**{}**\n", line(title));
    for (number, row) in lines.iter().enumerate() {
        for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ =
                if at == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (at, &width) in widths.iter().enumerate() {
                let end = if at == 0 { "-" } else { ":" };
                let _ = write!(text, "| {}{end} ", "-".repeat(width - 1));
            }
            text.push_str("|\n");
        }
    }
    text.push('\n');
}

/// On one line, whatever a file's or a class's name has in it.
pub fn line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
