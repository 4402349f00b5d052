//! Tables of text as HTML.

use maud::{Markup, html};

use super::super::tables::Table;

/// Of few rows: on a phone each is a card.
pub fn cards(table: &Table) -> Markup {
    html! { div.wide tabindex="0" role="region" aria-label=(table.title) { (body(table, "cards")) } }
}

/// Of many rows; percentages of accuracy have a background.
pub fn grid(table: &Table) -> Markup {
    html! { div.wide tabindex="0" role="region" aria-label=(table.title) { (body(table, "grid")) } }
}

/// Letters of a head that stands in one line.
const SHORT: usize = 10;

fn body(Table { title, head, rows }: &Table, class: &str) -> Markup {
    let shades = Shades::of(rows.iter().flatten().filter(|_| class == "grid"));
    html! {
        table class=(class) {
            caption { span { (title) } }
            thead { tr { @for name in head { th.short[name.len() <= SHORT] scope="col" { (name) } } } }
            tbody {
                @for row in rows {
                    tr.mean[is_mean(row)] {
                        @for (at, (cell, name)) in row.iter().zip(head).enumerate() {
                            @if at == 0 { th scope="row" title=(cell) { (cell) } }
                            @else { td data-label=(name) class=[sign(name, cell).or(shades.of_cell(cell).map(|_| "heat"))] style=[shades.of_cell(cell)] { (cell) } }
                        }
                    }
                }
            }
        }
    }
}

fn is_mean(row: &[String]) -> bool {
    row.first().is_some_and(|name| name == "mean")
}

/// Of a difference: whether it is a gain.
fn sign(name: &str, cell: &str) -> Option<&'static str> {
    match cell.chars().next() {
        _ if !name.starts_with("points") => None,
        Some('+') if cell.contains(|digit: char| ('1'..='9').contains(&digit)) => Some("up"),
        Some('−') => Some("down"),
        _ => None,
    }
}

/// Backgrounds of percentages: the highest of a table is the darkest.
struct Shades {
    low: f64,
    high: f64,
}

impl Shades {
    fn of<'a>(cells: impl Iterator<Item = &'a String>) -> Shades {
        let none = Shades { low: f64::INFINITY, high: f64::NEG_INFINITY };
        cells
            .filter_map(|cell| percentage(cell))
            .fold(none, |shades, x| Shades { low: shades.low.min(x), high: shades.high.max(x) })
    }

    /// What a style has for `--v`, from 0 to 1.
    fn of_cell(&self, cell: &str) -> Option<String> {
        let range = self.high - self.low;
        let share = (percentage(cell)? - self.low) / range;
        (range > 0.0).then(|| format!("--v: {:.3}", 0.08 + 0.92 * share))
    }
}

fn percentage(cell: &str) -> Option<f64> {
    cell.strip_suffix(" %")?.parse().ok()
}
