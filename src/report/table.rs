//! The final table, and the JSON object that scripts read.

use std::fmt;

use serde_json::{Value, json};

use super::decimal;
use crate::metrics::{Comparison, Totals};

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
        self.asked - self.totals.images() - self.totals.failed()
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
        object
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Summary { totals, learning_rates, logit_scale: (logit_scale, whose), images_per_s, .. } = self;
        let (clip, memo) = (totals.clip_accuracy(), totals.memo());
        let names: Vec<String> = learning_rates.iter().map(|lr| format!("MEMO {lr:e}")).collect();
        let width = names.iter().map(String::len).fold(12, usize::max);
        let row = |name: &str, accuracy: f64, confidence: f64| {
            format!("{name:<width$} {:>9.2} % {:>17.2} %", 100.0 * accuracy, 100.0 * confidence)
        };
        let gain = |memo: &Comparison| 100.0 * (memo.accuracy - clip);
        writeln!(f, "logit scale {logit_scale:.2}, {whose}")?;
        write!(f, "{:<width$} {:>11} {:>19}", "", "accuracy", "average confidence")?;
        let zero_shot = row("zero-shot", clip, totals.clip_confidence());
        match &memo[..] {
            [memo] => writeln!(
                f,
                "\n{zero_shot}\n{}\nMEMO fixed {} and broke {} of {} images: {:+.2} points, McNemar p = {}",
                row("MEMO", memo.accuracy, memo.confidence),
                memo.fixed,
                memo.broken,
                totals.images(),
                gain(memo),
                p_value(memo.mcnemar_p)
            )?,
            several => {
                writeln!(
                    f,
                    " {:>8} {:>6} {:>6} {:>10}\n{zero_shot}",
                    "points", "fixed", "broke", "McNemar p"
                )?;
                for (name, memo) in names.iter().zip(several) {
                    writeln!(
                        f,
                        "{} {:>+8.2} {:>6} {:>6} {:>10}",
                        row(name, memo.accuracy, memo.confidence),
                        gain(memo),
                        memo.fixed,
                        memo.broken,
                        p_value(memo.mcnemar_p)
                    )?;
                }
                for (name, memo) in names.iter().zip(several).filter(|(_, memo)| memo.failed > 0) {
                    writeln!(f, "{name} has no answer for {} images: counted as wrong", memo.failed)?;
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

/// The demo's table: a row a corruption.
pub fn demo_table(rows: &[(String, Totals)], images_per_s: f64) -> String {
    let mut text = format!(
        "{:<10} {:>7} {:>10} {:>9} {:>7} {:>7} {:>11}\n",
        "shift", "images", "zero-shot", "MEMO", "fixed", "broken", "McNemar p"
    );
    for (name, totals) in rows {
        for memo in totals.memo() {
            text += &format!(
                "{name:<10} {:>7} {:>8.1} % {:>7.1} % {:>7} {:>7} {:>11}\n",
                totals.images(),
                100.0 * totals.clip_accuracy(),
                100.0 * memo.accuracy,
                memo.fixed,
                memo.broken,
                p_value(memo.mcnemar_p)
            );
        }
    }
    text + &format!("{images_per_s:.1} images/s\n")
}
