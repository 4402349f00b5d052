//! A report's plots, as SVG that takes its colours from the page.
//!
//! Each is drawn in fixed colours, of which the page's style makes its own for light, dark and print: `style.css` has a rule for each.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::document::Entropy;
use super::axis::{Axis, COUNT, PERCENT, PLAIN};
use crate::metrics::calibration::Bin;
use crate::metrics::selective::Point;

const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Okabe and Ito's palette, which colour-blind people can tell apart: zero-shot, the first adaptation, others.
const SERIES: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x80, 0x80, 0x80),
];

/// Units of the drawing; a page shows it at half of that, or less.
const WIDTH: u32 = 720;
const HEIGHT: u32 = 560;
const TEXT: u32 = 26;
const AXIS: u32 = 60;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// An `svg` element, without the size that a file of its own would have.
fn drawn(height: u32, draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    let from = format!(
        "<svg width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">"
    );
    Ok(svg.replacen(&from, &format!("<svg viewBox=\"0 0 {WIDTH} {height}\" aria-hidden=\"true\">"), 1))
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a plot: {error}")
}

fn text<'a>() -> TextStyle<'a> {
    ("sans-serif", TEXT).into_font().color(&INK)
}

/// The colour of a series and its number in `style.css`.
fn colour(series: usize) -> RGBColor {
    SERIES[series % SERIES.len()]
}

/// Of a letter, on average and at most.
const LETTER: u32 = TEXT * 55 / 100;

/// A chart with its axes and their lines.
///
/// * `left`: the space beside it; without any, what the labels need.
fn chart<'a, 'b>(
    area: &'a Area<'b>,
    x: Axis,
    y: Axis,
    left: Option<u32>,
) -> Result<ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>> {
    let (below, beside) = (x.title, y.title);
    let letters = y.ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0) as u32;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(44)
        .x_label_area_size(if below.is_empty() { AXIS - 12 } else { AXIS + 12 })
        .y_label_area_size(left.unwrap_or(letters * LETTER + TEXT + 14))
        .build_cartesian_2d(x, y)
        .map_err(failed)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).bold_line_style(GRID).axis_style(GRID).label_style(text());
    if !below.is_empty() {
        mesh.x_desc(below).axis_desc_style(text());
    }
    if !beside.is_empty() {
        mesh.y_desc(beside).axis_desc_style(text());
    }
    mesh.draw().map_err(failed)?;
    drop(mesh);
    Ok(chart)
}

/// How well confidences are what they say: a bar a bin, the diagonal, and below how many images a bin has.
pub fn reliability(bins: &[Bin], series: usize) -> Result<String> {
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(1).max(1) as f64;
    drawn(HEIGHT, |area| {
        let x = Axis::new(0.0..1.0, 6, PLAIN, "confidence");
        let accuracies = Axis::new(0.0..1.0, 6, PLAIN, "accuracy");
        let mut chart = chart(area, x, Axis { range: -0.2..1.0, ..accuracies }, None)?;
        let filled = bins.iter().filter(|bin| bin.images > 0);
        let bar = |bin: &Bin, low: f64, high: f64, style: ShapeStyle| {
            let inset = (bin.high - bin.low) * 0.06;
            Rectangle::new([(bin.low + inset, low), (bin.high - inset, high)], style)
        };
        let fill = colour(series).filled();
        chart.draw_series(filled.clone().map(|bin| bar(bin, 0.0, bin.accuracy, fill))).map_err(failed)?;
        let count = |bin: &Bin| bar(bin, -0.19, -0.19 + 0.17 * bin.images as f64 / most, GRID_BAR.filled());
        chart.draw_series(filled.map(count)).map_err(failed)?;
        let diagonal = DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 10, 8, INK.stroke_width(3));
        chart.draw_series(diagonal).map_err(failed)?;
        Ok(())
    })
}

/// Of counts that stand below a plot.
const GRID_BAR: RGBColor = RGBColor(0x99, 0x99, 0x99);

/// The risk of answering only the surest images, a line a predictor.
pub fn risk_coverage(curves: &[(usize, &[Point])]) -> Result<String> {
    let top =
        curves.iter().flat_map(|(_, points)| points.iter()).map(|point| point.risk).fold(0.05, f64::max);
    drawn(HEIGHT, |area| {
        let x = Axis::new(0.0..1.0, 6, PERCENT, "images answered, the surest first");
        let mut chart = chart(area, x, Axis::new(0.0..top * 1.05, 6, PERCENT, "of these wrong"), None)?;
        for (series, points) in curves {
            let style = colour(*series).stroke_width(4);
            let line = points.iter().map(|point| (point.coverage, point.risk));
            match *series < SERIES.len() {
                true => chart.draw_series(LineSeries::new(line, style)).map(|_| ()),
                false => chart.draw_series(DashedLineSeries::new(line, 12, 8, style)).map(|_| ()),
            }
            .map_err(failed)?;
        }
        Ok(())
    })
}

/// What an axis shows of fractions: somewhat more than from the least to the largest.
fn around(fractions: impl Iterator<Item = f64>, share: f64, least: f64) -> Range<f64> {
    let ends = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = fractions.fold(ends, |(low, high), x| (low.min(x), high.max(x)));
    let margin = ((high - low) * share).max(least);
    (low - margin).max(0.0)..(high + margin).min(1.0)
}

