//! `ex2` and `tanh`, within their bounds.

use super::{Brain, Float16, Half, One, Two};
use crate::lanes::{Table, approximate_tables, require_same};

/// Within `relative` of the exact value, or of its neighbours in the format.
fn near<H: Half>(found: One<H>, exact: f64, relative: f64, absolute: f64) -> Result<(), String> {
    let nearest = One::<H>::of(exact);
    let smallest = (H::FORMAT.low as f64 - H::FORMAT.precision as f64 + 1.0).exp2();
    let allowed = (relative * exact.abs()).max(absolute).max(smallest);
    if !nearest.value().is_finite() || !found.value().is_finite() || exact == 0.0 && absolute == 0.0 {
        return require_same(found, nearest);
    }
    let error = (found.value() - exact).abs();
    if error <= allowed {
        return Ok(());
    }
    Err(format!("got {}, expected {exact}: error {error:e} of {allowed:e} allowed", found.value()))
}

fn approximations<H: Half>(t: &mut Table, ex2: &str, ex2_relative: f64, tanh_absolute: f64) {
    let ftz = ex2.contains("ftz");
    let ex2_near = |a: One<H>, d: One<H>| {
        let (a, d) = if ftz { (a.flush(), d) } else { (a, d) };
        let exact = a.value().exp2();
        let tiny = ftz && exact < (H::FORMAT.low as f64).exp2();
        match a.value() {
            _ if tiny => require_same(d, One::of(0.0)),
            0.0 => require_same(d, One::of(1.0)),
            _ => near(d, exact, ex2_relative, 0.0),
        }
    };
    let tanh_near = |a: One<H>, d: One<H>| match a.value() {
        0.0 => require_same(d, a),
        infinite if infinite.is_infinite() => require_same(d, One::of(1f64.copysign(infinite))),
        value => near(d, value.tanh(), 0.0, tanh_absolute),
    };
    let both = |a: Two<H>, d: Two<H>, verdict: &dyn Fn(One<H>, One<H>) -> Result<(), String>| {
        a.halves().into_iter().zip(d.halves()).try_for_each(|(a, d)| verdict(a, d))
    };
    let name = H::NAME;
    t.unary_by(&format!("{ex2}.{name} d, a;"), ex2_near);
    t.unary_by(&format!("{ex2}.{name}x2 d, a;"), |a, d| both(a, d, &ex2_near));
    t.unary_by(&format!("tanh.approx.{name} d, a;"), tanh_near);
    t.unary_by(&format!("tanh.approx.{name}x2 d, a;"), |a, d| both(a, d, &tanh_near));
}

#[test]
fn exponentials_and_tangents() {
    for mut t in approximate_tables() {
        // The ISA's bounds: 9.7.4.9 and 9.7.4.10.
        approximations::<Float16>(&mut t, "ex2.approx", 2f64.powf(-9.9), 2f64.powf(-10.987));
        approximations::<Brain>(&mut t, "ex2.approx.ftz", 2f64.powi(-7), 2f64.powi(-8));
    }
}
