//! A report's tables, as text: what Markdown and HTML both show.

use serde_json::Value;

use super::document::{PredictorReport, Report, RunReport};
use super::figures::{Change, Figures};
use super::seeds::Seeds;
use super::table::p_value;
use crate::metrics::mean;

/// Rows of text under a head; the first column says what a row is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: impl Into<String>, head: &[&str]) -> Table {
        let head = head.iter().map(ToString::to_string).collect();
        Table { title: title.into(), head, rows: Vec::new() }
    }
}

/// What stands where nothing is defined.
pub const NOTHING: &str = "–";

pub fn percent(fraction: Option<f64>) -> String {
    fraction.map_or(NOTHING.to_string(), |x| format!("{:.2} %", 100.0 * x))
}

pub fn points(difference: Option<f64>) -> String {
    difference.map_or(NOTHING.to_string(), |x| signed(100.0 * x))
}

/// With a sign that is as wide as a plus.
pub fn signed(x: f64) -> String {
    format!("{x:+.2}").replace('-', "−")
}

pub fn interval(ends: Option<(f64, f64)>, write: impl Fn(f64) -> String) -> String {
    ends.map_or(NOTHING.to_string(), |(low, high)| format!("{} to {}", write(low), write(high)))
}

/// Columns of [`changed`].
pub const CHANGED: [&str; 5] = ["points", "95 %", "fixed", "broken", "McNemar p"];

/// What one predictor changes of another's answers.
pub fn changed(change: &Change) -> [String; 5] {
    [
        points(change.difference),
        interval(change.difference_interval, |x| signed(100.0 * x)),
        change.fixed.to_string(),
        change.broken.to_string(),
        p_value(change.mcnemar_p),
    ]
}

fn decimals(x: Option<f64>) -> String {
    x.map_or(NOTHING.to_string(), |x| format!("{x:.4}"))
}

/// Accuracy before and after, and whether the difference is more than chance.
pub fn headline(run: &RunReport) -> Table {
    let head = [&["", "accuracy", "95 %"], &CHANGED[..]].concat();
    let mut table = Table::new("Before and after adapting", &head);
    for predictor in &run.predictors {
        let figures = &predictor.figures;
        let accuracy = interval(figures.accuracy_interval, |x| format!("{:.2}", 100.0 * x));
        let mut row = vec![predictor.name.clone(), percent(figures.accuracy), accuracy];
        match &figures.change {
            None => row.resize(head.len(), String::new()),
            Some(change) => row.extend(changed(change)),
        }
        table.rows.push(row);
    }
    table
}

/// Whether confidences are worth anything.
pub fn calibration(run: &RunReport) -> Table {
    type Get = fn(&PredictorReport) -> String;
    let columns: [(&str, Get); 10] = [
        ("top-5", |p| percent(p.figures.top5)),
        ("mean per class", |p| percent(p.figures.mean_per_class)),
        ("confidence", |p| percent(p.figures.confidence)),
        ("NLL", |p| nll(&p.figures)),
        ("Brier", |p| decimals(p.figures.brier)),
        ("ECE", |p| decimals(p.figures.ece)),
        ("ECE, equal mass", |p| decimals(p.figures.ece_equal_mass)),
        ("AURC", |p| decimals(p.figures.aurc)),
        ("AUROC", |p| decimals(p.detection.and_then(|detection| detection.auroc))),
        ("FPR95", |p| percent(p.detection.and_then(|detection| detection.fpr95))),
    ];
    // Those that are defined for some predictor.
    let columns: Vec<_> =
        columns.into_iter().filter(|(_, get)| run.predictors.iter().any(|p| get(p) != NOTHING)).collect();
    let mut table = Table::new("Calibration and ranking", &[""]);
    table.head.extend(columns.iter().map(|(name, _)| name.to_string()));
    for predictor in &run.predictors {
        let cells = columns.iter().map(|(_, get)| get(predictor));
        table.rows.push(std::iter::once(predictor.name.clone()).chain(cells).collect());
    }
    table
}

fn nll(figures: &Figures) -> String {
    match figures.nll_infinite {
        0 => decimals(figures.nll),
        count => format!("∞ ({count})"),
    }
}

