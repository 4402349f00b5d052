//! Products and attention on tensor cores.

use super::{Case, Compiled, linear, step};
use crate::device::{Arg, Step};

pub fn cases() -> Vec<Compiled> {
    products().into_iter().chain(attention()).collect()
}

fn products() -> Vec<Compiled> {
    let product = |m: i32, n: i32, k: i32, aligned: i32| {
        let grid = [(n as u32).div_ceil(64), (m as u32).div_ceil(128), 1];
        step("linear_mma", grid, 128, 3 * (128 + 64) * 32 * 2, vec![linear([m, n, k], true, aligned)])
    };
    vec![
        (
            "#define TILE_N 64\n#define STAGES 3\n",
            Case {
                stem: "linear_mma",
                steps: vec![product(130, 72, 104, 7)],
                out: 2,
                bugs: &[
                    (
                        "async",
                        "a stage is read while it is on its way",
                        "copies_wait<STAGES - 2>();",
                        "copies_wait<STAGES - 1>();",
                    ),
                    ("async", "no wait for stages", "copies_wait<STAGES - 2>();", ""),
                    (
                        "init/race/async",
                        "each thread waits for its own part of a stage",
                        "copies_wait<STAGES - 2>();\n        __syncthreads();",
                        "copies_wait<STAGES - 2>();",
                    ),
                    (
                        "race/async",
                        "a stage too few for what is on its way",
                        "step % STAGES * STAGE_BYTES;\n            a.copy",
                        "step % (STAGES - 1) * STAGE_BYTES;\n            a.copy",
                    ),
                    (
                        "async",
                        "the stage after is multiplied",
                        "step % STAGES * STAGE_BYTES;\n#pragma",
                        "(step + 1) % STAGES * STAGE_BYTES;\n#pragma",
                    ),
                    ("result", "a step too few", "(p.K + BK - 1) / BK", "p.K / BK"),
                    (
                        "race",
                        "tiles overlap by a row",
                        "m0 = blockIdx.y * TILE_M,",
                        "m0 = blockIdx.y * (TILE_M - 1),",
                    ),
                    (
                        "result",
                        "the scale is left out",
                        "fmaf(p.alpha, acc[i], bias[i])",
                        "(acc[i] + bias[i])",
                    ),
                    ("result", "the bias has no scale", "bias[i] *= p.beta;", ";"),
                    (
                        "race",
                        "sums lie over the last stage while others read it",
                        "__syncthreads();  // the last stage's readers",
                        "",
                    ),
                    (
                        "race",
                        "sums are read before the warp has them all",
                        "        __syncwarp();\n        if (vector)",
                        "        if (vector)",
                    ),
                    (
                        "race",
                        "sums lie over the last ones while the warp reads them",
                        "m0 += WARP_M / 2) {\n        __syncwarp();",
                        "m0 += WARP_M / 2) {",
                    ),
                    ("memory", "rows past the last", "min(i * APART, last)", "i * APART"),
                    (
                        "memory",
                        "a row's end is taken for a whole step",
                        "if (vector && whole && K >= BK)",
                        "if (vector && whole)",
                    ),
                    (
                        "memory",
                        "rows written past the last",
                        "if (m0 + r + i * APART < p.M) epilogue.write",
                        "epilogue.write",
                    ),
                ],
            },
        ),
        (
            "#define TILE_N 64\n#define STAGES 3\n",
            Case {
                stem: "linear_mma",
                steps: vec![product(70, 67, 41, 0)],
                out: 2,
                bugs: &[
                    ("memory", "a ragged row is read as if it were whole", "if (j < size(i)) pairs", "pairs"),
                    (
                        "memory",
                        "vectors where rows are not aligned",
                        "vector(vector), whole",
                        "vector(true), whole",
                    ),
                    ("memory", "rows written past the last", "if (m >= p.M || n >= p.N) return;", ""),
                ],
            },
        ),
    ]
}

