//! Kernels of a batch of images: norms, sums over an image's rows, embeddings, features, weights in other types.

use super::{Case, Compiled, step};
use crate::device::Arg;

pub fn cases() -> Vec<Compiled> {
    norm().into_iter().chain(sums_and_tokens()).chain(converting()).collect()
}

fn fresh(floats: usize) -> Arg {
    Arg::Fresh(4 * floats)
}

fn norm() -> Vec<Compiled> {
    let (int, floats) = (Arg::int, Arg::floats);
    // Of 2 groups' tokens, 5 of 70.
    let tokens = || vec![floats(2 * 70), floats(2 * 5 * 70), int(70), int(5 * 70)];
    let forward_of = |inp: Arg, [groups, rows, each, c]: [usize; 4], last: Vec<Arg>| {
        let all = groups * rows;
        step(
            "norm_forward",
            [rows.div_ceil(each) as u32, groups as u32, 1],
            128,
            0,
            [
                vec![
                    fresh(all * c),
                    fresh(all),
                    fresh(all),
                    inp,
                    floats(groups * c),
                    floats(groups * c),
                    int(c as i32),
                    int(rows as i32),
                    int(each as i32),
                    Arg::float(1e-5),
                ],
                last,
            ]
            .concat(),
        )
    };
    let forward = |groups: usize, rows: usize, each: usize, c: usize| {
        forward_of(floats(groups * rows * c), [groups, rows, each, c], vec![])
    };
    let backward = |images: usize, rows: usize, every: usize, c: usize| {
        let all = images * rows;
        let chunks = rows.div_ceil(64);
        step(
            "norm_backward",
            [chunks as u32, images as u32, 1],
            128,
            0,
            vec![
                fresh(all * c),
                fresh(images * chunks * 3 * c),
                floats(all * c),
                floats(all * c),
                floats(all),
                floats(all),
                floats(images * c),
                int(c as i32),
                floats(all / every * c),
                int(every as i32),
                int(rows as i32),
            ],
        )
    };
    vec![
        (
            "#define COLUMNS 70\n",
            Case {
                stem: "norm",
                steps: vec![forward(2, 6, 4, 70)],
                out: 0,
                bugs: &[
                    (
                        "memory",
                        "the last columns are taken for whole packs",
                        "return (pack + 1) * STRIDE <= C || column(pack) < C;",
                        "return true;",
                    ),
                    (
                        "memory",
                        "the last CTA's rows are taken for as many as others'",
                        "min((int)(blockIdx.x + 1) * each, rows)",
                        "(int)(blockIdx.x + 1) * each",
                    ),
                    ("race", "the groups' rows share a place", "(u64)blockIdx.y * rows + (here", "(here"),
                    (
                        "result",
                        "every group has the first one's weights",
                        "weight + (u64)blockIdx.y * param_step",
                        "weight",
                    ),
                ],
            },
        ),
        (
            "#define COLUMNS 800\n",
            Case {
                stem: "norm",
                steps: vec![forward(1, 3, 3, 800)],
                out: 0,
                bugs: &[
                    (
                        "race",
                        "a row's warps' sums are read before they are all there",
                        "[i] = x[i];\n        __syncthreads();",
                        "[i] = x[i];",
                    ),
                    (
                        "race",
                        "a row's warps' sums are overwritten while others read the last ones",
                        "of_warps[AT_ONCE][ROW_WARPS][N];\n        __syncthreads();",
                        "of_warps[AT_ONCE][ROW_WARPS][N];",
                    ),
                ],
            },
        ),
        (
            "#define COLUMNS 70\n",
            Case {
                stem: "norm",
                steps: vec![backward(2, 66, 33, 70)],
                out: 1,
                bugs: &[
                    (
                        "race",
                        "nothing between one kind's sums and the next",
                        "of_slots[AT_ONCE][C];\n        __syncthreads();",
                        "of_slots[AT_ONCE][C];",
                    ),
                    (
                        "race",
                        "the warps' sums are read before they are all there",
                        "[column(p)], x[p]);\n        __syncthreads();",
                        "[column(p)], x[p]);",
                    ),
                    (
                        "memory",
                        "an image's last rows are the next one's, and the last image's nobody's",
                        "min(begin + CHUNK, rows)",
                        "begin + CHUNK",
                    ),
                    (
                        "race",
                        "the images' rows share a place",
                        "(u64)blockIdx.y * rows + (here ? first + slot() : first) * apart",
                        "(here ? first + slot() : first) * apart",
                    ),
                    (
                        "race",
                        "an image's second sums lie over the next one's first",
                        "blockIdx.y * 3 * kind + blockIdx.x * C",
                        "blockIdx.y * kind + blockIdx.x * C",
                    ),
                    (
                        "memory",
                        "what is added has a row for each, not for every some",
                        "u64 from = row / every * C;",
                        "u64 from = row * C;",
                    ),
                    ("result", "it is added to all rows", "residual && row % every == 0", "residual"),
                    (
                        "result",
                        "the sums of the weights' gradient have the gradient of the bias' instead",
                        "fmaf(g[p][i], h[p][i], dw[p][i])",
                        "dw[p][i] + g[p][i]",
                    ),
                ],
            },
        ),
        (
            "#define ELEMENT_HALF 1\n#define COLUMNS 70\n#define INP_TERMS 4096\n",
            Case {
                stem: "norm",
                steps: vec![forward_of(Arg::halves(2 * 12 * 70), [2, 6, 4, 70], vec![])],
                out: 0,
                bugs: &[
                    ("result", "second terms are left out", "if (BOTH) {", "if (!BOTH) {"),
                    (
                        "result",
                        "second terms are taken for first ones",
                        "fmaf(1.f / INP_TERMS, second[p][i], x[p][i])",
                        "x[p][i] + second[p][i]",
                    ),
                    (
                        "result",
                        "rows are as far apart as in one term",
                        "load_row(x, input.rows + row * INP_ROW);",
                        "load_row(x, input.rows + row * C);",
                    ),
                ],
            },
        ),
        (
            "#define ELEMENT_HALF 1\n#define COLUMNS 70\n#define OUT_TERMS 4096\n",
            Case {
                stem: "norm",
                steps: vec![forward(2, 6, 4, 70)],
                out: 0,
                bugs: &[
                    (
                        "race",
                        "rows are as far apart as in one term",
                        "store_pack<W>(out + row * OUT_ROW + column(p), x[p]);",
                        "store_pack<W>(out + row * C + column(p), x[p]);",
                    ),
                    (
                        "result",
                        "the second terms lie over the first",
                        "OUT_ROW + C + column",
                        "OUT_ROW + column",
                    ),
                    (
                        "result",
                        "second terms are left where float16 has few digits",
                        "OUT_TERMS * (x[p][i] -",
                        "(x[p][i] -",
                    ),
                ],
            },
        ),
        (
            "#define COLUMNS 70\n#define TOKENS 5\n",
            Case {
                stem: "norm",
                steps: vec![forward_of(floats(2 * 3 * 4 * 70), [2, 15, 4, 70], tokens())],
                out: 0,
                bugs: &[
                    (
                        "memory",
                        "patches counted from one",
                        "input.rows + (row - sequence - 1) * C",
                        "input.rows + (row - sequence) * C",
                    ),
                    (
                        "memory",
                        "the class is taken for a patch",
                        "token > 0 ? input.rows",
                        "true ? input.rows",
                    ),
                    (
                        "result",
                        "every group has the first one's positions",
                        "position + (u64)blockIdx.y * position_step",
                        "position",
                    ),
                    (
                        "result",
                        "every token has the class's position",
                        "input.position + token * C",
                        "input.position",
                    ),
                ],
            },
        ),
        (
            "#define COLUMNS 70\n#define TOKENS 5\n",
            Case {
                stem: "norm",
                steps: vec![step(
                    "norm_backward",
                    [5, 2, 1],
                    128,
                    0,
                    [
                        vec![
                            fresh(2 * 3 * 4 * 70),
                            fresh(2 * 3 * 5 * 70),
                            floats(2 * 15 * 70),
                            floats(2 * 3 * 4 * 70),
                            floats(30),
                            floats(30),
                            floats(2 * 70),
                            int(70),
                            Arg::Value(vec![0; 8]),
                            int(1),
                            int(15),
                        ],
                        tokens(),
                    ]
                    .concat(),
                )],
                out: 1,
                bugs: &[
                    (
                        "memory",
                        "the class is taken for a patch",
                        "if (!TOKENS || token > 0) store_pack",
                        "store_pack",
                    ),
                    (
                        "race",
                        "every token's sums to the class's place",
                        "3 * kind + blockIdx.x * C",
                        "3 * kind",
                    ),
                    (
                        "race",
                        "views are as far apart as their patches go",
                        "apart = TOKENS,",
                        "apart = TOKENS - 1,",
                    ),
                    ("memory", "an image has as many views as rows", "end = rows / TOKENS,", "end = rows,"),
                ],
            },
        ),
        (
            "#define COLUMNS 800\n",
            Case {
                stem: "norm",
                steps: vec![backward(1, 3, 1, 800)],
                out: 1,
                bugs: &[(
                    "result",
                    "a row in the place of one that is not there is summed again",
                    "if (ROW_WARPS == 1 || here) {",
                    "{",
                )],
            },
        ),
    ]
}