/// Accuracy by group, a column a predictor: over severities, where the groups' names end in those; and for each predictor then a
/// table of the severities.
pub fn by_group(run: &RunReport) -> Vec<Table> {
    let Some(first) = run.predictors.first().filter(|first| !first.by_group.is_empty()) else {
        return Vec::new();
    };
    let grid = Grid::of(first.by_group.iter().map(|group| group.group.as_str()));
    let accuracy = |predictor: &PredictorReport, place: usize| predictor.by_group[place].figures.accuracy;
    let means = |places: &[usize], predictor: &PredictorReport| {
        percent(mean(places.iter().filter_map(|&place| accuracy(predictor, place))))
    };
    let is_corruption = grid.columns.len() > 1;
    let what = if is_corruption { "corruption, mean over severities" } else { "group" };
    let mut table =
        Table::new(format!("Accuracy by {what}"), &[if is_corruption { "corruption" } else { "group" }]);
    table.head.extend(run.predictors.iter().map(|predictor| predictor.name.clone()));
    let mut row = |name: &str, cell: &dyn Fn(&PredictorReport) -> String| {
        table.rows.push(std::iter::once(name.to_string()).chain(run.predictors.iter().map(cell)).collect());
    };
    for (name, places) in &grid.rows {
        let places: Vec<usize> = places.iter().flatten().copied().collect();
        row(name, &|predictor| means(&places, predictor));
    }
    // Each corruption counts alike, however many of its severities there are.
    let mean_of_rows = |predictor: &PredictorReport| {
        let row = |places: &[Option<usize>]| {
            mean(places.iter().flatten().filter_map(|&place| accuracy(predictor, place)))
        };
        percent(mean(grid.rows.iter().filter_map(|(_, places)| row(places))))
    };
    row("mean", &mean_of_rows);
    if run.predictors.iter().any(|predictor| predictor.mean_corruption_error.is_some()) {
        row("mCE against AlexNet", &|predictor| percent(predictor.mean_corruption_error));
    }
    let mut tables = vec![table];
    for predictor in run.predictors.iter().filter(|_| is_corruption) {
        let mut table = Table::new(format!("{} by severity", predictor.name), &["corruption"]);
        table.head.extend(grid.columns.iter().cloned().chain(["mean".to_string()]));
        for (name, places) in &grid.rows {
            let of_all: Vec<usize> = places.iter().flatten().copied().collect();
            let cells =
                places.iter().map(|place| percent(place.and_then(|place| accuracy(predictor, place))));
            table
                .rows
                .push([name.clone()].into_iter().chain(cells).chain([means(&of_all, predictor)]).collect());
        }
        let column =
            |at: usize| -> Vec<usize> { grid.rows.iter().filter_map(|(_, places)| places[at]).collect() };
        let cells = (0..grid.columns.len()).map(|at| means(&column(at), predictor));
        let last = mean_of_rows(predictor);
        table.rows.push(["mean".to_string()].into_iter().chain(cells).chain([last]).collect());
        tables.push(table);
    }
    tables
}

/// Groups by what stands before and behind the last `/` of their names.
struct Grid {
    columns: Vec<String>,
    /// The groups' places, a column each.
    rows: Vec<(String, Vec<Option<usize>>)>,
}

impl Grid {
    /// One column, of whole names, unless all names have a `/`.
    fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Grid {
        let split = |name: &'a str| name.rsplit_once('/');
        let has_severities = names.clone().all(|name| split(name).is_some());
        let cells: Vec<(&str, &str)> =
            names.map(|name| split(name).filter(|_| has_severities).unwrap_or((name, ""))).collect();
        let mut columns: Vec<String> = Vec::new();
        for (_, column) in &cells {
            if !columns.iter().any(|other| other == column) {
                columns.push(column.to_string());
            }
        }
        columns.sort_by_key(|column| (column.parse().unwrap_or(usize::MAX), column.clone()));
        let mut rows: Vec<(String, Vec<Option<usize>>)> = Vec::new();
        for (place, (row, column)) in cells.into_iter().enumerate() {
            let at = rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
                rows.push((row.to_string(), vec![None; columns.len()]));
                rows.len() - 1
            });
            rows[at].1[columns.iter().position(|other| other == column).unwrap_or(0)] = Some(place);
        }
        Grid { columns, rows }
    }
}

/// Classes that have images, those that gain most first.
pub fn by_class(run: &RunReport) -> Table {
    let mut table =
        Table::new("Accuracy by class, the largest gain first", &["class", "images", "zero-shot"]);
    let (Some(before), after) = (run.predictors.first(), run.first_adapted()) else { return table };
    if let Some(after) = after {
        table.head.extend([after.name.clone(), "points".into(), "answered before".into(), "after".into()]);
    }
    let gain = |class: usize| {
        let right = |of: &PredictorReport| of.by_class[class].right as f64;
        after.map_or(0.0, |after| (right(after) - right(before)) / before.by_class[class].images as f64)
    };
    let mut order: Vec<usize> =
        (0..run.classes.len()).filter(|&class| before.by_class[class].images > 0).collect();
    order.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)));
    for class in order {
        let its = &before.by_class[class];
        let mut row = vec![its.class.clone(), its.images.to_string(), percent(its.accuracy)];
        if let Some(after) = after.map(|after| &after.by_class[class]) {
            let gain = points(Some(gain(class)));
            row.extend([percent(after.accuracy), gain, its.answered.to_string(), after.answered.to_string()]);
        }
        table.rows.push(row);
    }
    table
}

