//! What is said of answers: plain functions over slices, an idea a file, and the running totals of a run.
//!
//! What is not defined, such as the accuracy over no images, is `None`. All are held against scikit-learn, scipy, torchmetrics
//! and statsmodels, see `tests/make_metrics.py`.

pub mod accuracy;
pub mod calibration;
pub mod corruption;
pub mod detection;
pub mod interval;
pub mod paired;
pub mod selective;
pub mod stability;
mod totals;

#[cfg(test)]
mod tests;

pub use totals::{Comparison, Detection, Totals};

/// The mean of values that there are; an infinite one makes it infinite.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}
