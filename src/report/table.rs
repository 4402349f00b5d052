//! The final table, and the JSON object that scripts read.

use std::fmt;

use serde::Serialize;

use crate::metrics::Totals;

/// A run's result; accuracies and confidences are fractions.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub images: usize,
    pub memo_accuracy: f64,
    pub memo_confidence: f64,
    pub clip_accuracy: f64,
    pub clip_confidence: f64,
    /// Of the images that this run has adapted to: 0 where a resumed run had none left.
    pub images_per_s: f64,
    pub fixed: usize,
    pub broken: usize,
    pub mcnemar_p: f64,
}

impl Summary {
    pub fn new(totals: &Totals, images_per_s: f64) -> Summary {
        Summary {
            images: totals.images(),
            memo_accuracy: totals.memo_accuracy(),
            memo_confidence: totals.memo_confidence(),
            clip_accuracy: totals.clip_accuracy(),
            clip_confidence: totals.clip_confidence(),
            images_per_s,
            fixed: totals.fixed(),
            broken: totals.broken(),
            mcnemar_p: totals.mcnemar_p(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |name: &str, accuracy: f64, confidence: f64| {
            format!("{name:<12} {:>9.2} % {:>17.2} %\n", 100.0 * accuracy, 100.0 * confidence)
        };
        writeln!(f, "{:<12} {:>11} {:>19}", "", "accuracy", "average confidence")?;
        f.write_str(&row("zero-shot", self.clip_accuracy, self.clip_confidence))?;
        f.write_str(&row("MEMO", self.memo_accuracy, self.memo_confidence))?;
        let gain = 100.0 * (self.memo_accuracy - self.clip_accuracy);
        writeln!(
            f,
            "MEMO fixed {} and broke {} of {} images: {gain:+.2} points, McNemar p = {}",
            self.fixed,
            self.broken,
            self.images,
            p_value(self.mcnemar_p)
        )?;
        match self.images_per_s > 0.0 {
            true => writeln!(f, "{:.2} images/s", self.images_per_s),
            false => writeln!(f, "nothing was left to do: every image was in the file"),
        }
    }
}

/// Three decimals, or as many as a small one needs to be told from 0.
fn p_value(p: f64) -> String {
    if p < 0.001 { format!("{p:.1e}") } else { format!("{p:.3}") }
}

/// The demo's table: a row a corruption.
pub fn demo_table(rows: &[(String, Totals)], images_per_s: f64) -> String {
    let mut text = format!(
        "{:<10} {:>7} {:>10} {:>9} {:>7} {:>7} {:>11}\n",
        "shift", "images", "zero-shot", "MEMO", "fixed", "broken", "McNemar p"
    );
    for (name, totals) in rows {
        text += &format!(
            "{name:<10} {:>7} {:>8.1} % {:>7.1} % {:>7} {:>7} {:>11}\n",
            totals.images(),
            100.0 * totals.clip_accuracy(),
            100.0 * totals.memo_accuracy(),
            totals.fixed(),
            totals.broken(),
            p_value(totals.mcnemar_p())
        );
    }
    text + &format!("{images_per_s:.1} images/s\n")
}
