//! What the tests share: one device for every test body, one tolerance policy, finite differences.

use std::path::{Path, PathBuf};

use crate::gpu::{DeviceChoice, Gpu, Slice};

/// The device the tests run on: `MEMO_TEST_DEVICE=virtual` (the default) or `gpu`.
pub fn test_device() -> Gpu {
    let choice = match std::env::var("MEMO_TEST_DEVICE").as_deref() {
        Ok("gpu") => DeviceChoice::Gpu(0),
        Ok("virtual") | Err(_) => DeviceChoice::Virtual,
        Ok(other) => panic!("MEMO_TEST_DEVICE={other}: expected gpu or virtual"),
    };
    Gpu::open(choice).unwrap_or_else(|error| panic!("{error:#}"))
}

/// The folder of the tests' data: `MEMO_FIXTURES`, or where the project was built.
pub fn fixtures() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::env::var_os("MEMO_FIXTURES").map_or(built, PathBuf::from)
}

/// A test that runs on the device under test, with `?` for errors: `device_test!(name, |gpu| { … })`.
#[macro_export]
macro_rules! device_test {
    ($name:ident, |$gpu:ident| $body:block) => {
        #[test]
        fn $name() {
            let $gpu = $crate::check::test_device();
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
/// Each element: `|a − b| ≤ absolute + relative · |b|`; all together: `‖a − b‖ ≤ global · ‖b‖`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
    pub global: f64,
}

impl Tolerance {
    /// float32 arithmetic on operands of order one, sums of up to a few thousand terms.
    pub const FP32: Tolerance = Tolerance { absolute: 2e-5, relative: 2e-5, global: 1e-5 };
    /// float32 sums of `terms` products of factors up to one, added one after another.
    pub fn of_sums(terms: usize) -> Tolerance {
        let terms = terms as f64;
        Tolerance { absolute: 2e-6 + 6e-8 * terms, relative: 2e-6, global: 5e-7 + 3e-7 * terms.sqrt() }
    }

    /// Bit equality (but for the sign of zero).
    pub const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0, global: 0.0 };
}

/// Global relative error, for what is compared as a whole.
pub fn within(relative: f64) -> Tolerance {
    Tolerance { absolute: f64::INFINITY, relative: 0.0, global: relative }
}

/// Compares with the truth and panics with the worst element. NaN never passes.
#[track_caller]
pub fn assert_close<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B], tolerance: Tolerance) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let (mut worst, mut excess) = (0, f64::NEG_INFINITY);
    let (mut error, mut norm) = (0.0, 0.0);
    for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
        let (a, b): (f64, f64) = (a.into(), b.into());
        let difference = if a == b { 0.0 } else { (a - b).abs() };
        let over = difference - (tolerance.absolute + tolerance.relative * b.abs());
        let over = if over.is_nan() { f64::INFINITY } else { over };
        if over > excess {
            (worst, excess) = (i, over);
        }
        error += difference * difference;
        norm += b * b;
    }
    let global = (error / f64::max(norm, f64::MIN_POSITIVE)).sqrt();
    let describe = || {
        let (a, b): (f64, f64) = (got[worst].into(), want[worst].into());
        format!(
            "worst at [{worst}] of {}: got {a:e}, want {b:e}; global relative error {global:e}",
            got.len()
        )
    };
    assert!(excess <= 0.0, "outside {tolerance:?}: {}", describe());
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
    assert_close(gradient, &numeric, Tolerance { absolute: 1e-8, relative: 1e-5, global: 1e-6 });
}

/// Values in `[-spread, spread)`, the same for the same seed (SplitMix64).
pub fn random(len: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32;
            (2.0 * unit - 1.0) * spread
        })
        .collect()
}

/// Exact copies in float64.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| v.into()).collect()
}

/// An output that nobody wrote stays NaN and fails any comparison.
pub fn poisoned(gpu: &Gpu, len: usize) -> Slice<f32> {
    let slice = gpu.alloc(len).expect("device memory for a test");
    gpu.fill_bytes(&slice, 0xff).expect("filling device memory");
    slice
}
