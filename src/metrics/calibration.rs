//! Whether answers of which a confidence of 0.8 is said are right eight times in ten (Guo et al. 2017).

/// Bins of the calibration error, where nothing else is said.
pub const BINS: usize = 15;

/// Answers of about one confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// The edges.
    pub low: f64,
    pub high: f64,
    pub images: usize,
    /// Mean; 0 where there are no images.
    pub confidence: f64,
    /// Fraction right; 0 where there are no images.
    pub accuracy: f64,
}

/// Bins of one width, `[i / bins, (i + 1) / bins)`, the last with 1 in it.
///
/// Confidences and edges are compared in float32, edges as torch.linspace makes them, so that each falls where it does with
/// torchmetrics 1.9's `BinaryCalibrationError` and `MulticlassCalibrationError`, but for those that are 1 in float32: torchmetrics has
/// a bin of their own for these, the 16th of 15. Means are float64.
///
/// * `confidences`: in [0, 1].
pub fn equal_width(confidences: &[f64], right: &[bool], bins: usize) -> Vec<Bin> {
    let edges = edges(bins);
    // As many edges as are not above it, but the first; of the last bin at most.
    let place = |confidence: f64| {
        let guess = ((confidence as f32 * bins as f32) as usize).min(bins - 1);
        let place = guess.saturating_sub(1)..bins;
        place.take_while(|&bin| edges[bin] <= confidence as f32).last().unwrap_or(0)
    };
    let edges: Vec<f64> = edges.iter().map(|&edge| f64::from(edge)).collect();
    filled(&edges, confidences, right, place)
}

/// torch.linspace(0, 1, bins + 1) of float32, which counts from the nearer end by fused multiply and add.
pub(super) fn edges(bins: usize) -> Vec<f32> {
    let step = f64::from(1.0 / bins as f32);
    let edge = |i: usize| match i < bins.div_ceil(2) {
        true => step * i as f64,
        false => 1.0 - step * (bins - i) as f64,
    };
    (0..=bins).map(|i| edge(i) as f32).collect()
}

/// Bins between quantiles, each with as many images where no confidences are equal: `(q_i, q_i+1]`, the first with its lower edge in
/// it, so that equal confidences share a bin. Edges are NumPy's `percentile`, as in scikit-learn's
/// `calibration_curve(strategy="quantile")`.
pub fn equal_mass(confidences: &[f64], right: &[bool], bins: usize) -> Vec<Bin> {
    if confidences.is_empty() {
        return Vec::new();
    }
    let mut sorted = confidences.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let fraction = |i: usize| if i == bins { 1.0 } else { i as f64 * (1.0 / bins as f64) };
    let edges: Vec<f64> = (0..=bins).map(|i| quantile(&sorted, fraction(i) * 100.0 / 100.0)).collect();
    let place = |confidence: f64| edges[1..bins].partition_point(|&edge| edge < confidence);
    filled(&edges, confidences, right, place)
}

/// NumPy's linear interpolation between the two nearest of sorted values, of which there is one at least.
pub(super) fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * fraction;
    let (below, share) = (at.floor(), at.fract());
    let (a, b) = (sorted[below as usize], sorted[(below as usize + 1).min(sorted.len() - 1)]);
    if share < 0.5 { a + (b - a) * share } else { b - (b - a) * (1.0 - share) }
}

fn filled(edges: &[f64], confidences: &[f64], right: &[bool], place: impl Fn(f64) -> usize) -> Vec<Bin> {
    let mut bins: Vec<Bin> =
        edges.windows(2).map(|edge| Bin { low: edge[0], high: edge[1], ..Bin::default() }).collect();
    for (&confidence, &right) in confidences.iter().zip(right) {
        let bin = &mut bins[place(confidence)];
        bin.images += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(right);
    }
    for bin in bins.iter_mut().filter(|bin| bin.images > 0) {
        bin.confidence /= bin.images as f64;
        bin.accuracy /= bin.images as f64;
    }
    bins
}

/// The mean distance of a bin's accuracy from its confidence, each bin as heavy as it has images (ECE).
pub fn expected_error(bins: &[Bin]) -> Option<f64> {
    let images: usize = bins.iter().map(|bin| bin.images).sum();
    let distance = |bin: &Bin| bin.images as f64 * (bin.accuracy - bin.confidence).abs();
    (images > 0).then(|| bins.iter().map(distance).sum::<f64>() / images as f64)
}
