//! The final table, and the JSON object that scripts read.

use std::fmt;

use serde_json::{Value, json};

use super::{counted, decimal};
use crate::metrics::{Comparison, Detection, Totals};
use crate::records::Predictor;

/// A run's result; accuracies and confidences are fractions.
pub struct Summary<'a> {
    pub totals: &'a Totals,
    /// Images that were asked for.
    pub asked: usize,
    /// In the order of what `totals` has.
    pub learning_rates: &'a [f32],
    /// Of the logits, and whose that is.
    pub logit_scale: (f32, &'a str),
    /// Of the images that this run has adapted to: 0 where a resumed run had none left; none where files were put together.
    pub images_per_s: Option<f64>,
}

impl Summary<'_> {
    /// Images that were asked for, and that the run has ended before.
    pub fn left(&self) -> usize {
        self.asked - self.totals.images() - self.totals.of_no_class() - self.totals.failed()
    }

    /// MEMO's fields lie flat where there is one learning rate; several are a list.
    pub fn json(&self) -> Value {
        let &Summary { totals, learning_rates, logit_scale: (logit_scale, _), images_per_s, .. } = self;
        let mut object = json!({
            "images": totals.images(), "failed": totals.failed(), "left": self.left(), "images_per_s": images_per_s, "logit_scale": decimal(logit_scale),
            "clip_accuracy": totals.clip_accuracy(), "clip_confidence": totals.clip_confidence(),
        });
        let memo = totals.memo();
        match &memo[..] {
            [] => {}
            [memo] => {
                object["memo_accuracy"] = memo.accuracy.into();
                object["memo_confidence"] = memo.confidence.into();
                object["fixed"] = memo.fixed.into();
                object["broken"] = memo.broken.into();
                object["mcnemar_p"] = memo.mcnemar_p.into();
            }
            several => {
                let rate = |(lr, memo): (&f32, &Comparison)| {
                    json!({
                        "lr": decimal(*lr), "memo_accuracy": memo.accuracy, "memo_confidence": memo.confidence,
                        "fixed": memo.fixed, "broken": memo.broken, "failed": memo.failed, "mcnemar_p": memo.mcnemar_p,
                    })
                };
                object["rates"] = learning_rates.iter().zip(several).map(rate).collect();
            }
        }
        if totals.of_no_class() > 0 {
            object["of_no_class"] = totals.of_no_class().into();
        }
        let predictor = |(who, of): &(Predictor, Comparison)| {
            let mut object = json!({
                "name": who.field(), "accuracy": of.accuracy, "confidence": of.confidence, "fixed": of.fixed,
                "broken": of.broken, "mcnemar_p": of.mcnemar_p,
            });
            if let Some(lr) = who.rate().and_then(|rate| learning_rates.get(rate)) {
                object["lr"] = decimal(*lr).into();
                object["failed"] = of.failed.into();
                object["skipped"] = of.skipped.into();
                object["rolled_back"] = of.rolled_back.into();
            }
            if let Some(Detection { auroc, fpr95 }) = totals.detection(*who) {
                object["auroc"] = auroc.into();
                object["fpr95"] = fpr95.into();
            }
            object
        };
        object["predictors"] = totals.all().iter().map(predictor).collect();
        object
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Summary { totals, learning_rates, logit_scale: (logit_scale, whose), images_per_s, .. } = self;
        let all = totals.all();
        let rows: Vec<(String, &Predictor, &Comparison)> =
            all.iter().map(|(who, of)| (who.title(learning_rates), who, of)).collect();
        let stepped = || rows.iter().filter(|(_, who, _)| who.rate().is_some());
        let width = rows.iter().map(|(title, ..)| title.len()).fold(12, usize::max);
        let gain = |of: &Comparison| 100.0 * (of.fixed as f64 - of.broken as f64) / totals.images() as f64;
        // Of one MEMO alone what it changed is a line; of several it is columns.
        let has_columns = stepped().count() > 1;
        writeln!(f, "logit scale {logit_scale:.2}, {whose}")?;
        write!(f, "{:<width$} {:>11} {:>19}", "", "accuracy", "average confidence")?;
        match has_columns {
            true => writeln!(f, " {:>8} {:>6} {:>6} {:>10}", "points", "fixed", "broke", "McNemar p")?,
            false => writeln!(f)?,
        }
        if rows.is_empty() {
            writeln!(f, "{:<width$} {} {}", "zero-shot", percent(None, 11, 2), percent(None, 19, 2))?;
        }
        for (title, who, of) in &rows {
            let accuracy = percent(Some(of.accuracy), 11, 2);
            write!(f, "{title:<width$} {accuracy} {}", percent(of.confidence, 19, 2))?;
            match has_columns && **who != Predictor::ZeroShot {
                true => {
                    let (gain, p) = (gain(of), p_value(of.mcnemar_p));
                    writeln!(f, " {gain:>+8.2} {:>6} {:>6} {p:>10}", of.fixed, of.broken)?;
                }
                false => writeln!(f)?,
            }
        }
        for (title, _, of) in stepped() {
            if !has_columns {
                writeln!(
                    f,
                    "{title} fixed {} and broke {} of {} images: {:+.2} points, McNemar p = {}",
                    of.fixed,
                    of.broken,
                    totals.images(),
                    gain(of),
                    p_value(of.mcnemar_p)
                )?;
            }
            if of.failed > 0 {
                writeln!(f, "{title} has no answer for {}: counted as wrong", counted(of.failed, "image"))?;
            }
            if of.skipped > 0 {
                writeln!(
                    f,
                    "{title} took no step on {}: zero-shot was confident",
                    counted(of.skipped, "image")
                )?;
            }
            if of.rolled_back > 0 {
                writeln!(
                    f,
                    "{title} took back its step on {}: a collapse",
                    counted(of.rolled_back, "image")
                )?;
            }
        }
        if totals.of_no_class() > 0 {
            writeln!(f, "{} more images are of no class, told by confidence:", totals.of_no_class())?;
            for (title, who, _) in &rows {
                if let Some(Detection { auroc, fpr95 }) = totals.detection(**who) {
                    writeln!(f, "{title:<width$} AUROC {auroc:.4}, FPR95 {:.2} %", 100.0 * fpr95)?;
                }
            }
        }
        if totals.failed() > 0 {
            let (failed, asked) = (totals.failed(), self.asked);
            writeln!(f, "{failed} of {asked} images could not be read: left out")?;
        }
        let Some(images_per_s) = images_per_s else { return Ok(()) };
        match (self.left(), images_per_s > 0.0) {
            (0, false) => writeln!(f, "nothing was left to do: every image was in the file"),
            (0, true) => writeln!(f, "{images_per_s:.2} images/s"),
            (left, _) => {
                writeln!(f, "{images_per_s:.2} images/s; {left} of {} images are not done", self.asked)
            }
        }
    }
}

