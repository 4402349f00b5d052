//! Which step a program makes, held against the true one.

use anyhow::{Result, ensure};

/// Logits of a few images, `(I, K)`, before and after a step, and which part of the weights it moved.
#[derive(Debug)]
pub struct Checked {
    pub zero_shot: Vec<Vec<f64>>,
    pub memo: Vec<Vec<f64>>,
    pub moved: Option<f64>,
}

impl Checked {
    /// How a step changed each logit.
    fn effect(&self) -> impl Iterator<Item = f64> {
        let pairs = self.memo.iter().flatten().zip(self.zero_shot.iter().flatten());
        pairs.map(|(after, before)| after - before)
    }

    /// The most that it changed one.
    pub fn most(&self) -> f64 {
        self.effect().map(f64::abs).fold(0.0, f64::max)
    }

    /// How far the change of the logits is from the true one, as a part of it: `‖e − e'‖ / ‖e'‖` over all images.
    ///
    /// # Errors
    /// Other images or classes; a true change of nothing.
    pub fn error(&self, truth: &Checked) -> Result<f64> {
        let [own, true_ones] = [self, truth].map(|checked| checked.effect().count());
        ensure!(own == true_ones, "comparing {own} logits with {true_ones}");
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let whole = norm(&mut truth.effect());
        ensure!(whole > 0.0, "--against: the true step changes no logit, so no error is a part of that");
        let error = norm(&mut self.effect().zip(truth.effect()).map(|(own, truth)| own - truth)) / whole;
        ensure!(error.is_finite(), "--against: logits that are not finite, or out of all proportion");
        Ok(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_part_of_the_effect() {
        let of = |memo: [f64; 2]| Checked {
            zero_shot: vec![vec![1.0, 1.0]],
            memo: vec![memo.to_vec()],
            moved: None,
        };
        let truth = of([4.0, 5.0]);
        assert_eq!(of([4.0, 5.0]).error(&truth).ok(), Some(0.0));
        assert_eq!(of([4.0, 10.0]).error(&truth).ok(), Some(1.0));
        assert_eq!(truth.most(), 4.0);
        assert!(truth.error(&of([1.0, 1.0])).is_err(), "of nothing");
    }
}
