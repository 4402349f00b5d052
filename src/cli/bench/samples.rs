//! Times of one run, and what is said of them.

use serde_json::{Value, json};

/// Seconds an image, of one batch after another: one at least.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    pub seconds: Vec<f64>,
    sorted: Vec<f64>,
}

/// How far beyond the quartiles, in distances between them, a time is out of the ordinary (Tukey's fences).
const FENCE: f64 = 1.5;

impl Samples {
    /// `None` of no times, or of ones that are none.
    pub fn new(seconds: Vec<f64>) -> Option<Samples> {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let are_times = !seconds.is_empty() && seconds.iter().all(|time| time.is_finite() && *time > 0.0);
        are_times.then_some(Samples { seconds, sorted })
    }

    /// The time that such a part of all is at most, between two of them in proportion.
    pub fn quantile(&self, part: f64) -> f64 {
        let place = part * (self.sorted.len() - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        self.sorted[below] + (self.sorted[above] - self.sorted[below]) * place.fract()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The first and third quartile.
    pub fn quartiles(&self) -> [f64; 2] {
        [self.quantile(0.25), self.quantile(0.75)]
    }

    /// Numbers of the times that are out of the ordinary, from 0.
    pub fn outliers(&self) -> Vec<usize> {
        let [low, high] = self.quartiles();
        let reach = FENCE * (high - low);
        let is_outside = |time: f64| time < low - reach || time > high + reach;
        (0..self.seconds.len()).filter(|&i| is_outside(self.seconds[i])).collect()
    }

    /// How often a second: median, first and third quartile, least and most.
    pub fn rates(&self) -> Value {
        let rate = |part: f64| 1.0 / self.quantile(1.0 - part);
        json!({ "median": rate(0.5), "quartiles": [rate(0.25), rate(0.75)], "min": rate(0.0), "max": rate(1.0) })
    }

    /// How many times as fast as `other`: by the medians, and from the least to the most that quartiles make of it.
    pub fn speed_over(&self, other: &Samples) -> [f64; 3] {
        let ([low, high], [other_low, other_high]) = (self.quartiles(), other.quartiles());
        [other.median() / self.median(), other_low / high, other_high / low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_times_and_what_is_far_beyond_them_is_named() {
        let samples = Samples::new(vec![4.0, 1.0, 2.0, 3.0]).expect("times");
        assert_eq!((samples.median(), samples.quartiles()), (2.5, [1.75, 3.25]));
        assert_eq!(samples.rates()["max"], 1.0);
        assert!(samples.outliers().is_empty());
        let samples = Samples::new(vec![1.0, 1.1, 9.0, 1.0, 1.1, 0.01]).expect("times");
        assert_eq!(samples.outliers(), [2, 5]);
        assert_eq!(Samples::new(Vec::new()), None);
        assert_eq!(Samples::new(vec![1.0, f64::NAN]), None);
    }

    #[test]
    fn a_ratio_has_the_spread_of_both() {
        let [ours, theirs] = [1.0, 3.0].map(|scale| {
            let times = [0.8, 1.0, 1.25].map(|time| time * scale).to_vec();
            Samples::new(times).expect("times")
        });
        let [ratio, least, most] = ours.speed_over(&theirs);
        assert_eq!(ratio, 3.0);
        assert!((least - 3.0 * 0.9 / 1.125).abs() < 1e-12 && (most - 3.0 * 1.125 / 0.9).abs() < 1e-12);
    }
}