/// Three decimals, or as many as a small one needs to be told from 0.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 { format!("{p:.1e}") } else { format!("{p:.3}") }
}

/// To the right of so many letters; a dash of nothing.
pub(super) fn percent(fraction: Option<f64>, width: usize, digits: usize) -> String {
    let text = fraction.map_or("-".to_string(), |x| format!("{:.digits$} %", 100.0 * x));
    format!("{text:>width$}")
}

/// The demo's table: a row a corruption.
pub fn demo_table(rows: &[(String, Totals)], images_per_s: f64) -> String {
    let mut text = format!(
        "{:<10} {:>7} {:>10} {:>9} {:>7} {:>7} {:>11}\n",
        "shift", "images", "zero-shot", "MEMO", "fixed", "broken", "McNemar p"
    );
    for (name, totals) in rows {
        for memo in totals.memo() {
            text += &format!(
                "{name:<10} {:>7} {} {} {:>7} {:>7} {:>11}\n",
                totals.images(),
                percent(totals.clip_accuracy(), 10, 1),
                percent(Some(memo.accuracy), 9, 1),
                memo.fixed,
                memo.broken,
                p_value(memo.mcnemar_p)
            );
        }
    }
    text + &format!("{images_per_s:.1} images/s\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Failure, Row};

    #[test]
    fn of_no_image_there_is_nothing_to_tell() {
        let mut totals = Totals::default();
        let (file, group, label, error) = (None, None, Some(1), "it is cut".to_string());
        totals.add(&Row::Failure(Failure { index: 0, file, group, label, error }));
        let (logit_scale, images_per_s) = ((100.0, "the checkpoint's"), Some(0.0));
        let summary =
            Summary { totals: &totals, asked: 1, learning_rates: &[1e-5], logit_scale, images_per_s };
        let json = summary.json();
        for field in ["clip_accuracy", "clip_confidence"] {
            assert_eq!(json.get(field), Some(&Value::Null), "{json}");
        }
        let text = summary.to_string();
        let row = text.lines().nth(2).map(|row| row.split_whitespace().collect::<Vec<_>>());
        assert_eq!(row, Some(vec!["zero-shot", "-", "-"]), "{text}");
        assert_eq!([percent(Some(0.12345), 9, 1), percent(None, 4, 1)], ["   12.3 %", "   -"]);
    }
}
