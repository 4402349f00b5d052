//! What the tests share: one device for every test body, one tolerance policy, finite differences.

use std::path::{Path, PathBuf};

use bytemuck::Pod;

use crate::gpu::{DeviceChoice, Gpu, Shape, Stream, Tensor};

/// A stream of the device the tests run on: `MEMO_TEST_DEVICE=virtual` (the default) or `gpu`.
pub fn test_stream() -> Stream {
    let choice = match std::env::var("MEMO_TEST_DEVICE").as_deref() {
        Ok("gpu") => DeviceChoice::Gpu(0),
        Ok("virtual") | Err(_) => DeviceChoice::Virtual,
        Ok(other) => panic!("MEMO_TEST_DEVICE={other}: expected gpu or virtual"),
    };
    Gpu::open(choice).and_then(|gpu| gpu.stream()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// The folder of the tests' data: `MEMO_FIXTURES`, or where the project was built.
pub fn fixtures() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::env::var_os("MEMO_FIXTURES").map_or(built, PathBuf::from)
}

/// A test that runs on the device under test, with `?` for errors: `device_test!(name, |stream| { … })`.
#[macro_export]
macro_rules! device_test {
    ($name:ident, |$stream:ident| $body:block) => {
        #[test]
        fn $name() {
            let $stream = $crate::check::test_stream();
            let run = || -> anyhow::Result<()> {
                $body
                #[allow(unreachable_code)]
                Ok(())
            };
            if let Err(error) = run() {
                panic!("{error:#}");
            }
        }
    };
}

/// How far a result may be from the truth.
///
/// Each element: `|a − b| ≤ floor + relative · |b|`, where the floor, which alone counts where the truth is zero, is the
/// lesser of `absolute` and `rms` times the root mean square of `b`; all together: `‖a − b‖ ≤ global · ‖b‖`. One of the
/// two is finite: no element is without a bound.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub absolute: f64,
    pub rms: f64,
    pub relative: f64,
    pub global: f64,
}

impl Tolerance {
    /// float32 arithmetic on operands of order one, sums of up to a few thousand terms.
    pub const FP32: Tolerance = Tolerance { absolute: 2e-5, rms: 2e-5, relative: 2e-5, global: 1e-5 };
    /// float32 sums of `terms` products of factors up to one, added one after another.
    pub fn of_sums(terms: usize) -> Tolerance {
        let terms = terms as f64;
        Tolerance {
            relative: 2e-6,
            global: 5e-7 + 3e-7 * terms.sqrt(),
            ..Tolerance::absolute(2e-6 + 6e-8 * terms)
        }
    }

    /// Each element by itself.
    pub fn absolute(most: f64) -> Tolerance {
        Tolerance { absolute: most, rms: f64::INFINITY, relative: 0.0, global: f64::INFINITY }
    }

    /// Bit equality (but for the sign of zero).
    pub const EXACT: Tolerance = Tolerance { absolute: 0.0, rms: 0.0, relative: 0.0, global: 0.0 };
}

/// Global relative error, for what is compared as a whole; of one element eight times that, of itself or of the root mean
/// square, since errors have the spread of a sum of many.
pub fn within(relative: f64) -> Tolerance {
    let each = 8.0 * relative;
    Tolerance { absolute: f64::INFINITY, rms: each, relative: each, global: relative }
}

