//! `VCUDA_SUMS`: sums of tensor-core products with the bits of a GPU's, as public studies found them: P. Xie and others,
//! *MMA-Sim* (arXiv:2511.10909, its "truncated fused dot-product-add", with the reference code's exponents of zeros), and
//! F. A. Khattak and M. Mikaitis, *Accurate Models of NVIDIA Tensor Cores* (arXiv:2512.07004v2), whose published results of
//! an A100 and an H100, 40,000 of them, these sums give bit for bit.
//!
//! Products of 16-bit floats and tf32 are exact and not normalised: 1.5 · 1.5 keeps the exponent 0. A step adds some of
//! them and C at once: all are aligned to the greatest exponent and cut there to so many fractional bits, towards zero; the
//! sum of what is left is exact, and is cut to float32, or rounded to nearest float16. Subnormals count with the least
//! normal exponent, and no sum is aligned lower than to a floor, which zeros have as their exponent. Results too large are
//! infinite, NaN is the canonical one.
//!
//! The studies differ in the floor of Hopper's float16 sums by `mma` (-22 and -21); the first of them has probed it. On the
//! sign of a zero they say nothing: here it is IEEE 754's, negative if all that was added is. Sums of float64 are IEEE's
//! multiply-adds in the order of k, on both GPUs. Of `wmma` that has C and D of two types nothing is known: it is refused.

use super::fragment::{Columns, DEPTH, Factor, Halves, Rows, Sums};
use crate::exec::arithmetic::float::NAN32;
use crate::exec::arithmetic::half::{F16, Format};
use crate::exec::options::TensorCore;

/// How a tensor core adds.
#[derive(Clone, Copy)]
pub struct Adder {
    /// Bytes of A and B along k that are added in one step.
    step_bytes: usize,
    /// Fractional bits that are left of each term.
    fraction: i32,
    /// The least exponent to which terms are aligned.
    floor: i32,
    half_sums: bool,
}

impl Adder {
    /// That of `mma` and `wmma` with sums in float16 or float32.
    pub fn new(core: TensorCore, half_sums: bool) -> Adder {
        let (step_bytes, fraction, floor) = match (core, half_sums) {
            (TensorCore::A100, false) => (16, 24, -132),
            (TensorCore::A100, true) => (16, 24, -21),
            (TensorCore::H100, false) => (32, 25, -133),
            (TensorCore::H100, true) => (32, 25, -22),
        };
        Adder { step_bytes, fraction, floor, half_sums }
    }

    /// That of `wgmma`, which only Hopper has.
    pub fn wgmma(half_sums: bool) -> Adder {
        Adder { floor: -133, ..Adder::new(TensorCore::H100, half_sums) }
    }

    /// Adds `depth` products to each of four registers of D, as [`super::fragment::accumulate`] does.
    #[cold]
    #[inline(never)]
    pub fn accumulate<T: Factor>(&self, d: &mut [Sums; 4], rows: &Rows, columns: &Columns, depth: usize) {
        for (i, sums) in d.iter_mut().enumerate() {
            let (h, e) = (i / 2, i % 2);
            for (lane, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                let (mut a, mut b) = ([0.0; DEPTH], [0.0; DEPTH]);
                for k in 0..depth {
                    a[k] = rows[k][h].as_flattened()[lane];
                    b[k] = columns[e][k][lane % 4];
                }
                *sum = self.sum::<T>(&a[..depth], &b[..depth], *sum);
            }
        }
    }

    /// `c` and the products of `a` and `b`, which hold as many elements.
    pub fn sum<T: Factor>(&self, a: &[f32], b: &[f32], c: f32) -> f32 {
        let step = self.step_bytes * T::PER_LANE / 4;
        a.chunks(step).zip(b.chunks(step)).fold(c, |c, (a, b)| self.step::<T>(a, b, c))
    }

    fn step<T: Factor>(&self, a: &[f32], b: &[f32], c: f32) -> f32 {
        // Finite terms do not overflow float64.
        let wide = a.iter().zip(b).fold(f64::from(c), |sum, (&a, &b)| sum + f64::from(a) * f64::from(b));
        if !wide.is_finite() {
            return if wide.is_nan() { f32::from_bits(NAN32) } else { wide as f32 };
        }
        let mut terms = [Term::default(); DEPTH + 1];
        for (term, (&a, &b)) in terms.iter_mut().zip(a.iter().zip(b)) {
            *term = Term::product(Term::of(a, T::LEAST_EXPONENT), Term::of(b, T::LEAST_EXPONENT));
        }
        let least = if self.half_sums { Halves::<F16>::LEAST_EXPONENT } else { f32::MIN_EXP - 1 };
        let one = Term { negative: false, significand: 1 << 23, exponent: 0 };
        terms[a.len()] = Term::product(Term::of(c, least), one);
        self.round(&terms[..a.len() + 1])
    }

    /// The sum of terms, which have 46 fractional bits.
    fn round(&self, terms: &[Term]) -> f32 {
        let nonzero = terms.iter().filter(|term| term.significand != 0);
        let greatest = nonzero.map(|term| term.exponent).fold(self.floor, i32::max);
        let mut sum = 0;
        for term in terms {
            let cut = 46 - self.fraction + (greatest - term.exponent).clamp(0, 60);
            let left = term.significand.checked_shr(cut as u32).unwrap_or(0) as i64;
            sum += if term.negative { -left } else { left };
        }
        if sum == 0 {
            return if terms.iter().all(|term| term.negative) { -0.0 } else { 0.0 };
        }
        // Exactly: it has no more than 32 bits.
        let exact = sum as f64 * 2f64.powi(greatest - self.fraction);
        let near = exact as f32;
        let is_beyond = f64::from(near).abs() > exact.abs() && exact.abs() < 2f64.powi(128);
        let cut = if is_beyond { f32::from_bits(near.to_bits() - 1) } else { near };
        if !self.half_sums {
            return cut;
        }
        // With a last bit that says whether anything is beyond it, the one rounding to float16 is right.
        let odd = cut.to_bits() | (f64::from(cut) != exact) as u32;
        F16::widen(F16::narrow(f32::from_bits(odd)))
    }
}

/// `significand · 2^exponent`, the significand with so many fractional bits as its place has.
#[derive(Clone, Copy, Default)]
struct Term {
    negative: bool,
    significand: u64,
    exponent: i32,
}

impl Term {
    /// A value, with 23 fractional bits, of a format whose least normal exponent is `least`.
    fn of(value: f32, least: i32) -> Term {
        let (biased, fraction) = (value.to_bits() >> 23 & 0xff, value.to_bits() & 0x7f_ffff);
        let hidden = if biased == 0 { 0 } else { 1 << 23 };
        let exponent = biased.max(1) as i32 - 127;
        let below = (least - exponent).clamp(0, 31);
        Term {
            negative: value.is_sign_negative(),
            significand: u64::from(fraction | hidden) >> below,
            exponent: exponent + below,
        }
    }

    fn product(a: Term, b: Term) -> Term {
        Term {
            negative: a.negative != b.negative,
            significand: a.significand * b.significand,
            exponent: a.exponent + b.exponent,
        }
    }
}
