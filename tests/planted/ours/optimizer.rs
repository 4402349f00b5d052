//! Steps of parameters.

use super::{Case, Compiled, step};
use crate::device::{Arg, Step};

/// Of an image's row of results.
const WIDTH: usize = 1008;
/// The buffers of a first launch: three pieces' parameters and gradients, their table, flags, results.
const FLAGS: usize = 7;
const OUT: usize = 8;

fn no_terms() -> Vec<Arg> {
    vec![Arg::Value(vec![0; 8]), Arg::Value(vec![0; 8]), Arg::float(1.0)]
}

pub fn cases() -> Vec<Compiled> {
    let float = Arg::float;
    let fresh = || Arg::Fresh(4 * 2 * WIDTH);
    let width = || Arg::Value((WIDTH as u64).to_le_bytes().to_vec());
    let sgd = |before: Vec<Arg>, first| {
        let pace = if first == 1 { Arg::given(&[0.5, 1.0]) } else { Arg::Shared(OUT + 2) };
        let rest = vec![width(), pace, float(0.25), float(0.75), float(0.125), Arg::int(first)];
        launch("sgd", before, [rest, no_terms()].concat())
    };
    let adamw = |before: Vec<Arg>, first| {
        let pace = if first == 1 { Arg::given(&[0.5, 31.6]) } else { Arg::Shared(OUT + 4) };
        let mut rest = vec![width(), pace, float(0.25), float(0.125), Arg::int(first)];
        rest.extend(no_terms());
        // For the second launch.
        rest.extend((first == 1).then(|| Arg::given(&[0.5, 22.4])));
        launch("adamw", before, rest)
    };
    // A single step, whose results are in two terms too.
    let in_terms = |out: usize| {
        let mut rest =
            vec![width(), Arg::given(&[0.5, 1.0]), float(0.25), float(0.75), float(0.125), Arg::int(1)];
        rest.extend([Arg::Fresh(2 * 2 * WIDTH), Arg::Fresh(2 * 2 * WIDTH), float(4096.0)]);
        let step = launch("sgd", [table(), vec![fresh(), Arg::Value(vec![0; 8])]].concat(), rest);
        (step, OUT + out)
    };
    let again = |states: usize| {
        let shared = [OUT - 2, FLAGS].into_iter().chain(OUT..=OUT + states);
        shared.map(Arg::Shared).collect::<Vec<_>>()
    };
    let ((of_first, first), (of_second, second)) = (in_terms(2), in_terms(3));
    let cases = [
        Case {
            stem: "optimizer",
            steps: vec![of_first],
            out: first,
            bugs: &[
                ("result", "there are no terms", "if (!first) return;", "return;"),
                (
                    "race",
                    "the images' terms share a place",
                    "store_pack<N>(first + at, p);",
                    "store_pack<N>(first + at % 1008, p);",
                ),
            ],
        },
        Case {
            stem: "optimizer",
            steps: vec![of_second],
            out: second,
            bugs: &[
                ("result", "the second term is lost", "store_pack<N>(second + at, rest);", ""),
                (
                    "result",
                    "the second term is the first again",
                    "store_pack<N>(second + at, rest);",
                    "store_pack<N>(second + at, p);",
                ),
                (
                    "result",
                    "it is left where float16 has few digits",
                    "scale * (p[i] - to_float(high))",
                    "(p[i] - to_float(high))",
                ),
            ],
        },
        Case {
            stem: "optimizer",
            steps: vec![launch("sgd_plain", [table(), vec![fresh()]].concat(), vec![width(), float(0.5)])],
            out: OUT,
            bugs: &[
                (
                    "memory",
                    "vectors where an image's numbers are not aligned",
                    "if (piece.aligned && i",
                    "if (i",
                ),
                ("memory", "numbers past the last", "min(i + 4, piece.len)", "i + 4"),
                (
                    "race",
                    "the images' results share a place",
                    "blockIdx.y * width + piece.column",
                    "piece.column",
                ),
                (
                    "race",
                    "a flag is raised by writing it",
                    "atomicOr(flags + blockIdx.y, 1u)",
                    "flags[blockIdx.y] = 1u",
                ),
                (
                    "result",
                    "every image has the first one's gradient",
                    "piece.grad + blockIdx.y * piece.grad_step",
                    "piece.grad",
                ),
            ],
        },
        Case {
            stem: "optimizer",
            steps: vec![sgd([table(), vec![fresh(), fresh()]].concat(), 1), sgd(again(1), 0)],
            out: OUT,
            bugs: &[
                (
                    "init",
                    "the first step reads a momentum",
                    "load_state(b, buffer, at, first)",
                    "load_state(b, buffer, at, false)",
                ),
                (
                    "init",
                    "of four neighbours the first one's momentum is kept",
                    "store_pack<N>(state + at, from)",
                    "state[at] = from[0]",
                ),
                (
                    "race",
                    "the images' momenta share a place",
                    "rule.step(p, g, row + i);\n        store_pack",
                    "rule.step(p, g, piece.column + i);\n        store_pack",
                ),
                (
                    "result",
                    "the second step has no momentum either",
                    "load_state(b, buffer, at, first)",
                    "load_state(b, buffer, at, true)",
                ),
                ("result", "a gradient stays scaled", "inverse * grad[i])", "grad[i])"),
            ],
        },
        Case {
            stem: "optimizer",
            steps: vec![adamw([table(), vec![fresh(), fresh(), fresh()]].concat(), 1), adamw(again(2), 0)],
            out: OUT,
            bugs: &[
                (
                    "init",
                    "both moments are kept in the first one's place",
                    "store_state(square, at, v)",
                    "store_state(mean, at, v)",
                ),
                (
                    "result",
                    "weights decay by the gradient",
                    "float g = inverse * grad[i];",
                    "float g = fmaf(decay, p[i], inverse * grad[i]);",
                ),
                (
                    "result",
                    "the second moment is not corrected",
                    "fmaf(root, sqrtf(v[i]), 1e-8f)",
                    "(sqrtf(v[i]) + 1e-8f)",
                ),
            ],
        },
    ];
    cases.map(|case| ("", case)).into()
}

fn launch(kernel: &'static str, before: Vec<Arg>, rest: Vec<Arg>) -> Step {
    step(kernel, [3, 2, 1], 256, 0, [before, rest].concat())
}

/// Three parameters that two images share, and the images' flags. Two warps find that the second image's gradients overflow.
fn table() -> Vec<Arg> {
    let pieces = [piece(0, 1000, true), piece(1000, 7, false), piece(1007, 1, false)];
    vec![Arg::Table(pieces.concat()), Arg::ints(&[0, 0])]
}

/// `struct Piece` of one of them.
fn piece(column: usize, len: usize, aligned: bool) -> Vec<Arg> {
    let mut grads: Vec<f32> = (0..2 * len).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    if len == 1000 {
        (grads[1010], grads[1500]) = (f32::INFINITY, f32::INFINITY);
    }
    let long = |n: usize| Arg::Value((n as u64).to_le_bytes().to_vec());
    let places = [long(0), long(len), long(column)];
    let sizes = [Arg::int(len as i32), Arg::int(aligned.into())];
    [Arg::floats(len), Arg::given(&grads)].into_iter().chain(places).chain(sizes).collect()
}