fn sums_and_tokens() -> Vec<Compiled> {
    let (int, floats) = (Arg::int, Arg::floats);
    let plain = |case: Case| ("", case);
    vec![
        plain(Case {
            stem: "segment",
            steps: vec![step(
                "segment_partial",
                [2, 2, 2],
                128,
                0,
                vec![fresh(2 * 2 * 40), floats(2 * 10 * 40), int(10), int(40), int(6)],
            )],
            out: 0,
            bugs: &[
                (
                    "race",
                    "the warps' sums are read before they are all there",
                    "[lane_id() * AT_ONCE], sum[part]);\n    __syncthreads();",
                    "[lane_id() * AT_ONCE], sum[part]);",
                ),
                (
                    "memory",
                    "an image's last chunk is taken for a whole one",
                    "min((int)(blockIdx.y + 1) * each, R)",
                    "(int)(blockIdx.y + 1) * each",
                ),
                ("memory", "rows are a column too far apart", "(u64)r * N", "(u64)r * (N + 1)"),
                ("memory", "columns past the last", "if (n < N) {", "{"),
                (
                    "race",
                    "the images' sums share a place",
                    "((u64)blockIdx.z * gridDim.y + blockIdx.y) * N",
                    "(u64)blockIdx.y * N",
                ),
                ("result", "every image is the first", "inp + (u64)blockIdx.z * R * N + n", "inp + n"),
                (
                    "result",
                    "every chunk begins a row late",
                    "blockIdx.y * each + warp_id()",
                    "blockIdx.y * each + 1 + warp_id()",
                ),
            ],
        }),
        plain(Case {
            stem: "feature",
            steps: vec![step(
                "token_gather",
                [3, 1, 1],
                192,
                0,
                vec![fresh(3 * 20), floats(3 * 5 * 20), Arg::ints(&[0, 2, 4]), int(5), int(20)],
            )],
            out: 0,
            bugs: &[
                ("memory", "rows counted from one", "(row ? row[b] : 0)) * C", "(row ? row[b] : 0) + 1) * C"),
                ("result", "always the class", "row ? row[b] : 0", "0"),
            ],
        }),
        plain(Case {
            stem: "feature",
            steps: vec![step(
                "normalize_forward",
                [2, 1, 1],
                128,
                0,
                vec![fresh(6 * 20), fresh(6), floats(6 * 20), int(6), int(20)],
            )],
            out: 0,
            bugs: &[
                ("memory", "warps past the last row", "if (b >= B) return;", ""),
                ("result", "each lane has a length of its own", "sqrtf(warp_sum(squares))", "sqrtf(squares)"),
            ],
        }),
        plain(Case {
            stem: "feature",
            steps: vec![step(
                "normalize_backward",
                [2, 1, 1],
                128,
                0,
                vec![fresh(6 * 20), floats(6 * 20), floats(6 * 20), floats(6), int(6), int(20)],
            )],
            out: 0,
            bugs: &[("result", "each lane has a product of its own", "along = warp_sum(along);", "")],
        }),
    ]
}

fn converting() -> Vec<Compiled> {
    vec![(
        "",
        Case {
            stem: "convert",
            steps: vec![step(
                "convert",
                [1, 1, 1],
                256,
                0,
                vec![fresh(1003), Arg::floats(1003), Arg::Value(1003u64.to_le_bytes().to_vec())],
            )],
            out: 0,
            bugs: &[("memory", "a ragged end is taken for a whole one", "if (i + 8 <= n)", "if (i < n)")],
        },
    )]
}
