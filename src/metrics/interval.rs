//! Intervals of fractions.

use super::accuracy::Tally;

/// The standard normal distribution's quantile at 0.975.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a fraction (Wilson 1927): right also where all or none are.
pub fn wilson(tally: Tally) -> Option<(f64, f64)> {
    let (n, p) = (tally.images as f64, tally.accuracy()?);
    let denominator = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / denominator;
    let half = Z * ((p * (1.0 - p) + Z * Z / (4.0 * n)) / n).sqrt() / denominator;
    let low = if tally.right == 0 { 0.0 } else { centre - half };
    let high = if tally.right == tally.images { 1.0 } else { centre + half };
    Some((low, high))
}
