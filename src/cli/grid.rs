//! A grid of settings: flags that take several values each, and the runs that it takes to have every combination.

use anyhow::Result;
use clap::Args;

use super::Usage;
use super::options::{AdaptOptions, FixedOptions, MOST_STEPS, MOST_VIEWS, not_negative};
use crate::policy::Policy;

/// Each run has a file open, of which systems allow a thousand or so.
const MOST_RUNS: usize = 256;

#[derive(Args, Clone)]
pub struct Grid {
    /// View policies, such as notebook,mild or mild:rotation=10,scale=0.5..1,augmix; see `memo eval --help`
    #[arg(long, default_value = "notebook", value_name = "POLICY", value_parser = policies)]
    policy: Vec<Policies>,
    /// How many random views of each image
    #[arg(long, default_value = "50", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=MOST_VIEWS), allow_negative_numbers = true)]
    views: Vec<u32>,
    /// How many steps for each image
    #[arg(long, default_value = "1", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS), allow_negative_numbers = true)]
    steps: Vec<u32>,
    /// Learning rates. All rates of one step come from one forward and backward pass; of several steps, of which the second depends on
    /// the rate, each takes passes of its own
    #[arg(long, default_value = "1e-5", value_name = "RATE", value_delimiter = ',', value_parser = not_negative, allow_hyphen_values = true)]
    lr: Vec<f32>,
}

/// One value of `--policy`.
#[derive(Clone, Debug)]
struct Policies(Vec<Policy>);

/// A policy's own commas are those before `key=value`.
fn policies(text: &str) -> Result<Policies, String> {
    let mut written: Vec<String> = Vec::new();
    for part in text.split(',') {
        let is_setting = part.split_once('=').is_some_and(|(key, _)| !key.contains(':'));
        match written.last_mut().filter(|policy| is_setting && policy.contains(':')) {
            Some(policy) => *policy += &format!(",{part}"),
            None => written.push(part.to_string()),
        }
    }
    let parsed = written.iter().map(|policy| policy.parse().map_err(|error| format!("{error:#}")));
    parsed.collect::<Result<_, _>>().map(Policies)
}

/// A run of the grid: by all rates, or by one.
pub struct Member {
    pub adapt: AdaptOptions,
    /// Of its file.
    pub name: String,
}

impl Grid {
    /// In the order of the flags' values, the rates' last.
    ///
    /// # Errors
    /// [`Usage`]: a value that is there twice; more than can be run at once; flags that do not go together.
    pub fn members(&self, fixed: &FixedOptions) -> Result<Vec<Member>> {
        let policies: Vec<&Policy> = self.policy.iter().flat_map(|several| &several.0).collect();
        each_once("--policy", &policies, |policy| policy.to_string())?;
        each_once("--views", &self.views, u32::to_string)?;
        each_once("--steps", &self.steps, u32::to_string)?;
        each_once("--lr", &self.lr, |rate| format!("{rate:e}"))?;
        let mut members = Vec::new();
        for policy in policies {
            for (views, steps) in self.views.iter().flat_map(|v| self.steps.iter().map(move |s| (*v, *s))) {
                let shared = if steps == 1 { self.lr.len() } else { 1 };
                for rates in self.lr.chunks(shared) {
                    let (policy, lr, fixed) = (policy.clone(), rates.to_vec(), fixed.clone());
                    let adapt = AdaptOptions { views, lr, steps, policy, fixed };
                    adapt.settings()?;
                    members.push(Member { name: name(&adapt), adapt });
                }
            }
        }
        match members.len() {
            ..=MOST_RUNS => Ok(members),
            count => {
                let why = format!("the grid takes {count} runs, of at most {MOST_RUNS} in one sweep");
                Err(Usage(format!("--policy, --views, --steps, --lr: {why}; give fewer values")).into())
            }
        }
    }
}

/// Of a run's file: no rate where it has all rates of one step, however many.
fn name(AdaptOptions { views, lr, steps, policy, .. }: &AdaptOptions) -> String {
    let policy = policy.to_string().replace([':', ','], "_");
    let rate = if *steps == 1 { String::new() } else { format!("-lr{:e}", lr[0]) };
    format!("{policy}-views{views}-steps{steps}{rate}.jsonl")
}

fn each_once<T: PartialEq>(flag: &str, values: &[T], written: impl Fn(&T) -> String) -> Result<()> {
    match (1..values.len()).find(|&i| values[..i].contains(&values[i])) {
        None => Ok(()),
        Some(twice) => {
            let value = written(&values[twice]);
            Err(Usage(format!("{flag}: {value} is there twice; name each value once")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(policy: &str, views: &[u32], steps: &[u32], lr: &[f32]) -> Result<Vec<Member>> {
        let policy = vec![policies(policy).expect("policies")];
        let grid = Grid { policy, views: views.to_vec(), steps: steps.to_vec(), lr: lr.to_vec() };
        grid.members(&AdaptOptions::mild(1, 1.0).fixed)
    }

    #[test]
    fn rates_of_one_step_share_a_run() {
        let members = grid("mild,none", &[8, 16], &[1, 2], &[1e-3, 1e-4]).unwrap();
        let got: Vec<(&str, &[f32])> =
            members.iter().map(|member| (member.name.as_str(), &member.adapt.lr[..])).collect();
        let both = &[1e-3, 1e-4][..];
        let of = |policy: &str| -> Vec<(String, &[f32])> {
            [8, 16]
                .into_iter()
                .flat_map(|views| {
                    [
                        (format!("{policy}-views{views}-steps1.jsonl"), both),
                        (format!("{policy}-views{views}-steps2-lr1e-3.jsonl"), &both[..1]),
                        (format!("{policy}-views{views}-steps2-lr1e-4.jsonl"), &both[1..]),
                    ]
                })
                .collect()
        };
        let want = [of("mild"), of("none")].concat();
        assert_eq!(got, want.iter().map(|(name, lr)| (name.as_str(), *lr)).collect::<Vec<_>>());
    }

    #[test]
    fn a_policys_own_commas_part_no_policies() {
        let written =
            |text: &str| -> Vec<String> { policies(text).unwrap().0.iter().map(Policy::to_string).collect() };
        assert_eq!(written("mild,none"), ["mild", "none"]);
        let two = ["mild:rotation=10,scale=0.5..1", "augmix:severity=2"];
        assert_eq!(written(&two.join(",")), two);
        for (text, want) in [
            ("", "no such name"),
            ("mild,", "no such name"),
            ("mild,rotation=10", "no such name"),
            ("mild:rotation=10,depth=3", "no such key"),
        ] {
            let error = policies(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_twice_is_refused_by_name() {
        for (result, want) in [
            (grid("mild", &[8], &[1], &[1e-3, 0.001]), "--lr: 1e-3 is there twice"),
            (grid("mild", &[8, 8], &[1], &[1.0]), "--views: 8 is there twice"),
            (grid("mild", &[8], &[2, 2], &[1.0]), "--steps: 2 is there twice"),
            (grid("mild,none,mild:rotation=15", &[8], &[1], &[1.0]), "--policy: mild is there twice"),
            (grid("mild", &(1..=257).collect::<Vec<_>>(), &[1], &[1.0]), "257 runs"),
        ] {
            let error = result.err().expect(want);
            assert!(error.is::<Usage>() && error.to_string().contains(want), "{error}");
        }
    }
}
