//! The definition of a product and of the activations, in float64.

use super::Layout;
use crate::clip::Activation;

/// `A · B` of one product, `(M, N)`; `a(row, column)` and `b(row, column)` as they lie in memory.
pub fn product_reference(
    layout: Layout,
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let a = |i: usize, h: usize| if layout == Layout::Tn { a(h, i) } else { a(i, h) };
    let b = |h: usize, j: usize| if layout == Layout::Nt { b(j, h) } else { b(h, j) };
    (0..m * n).map(|at| (0..k).map(|h| a(at / n, h) * b(h, at % n)).sum()).collect()
}

/// An activation's value and derivative.
pub fn activation_reference(x: f64, kind: Activation) -> (f64, f64) {
    match kind {
        Activation::QuickGelu => {
            let s = 1.0 / (1.0 + (-1.702 * x).exp());
            (x * s, s + 1.702 * x * s * (1.0 - s))
        }
        Activation::Gelu => {
            let cdf = 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2));
            (x * cdf, cdf + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt())
        }
    }
}

/// The error function: its Taylor series, whose terms cancel to 1e-13 up to 3, and from there the continued fraction of
/// what it lacks of one.
fn erf(x: f64) -> f64 {
    let root_pi = std::f64::consts::PI.sqrt();
    if x.abs() > 3.0 {
        let below = (1..=60).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (x.abs() + below));
        return x.signum() * (1.0 - (-x * x).exp() / root_pi / (x.abs() + below));
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / root_pi * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{finite_difference, random, widen};

    #[test]
    fn activations_are_their_own_derivative() {
        for kind in [Activation::QuickGelu, Activation::Gelu] {
            for x in [-3.0, -0.7, 0.0, 0.2, 2.5] {
                let f = |x: &[f64]| activation_reference(x[0], kind).0;
                finite_difference(&[x], f, &[activation_reference(x, kind).1]);
            }
        }
        // Abramowitz and Stegun, table 7.1.
        assert!((erf(0.5) - 0.520_499_877_8).abs() < 1e-10 && (erf(2.0) - 0.995_322_265_0).abs() < 1e-10);
    }

    #[test]
    fn a_layers_gradients_are_its_derivatives() {
        // f = sum(inp · Wᵀ ∘ g)
        let [m, n, k] = [2, 4, 3];
        let [inp, weight, g] =
            [(m * k, 1), (n * k, 2), (m * n, 3)].map(|(len, seed)| widen(&random(len, 1.0, seed)));
        let f = |inp: &[f64], weight: &[f64]| -> f64 {
            let out =
                product_reference(Layout::Nt, [m, n, k], |i, h| inp[i * k + h], |j, h| weight[j * k + h]);
            out.iter().zip(&g).map(|(x, g)| x * g).sum()
        };
        let dinp = product_reference(Layout::Nn, [m, k, n], |i, j| g[i * n + j], |j, h| weight[j * k + h]);
        let dweight = product_reference(Layout::Tn, [n, k, m], |i, j| g[i * n + j], |i, h| inp[i * k + h]);
        finite_difference(&inp, |inp| f(inp, &weight), &dinp);
        finite_difference(&weight, |weight| f(&inp, weight), &dweight);
    }
}
