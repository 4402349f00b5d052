//! A pattern of Hopper code: the right kernel in all its forms, and what is wrong with its broken twins.

use std::sync::LazyLock;

use vcuda::exec::{Checks, TensorCore};

use crate::device::{Compiled, Device, Shape};
use crate::problem::{Defines, Problem, Task};

/// A kernel and the forms in which it must be right: every combination of what varies.
///
/// A source lists its broken twins, with the checks of which any must find them, and what else they are compiled with:
///
///     // bug 2 race/async WAIT=1: the stage is given back whose products still run
#[derive(Clone, Copy)]
pub struct Pattern {
    pub name: &'static str,
    pub source: &'static str,
    pub task: Task,
    /// What it is compiled with; the first of each is a twin's.
    pub defines: &'static [(&'static str, &'static [u32])],
    /// 0 for the 64 × 64 of A or B, 1 for its transpose: TN, TT, NN, NT.
    pub layouts: &'static [[u32; 2]],
    /// Bytes of the swizzle, twice the sum's elements of a step.
    pub spans: &'static [u32],
    pub stages: &'static [u32],
    /// CTAs: as many as tiles, or fewer, of which each has several tiles.
    pub ctas: &'static [u32],
    pub tiles: [usize; 2],
    pub steps: usize,
    pub threads: u32,
    /// CTAs of a cluster down and across, `CLUSTER_M` and `CLUSTER_N`.
    pub cluster: [u32; 2],
    /// Blocks of 64 rows in a stage.
    pub blocks: u32,
    /// Bytes of shared memory beside stages and barriers.
    pub beside: u32,
}

/// A broken version, which any of its checks must find: `memory`, `init`, `race`, `sync` or `async`; or `result`, where
/// no rule is broken and the numbers are wrong.
struct Twin {
    bug: u32,
    checks: &'static str,
    what: &'static str,
    defines: Defines,
}

/// All ways of layout.
pub const LAYOUTS: &[[u32; 2]] = &[[0, 0], [0, 1], [1, 0], [1, 1]];

/// How many seeds each form is tried with, `PATTERN_SEEDS`: another one for each form where that is one.
static SEEDS: LazyLock<u64> = LazyLock::new(|| {
    std::env::var("PATTERN_SEEDS").map_or(1, |n| n.parse().expect("PATTERN_SEEDS is a number"))
});

/// What is on while a twin is looked at: the check that must catch it alone, so that no other comes first.
fn checks(name: &str) -> Checks {
    match name {
        "init" => Checks { init: true, ..Checks::default() },
        "race" => Checks { race: true, ..Checks::default() },
        "async" => Checks { asynchrony: true, ..Checks::default() },
        "memory" => Checks::default(),
        _ => Checks::ALL,
    }
}

/// With approximate functions as far off as may be.
const ASTRAY: Checks = Checks { init: false, race: false, asynchrony: false, approx: true };

/// How a form is tried: plain, with its turns shuffled, and with all checks; once for each source also with the numbers
/// that a GPU may have, for which the bounds hold as well. Name, checks, sums and seed of each.
fn modes(form: u64, is_first: bool) -> Vec<(&'static str, Checks, Option<TensorCore>, u64)> {
    let mut all = vec![("plain", Checks::default(), None, 0)];
    for seed in form..form + *SEEDS {
        all.extend([("memory", Checks::default(), None, seed), ("all", Checks::ALL, None, seed)]);
    }
    if is_first {
        all.push(("numbers", ASTRAY, Some(TensorCore::H100), form));
    }
    all
}