/// Fractions with their intervals, a row each.
pub fn intervals(rows: &[(String, usize, f64, (f64, f64))]) -> Result<String> {
    let shown = around(rows.iter().flat_map(|(_, _, value, (low, high))| [*value, *low, *high]), 0.08, 0.002);
    let letters = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0) as u32;
    let names = (letters * LETTER + 24).min(WIDTH * 55 / 100);
    let height = rows.len() as u32 * 48 + AXIS + 24;
    drawn(height, |area| {
        // A label of whole percents is shorter.
        let letters = if shown.end - shown.start < 0.1 { 9 } else { 7 };
        let most = ((WIDTH - names) / (LETTER * letters)).max(3) as usize;
        let y = Axis { range: rows.len() as f64..0.0, ticks: Vec::new(), title: "" };
        let mut chart = chart(area, Axis::new(shown, most, PERCENT, ""), y, Some(names))?;
        for (at, (name, series, value, (low, high))) in rows.iter().enumerate() {
            let y = at as f64 + 0.5;
            let style = colour(*series);
            let line = PathElement::new([(*low, y), (*high, y)], style.stroke_width(5));
            chart.draw_series([line]).map_err(failed)?;
            chart.draw_series([Circle::new((*value, y), 9, style.filled())]).map_err(failed)?;
            let (_, place) = chart.backend_coord(&(*value, y));
            let end = text().pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(short(name, (names / LETTER) as usize), (names as i32, place), end))
                .map_err(failed)?;
        }
        Ok(())
    })
}

/// The end of a name that is too long.
fn short(name: &str, letters: usize) -> String {
    let count = name.chars().count();
    match count > letters {
        true => format!("…{}", name.chars().skip(count + 1 - letters).collect::<String>()),
        false => name.to_string(),
    }
}

/// How many images have which entropy: those that zero-shot has right, those that it has wrong above them.
pub fn entropies(entropy: &Entropy) -> Result<String> {
    let both = || entropy.right.iter().zip(&entropy.wrong).map(|(right, wrong)| right + wrong);
    let top = both().max().unwrap_or(1).max(1) as f64;
    let last = entropy.edges.last().copied().unwrap_or(1.0);
    drawn(HEIGHT, |area| {
        let x = Axis::new(0.0..last, 6, PLAIN, "entropy before the step, nats");
        let mut chart = chart(area, x, Axis::new(0.0..top * 1.05, 6, COUNT, "images"), None)?;
        for (bin, edge) in entropy.edges.windows(2).enumerate() {
            let inset = (edge[1] - edge[0]) * 0.06;
            let bar = |low: usize, high: usize, series: usize| {
                let ends = [(edge[0] + inset, low as f64), (edge[1] - inset, high as f64)];
                Rectangle::new(ends, colour(series).filled())
            };
            let (right, wrong) = (entropy.right[bin], entropy.wrong[bin]);
            chart.draw_series([bar(0, right, 0), bar(right, right + wrong, 1)]).map_err(failed)?;
        }
        Ok(())
    })
}

/// The colour of a sweep's line: zero-shot's is the first.
pub fn series_of(line: usize) -> usize {
    1 + line % (SERIES.len() - 1)
}

/// Whether a sweep's line has a colour that another has already.
pub fn is_dashed(line: usize) -> bool {
    line >= SERIES.len() - 1
}

/// Accuracy over the learning rate, whose axis is logarithmic.
///
/// * `lines`: rates above 0, increasing, each with its accuracy; `before`: the accuracy without steps, a dashed horizontal line.
pub fn rates(lines: &[&[(f64, f64)]], before: f64) -> Result<String> {
    let all = || lines.iter().flat_map(|line| line.iter());
    let shown = around(all().map(|(_, accuracy)| *accuracy).chain([before]), 0.1, 0.005);
    drawn(HEIGHT, |area| {
        let x = Axis::of_rates(all().map(|(lr, _)| *lr).collect());
        let level = [(x.range.start, before), (x.range.end, before)];
        let mut chart = chart(area, x, Axis::new(shown, 6, PERCENT, "accuracy"), None)?;
        chart.draw_series(DashedLineSeries::new(level, 12, 8, colour(0).stroke_width(4))).map_err(failed)?;
        for (at, line) in lines.iter().enumerate() {
            let style = colour(series_of(at));
            let places = || line.iter().map(|(lr, accuracy)| (lr.log10(), *accuracy));
            match is_dashed(at) {
                false => chart.draw_series(LineSeries::new(places(), style.stroke_width(4))).map(|_| ()),
                true => chart
                    .draw_series(DashedLineSeries::new(places(), 4, 6, style.stroke_width(4)))
                    .map(|_| ()),
            }
            .map_err(failed)?;
            chart.draw_series(places().map(|at| Circle::new(at, 7, style.filled()))).map_err(failed)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each is there by itself.
    fn shows(svg: &str, labels: &[&str]) -> bool {
        labels.iter().all(|label| svg.contains(&format!("\n{label}\n")))
    }

    #[test]
    fn what_spans_much_has_more_than_one_tick() {
        let svg = rates(&[&[(1e-4, 0.31), (3e-3, 0.86)]], 0.5).expect("a plot");
        assert!(shows(&svg, &["1e-4", "3e-3", "learning rate", "40 %", "60 %", "80 %", "accuracy"]), "{svg}");
        let name = "confident average of many views".to_string();
        let svg = intervals(&[(name, 0, 0.5, (0.3, 0.8))]).expect("a plot");
        assert!(shows(&svg, &["40 %", "60 %", "80 %"]), "{svg}");
    }
}
