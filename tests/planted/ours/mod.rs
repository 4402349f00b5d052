//! The project's own kernels, broken by changing a piece of their text.

mod batch;
mod block;
mod ends;
mod hopper;
mod optimizer;
mod tensor_cores;
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

/// A case, and the lines before its source.
type Compiled = (&'static str, Case);

fn step(kernel: &'static str, grid: [u32; 3], block: u32, shared_bytes: u32, args: Vec<Arg>) -> Step {
    Step { kernel, grid, cluster: 1, block, shared_bytes, args }
}

pub fn all() -> Vec<Planted> {
    let plain = [views::cases(), block::cases(), ends::cases()].into_iter().flatten();
    let plain = plain.map(|case| ("", case));
    plain
        .chain(batch::cases())
        .chain([block::in_terms()])
        .chain(optimizer::cases())
        .chain(tensor_cores::cases())
        .chain(hopper::cases())
        .map(planted)
        .collect()
}

fn planted((before, case): Compiled) -> Planted {
    let (_, own) = memo::gpu::SOURCES.iter().find(|(stem, _)| *stem == case.stem).expect("a kernel's stem");
    let source = format!("{before}{own}");
    let kernel = case.steps.last().expect("a launch").kernel;
    let name = if kernel.starts_with(case.stem) { kernel.into() } else { format!("{} {kernel}", case.stem) };
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

/// `struct Linear` of one product in layout NT, with bias and addend, rows as long as they are; of float16 to float16, or all
/// in float32.
fn linear([m, n, k]: [i32; 3], half: bool, aligned: i32) -> Arg {
    let floats = |rows: i32, columns: i32| Arg::floats((rows * columns) as usize);
    let operand = |rows: i32| (if half { Arg::halves } else { Arg::floats })((rows * k) as usize);
    let null = || Arg::Value(vec![0; 8]);
    let out = Arg::Fresh((if half { 2 } else { 4 } * m * n) as usize);
    let mut parts = vec![operand(m), operand(n), null(), null(), out, null(), floats(1, n), floats(m, n)];
    parts.extend((0..6).map(|_| null())); // steps of a batch of one
    parts.extend([m, n, k, 1].map(Arg::int));
    parts.extend([k, k, n, 0, n].map(Arg::int)); // pitches
    parts.extend([0.5, 2.0, 0.0].map(Arg::float));
    parts.extend([aligned, 0].map(Arg::int));
    parts.extend([null(), null()]);
    Arg::Struct(parts)
}
