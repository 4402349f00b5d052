//! Axes of plots: where they end, and which numbers stand at them.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::Ranged;

/// An axis, and what stands at it.
pub struct Axis {
    /// From left to right, or from below.
    pub range: Range<f64>,
    pub ticks: Vec<(f64, String)>,
    /// Nothing where it is empty.
    pub title: &'static str,
}

/// How numbers are written at an axis.
pub struct Unit {
    scale: f64,
    name: &'static str,
    /// Ticks are at multiples of it, in these units; 0 where they may be anywhere.
    least: f64,
}

pub const PERCENT: Unit = Unit { scale: 100.0, name: " %", least: 0.0 };
pub const PLAIN: Unit = Unit { scale: 1.0, name: "", least: 0.0 };
pub const COUNT: Unit = Unit { scale: 1.0, name: "", least: 1.0 };

impl Axis {
    /// With up to so many ticks, three or more, at round numbers.
    pub fn new(range: Range<f64>, most: usize, unit: Unit, title: &'static str) -> Axis {
        let ticks = ticks(&range, most, &unit);
        Axis { range, ticks, title }
    }

    /// Of learning rates by their logarithms, with ticks at the rates themselves, as far as they are not too close.
    pub fn of_rates(mut rates: Vec<f64>) -> Axis {
        rates.sort_by(f64::total_cmp);
        let [slow, fast] = [rates.first(), rates.last()].map(|rate| rate.map_or(0.0, |rate| rate.log10()));
        let aside = ((fast - slow) * 0.06).max(0.1);
        let range = slow - aside..fast + aside;
        let apart = (range.end - range.start) * 0.15;
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for rate in rates {
            let place = rate.log10();
            if ticks.last().is_none_or(|(last, _)| place - last >= apart) {
                ticks.push((place, format!("{rate:e}")));
            }
        }
        Axis { range, ticks, title: "learning rate" }
    }
}

/// The closest that are not too many. Where three may be, there are two at least, unless the range has not as many of the least.
fn ticks(range: &Range<f64>, most: usize, unit: &Unit) -> Vec<(f64, String)> {
    let (low, high) = (range.start * unit.scale, range.end * unit.scale);
    let most_power = (high - low).log10().ceil() as i32;
    let powers = (most_power - 2..=most_power).rev();
    let steps = powers.flat_map(|power| [5.0, 2.5, 2.0, 1.0].map(|factor| (factor, power)));
    let size = |(factor, power): (f64, i32)| factor * 10f64.powi(power);
    let steps = steps.filter(|step| unit.least == 0.0 || size(*step) % unit.least == 0.0);
    // Of its multiples, the first and the last.
    let ends = |step: f64| ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    let fits = |step: &(f64, i32)| {
        let (first, last) = ends(size(*step));
        last - first < most as i64
    };
    let Some((factor, power)) = steps.take_while(fits).last() else { return Vec::new() };
    let step = size((factor, power));
    let digits = usize::try_from(if factor == 2.5 { 1 - power } else { -power }).unwrap_or(0);
    let (first, last) = ends(step);
    let tick = |number: i64| {
        let value = number as f64 * step;
        (value / unit.scale, format!("{value:.digits$}{}", unit.name))
    };
    (first..=last).map(tick).collect()
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, pixels)
    }

    /// None between the ticks.
    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.iter().map(|(place, _)| *place).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == place);
        tick.map_or(String::new(), |(_, label)| label.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<(f64, String)>) -> Vec<String> {
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_whatever_the_range() {
        for (range, most, want) in [
            (0.0..1.0, 6, &["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"][..]),
            (0.0..1.0, 3, &["0 %", "50 %", "100 %"]),
            (0.0..1.0, 4, &["0 %", "50 %", "100 %"]),
            (0.26..0.84, 3, &["40 %", "60 %", "80 %"]),
            (0.1..0.9, 3, &["25 %", "50 %", "75 %"]),
            (0.59..0.7, 6, &["60 %", "62 %", "64 %", "66 %", "68 %", "70 %"]),
            (0.5995..0.6005, 6, &["59.96 %", "59.98 %", "60.00 %", "60.02 %", "60.04 %"]),
            (0.9931..1.0, 4, &["99.4 %", "99.6 %", "99.8 %", "100.0 %"]),
        ] {
            assert_eq!(labels(ticks(&range, most, &PERCENT)), want, "{range:?}");
        }
        assert_eq!(labels(ticks(&(0.0..1.05), 6, &COUNT)), ["0", "1"], "no half an image");
        assert_eq!(labels(ticks(&(0.0..12.0), 6, &COUNT)), ["0", "5", "10"]);
        assert_eq!(labels(ticks(&(0.0..250.0), 6, &COUNT)), ["0", "50", "100", "150", "200", "250"]);
        assert_eq!(labels(ticks(&(0.0..2.3), 6, &PLAIN)), ["0.0", "0.5", "1.0", "1.5", "2.0"]);
        // From 0.1 % to all of it.
        for (wide, from, most) in (0..=60)
            .flat_map(|i| (0..20).flat_map(move |j| [3, 4, 6].map(|most| (i, j, most))))
            .map(|(i, j, most)| (10f64.powf(-3.0 + f64::from(i) / 20.0), f64::from(j) / 19.0, most))
        {
            let range = from * (1.0 - wide)..from * (1.0 - wide) + wide;
            let ticks = ticks(&range, most, &PERCENT);
            assert!((2..=most).contains(&ticks.len()), "{ticks:?} of {range:?}");
            for (at, label) in &ticks {
                let said: f64 =
                    label.strip_suffix(" %").and_then(|text| text.parse().ok()).expect("a number");
                assert!((said - 100.0 * at).abs() < 1e-9, "{label} at {at}");
                assert!(*at > range.start - 1e-9 && *at < range.end + 1e-9, "{label} of {range:?}");
            }
            assert!(ticks.windows(2).all(|pair| pair[0].1 != pair[1].1), "{ticks:?}");
        }
    }

    #[test]
    fn rates_stand_below_their_points() {
        let axis = |rates: &[f64]| labels(Axis::of_rates(rates.to_vec()).ticks);
        assert_eq!(axis(&[1e-3, 3e-3, 1e-4, 1e-3]), ["1e-4", "1e-3", "3e-3"]);
        assert_eq!(axis(&[1.5e-4]), ["1.5e-4"]);
        assert_eq!(axis(&[1e-6, 1e-5, 1.1e-5, 1e-4]), ["1e-6", "1e-5", "1e-4"]);
    }
}
