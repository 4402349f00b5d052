//! A report as one page that needs nothing else: no script, no other file, no network.

mod axis;
mod plots;
pub mod sweep;
mod tables;

use std::path::Path;

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::document::{Entropy, Example, PredictorReport, Report, RunReport, Said};
use super::markdown::{DEFINITIONS, verdict};
use super::tables::{Table, by_class, by_group, calibration, headline, percent, value};
use super::tables::{comparison, differing, pairs, seeds};
use tables::{cards, grid};

const STYLE: &str = include_str!("style.css");

/// Rows of a table that is not folded.
const ROWS: usize = 20;

/// The page.
///
/// # Errors
/// A plot that cannot be drawn.
pub fn page(report: &Report) -> Result<String> {
    let files: Vec<&str> = report.runs.iter().map(|run| run.file.as_str()).collect();
    let title = format!("memo report: {}", files.join(", "));
    let several = report.runs.len() > 1;
    let runs: Vec<Markup> = report
        .runs
        .iter()
        .enumerate()
        .map(|(number, one)| run(one, number, several))
        .collect::<Result<_>>()?;
    Ok(document(
        &title,
        html! {
                    header {
                        h1 { (files.join(", ")) }
                        p.quiet { "Zero-shot CLIP before and after adapting to each image, by memo " (env!("CARGO_PKG_VERSION")) }
                        nav aria-label="Parts of this report" { ul {
                            @if several { li { a href="#comparison" { "Side by side" } } }
                            @for (number, run) in report.runs.iter().enumerate() {
                                @if several { li { a href=(format!("#run{number}")) { (run.file) } } }
                                @else { @for (id, name) in parts(run) { li { a href=(format!("#{id}{number}")) { (name) } } } }
                            }
                            li { a href="#definitions" { "What the figures are" } }
                        } }
                    }
                    main {
                        @if several { (side_by_side(report)?) }
                        @for run in runs { (run) }
                    }
                    footer { section {
                        h2 id="definitions" { "What the figures are" }
                        dl.settings { @for (name, what) in DEFINITIONS { dt { (name) } dd { (what) } } }
                    } }
        },
    ))
}

