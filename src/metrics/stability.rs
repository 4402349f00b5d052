//! How much of a result is the seed's.

use super::mean;

/// Mean and sample standard deviation; the latter from two values on.
pub fn spread(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let centre = mean(values.iter().copied())?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    let deviation = (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt());
    Some((centre, deviation))
}

/// The fraction of images that have not the same answer by every seed. No answer is one of its own.
///
/// * `answers`: by each seed, as many.
pub fn changed(answers: &[&[Option<u32>]]) -> Option<f64> {
    let (first, others) = answers.split_first()?;
    mean((0..first.len()).map(|image| f64::from(others.iter().any(|other| other[image] != first[image]))))
}
