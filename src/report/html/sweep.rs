//! A sweep as one page: accuracy over the rate, a line for all else that is varied, and the table.

use anyhow::Result;
use maud::{Markup, html};

use super::super::markdown::DEFINITIONS;
use super::super::sweep::Sweep;
use super::tables::grid;
use super::{document, figure, legend, notes, plots};

/// Definitions that the page's table needs.
const USED: [&str; 3] = ["accuracy", "points", "McNemar p"];

/// * `title`: which model, on which data.
///
/// # Errors
/// A plot that cannot be drawn.
pub fn page(sweep: &Sweep, title: &str) -> Result<String> {
    let plot = plot(sweep)?;
    let body = html! {
        header {
            h1 { (title) }
            p.quiet { "A sweep over MEMO's settings, by memo " (env!("CARGO_PKG_VERSION")) }
        }
        main { section {
            @for (at, line) in sweep.verdict().iter().enumerate() {
                @if line.starts_with("Warning") { p.note { (line) } } @else { p.verdict[at == 0] { (line) } }
            }
            (notes(&sweep.notes()))
            (plot)
            (grid(&sweep.table()))
        } }
        footer { section {
            h2 id="definitions" { "What the figures are" }
            dl.settings { @for (name, what) in DEFINITIONS.iter().filter(|(name, _)| USED.contains(name)) { dt { (name) } dd { (what) } } }
        } }
    };
    Ok(document(&format!("memo sweep: {title}"), body))
}

/// Nothing where no rate is above 0: there is no place for 0 on its axis.
fn plot(sweep: &Sweep) -> Result<Markup> {
    let curves = sweep.curves();
    let drawn: Vec<_> = curves
        .iter()
        .map(|(name, curve)| (name, curve.iter().copied().filter(|(lr, _)| *lr > 0.0).collect::<Vec<_>>()))
        .filter(|(_, curve)| !curve.is_empty())
        .collect();
    let before = sweep.points.iter().find_map(|point| point.figures.as_ref()?.before);
    let (Some(before), false) = (before, drawn.is_empty()) else { return Ok(html! {}) };
    let lines: Vec<&[(f64, f64)]> = drawn.iter().map(|(_, curve)| &curve[..]).collect();
    let names = drawn.iter().enumerate().map(|(at, (name, _))| {
        let how = if plots::is_dashed(at) { " (dashed)" } else { "" };
        (plots::series_of(at), format!("{name}{how}"))
    });
    let names: Vec<_> = [(0, "before adapting".to_string())].into_iter().chain(names).collect();
    let of = if sweep.holdout { ", on the images that are chosen on" } else { "" };
    let caption = format!("Accuracy after adapting, by learning rate{of}");
    let alternative = "Accuracy by learning rate, a line for each policy, number of views and of steps, and zero-shot's accuracy as a \
        horizontal line; the table below has the figures";
    Ok(html! {
        (figure("one", &caption, alternative, &plots::rates(&lines, before)?))
        (legend(names.iter().map(|(series, name)| (*series, name.as_str()))))
    })
}