/// The runs side by side.
pub fn comparison(report: &Report) -> Table {
    let head = ["run", "predictor", "images", "accuracy", "points over zero-shot", "NLL", "ECE", "AURC"];
    let mut table = Table::new("Runs side by side", &head);
    for run in &report.runs {
        for predictor in &run.predictors {
            let figures = &predictor.figures;
            table.rows.push(vec![
                run.file.clone(),
                predictor.name.clone(),
                figures.images.to_string(),
                percent(figures.accuracy),
                figures.change.map_or(String::new(), |change| points(change.difference)),
                nll(figures),
                decimals(figures.ece),
                decimals(figures.aurc),
            ]);
        }
    }
    table
}

/// A later run's answers beside the first's.
pub fn pairs(report: &Report) -> Table {
    let head = [&["run", "predictor", "images"], &CHANGED[..]].concat();
    let first = report.runs.first().map_or("", |run| &run.file);
    let mut table = Table::new(format!("Image by image, from {first}"), &head);
    for pair in &report.pairs {
        let row = [pair.second.clone(), pair.predictor.clone(), pair.change.images.to_string()];
        table.rows.push(row.into_iter().chain(changed(&pair.change)).collect());
    }
    table
}

/// How much is the seed's; of several sets of runs a row says whose it is.
pub fn seeds(all: &[Seeds]) -> Table {
    let head = ["", "mean accuracy", "standard deviation", "least", "most", "images whose answer changes"];
    let mut table = Table::new("Stability over seeds", &head);
    let is_one = all.iter().all(|of| of.runs == all[0].runs);
    if let (Some(first), true) = (all.first(), is_one) {
        table.title = format!("Stability over {} seeds", first.seeds.len());
    }
    for of in all {
        let name = match (of.runs.first(), is_one) {
            (Some(first), false) => {
                format!("{} by {} seeds, {first} the first", of.predictor, of.seeds.len())
            }
            _ => of.predictor.clone(),
        };
        table.rows.push(vec![
            name,
            percent(Some(of.mean)),
            of.spread.map_or(NOTHING.to_string(), |x| format!("{:.2}", 100.0 * x)),
            percent(Some(of.min)),
            percent(Some(of.max)),
            percent(of.changed),
        ]);
    }
    table
}

/// Settings in which the runs differ.
pub fn differing(report: &Report) -> Table {
    let mut table = Table::new("Settings that differ", &["setting"]);
    table.head.extend(report.runs.iter().map(|run| run.file.clone()));
    for (field, values) in &report.differing_settings {
        for (field, values) in inside(field, values) {
            table.rows.push(std::iter::once(field).chain(values.into_iter().map(value)).collect());
        }
    }
    table
}

/// Of objects the fields in which they differ, by their names.
fn inside<'a>(field: &str, values: &'a [Value]) -> Vec<(String, Vec<&'a Value>)> {
    let objects: Option<Vec<_>> = values.iter().map(Value::as_object).collect();
    let Some(objects) = objects else { return vec![(field.to_string(), values.iter().collect())] };
    let mut names: Vec<&String> = Vec::new();
    for name in objects.iter().flat_map(|object| object.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |name: &String| -> Vec<&Value> {
        objects.iter().map(|object| object.get(name).unwrap_or(&Value::Null)).collect()
    };
    let rows = names.into_iter().map(|name| (format!("{field}.{name}"), row(name)));
    rows.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

/// A setting, as people write it.
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_string(),
        Value::String(text) => text.clone(),
        // A number of float32, as the engine's are, has fewer digits than float64 gives it.
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            Some(x) if f64::from(x as f32) == x => (x as f32).to_string(),
            _ => number.to_string(),
        },
        Value::Array(all) => all.iter().map(self::value).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let field = |(name, of): (&String, &Value)| format!("{name} {}", self::value(of));
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_differ_in_fields() {
        let runs = [json!({ "limit": 3, "data": "a" }), json!({ "limit": 3, "data": "a", "severity": [5] })];
        let rows = inside("selection", &runs);
        assert_eq!(rows, [("selection.severity".to_string(), vec![&Value::Null, &json!([5])])]);
        let (a, b) = (json!("mild"), json!(null));
        let runs = [a.clone(), b.clone()];
        assert_eq!(inside("policy", &runs), [("policy".to_string(), vec![&a, &b])]);
    }

    #[test]
    fn settings_are_written_as_people_write_them() {
        let all = json!({ "mean": [0.26862955f32, 0.5], "lr": 1e-5, "eps": 1e-5f32, "seed": u64::MAX, "limit": null });
        assert_eq!(
            value(&all),
            "mean 0.26862955, 0.5, lr 0.00001, eps 0.00001, seed 18446744073709551615, limit –"
        );
    }
}
