//! What is gained where only the surest answers are given (El-Yaniv and Wiener 2010).

use super::mean;

/// Errors among the surest answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Fraction of images that are answered.
    pub coverage: f64,
    /// Fraction of these that are wrong.
    pub risk: f64,
}

/// The risk of answering the first, the first two, … of all images, the surest first. Among equally sure ones the risk is that which
/// a random order of them has on average, so that it does not depend on theirs.
pub fn risk_coverage(confidences: &[f64], right: &[bool]) -> Vec<Point> {
    let mut order: Vec<(f64, bool)> = confidences.iter().copied().zip(right.iter().copied()).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (images, mut wrong, mut points) = (order.len(), 0.0, Vec::with_capacity(order.len()));
    for alike in order.chunk_by(|a, b| a.0 == b.0) {
        let wrong_here = alike.iter().filter(|(_, right)| !right).count() as f64;
        for place in 1..=alike.len() {
            let answered = (points.len() + 1) as f64;
            let risk = (wrong + wrong_here * place as f64 / alike.len() as f64) / answered;
            points.push(Point { coverage: answered / images as f64, risk });
        }
        wrong += wrong_here;
    }
    points
}

/// The mean risk over all coverages (AURC; Geifman, Uziel and El-Yaniv 2019).
pub fn area(points: &[Point]) -> Option<f64> {
    mean(points.iter().map(|point| point.risk))
}