impl Pattern {
    /// Every combination of what it is compiled with.
    fn compilations(&self) -> Vec<Defines> {
        let [down, across] = self.cluster;
        let always = Defines::from([("SIGNAL", 0), ("CLUSTER_M", down), ("CLUSTER_N", across)]);
        let with = |defines: &Defines, more: &[(&'static str, u32)]| {
            let mut defines = defines.clone();
            defines.extend(more.iter().copied());
            defines
        };
        let mut all: Vec<Defines> = Vec::new();
        for [ta, tb] in self.layouts {
            all.extend(
                self.spans.iter().map(|&span| with(&always, &[("TA", *ta), ("TB", *tb), ("SPAN", span)])),
            );
        }
        for (name, values) in self.defines {
            all =
                all.iter().flat_map(|one| values.iter().map(|&value| with(one, &[(name, value)]))).collect();
        }
        all
    }

    fn shape(&self, ctas: u32, stages: u32, span: u32) -> Shape {
        let shared_bytes = stages * (self.blocks * 64 * span + 16) + self.beside;
        Shape {
            ctas,
            cluster: self.cluster[0] * self.cluster[1],
            threads: self.threads,
            stages,
            shared_bytes,
        }
    }

    fn problem(&self, defines: &Defines) -> Problem {
        let [down, across] = self.cluster;
        Problem::new(self.task, defines, self.tiles, self.steps, [across, down])
    }

    /// Every form is right and without a finding.
    pub fn holds(&self) {
        let device = Device::new();
        let (mut amiss, mut runs, mut form) = (Vec::new(), 0, 0);
        for defines in self.compilations() {
            let compiled = Compiled::new(self.name, self.source, &defines, 0);
            let modules = [Checks::default(), Checks::ALL, ASTRAY]
                .map(|checks| (checks, device.load(&compiled, checks)));
            let problem = self.problem(&defines);
            let first = form;
            for (&stages, &ctas) in self.stages.iter().flat_map(|s| self.ctas.iter().map(move |c| (s, c))) {
                form += 1;
                let shape = self.shape(ctas, stages, defines["SPAN"]);
                for (mode, checks, sums, seed) in modes(form, form == first + 1) {
                    let (_, module) = modules.iter().find(|(of, _)| *of == checks).expect("loaded for these");
                    let wrong = match device.run(module, &problem, shape, (checks, sums), seed) {
                        Ok(got) => problem.amiss(&got),
                        Err(fault) => Some(fault.to_string()),
                    };
                    let form = || format!("{stages} stages, {ctas} CTAs, {defines:?}, {mode} {seed}");
                    amiss.extend(wrong.map(|what| format!("{}: {what}", form())));
                    runs += 1;
                }
            }
        }
        println!("{}: {form} forms, {runs} launches", self.name);
        let first = amiss.iter().take(12).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(amiss.is_empty(), "{}: {} of {runs} launches are amiss\n{first}", self.name, amiss.len());
    }

    fn twins(&self) -> Vec<Twin> {
        let twin = |line: &'static str| {
            let (head, what) = line.strip_prefix("// bug ")?.split_once(": ")?;
            let mut words = head.split(' ');
            let (bug, checks) = (words.next()?.parse().ok()?, words.next()?);
            let mut defines = self.compilations().swap_remove(0);
            for (name, value) in words.map(|word| word.split_once('=').expect("NAME=VALUE")) {
                *defines.get_mut(name).expect("a define of the pattern") = value.parse().expect("a number");
            }
            Some(Twin { bug, checks, what, defines })
        };
        self.source.lines().filter_map(twin).collect()
    }

    /// Every broken twin is caught by one of its checks, with every seed.
    pub fn twins_are_caught(&self) {
        let (device, twins, mut missed) = (Device::new(), self.twins(), Vec::new());
        assert!(!twins.is_empty(), "{} has no broken twins", self.name);
        for Twin { bug, checks: names, what, defines } in &twins {
            let checks = checks(names);
            let compiled = Compiled::new(self.name, self.source, defines, *bug);
            let (module, problem) = (device.load(&compiled, checks), self.problem(defines));
            let ctas = *self.ctas.last().expect("a number of CTAs");
            let shape = self.shape(ctas, self.stages[0], defines["SPAN"]);
            for seed in 1..=(*SEEDS).max(3) {
                let (caught, found) = match device.run(&module, &problem, shape, (checks, None), seed) {
                    Ok(got) => {
                        (*names == "result" && problem.amiss(&got).is_some(), "no finding".to_string())
                    }
                    Err(fault) => {
                        (names.split('/').any(|name| name == fault.kind.check()), fault.to_string())
                    }
                };
                if !caught {
                    missed.push(format!("{bug} ({names}, seed {seed}): {what}\n    {found}"));
                } else if seed == 1 {
                    println!("caught  {} {bug} ({names}): {what}\n    {found}", self.name);
                }
            }
        }
        assert!(missed.is_empty(), "{}\n{}", self.name, missed.join("\n"));
    }
}