/// A page of its own.
fn document(title: &str, body: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// Of one run: ids and names, as far as it has them.
fn parts(run: &RunReport) -> Vec<(&'static str, &'static str)> {
    let has_groups = run.predictors.iter().any(|predictor| !predictor.by_group.is_empty());
    let has_changes = !run.fixed.is_empty() || !run.broken.is_empty();
    let parts = [
        ("accuracy", "Accuracy", true),
        ("groups", "By group", has_groups),
        ("classes", "By class", true),
        ("calibration", "Calibration", true),
        ("entropy", "Entropy", run.entropy.is_some()),
        ("changes", "Fixed and broken", has_changes),
        ("settings", "Settings", true),
    ];
    parts.into_iter().filter(|part| part.2).map(|(id, name, _)| (id, name)).collect()
}

fn run(run: &RunReport, number: usize, several: bool) -> Result<Markup> {
    let groups = by_group(run);
    let classes = by_class(run);
    Ok(html! {
        section id=(format!("run{number}")) {
            @if several { h2 { (run.file) } }
            (notes(&run.notes))
            p.verdict { (verdict(run)) }
            p.quiet {
                (run.images) " images, " (run.classes.len()) " classes"
                @if run.images_of_no_class > 0 { ", " (run.images_of_no_class) " images of none of them" }
                @if run.failed > 0 { ", " (run.failed) " that could not be read" }
            }
            (heading("accuracy", number, "Accuracy"))
            (cards(&headline(run)))
            @for predictor in &run.predictors { (notes(&predictor.notes())) }
            (accuracies(run)?)
            @if let Some((first, others)) = groups.split_first() {
                (heading("groups", number, "By group"))
                (grid(first))
                @for table in others { details { summary { (table.title) } (grid(table)) } }
            }
            (heading("classes", number, "By class"))
            (folded(&classes))
            (heading("calibration", number, "Calibration"))
            (cards(&calibration(run)))
            (reliabilities(run)?)
            (risks(run)?)
            @if let Some(entropy) = &run.entropy {
                (heading("entropy", number, "Entropy"))
                (entropies(entropy)?)
            }
            @if !run.fixed.is_empty() || !run.broken.is_empty() {
                (heading("changes", number, "Fixed and broken"))
                (examples("Fixed", &run.fixed, run.first_adapted()))
                (examples("Broken", &run.broken, run.first_adapted()))
            }
            (heading("settings", number, "Settings"))
            dl.settings { @for (name, of) in run.settings.iter().filter(|(_, of)| !of.is_null()) { dt { (name) } dd { (value(of)) } } }
        }
    })
}

fn heading(id: &str, number: usize, name: &str) -> Markup {
    html! { h2 id=(format!("{id}{number}")) { (name) } }
}

fn notes(notes: &[String]) -> Markup {
    html! { @for note in notes { p.note { (note) } } }
}

fn side_by_side(report: &Report) -> Result<Markup> {
    let rows: Vec<_> = report
        .runs
        .iter()
        .flat_map(|run| {
            series(run).map(move |(series, predictor)| {
                let figures = &predictor.figures;
                let stem = Path::new(&run.file).file_stem().unwrap_or_default().to_string_lossy();
                let name = format!("{stem} {}", predictor.name);
                Some((name, series, figures.accuracy?, figures.accuracy_interval?))
            })
        })
        .flatten()
        .collect();
    let alternative =
        "Accuracy of each run and predictor with its 95 % interval, as in the table of the runs";
    Ok(html! {
        section {
            h2 id="comparison" { "Side by side" }
            (notes(&report.notes))
            (cards(&comparison(report)))
            (figure("one", "Accuracy with its 95 % interval", alternative, &plots::intervals(&rows)?))
            @for table in [differing(report), pairs(report), seeds(&report.seeds)] {
                @if !table.rows.is_empty() { (cards(&table)) }
            }
        }
    })
}

/// Predictors with the number of their colour: zero-shot's, the first adaptation's, then the others'.
fn series(run: &RunReport) -> impl Iterator<Item = (usize, &PredictorReport)> {
    let adapted =
        run.predictors.iter().position(|predictor| predictor.field.starts_with("memo")).unwrap_or(1);
    run.predictors.iter().enumerate().map(move |(at, predictor)| {
        let series = match at {
            0 => 0,
            _ if at == adapted => 1,
            _ if at < adapted => at + 1,
            _ => at,
        };
        (series, predictor)
    })
}

fn accuracies(run: &RunReport) -> Result<Markup> {
    let rows: Vec<_> = series(run)
        .filter_map(|(series, predictor)| {
            let figures = &predictor.figures;
            Some((predictor.name.clone(), series, figures.accuracy?, figures.accuracy_interval?))
        })
        .collect();
    if rows.is_empty() {
        return Ok(html! {});
    }
    let alternative = "Accuracy of each predictor with its 95 % interval, as in the table above";
    Ok(figure("one", "Accuracy with its 95 % interval", alternative, &plots::intervals(&rows)?))
}

fn reliabilities(run: &RunReport) -> Result<Markup> {
    let one = |(series, predictor): (usize, &PredictorReport)| -> Result<Markup> {
        let ece = predictor.figures.ece.map_or(String::new(), |ece| format!("ECE {ece:.4}"));
        let svg = plots::reliability(&predictor.reliability, series)?;
        let name = &predictor.name;
        let alternative = format!(
            "Reliability of {name}: accuracy by confidence in 15 bins, {ece}; the bins are in the table below"
        );
        Ok(html! {
            figure {
                figcaption { b { (name) } " " (ece) }
                div role="img" aria-label=(alternative) { (PreEscaped(svg)) }
                details { summary { "The bins" } (grid(&bins(predictor))) }
            }
        })
    };
    let figures: Vec<Markup> = series(run).map(one).collect::<Result<_>>()?;
    Ok(html! {
        h3 { "Reliability" }
        p.quiet { "Bars: accuracy of the answers of one confidence; on the dashed line confidence is what it says. Grey: how many answers there are." }
        div.plots { @for figure in figures { (figure) } }
    })
}

fn bins(predictor: &PredictorReport) -> Table {
    let head = ["confidence", "images", "mean confidence", "accuracy"].map(str::to_string).to_vec();
    let filled = predictor.reliability.iter().filter(|bin| bin.images > 0);
    let rows = filled.map(|bin| {
        let edges = format!("{:.3} to {:.3}", bin.low, bin.high);
        vec![edges, bin.images.to_string(), percent(Some(bin.confidence)), percent(Some(bin.accuracy))]
    });
    Table { title: format!("Bins of {}", predictor.name), head, rows: rows.collect() }
}

fn risks(run: &RunReport) -> Result<Markup> {
    let curves: Vec<_> =
        series(run).map(|(series, predictor)| (series, &predictor.risk_coverage[..])).collect();
    let at = |predictor: &PredictorReport, share: usize| {
        let points = &predictor.risk_coverage;
        percent(points.get((points.len() * share / 100).max(1) - 1).map(|point| point.risk))
    };
    let mut table =
        Table { title: "Wrong among the surest".to_string(), head: vec![String::new()], rows: Vec::new() };
    let shares = [10, 25, 50, 75, 90, 100];
    table.head.extend(shares.map(|share| format!("{share} %")));
    for predictor in run.predictors.iter().filter(|predictor| !predictor.risk_coverage.is_empty()) {
        let row = shares.map(|share| at(predictor, share));
        table.rows.push([predictor.name.clone()].into_iter().chain(row).collect());
    }
    let alternative = "Risk by coverage, a line a predictor; the table below has the risk at six coverages";
    Ok(html! {
        h3 { "Risk and coverage" }
        figure.one {
            figcaption { "Errors where only the surest images are answered" }
            div role="img" aria-label=(alternative) { (PreEscaped(plots::risk_coverage(&curves)?)) }
            (legend(series(run).map(|(series, predictor)| (series, predictor.name.as_str()))))
            details { summary { (table.title) } (grid(&table)) }
        }
    })
}

fn legend<'a>(entries: impl Iterator<Item = (usize, &'a str)>) -> Markup {
    html! { ul.legend { @for (series, name) in entries { li style=(format!("--c: var(--s{})", series % 7)) { (name) } } } }
}

