//! Kernels of a transformer's block.

use super::{Case, step};
use crate::device::Arg;

pub fn cases() -> Vec<Case> {
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
            stem: "layernorm",
            steps: vec![step(
                "layernorm_backward_params",
                [1, 2, 1],
                128,
                0,
                vec![
                    fresh(2 * 2 * 70),
                    floats(100 * 70),
                    floats(100 * 70),
                    floats(100),
                    floats(100),
                    int(100),
                    int(70),
                ],
            )],
            out: 0,
            bugs: &[
                (
                    "memory",
                    "the last chunk is taken for a whole one",
                    "min((int)(blockIdx.y + 1) * CHUNK, N)",
                    "(int)(blockIdx.y + 1) * CHUNK",
                ),
                (
                    "race",
                    "all chunks' sums to the first one's place",
                    "partial[(size_t)blockIdx.y * 2 * C + c] = dw",
                    "partial[c] = dw",
                ),
            ],
        },
        Case {
            stem: "linear_simt",
            steps: vec![step("linear_simt", [1, 2, 1], 128, 0, vec![linear(70, 75, 41)])],
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

/// `struct Linear` of one product in layout NT, with bias and addend, rows as long as they are.
fn linear(m: i32, n: i32, k: i32) -> Arg {
    let floats = |rows: i32, columns: i32| Arg::floats((rows * columns) as usize);
    let null = || Arg::Value(vec![0; 8]);
    let out = Arg::Fresh((4 * m * n) as usize);
    let mut parts = vec![floats(m, k), floats(n, k), out, null(), floats(1, n), floats(m, n)];
    parts.extend((0..6).map(|_| null())); // steps of a batch of one
    parts.extend([m, n, k, 1].map(Arg::int));
    parts.extend([k, k, n, 0, n].map(Arg::int)); // pitches
    parts.extend([Arg::float(1.0), Arg::float(1.0), Arg::int(0)]);
    Arg::Struct(parts)
}
