//! How many are right: of all, within the first few, of each class.

use serde::Serialize;

use super::mean;

/// Fraction of images of which the true class is among the `k` most likely.
///
/// * `ranks`: classes that are likelier than the true one.
pub fn top_k(ranks: &[u32], k: u32) -> Option<f64> {
    mean(ranks.iter().map(|&rank| f64::from(rank < k)))
}

/// Images that are alike, and answers that are right among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub images: usize,
    pub right: usize,
}

impl Tally {
    pub fn add(&mut self, right: bool) {
        self.images += 1;
        self.right += usize::from(right);
    }

    /// Fraction right.
    pub fn accuracy(self) -> Option<f64> {
        (self.images > 0).then(|| self.right as f64 / self.images as f64)
    }
}

/// One class in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Its images.
    pub tally: Tally,
    /// How often it is the answer, rightly or not.
    pub answered: usize,
}

/// A row for each class.
///
/// * `labels`, `answers`: as many, below `classes`; an image without an answer has `None`.
pub fn per_class(labels: &[u32], answers: &[Option<u32>], classes: usize) -> Vec<Class> {
    let mut rows = vec![Class::default(); classes];
    for (&label, &answer) in labels.iter().zip(answers) {
        rows[label as usize].tally.add(answer == Some(label));
        if let Some(answer) = answer {
            rows[answer as usize].answered += 1;
        }
    }
    rows
}

/// The mean of the classes' accuracies, over classes that have images: scikit-learn's `balanced_accuracy_score`.
pub fn mean_per_class(classes: &[Class]) -> Option<f64> {
    mean(classes.iter().filter_map(|class| class.tally.accuracy()))
}
