//! The project's own kernels, broken by changing a piece of their text.

mod block;
mod ends;
mod views;

use crate::device::{Arg, Run, Step};
use crate::{Bug, Planted};

/// A kernel of the project at a small, ragged size.
struct Case {
    stem: &'static str,
    steps: Vec<Step>,
    out: usize,
    /// The check, what is wrong, the text (which must occur; its first place is changed), and its replacement.
    bugs: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

fn step(kernel: &'static str, grid: [u32; 3], block: u32, shared_bytes: u32, args: Vec<Arg>) -> Step {
    Step { kernel, grid, cluster: 1, block, shared_bytes, args }
}

pub fn all() -> Vec<Planted> {
    [views::cases(), block::cases(), ends::cases()].into_iter().flatten().map(planted).collect()
}

fn planted(case: Case) -> Planted {
    let (_, source) =
        memo::gpu::SOURCES.iter().find(|(stem, _)| *stem == case.stem).expect("a kernel's stem");
    let name = case.steps.last().expect("a launch").kernel.to_string();
    let run = |source: String| Run {
        name: case.stem.to_string(),
        source,
        steps: case.steps.clone(),
        out: case.out,
    };
    let bug = |(i, &(check, what, from, to)): (usize, &(&str, &str, &str, &str))| {
        assert!(source.contains(from), "{name}: {from:?} is not in its source any more");
        Bug {
            name: format!("{name} {}", i + 1),
            check: check.to_string(),
            what: what.to_string(),
            run: run(source.replacen(from, to, 1)),
        }
    };
    let bugs = case.bugs.iter().enumerate().map(bug).collect();
    Planted { twin: run(source.to_string()), want: None, bugs, name }
}
