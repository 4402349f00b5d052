//! Held against scikit-learn, scipy, torchmetrics and statsmodels: `tests/make_metrics.py` draws the same cases and has stored
//! what these say of them.

use safetensors::SafeTensors;

use super::accuracy::{Tally, mean_per_class, per_class, top_k};
use super::calibration::{BINS, Bin, edges, equal_mass, equal_width, expected_error};
use super::corruption::{alexnet, mean_corruption_error};
use super::detection::{auroc, false_positives_at};
use super::interval::wilson;
use super::mean;
use super::paired::Changes;
use super::selective::{area, risk_coverage};
use super::stability::{changed, spread};
use crate::check::fixtures;
use crate::engine::Prediction;
use crate::records::Choice;

const CASES: usize = 1000;

/// As `make_metrics.py` has them: SplitMix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) % n
    }

    fn confidence(&mut self, kind: u64) -> f64 {
        match if kind == 5 { self.below(5) } else { kind } {
            0 => self.below(1 << 24) as f64 / f64::from(1 << 24),
            1 => self.below(9) as f64 / 8.0,
            2 => f64::from(edges(BINS)[self.below(BINS as u64 + 1) as usize]),
            3 => 1.0 - 0.5f64.powi(1 + self.below(24) as i32),
            _ => self.below(2) as f64,
        }
    }

    fn right(&mut self, kind: u64, confidence: f64) -> bool {
        (self.below(100) as f64) < [0.0, 100.0, 100.0 * confidence, 60.0][kind as usize]
    }
}

#[derive(Default)]
struct Answers {
    confidences: Vec<f64>,
    right: Vec<bool>,
    right_after: Vec<bool>,
    labels: Vec<u32>,
    answers: Vec<Option<u32>>,
    outside: Vec<f64>,
    classes: usize,
}

fn answers(case: u64) -> Answers {
    let mut draws = Draws(case);
    let images = if case.is_multiple_of(10) { draws.below(4) } else { draws.below(120) };
    let classes = 1 + draws.below(12);
    let (kind, kind_right) = (draws.below(6), draws.below(4));
    let mut all = Answers { classes: classes as usize, ..Answers::default() };
    for _ in 0..images {
        let confidence = draws.confidence(kind);
        let (first, second) = (draws.right(kind_right, confidence), draws.right(3, confidence));
        let label = draws.below(classes);
        let answer = if first { label } else { (label + 1) % classes };
        all.confidences.push(confidence);
        all.right.push(answer == label);
        all.right_after.push(second);
        all.labels.push(label as u32);
        all.answers.push(Some(answer as u32));
    }
    all.outside = (0..draws.below(60)).map(|_| draws.confidence(kind)).collect();
    all
}

fn fixture<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(name: &str) -> Vec<T> {
    let bytes = std::fs::read(fixtures().join("metrics.safetensors")).unwrap();
    bytemuck::pod_collect_to_vec(SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data())
}

fn expect(what: &str, case: usize, got: Option<f64>, want: f64, bound: f64) {
    let got = got.unwrap_or(f64::NAN);
    assert!(
        got.is_nan() && want.is_nan() || (got - want).abs() <= bound,
        "{what} of case {case}: {got}, not {want}"
    );
}

#[test]
fn answers_are_judged_as_others_judge_them() {
    assert_eq!(edges(BINS), fixture::<f32>("edges"), "torch.linspace");
    let wants = fixture::<f64>("answers");
    for (case, want) in wants.as_chunks::<13>().0.iter().enumerate() {
        let Answers { confidences, right, right_after, labels, answers, outside, classes } =
            answers(case as u64);
        let tally = Tally { images: right.len(), right: right.iter().filter(|&&right| right).count() };
        let changes = Changes::of(&right, &right_after);
        let (low, high) = wilson(tally).unzip();
        expect("Wilson's lower end", case, low, want[0], 1e-12);
        expect("Wilson's upper end", case, high, want[1], 1e-12);
        // As even as can be, it is 1 itself.
        assert!(changes.fixed.abs_diff(changes.broken) > 1 || changes.mcnemar_p() == 1.0);
        expect("McNemar's p", case, Some(changes.mcnemar_p()), want[2], 1e-12);
        let balanced = mean_per_class(&per_class(&labels, &answers, classes));
        expect("mean per class", case, balanced, want[3], 1e-12);
        let error = |bins: &[Bin]| expected_error(bins);
        // torchmetrics sums in float32.
        expect("ECE", case, error(&equal_width(&confidences, &right, BINS)), want[4], 1e-6);
        expect("ECE of equal mass", case, error(&equal_mass(&confidences, &right, BINS)), want[5], 1e-12);
        expect("AURC", case, area(&risk_coverage(&confidences, &right)), want[6], 1e-12);
        expect("AUROC", case, auroc(&confidences, &outside), want[7], 1e-12);
        expect("FPR95", case, false_positives_at(0.95, &confidences, &outside), want[8], 1e-12);
        match changes.bootstrap(case as u64) {
            None => assert!(want[9].is_nan(), "bootstrap of case {case}"),
            Some((low, high)) => {
                let within = |x, low, high| low - 1e-9 <= x && x <= high + 1e-9;
                assert!(
                    within(low, want[9], want[10]) && within(high, want[11], want[12]),
                    "{case}: {low} {high}"
                );
            }
        }
    }
    assert_eq!(wants.len(), 13 * CASES);
}

