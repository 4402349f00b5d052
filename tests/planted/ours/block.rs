//! Kernels of a transformer's block.

use super::{Case, Compiled, linear, step};
use crate::device::Arg;

pub fn cases() -> Vec<Case> {
    let (int, floats, fresh) = (Arg::int, Arg::floats, |floats: usize| Arg::Fresh(4 * floats));
    vec![
        Case {
            stem: "linear_simt",
            steps: vec![step("linear_simt", [1, 2, 1], 128, 0, vec![linear([70, 75, 41], false, 0)])],
            out: 2,
            bugs: &[
                (
                    "race",
                    "nothing between storing a tile and reading it",
                    "__syncthreads();  // one a tile",
                    "// one a tile",
                ),
                ("race", "one buffer where two are needed", "a_tile[tile & 1]", "a_tile[0]"),
                ("init", "a tile that is never stored", "b.store(b_now);", ""),
                ("memory", "rows past the last", "(r < rows ? K - kk : 0)", "(K - kk)"),
                (
                    "memory",
                    "a ragged row read as if it were whole",
                    "j < exist ? to_float(from[j]) : 0.f",
                    "to_float(from[j])",
                ),
                ("memory", "a ragged row written as if it were whole", "if (n + j >= p.N) return;", ""),
                ("memory", "rows written past the last", "if (m + i >= p.M) break;", ""),
                ("memory", "vectors where rows are not aligned", "(p.aligned & 1) != 0}", "true}"),
                ("race", "all rows in one place", "(u64)m * pitch + n", "n"),
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
                    int(70),
                    int(70),
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
                "attention_backward_q",
                [2, 2, 1],
                128,
                0,
                vec![
                    fresh(2 * 51 * 48),
                    fresh(2 * 51),
                    fresh(2 * 2 * 32),
                    floats(2 * 51 * 16),
                    floats(2 * 51 * 16),
                    floats(2 * 51 * 48),
                    floats(2 * 51),
                    int(51),
                    int(1),
                    int(16),
                    int(51),
                    int(51),
                    Arg::float(0.25),
                    int(0),
                ],
            )],
            out: 1,
            bugs: &[
                ("memory", "rows past the last", "if (row + r >= queries) continue;", ""),
                (
                    "race",
                    "the images' deltas share a place",
                    "delta[(size_t)blockIdx.x * T + row + r] = row_delta",
                    "delta[row + r] = row_delta",
                ),
                (
                    "race",
                    "the images' rows overlap",
                    "store_rows(dqkv + at3, acc",
                    "store_rows(dqkv + at, acc",
                ),
                (
                    "race",
                    "a tile's rows are summed before they are all there",
                    "tiles.store_left(acc);\n        __syncthreads();",
                    "tiles.store_left(acc);",
                ),
                (
                    "race",
                    "the tiles' sums share a place",
                    "((size_t)b * gridDim.y + blockIdx.y) * 2 * C",
                    "(size_t)b * gridDim.y * 2 * C",
                ),
                (
                    "memory",
                    "the last tile's sums are those of a whole one",
                    "min(TILE_ROWS, queries - first)",
                    "TILE_ROWS",
                ),
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
                    fresh(48),
                    floats(50),
                    floats(2 * 32),
                    floats(50 * 16),
                    floats(50 * 48),
                    floats(50),
                    int(50),
                    int(1),
                    int(16),
                    int(50),
                    int(50),
                    Arg::float(0.25),
                    int(0),
                ],
            )],
            out: 0,
            bugs: &[
                (
                    "memory",
                    "statistics of queries past the last",
                    "query < queries ? lse[(size_t)blockIdx.x * T + query] : 0.f",
                    "lse[(size_t)blockIdx.x * T + query]",
                ),
                ("race", "every tile writes the bias' sums", "if (!dbias || blockIdx.y != 0) return;", ""),
                ("memory", "a tile of sums too many", "tile < gridDim.y", "tile <= gridDim.y"),
            ],
        },
    ]
}

/// Attention whose result is in two terms of float16.
pub fn in_terms() -> Compiled {
    let sizes = [70, 2, 16, 70, 70].map(Arg::int).to_vec();
    let tensors = vec![Arg::Fresh(4 * 70 * 32), Arg::Fresh(4 * 2 * 70), Arg::floats(70 * 96)];
    let args = [tensors, sizes, vec![Arg::float(0.25), Arg::int(0)]].concat();
    let case = Case {
        stem: "attention",
        steps: vec![step("attention_forward", [2, 3, 1], 128, 0, args)],
        out: 0,
        bugs: &[
            ("result", "the second terms lie over the first", "C, OUT_TERMS, acc", "0, OUT_TERMS, acc"),
            (
                "result",
                "second terms are left where float16 has few digits",
                "scale * (x[r][j] -",
                "(x[r][j] -",
            ),
            ("race", "rows are as far apart as in one term", "HS, 2 * C)", "HS, C)"),
        ],
    };
    ("#define OUT_TERMS 4096\n", case)
}
