//! The project's own kernels, broken by changing a piece of their text.

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
    cases().into_iter().map(planted).collect()
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

fn cases() -> Vec<Case> {
    let (int, floats, fresh) = (Arg::int, Arg::floats, |floats: usize| Arg::Fresh(4 * floats));
    vec![
        Case {
            stem: "reduce",
            steps: vec![step(
                "columns_partial",
                [1, 2, 1],
                128,
                0,
                vec![fresh(2 * 70), floats(100 * 70), int(100), int(70)],
            )],
            out: 0,
            bugs: &[
                ("memory", "one column too many", "if (n >= N) return;", "if (n > N) return;"),
                (
                    "memory",
                    "the last chunk is taken for a whole one",
                    "min((int)(blockIdx.y + 1) * CHUNK, M)",
                    "(int)(blockIdx.y + 1) * CHUNK",
                ),
                (
                    "race",
                    "all chunks' sums to the first one's place",
                    "partial[(size_t)blockIdx.y * N + n] = sum",
                    "partial[n] = sum",
                ),
            ],
        },
        Case {
            stem: "layernorm",
            steps: vec![step(
                "layernorm_forward",
                [2, 1, 1],
                128,
                0,
                vec![
                    fresh(6 * 70),
                    fresh(6),
                    fresh(6),
                    floats(6 * 70),
                    floats(70),
                    floats(70),
                    int(6),
                    int(70),
                    Arg::float(1e-5),
                ],
            )],
            out: 0,
            bugs: &[
                ("memory", "warps past the last row", "if (n >= N) return;", ""),
                (
                    "memory",
                    "one column too many of the weights",
                    "c < C; c += 32) out[",
                    "c <= C; c += 32) out[",
                ),
                (
                    "race",
                    "neighbouring rows overlap by a column",
                    "out[(size_t)n * C + c] = (x",
                    "out[(size_t)n * (C - 1) + c] = (x",
                ),
            ],
        },
        Case {
            stem: "layernorm",
            steps: vec![step(
                "layernorm_backward",
                [2, 1, 1],
                128,
                0,
                vec![
                    fresh(6 * 70),
                    floats(6 * 70),
                    floats(6 * 70),
                    floats(70),
                    floats(6),
                    floats(6),
                    int(6),
                    int(70),
                    int(0),
                ],
            )],
            out: 0,
            bugs: &[(
                "init",
                "added to what nobody wrote",
                "dx[c] = accumulate ? dx[c] + d : d;",
                "dx[c] = dx[c] + d;",
            )],
        },
        Case {
            stem: "matmul",
            steps: vec![step(
                "matmul_nt_64",
                [2, 2, 1],
                128,
                0,
                vec![
                    fresh(70 * 75),
                    floats(70 * 41),
                    floats(75 * 41),
                    floats(75),
                    floats(70 * 75),
                    int(70),
                    int(75),
                    int(41),
                    int(0),
                ],
            )],
            out: 0,
            bugs: &[
                (
                    "race",
                    "nothing between storing a tile and reading it",
                    "__syncthreads();  // one a tile",
                    "// one a tile",
                ),
                ("race", "one buffer where two are needed", "a_tile[tile & 1]", "a_tile[0]"),
                ("init", "a tile that is never stored", "b.store(b_now);", ""),
                ("memory", "rows past the last", "r < rows ? K - kk : 0", "K - kk"),
                (
                    "memory",
                    "a ragged row read as if it were whole",
                    "if (i < valid) v.x[i] = p[i];",
                    "v.x[i] = p[i];",
                ),
                (
                    "memory",
                    "a ragged row written as if it were whole",
                    "if (i < valid) p[i] = v.x[i];",
                    "p[i] = v.x[i];",
                ),
                ("memory", "rows written past the last", "if (m + i >= M) break;", ""),
                ("memory", "vectors where rows are not aligned", "(vector & 1) != 0}", "true}"),
            ],
        },
        Case {
            stem: "attention",
            steps: vec![step(
                "attention_forward",
                [2, 3, 1],
                128,
                0,
                vec![
                    fresh(70 * 32),
                    fresh(2 * 70),
                    floats(70 * 96),
                    int(70),
                    int(2),
                    int(16),
                    Arg::float(0.25),
                    int(0),
                ],
            )],
            out: 0,
            bugs: &[
                (
                    "race",
                    "scores: tiles are filled while others read the last ones",
                    "            __syncthreads();\n            if (!idle) load",
                    "            if (!idle) load",
                ),
                (
                    "race",
                    "scores: tiles are read before they are filled",
                    "            __syncthreads();\n            multiply(acc, min",
                    "            multiply(acc, min",
                ),
                (
                    "race",
                    "gather: the tile is filled while others read the last one",
                    "        __syncthreads();\n        load(right",
                    "        load(right",
                ),
                (
                    "race",
                    "gather: the tile is read before it is filled",
                    "        __syncthreads();\n        multiply(acc, depth",
                    "        multiply(acc, depth",
                ),
                ("memory", "tokens past the last", "if (t < from.T) {", "{"),
                (
                    "memory",
                    "rows written past the last",
                    "if (row + r < T && channel < HS) p[",
                    "if (channel < HS) p[",
                ),
                ("race", "heads overlap", "+ h * HS, acc, row", "+ h * (HS - 1), acc, row"),
            ],
        },
        Case {
            stem: "attention",
            steps: vec![step(
                "attention_backward_kv",
                [1, 2, 1],
                128,
                0,
                vec![
                    fresh(50 * 48),
                    floats(50),
                    floats(50 * 16),
                    floats(50 * 48),
                    floats(50),
                    int(50),
                    int(1),
                    int(16),
                    Arg::float(0.25),
                    int(0),
                ],
            )],
            out: 0,
            bugs: &[(
                "memory",
                "statistics of queries past the last",
                "query < T ? lse[(size_t)blockIdx.x * T + query] : 0.f",
                "lse[(size_t)blockIdx.x * T + query]",
            )],
        },
        Case {
            stem: "entropy",
            steps: vec![step(
                "entropy_forward_backward",
                [2, 1, 1],
                256,
                4 * (2 * 5 + 10),
                vec![floats(2 * 5 * 10), fresh(2 * 5 * 10), fresh(2), int(5), int(10), Arg::float(1.0)],
            )],
            out: 1,
            bugs: &[
                (
                    "race",
                    "the rows' sums are read before they are all there",
                    "    __syncthreads();\n\n    float h",
                    "    float h",
                ),
                ("race", "no barrier after the average", "h = block_sum(h);", "h = warp_sum(h);"),
                (
                    "race",
                    "the warps' sums are read before they are all there",
                    "= x;\n    __syncthreads();",
                    "= x;",
                ),
                (
                    "init",
                    "the first view is left out",
                    "float* dx = dlogits + (size_t)blockIdx.x * N * K;\n\n    for (int i = warp_id();",
                    "float* dx = dlogits + (size_t)blockIdx.x * N * K;\n\n    for (int i = 1 + warp_id();",
                ),
                (
                    "memory",
                    "the average begins four places too far",
                    "shared + 2 * N;",
                    "shared + 2 * N + 4;",
                ),
                ("race", "the average lies over the rows' sums", "shared + 2 * N;", "shared + N;"),
                (
                    "memory",
                    "a class too many",
                    "for (int j = threadIdx.x; j < K;",
                    "for (int j = threadIdx.x; j <= K;",
                ),
                ("race", "the images' entropies share a place", "entropy[blockIdx.x] = h", "entropy[0] = h"),
            ],
        },
        Case {
            stem: "head",
            steps: vec![step(
                "rows_gather",
                [3, 1, 1],
                128,
                0,
                vec![fresh(3 * 20), floats(3 * 5 * 20), Arg::ints(&[0, 4, 2]), int(5), int(20)],
            )],
            out: 0,
            bugs: &[("memory", "rows counted from one", "row[b]) * C", "row[b] + 3) * C")],
        },
        Case {
            stem: "sgd",
            steps: vec![step(
                "sgd_step",
                [1, 1, 1],
                256,
                0,
                vec![floats(1000), floats(1000), int(1000), Arg::float(0.5)],
            )],
            out: 0,
            bugs: &[
                ("memory", "no bound", "if (i >= n) return;", ""),
                ("memory", "two elements a thread, four at a time", "int i = 4 * (", "int i = 2 * ("),
                (
                    "race",
                    "two threads write the same four",
                    "store4(params + i, p)",
                    "store4(params + (i & ~7), p)",
                ),
            ],
        },
        Case {
            stem: "patch_embed",
            steps: vec![step(
                "patch_embed_assemble",
                [10, 1, 1],
                128,
                0,
                vec![fresh(2 * 5 * 20), floats(2 * 4 * 20), floats(20), floats(5 * 20), int(5), int(20)],
            )],
            out: 0,
            bugs: &[("memory", "patches counted from one", "(T - 1) + t - 1) * C", "(T - 1) + t) * C")],
        },
        Case {
            stem: "patch_embed",
            steps: vec![step(
                "patch_embed_sum",
                [1, 1, 1],
                128,
                0,
                vec![fresh(5 * 20), fresh(20), floats(2 * 5 * 20), int(2), int(5), int(20)],
            )],
            out: 0,
            bugs: &[
                ("memory", "no bound", "if (i >= T * C) return;", ""),
                (
                    "race",
                    "every token's sum to the class's place",
                    "if (i < C) dclass[i] = sum;",
                    "dclass[i % C] = sum;",
                ),
            ],
        },
        Case {
            stem: "token_embed",
            steps: vec![step(
                "token_embed_forward",
                [6, 1, 1],
                128,
                0,
                vec![
                    fresh(6 * 20),
                    Arg::ints(&[3, 0, 9, 1, 2, 9]),
                    floats(10 * 20),
                    floats(3 * 20),
                    int(3),
                    int(20),
                ],
            )],
            out: 0,
            bugs: &[("memory", "positions that do not begin anew", "(blockIdx.x % T)", "blockIdx.x")],
        },
        Case {
            stem: "activation",
            steps: vec![step(
                "quick_gelu_forward",
                [2, 1, 1],
                256,
                0,
                vec![fresh(300), floats(300), int(300)],
            )],
            out: 0,
            bugs: &[("memory", "one element too many", "if (i < n) out[i]", "if (i <= n) out[i]")],
        },
        Case {
            stem: "activation",
            steps: vec![step(
                "quick_gelu_backward",
                [2, 1, 1],
                256,
                0,
                vec![floats(300), floats(300), int(300)],
            )],
            out: 0,
            bugs: &[("memory", "no bound", "if (i >= n) return;", "")],
        },
        Case {
            stem: "augment",
            steps: original(),
            out: 5,
            bugs: &[
                (
                    "race",
                    "the row is resized before it is whole",
                    "    __syncthreads();\n\n    bounds",
                    "    bounds",
                ),
                (
                    "memory",
                    "a column too many is planned",
                    "int i = blockIdx.x * blockDim.x + threadIdx.x;\n    if (i < 2 * S) {\n        int axis = i >= S, column",
                    "int i = blockIdx.x * blockDim.x + threadIdx.x;\n    if (i < 2 * S + 1) {\n        int axis = i >= S, column",
                ),
                (
                    "memory",
                    "pixels past the crop's end",
                    "x < view.width; x += blockDim.x) {",
                    "x <= view.width; x += blockDim.x) {",
                ),
                (
                    "init",
                    "the weights of the second axis are those of the first",
                    "weights += ((size_t)blockIdx.y * 2 + 1) * K * S;",
                    "weights += ((size_t)blockIdx.y * 2 + 1) * K * S - S;",
                ),
                (
                    "memory",
                    "a patch too many",
                    "i < P * P; i += blockDim.x",
                    "i < P * P + S * P; i += blockDim.x",
                ),
            ],
        },
        Case {
            stem: "draw",
            steps: vec![step(
                "draw_views",
                [1, 1, 1],
                64,
                0,
                [
                    vec![Arg::Fresh(10 * 48), int(10), int(32), int(20)],
                    vec![Arg::Value(vec![0; 8]), Arg::Value(vec![0; 8]), int(0)],
                    [0.5, 0.5, 30.0, 0.4, 0.4, 0.4, 0.2, 0.1, 1.0, 0.75, 1.25, -0.28, 0.28]
                        .map(Arg::float)
                        .to_vec(),
                ]
                .concat(),
            )],
            out: 0,
            bugs: &[("memory", "no bound", "if (i >= n) return;", "")],
        },
    ]
}