/// Queries and keys of one block, or of two and a ragged one; a head's channels.
const SMALL: &str = "#define TOKENS 20\n#define HEAD 64\n";
const LARGE: &str = "#define TOKENS 70\n#define HEAD 16\n";

fn attention() -> Vec<Compiled> {
    let (int, floats, halves) = (Arg::int, Arg::floats, Arg::halves);
    let fresh_halves = |len: usize| Arg::Fresh(2 * len);
    let fresh = |len: usize| Arg::Fresh(4 * len);
    let sizes = |heads: i32, queries: i32| [int(heads), int(queries), int(queries), Arg::float(0.25)];
    // One sample of 70 tokens and two heads; two of 20 tokens and one head.
    let forward = |heads: usize, head: usize, shared_bytes: u32| {
        let c = heads * head;
        let tensors = vec![fresh_halves(70 * c), fresh(heads * 70), halves(70 * 3 * c)];
        launch("attention_forward", [heads as u32, 2, 1], 128, shared_bytes, tensors, sizes(heads as i32, 70))
    };
    let backward_q = |queries: usize| {
        let tensors = vec![
            fresh_halves(70 * 96),
            fresh(2 * 70),
            fresh(2 * 64),
            halves(queries * 32),
            halves(queries * 32),
            halves(70 * 96),
            floats(2 * 70),
        ];
        launch("attention_backward_q", [2, 2, 1], 128, 6 * 64 * 48, tensors, sizes(2, queries as i32))
    };
    vec![
        (
            LARGE,
            Case {
                stem: "attention_mma",
                steps: vec![forward(2, 16, 5 * 64 * 48)],
                out: 0,
                bugs: &[
                    (
                        "async",
                        "a tile is read while it is on its way",
                        "copies_wait<0>();\n        __syncthreads();",
                        "__syncthreads();",
                    ),
                    (
                        "race/async",
                        "each thread waits for its own part of a tile",
                        "copies_wait<0>();\n        __syncthreads();",
                        "copies_wait<0>();",
                    ),
                    (
                        "race",
                        "the result lies over queries that the warp reads",
                        "    __syncwarp();  // Q has been read\n",
                        "",
                    ),
                    (
                        "race",
                        "the result is stored before the warp has it all",
                        "acc, inverse);\n    __syncwarp();",
                        "acc, inverse);",
                    ),
                    ("memory", "tokens past the last", "bool exist = row < limit && ", "bool exist = "),
                    ("memory", "rows written past the last", "if (r < limit) {", "{"),
                    ("race", "heads overlap", "parts * C + h * HEAD", "parts * C + h * (HEAD - 8)"),
                    ("result", "keys past the last count", "s.beyond([&](float& x) { x = -FLT_MAX; });", ""),
                    (
                        "result",
                        "the last block is left out",
                        ": BLOCKS, load, step",
                        ": BLOCKS - 1, load, step",
                    ),
                    (
                        "result",
                        "what was added before is of another base",
                        "if (BLOCKS > 1) {",
                        "if (false) {",
                    ),
                ],
            },
        ),
        (
            "#define TOKENS 70\n#define HEAD 128\n",
            Case {
                stem: "attention_mma",
                steps: vec![forward(1, 128, 3 * 64 * 272)],
                out: 0,
                bugs: &[(
                    "race/async",
                    "the one stage is filled while others read it",
                    "else if (i + 1 < end) {\n            __syncthreads();",
                    "else if (i + 1 < end) {",
                )],
            },
        ),
        (
            SMALL,
            Case {
                stem: "attention_mma",
                steps: vec![launch(
                    "attention_backward",
                    [2, 1, 1],
                    64,
                    4 * 32 * 144 + 32 * 80,
                    vec![
                        fresh_halves(2 * 20 * 192),
                        fresh(2 * 192),
                        halves(2 * 20 * 64),
                        halves(2 * 20 * 192),
                        floats(2 * 20),
                    ],
                    sizes(1, 20),
                )],
                out: 0,
                bugs: &[
                    (
                        "async",
                        "queries are read while they are on their way",
                        "copies_wait<1>();",
                        "copies_wait<2>();",
                    ),
                    (
                        "async",
                        "values are read while they are on their way",
                        "copies_wait<0>();\n    __syncthreads();\n    if (!idle) {\n        multiply_transposed(d",
                        "__syncthreads();\n    if (!idle) {\n        multiply_transposed(d",
                    ),
                    (
                        "race",
                        "dS lies over values that others read",
                        "__syncthreads();  // V has been read",
                        "",
                    ),
                    (
                        "race",
                        "P and dS are read before they are whole",
                        "__syncthreads();  // K has been read, P and dS are whole",
                        "",
                    ),
                    (
                        "race",
                        "the gradient lies over what others read",
                        "__syncthreads();  // all has been read, dQ is whole",
                        "",
                    ),
                    (
                        "race",
                        "the images' sums share a place",
                        "dbias + (size_t)p.b * 3 * p.C + 2 * p.C",
                        "dbias + 2 * p.C",
                    ),
                    (
                        "memory",
                        "rows written past the last",
                        "store_rows(to + p.C, 3 * p.C, q, p.row, TOKENS);",
                        "store_rows(to + p.C, 3 * p.C, q, p.row, BLOCK);",
                    ),
                    (
                        "result",
                        "delta is left out",
                        "s.x[i][j] * (d.x[i][j] - delta[j / 2])",
                        "s.x[i][j] * d.x[i][j]",
                    ),
                    (
                        "result",
                        "dK is not scaled",
                        "put_rows(q, p.row, dk, scale)",
                        "put_rows(q, p.row, dk, 1.f)",
                    ),
                ],
            },
        ),
        (
            LARGE,
            Case {
                stem: "attention_mma",
                steps: vec![backward_q(70)],
                out: 0,
                bugs: &[
                    (
                        "race",
                        "rows are summed before they are all there",
                        "q, p.row, TOKENS - first);\n    __syncthreads();",
                        "q, p.row, TOKENS - first);",
                    ),
                    (
                        "race",
                        "the blocks' sums share a place",
                        "((size_t)p.b * BLOCKS + blockIdx.y) * 2 * p.C",
                        "(size_t)p.b * BLOCKS * 2 * p.C",
                    ),
                    (
                        "memory",
                        "statistics of queries past the last",
                        "bool exists = row + 8 * j < queries;\n        base",
                        "bool exists = true;\n        base",
                    ),
                ],
            },
        ),
        (
            LARGE,
            Case {
                stem: "attention_mma",
                steps: vec![backward_q(1)],
                out: 0,
                bugs: &[(
                    "async",
                    "a block without queries does not wait for its own tile",
                    "copies_wait<0>();\n    __syncthreads();\n    put_rows(q",
                    "__syncthreads();\n    put_rows(q",
                )],
            },
        ),
        (
            LARGE,
            Case {
                stem: "attention_mma",
                steps: vec![launch(
                    "attention_backward_kv",
                    [2, 2, 1],
                    128,
                    6 * 64 * 48 + 2 * 64 * 2 * 4,
                    vec![
                        fresh_halves(70 * 96),
                        fresh(96),
                        floats(2 * 70),
                        floats(2 * 64),
                        halves(70 * 32),
                        halves(70 * 96),
                        floats(2 * 70),
                    ],
                    sizes(2, 70),
                )],
                out: 1,
                bugs: &[
                    ("race", "every block writes the bias' sums", "if (blockIdx.y != 0) return;", ""),
                    ("memory", "a block of sums too many", "block < BLOCKS;", "block <= BLOCKS;"),
                    (
                        "memory",
                        "statistics of queries past the last",
                        "from + (exists ? query : 0), exists)",
                        "from + query, true)",
                    ),
                ],
            },
        ),
    ]
}

fn launch(
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    tensors: Vec<Arg>,
    sizes: [Arg; 4],
) -> Step {
    step(kernel, grid, threads, shared_bytes, tensors.into_iter().chain(sizes).collect())
}