/// Compares with the truth and panics with the worst element. NaN never passes.
#[track_caller]
pub fn assert_close<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B], tolerance: Tolerance) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let norm: f64 = want.iter().map(|&b| b.into() * b.into()).sum();
    let rms = (norm / want.len().max(1) as f64).sqrt();
    // No product of infinity and zero, which would be NaN.
    let floor = if tolerance.rms.is_finite() {
        tolerance.absolute.min(tolerance.rms * rms)
    } else {
        tolerance.absolute
    };
    assert!(floor.is_finite(), "{tolerance:?} has no bound for single elements");
    let (mut worst, mut excess, mut error) = (0, f64::NEG_INFINITY, 0.0);
    for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
        let (a, b): (f64, f64) = (a.into(), b.into());
        let difference = if a == b { 0.0 } else { (a - b).abs() };
        let over = difference - (floor + tolerance.relative * b.abs());
        let over = if over.is_nan() { f64::INFINITY } else { over };
        if over > excess {
            (worst, excess) = (i, over);
        }
        error += difference * difference;
    }
    let global = (error / f64::max(norm, f64::MIN_POSITIVE)).sqrt();
    let describe = || {
        let (a, b): (f64, f64) = (got[worst].into(), want[worst].into());
        format!(
            "worst at [{worst}] of {}: got {a:e}, want {b:e}; global relative error {global:e}, floor {floor:e}",
            got.len()
        )
    };
    assert!(excess <= 0.0, "outside {tolerance:?}: {}", describe());
    // Where the truth is zero everywhere, the floor has bounded the whole.
    assert!(norm == 0.0 || global <= tolerance.global, "outside {tolerance:?}: {}", describe());
}

/// Checks a gradient against central differences of its function, element by element, in float64.
#[track_caller]
pub fn finite_difference(x: &[f64], f: impl Fn(&[f64]) -> f64, gradient: &[f64]) {
    assert_eq!(x.len(), gradient.len());
    let step = 1e-5;
    let numeric: Vec<f64> = (0..x.len())
        .map(|i| {
            let at = |offset: f64| {
                let mut moved = x.to_vec();
                moved[i] += offset;
                f(&moved)
            };
            (at(step) - at(-step)) / (2.0 * step)
        })
        .collect();
    let tolerance = Tolerance { relative: 1e-5, global: 1e-6, ..Tolerance::absolute(1e-8) };
    assert_close(gradient, &numeric, tolerance);
}

/// SplitMix64 from a state on.
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Values in `[-spread, spread)`, the same for the same seed.
pub fn random(len: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    let unit = |_| (rng.next() >> 40) as f32 / (1u64 << 24) as f32;
    (0..len).map(unit).map(|unit| (2.0 * unit - 1.0) * spread).collect()
}

/// Exact copies in float64.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| v.into()).collect()
}

/// An output that nobody wrote stays NaN and fails any comparison.
pub fn poisoned<T: Pod>(stream: &Stream, shape: impl Into<Shape>) -> Tensor<T> {
    let tensor = stream.alloc(shape).expect("device memory for a test");
    stream.fill_bytes(&tensor, 0xff).expect("filling device memory");
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a thousand elements pass of which number 500 is as given.
    fn passes(got: f64, want: f64, others: f64, tolerance: Tolerance) -> bool {
        let with =
            |one: f64| -> Vec<f64> { (0..1000).map(|i| if i == 500 { one } else { others }).collect() };
        std::panic::catch_unwind(|| assert_close(&with(got), &with(want), tolerance)).is_ok()
    }

    #[test]
    fn every_element_has_a_bound() {
        for tolerance in [within(1e-3), Tolerance::FP32, Tolerance::of_sums(10), Tolerance::absolute(1e-3)] {
            for others in [1.0, 1e-3, 0.0] {
                // The norm alone would let one element in a thousand be thirty times as wrong.
                assert!(passes(others, others, others, tolerance), "{tolerance:?}");
                assert!(!passes(others + 0.02, others, others, tolerance), "{tolerance:?}: among {others}");
                assert!(!passes(f64::NAN, others, others, tolerance), "{tolerance:?}: NaN among {others}");
            }
            assert!(!passes(0.02, 0.0, 1.0, tolerance), "{tolerance:?}: the truth is zero");
        }
        // Of small numbers no more than of others.
        for tolerance in [within(1e-3), Tolerance::FP32] {
            assert!(!passes(2e-5, 0.0, 1e-4, tolerance), "{tolerance:?}: small numbers");
        }
        assert!(passes(0.005, 0.0, 1.0, within(1e-3)));
        assert!(!passes(1e-300, 0.0, 0.0, within(1e-3)), "nothing is of no size");
        assert!(!passes(1.0, 1.0, 1.0, Tolerance { absolute: f64::INFINITY, ..Tolerance::absolute(0.0) }));
    }
}
