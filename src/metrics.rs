//! Running totals of a comparison on the same images, and whether its difference is more than chance.

use crate::records::Record;

/// What zero-shot CLIP and MEMO have done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    images: usize,
    clip_right: usize,
    memo_right: usize,
    clip_confidence: f64,
    memo_confidence: f64,
    fixed: usize,
    broken: usize,
}

impl Totals {
    pub fn add(&mut self, record: &Record) {
        let clip = record.zero_shot.pred == record.label;
        let memo = record.memo.pred == record.label;
        self.images += 1;
        self.clip_right += clip as usize;
        self.memo_right += memo as usize;
        self.clip_confidence += record.zero_shot.confidence;
        self.memo_confidence += record.memo.confidence;
        self.fixed += (memo && !clip) as usize;
        self.broken += (clip && !memo) as usize;
    }

    pub fn images(&self) -> usize {
        self.images
    }

    /// Fraction right by zero-shot CLIP.
    pub fn clip_accuracy(&self) -> f64 {
        self.fraction(self.clip_right as f64)
    }

    /// Fraction right after adapting.
    pub fn memo_accuracy(&self) -> f64 {
        self.fraction(self.memo_right as f64)
    }

    /// Mean softmax value of zero-shot predictions.
    pub fn clip_confidence(&self) -> f64 {
        self.fraction(self.clip_confidence)
    }

    /// Mean softmax value of MEMO's predictions.
    pub fn memo_confidence(&self) -> f64 {
        self.fraction(self.memo_confidence)
    }

    /// Wrong before, right after.
    pub fn fixed(&self) -> usize {
        self.fixed
    }

    /// Right before, wrong after.
    pub fn broken(&self) -> usize {
        self.broken
    }

    /// The exact two-sided p-value of McNemar's test: how likely fixed and broken would be at least as
    /// unequal if each change were a coin's toss (McNemar 1947, in its binomial form).
    pub fn mcnemar_p(&self) -> f64 {
        let (n, k) = (self.fixed + self.broken, self.fixed.min(self.broken));
        if n == 0 {
            return 1.0;
        }
        // log of C(n, i) / 2^n, from i = 0 upward.
        let mut log_term = -(n as f64) * std::f64::consts::LN_2;
        let mut tail = log_term.exp();
        for i in 0..k {
            log_term += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
            tail += log_term.exp();
        }
        (2.0 * tail).min(1.0)
    }

    fn fraction(&self, sum: f64) -> f64 {
        if self.images == 0 { 0.0 } else { sum / self.images as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(fixed: usize, broken: usize) -> f64 {
        Totals { fixed, broken, ..Totals::default() }.mcnemar_p()
    }

    #[test]
    fn mcnemar_is_the_binomial_test() {
        // min(1, 2 Σ C(n, i) / 2^n) in exact integers.
        let cases = [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 5, 1.0),
            (10, 2, 0.038_574_218_75),
            (2, 10, 0.038_574_218_75),
            (22, 6, 0.003_719_165_921_211_242_7),
            (60, 40, 0.056_887_933_640_980_784),
        ];
        for (fixed, broken, want) in cases {
            assert!((p(fixed, broken) - want).abs() < 1e-12, "{fixed} {broken}: {}", p(fixed, broken));
        }
        assert!(p(600_000, 400_000) < 1e-100);
        assert!((p(500_000, 500_000) - 1.0).abs() < 1e-9);
    }
}
