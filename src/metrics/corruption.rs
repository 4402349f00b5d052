//! Errors under corruption, against a reference's.

use super::mean;

/// Severities of each corruption of ImageNet-C.
pub const SEVERITIES: usize = 5;

/// AlexNet's mean error over the severities of each of ImageNet-C's 15 corruptions, from its authors; see `assets/SOURCES.md`.
const ALEXNET: &str = include_str!("../../assets/imagenet_c_alexnet.csv");

/// Names of ImageNet-C's corruptions and AlexNet's mean error for each.
pub fn alexnet() -> impl Iterator<Item = (&'static str, f64)> {
    let rows = ALEXNET.lines().skip(1).filter_map(|line| line.split_once(','));
    rows.filter_map(|(corruption, error)| Some((corruption, error.parse().ok()?)))
}

/// The mean over corruptions of a model's error, summed over severities, over the reference's (mCE; Hendrycks and Dietterich 2019):
/// 1 is the reference's. None unless each of the reference's corruptions is there at all severities.
///
/// * `error`: of the model at a corruption and a severity from 1 on.
pub fn mean_corruption_error(
    reference: impl Iterator<Item = (&'static str, f64)>,
    error: impl Fn(&str, usize) -> Option<f64>,
) -> Option<f64> {
    let ratio = |(corruption, of_reference): (&str, f64)| {
        let errors: Option<Vec<f64>> = (1..=SEVERITIES).map(|severity| error(corruption, severity)).collect();
        Some(mean(errors?)? / of_reference)
    };
    mean(reference.map(ratio).collect::<Option<Vec<f64>>>()?)
}