fn entropies(entropy: &Entropy) -> Result<Markup> {
    let head = ["entropy, nats", "zero-shot right", "zero-shot wrong", "fixed or broken"]
        .map(str::to_string)
        .to_vec();
    let rows = entropy.edges.windows(2).enumerate().map(|(bin, edge)| {
        let counts = [entropy.right[bin], entropy.wrong[bin], entropy.changed[bin]];
        [format!("{:.2} to {:.2}", edge[0], edge[1])]
            .into_iter()
            .chain(counts.map(|c| c.to_string()))
            .collect()
    });
    let table = Table { title: "Images by entropy".to_string(), head, rows: rows.collect() };
    let alternative =
        "How many images have which entropy of the views' average prediction, as in the table below";
    Ok(html! {
        p {
            "The entropy of the views' average prediction, which a step lessens, is " (format!("{:.3}", entropy.mean_before)) " nats on average before the first step"
            @if let Some(last) = entropy.mean_before_last { " and " (format!("{last:.3}")) " before the last" }
            "."
        }
        figure.one {
            figcaption { "Images by entropy before the step" }
            div role="img" aria-label=(alternative) { (PreEscaped(plots::entropies(entropy)?)) }
            (legend([(0, "zero-shot right"), (1, "zero-shot wrong")].into_iter()))
            details { summary { (table.title) } (grid(&table)) }
        }
    })
}

/// The first and the last rows, and all of them in a fold.
fn folded(table: &Table) -> Markup {
    let count = table.rows.len();
    if count <= ROWS {
        return grid(table);
    }
    let ends = table.rows[..ROWS / 2].iter().chain(&table.rows[count - ROWS / 2..]).cloned().collect();
    let title =
        format!("Accuracy of the {} classes that gain most and the {} that gain least", ROWS / 2, ROWS / 2);
    let ends = Table { title, head: table.head.clone(), rows: ends };
    html! { (grid(&ends)) details { summary { "All " (count) " classes" } (grid(table)) } }
}

fn figure(class: &str, caption: &str, alternative: &str, svg: &str) -> Markup {
    html! {
        figure class=(class) {
            figcaption { (caption) }
            div role="img" aria-label=(alternative) { (PreEscaped(svg)) }
        }
    }
}

/// Images with both answers.
fn examples(title: &str, examples: &[Example], by: Option<&PredictorReport>) -> Markup {
    let Some(by) = by else { return html! {} };
    let all =
        by.figures.change.map_or(0, |change| if title == "Fixed" { change.fixed } else { change.broken });
    let said = |said: &Said, label: &str| {
        let mark = if said.class == label { "✓" } else { "✗" };
        html! { (mark) " " (said.class) @if let Some(confidence) = said.confidence { " " span { "(" (format!("{:.0} %", 100.0 * confidence)) ")" } } }
    };
    html! {
        h3 { (title) " by " (by.name) }
        @if examples.len() < all { p.quiet { (examples.len()) " of " (all) ", evenly over the run" } }
        @if examples.is_empty() { p.quiet { "none" } }
        ul.examples {
            @for example in examples {
                li {
                    @if let Some(picture) = &example.picture {
                        img.small[picture.is_small] src=(picture.source) alt=(format!("{}: {}", name(example), example.label))
                            width=(picture.width) height=(picture.height);
                    }
                    dl {
                        dt { "is" } dd { (example.label) }
                        dt { "zero-shot" } dd { (said(&example.zero_shot, &example.label)) }
                        dt { "adapted" } dd { (said(&example.adapted, &example.label)) }
                    }
                    span.quiet { (name(example)) }
                }
            }
        }
    }
}

fn name(example: &Example) -> String {
    let name = example.file.clone().unwrap_or_else(|| format!("image {}", example.index));
    example.group.as_ref().map_or(name.clone(), |group| format!("{name}, {group}"))
}
