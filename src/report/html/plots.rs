//! A report's plots, as SVG that takes its colours from the page.
//!
//! Each is drawn in fixed colours, of which the page's style makes its own for light, dark and print: `style.css` has a rule for each.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::document::Entropy;
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

/// How well confidences are what they say: a bar a bin, the diagonal, and below how many images a bin has.
pub fn reliability(bins: &[Bin], series: usize) -> Result<String> {
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(1).max(1) as f64;
    drawn(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(44)
            .x_label_area_size(AXIS + 12)
            .y_label_area_size(AXIS + 24)
            .build_cartesian_2d(0.0..1.0, -0.2..1.0)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(6)
            .y_labels(7)
            .label_style(text())
            .x_label_formatter(&|x| format!("{x:.1}"))
            .y_label_formatter(&|y| if *y < -0.01 { String::new() } else { format!("{y:.1}") })
            .x_desc("confidence")
            .y_desc("accuracy")
            .axis_desc_style(text())
            .draw()
            .map_err(failed)?;
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
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(44)
            .x_label_area_size(AXIS + 12)
            .y_label_area_size(AXIS + 36)
            .build_cartesian_2d(0.0..1.0, 0.0..top * 1.05)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(6)
            .y_labels(6)
            .label_style(text())
            .x_label_formatter(&|x| format!("{:.0} %", 100.0 * x))
            .y_label_formatter(&|y| format!("{:.0} %", 100.0 * y))
            .x_desc("images answered, the surest first")
            .y_desc("of these wrong")
            .axis_desc_style(text())
            .draw()
            .map_err(failed)?;
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

/// Fractions with their intervals, a row each.
pub fn intervals(rows: &[(String, usize, f64, (f64, f64))]) -> Result<String> {
    let ends = || rows.iter().flat_map(|(_, _, value, (low, high))| [*value, *low, *high]);
    let (low, high) = (ends().fold(1.0, f64::min), ends().fold(0.0, f64::max));
    let margin = ((high - low) * 0.08).max(0.002);
    let (low, high) = ((low - margin).max(0.0), (high + margin).min(1.0));
    let letters = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0) as u32;
    let names = (letters * TEXT * 55 / 100 + 24).min(WIDTH * 55 / 100);
    let digits = if high - low < 0.05 { 1 } else { 0 };
    let height = rows.len() as u32 * 48 + AXIS + 24;
    drawn(height, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(40)
            .x_label_area_size(AXIS - 12)
            .y_label_area_size(names)
            .build_cartesian_2d(low..high, rows.len() as f64..0.0)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .disable_y_mesh()
            .x_labels(((WIDTH - names) / (TEXT * 5)) as usize)
            .y_labels(0)
            .label_style(text())
            .x_label_formatter(&|x| format!("{:.digits$} %", 100.0 * x))
            .draw()
            .map_err(failed)?;
        for (at, (name, series, value, (low, high))) in rows.iter().enumerate() {
            let y = at as f64 + 0.5;
            let style = colour(*series);
            let line = PathElement::new([(*low, y), (*high, y)], style.stroke_width(5));
            chart.draw_series([line]).map_err(failed)?;
            chart.draw_series([Circle::new((*value, y), 9, style.filled())]).map_err(failed)?;
            let (_, place) = chart.backend_coord(&(*value, y));
            let end = text().pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(
                short(name, (names / (TEXT * 55 / 100)) as usize),
                (names as i32, place),
                end,
            ))
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
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(44)
            .x_label_area_size(AXIS + 12)
            .y_label_area_size(AXIS + 48)
            .build_cartesian_2d(0.0..last, 0.0..top * 1.05)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(6)
            .y_labels(6)
            .label_style(text())
            .x_label_formatter(&|x| format!("{x:.1}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .x_desc("entropy before the step, nats")
            .y_desc("images")
            .axis_desc_style(text())
            .draw()
            .map_err(failed)?;
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
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (slow, fast) = ends(&mut all().map(|(lr, _)| lr.log10()));
    let (low, high) = ends(&mut all().map(|(_, accuracy)| *accuracy).chain([before]));
    let aside = ((fast - slow) * 0.06).max(0.1);
    let margin = ((high - low) * 0.1).max(0.005);
    let (low, high) = ((low - margin).max(0.0), (high + margin).min(1.0));
    let digits = if high - low < 0.05 { 1 } else { 0 };
    drawn(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(44)
            .x_label_area_size(AXIS + 12)
            .y_label_area_size(AXIS + 48)
            .build_cartesian_2d(slow - aside..fast + aside, low..high)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(6)
            .y_labels(6)
            .label_style(text())
            .x_label_formatter(&|x| format!("{:.1e}", 10f64.powf(*x)).replace(".0e", "e"))
            .y_label_formatter(&|y| format!("{:.digits$} %", 100.0 * y))
            .x_desc("learning rate")
            .y_desc("accuracy")
            .axis_desc_style(text())
            .draw()
            .map_err(failed)?;
        let level = [(slow - aside, before), (fast + aside, before)];
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