#[test]
fn a_million_changes_are_tested_as_exactly() {
    let many = fixture::<i64>("many");
    for (pair, want) in many.as_chunks::<2>().0.iter().zip(fixture::<f64>("many_p")) {
        let [fixed, broken] = pair.map(|count| count as usize);
        let p = Changes { images: fixed + broken, fixed, broken }.mcnemar_p();
        assert!((p - want).abs() <= 1e-9 * want, "{fixed} {broken}: {p}, not {want}");
    }
}

#[test]
fn one_is_in_the_last_bin() {
    let bins = equal_width(&[1.0, 0.95, 1.0 - 1e-12, 0.0], &[true, true, false, false], BINS);
    assert_eq!((bins.len(), bins[14].images, bins[0].images), (15, 3, 1));
    assert!((bins[14].accuracy - 2.0 / 3.0).abs() < 1e-12 && bins[14].high == 1.0);
    let bins = equal_width(&[1.0], &[true], 1);
    assert_eq!((bins[0].images, bins[0].low, bins[0].high), (1, 0.0, 1.0));
}

#[test]
fn classes_have_their_rows() {
    let rows = per_class(&[0, 0, 2], &[Some(0), Some(2), None], 4);
    let row = |class: usize| (rows[class].tally.images, rows[class].tally.right, rows[class].answered);
    assert_eq!([0, 1, 2, 3].map(row), [(2, 1, 1), (0, 0, 0), (1, 0, 1), (0, 0, 0)]);
    assert_eq!(mean_per_class(&rows), Some(0.25));
}

#[test]
fn alexnet_has_a_corruption_error_of_one() {
    let errors: Vec<_> = alexnet().collect();
    assert_eq!(
        (errors.len(), errors[0], errors[14]),
        (15, ("gaussian_noise", 0.886428), ("jpeg_compression", 0.6065))
    );
    let of = |name: &str, factor: f64| {
        errors.iter().find(|(other, _)| *other == name).map(|(_, error)| error * factor)
    };
    // Severities differ, and their mean is the reference's half.
    let half = mean_corruption_error(alexnet(), |name, severity| of(name, 0.1 * (severity as f64 + 2.0)));
    assert!((half.unwrap() - 0.5).abs() < 1e-12);
    let without_fog = |name: &str, severity| of(name, 1.0).filter(|_| name != "fog" || severity != 3);
    assert_eq!(mean_corruption_error(alexnet(), without_fog), None);
}

#[test]
fn seeds_are_spread() {
    assert_eq!(spread(&[]), None);
    assert_eq!(spread(&[0.5]), Some((0.5, None)));
    assert_eq!(spread(&[1.0, 2.0, 3.0]), Some((2.0, Some(1.0))));
    let (a, b) = ([Some(1), Some(2), None, None], [Some(1), Some(3), None, Some(0)]);
    assert_eq!(changed(&[&a, &b]), Some(0.5));
    assert_eq!(changed(&[&a]), Some(0.0));
    assert_eq!(changed(&[]), None);
}

#[test]
fn one_seed_has_one_interval() {
    let changes = Changes { images: 1_000_000, fixed: 30_000, broken: 20_000 };
    let (low, high) = changes.bootstrap(0).unwrap();
    assert_eq!(changes.bootstrap(0), Some((low, high)));
    assert_ne!(changes.bootstrap(1), Some((low, high)));
    // The normal approximation, which is good for so many.
    let half = 1.96 * (0.05f64 - 0.01f64.powi(2)).sqrt() / 1000.0;
    assert!((low - (0.01 - half)).abs() < 2e-5 && (high - (0.01 + half)).abs() < 2e-5, "{low} {high}");
    assert_eq!(Changes { images: 7, fixed: 0, broken: 0 }.bootstrap(0), Some((0.0, 0.0)));
    assert_eq!(Changes { images: 7, fixed: 7, broken: 0 }.bootstrap(0), Some((1.0, 1.0)));
}
#[test]
fn scores_are_as_others_have_them() {
    let wants = fixture::<f64>("scores");
    for (case, want) in wants.as_chunks::<4>().0.iter().enumerate() {
        let mut draws = Draws(case as u64 + (1 << 32));
        let images = if case % 10 == 0 { draws.below(3) } else { draws.below(25) } as usize;
        let classes = 2 + draws.below(11) as usize;
        let step = [0.25, 0.0625, 40.0][draws.below(3) as usize];
        let logits: Vec<Vec<f32>> = (0..images)
            .map(|_| (0..classes).map(|_| step * (draws.below(101) as f32 - 50.0)).collect())
            .collect();
        let truths: Vec<_> = logits
            .into_iter()
            .map(|logits| {
                // The first of the largest.
                let index = (0..classes).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                let prediction = Prediction { index, confidence: 0.5, logits, guard: None };
                Choice::of(&prediction, Some(draws.below(classes as u64) as usize)).truth.unwrap()
            })
            .collect();
        let ranks: Vec<u32> = truths.iter().map(|truth| truth.rank as u32).collect();
        expect("top-1", case, top_k(&ranks, 1), want[0], 1e-12);
        expect("top-5", case, top_k(&ranks, 5), want[1], 1e-12);
        expect("NLL", case, mean(truths.iter().map(|truth| truth.nll.unwrap())), want[2], 1e-9);
        expect("Brier", case, mean(truths.iter().map(|truth| truth.brier)), want[3], 1e-12);
    }
    assert_eq!(wants.len(), 4 * CASES);
}