/// The preprocess of a 12 x 9 picture to 8 x 8 pixels in patches of 4: three launches over the same buffers.
fn original() -> Vec<Step> {
    let (w, h, s, p, k) = (12, 9, 8, 4, 7);
    let picture = (0..3 * w * h).map(|i| (i * 37 % 251) as u8).collect();
    let int = |value: usize| Arg::int(value as i32);
    // Buffers 0 views, 1 bounds, 2 weights are the first launch's own; behind its parameters are those of the
    // others: 3 the picture, 4 rows, 5 patches.
    let plan = vec![
        int(w),
        int(h),
        int(11),
        int(8),
        int(s),
        int(k),
        Arg::Fresh(88),
        Arg::Fresh(2 * s * 8),
        Arg::Fresh(2 * k * s * 4),
    ];
    let shared = Arg::Shared;
    vec![
        step(
            "plan_original",
            [1, 1, 1],
            128,
            0,
            [plan, vec![Arg::Bytes(picture), Arg::Fresh(h * s * 4), Arg::Fresh(4 * 3 * p * p * 4)]].concat(),
        ),
        step(
            "resize_rows",
            [h as u32, 1, 1],
            256,
            4 * w as u32,
            vec![shared(3), int(w), int(h), int(s), int(k), shared(0), shared(1), shared(2), shared(4)],
        ),
        step(
            "resize_columns",
            [4, 1, 1],
            256,
            0,
            vec![shared(4), int(h), int(s), int(p), int(k), shared(1), shared(2), shared(5)],
        ),
    ]
}
