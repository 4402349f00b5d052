//! Products on Hopper's tensor cores.

use super::{Case, Compiled, step};
use crate::device::{Arg, Matrices, Step};

pub fn cases() -> Vec<Compiled> {
    vec![ping_pong(), two_terms(), second_term(), first_term(), float_beside_terms()]
}

/// Products of one cluster of two CTAs, A (terms, in boxes of so many rows) and B in layout NT, to float32.
fn product([m, n, k]: [i32; 3], batch: i32, terms: [usize; 2], stages: u32) -> Step {
    product_to([m, n, k], batch, terms, stages, [true, false, false])
}

/// The same to float32, to a first term and to a second, where these are written.
fn product_to(
    [m, n, k]: [i32; 3],
    batch: i32,
    [a_terms, b_terms]: [usize; 2],
    stages: u32,
    written: [bool; 3],
) -> Step {
    let null = || Arg::Value(vec![0; 8]);
    let map = |rows: i32, box_rows: u32| {
        Arg::Map(Matrices { count: batch as usize, rows: rows as usize, columns: k as usize, box_rows })
    };
    // A is shared by the CTAs, which are beside one another.
    let mut maps: Vec<Arg> = (0..a_terms).map(|_| map(m, 64)).collect();
    maps.extend((0..b_terms).map(|_| map(n, 64)));
    let floats = |rows: i32| Arg::floats((rows * n) as usize);
    let mut parts: Vec<Arg> = (0..4).map(|_| null()).collect(); // A and B have maps
    let [out, kept, rest] = [(0, 4), (1, 2), (2, 2)].map(|(i, size)| match written[i] {
        true => Arg::Fresh((size * batch * m * n) as usize),
        false => null(),
    });
    parts.extend([out, kept, floats(batch), floats(batch * m)]);
    let wide = |step: i32| Arg::Value(i64::from(step).to_le_bytes().to_vec());
    parts.extend([m * k, n * k, m * n, m * n, n, m * n].map(wide));
    parts.extend([m, n, k, batch].map(Arg::int));
    parts.extend([k, k, n, n, n].map(Arg::int)); // pitches
    parts.extend([0.5, 2.0, 0.25].map(Arg::float));
    parts.extend([7, 0].map(Arg::int));
    parts.extend([rest, null()]);
    let rows = (128 * a_terms + 64 * b_terms) as u32;
    let args = vec![Arg::Struct(maps), Arg::Struct(parts)];
    let shared_bytes = stages * (128 * rows + 16) + 32_768 + 16;
    Step { cluster: 2, ..step("linear_wgmma", [2, 1, 1], 384, shared_bytes, args) }
}

fn ping_pong() -> Compiled {
    let before = "#define ELEMENT_HALF 1\n#define OUT_FLOAT 1\n#define BM 128\n#define BN 64\n#define STAGES 2\n\
                  #define PINGPONG 1\n#define CLUSTER_N 2\n";
    let case = Case {
        stem: "linear_wgmma",
        steps: vec![product([66, 72, 72], 2, [1, 1], 2)],
        out: 2,
        bugs: &[
            ("async", "no fence before products", "wgmma_fence();", ";"),
            ("async", "no wait for the last products", "wgmma_wait<0>();\n", ";\n"),
            (
                "init/race/async",
                "a stage is multiplied before it has come",
                "barrier_wait(ring.full + 8 * ring.stage, ring.parity);\n        u64 a",
                "barrier_wait(ring.full + 8 * ring.stage, ring.parity ^ 1);\n        u64 a",
            ),
            (
                "race/async",
                "a stage is given back while it is multiplied",
                "if (before >= 0) release(ring, before, thread);\n        before = ring.stage;",
                "release(ring, ring.stage, thread);",
            ),
            (
                "race/async/sync",
                "stages are filled before they are free",
                "barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);",
                ";",
            ),
            (
                "race/async",
                "one CTA of two says that a stage is free",
                "CLUSTER * (PINGPONG ? 1 : CONSUMERS)",
                "(PINGPONG ? 1 : CONSUMERS)",
            ),
            (
                "memory/sync",
                "a CTA leaves before the other has told it",
                "if (CLUSTER > 1) cluster_sync();",
                ";",
            ),
            (
                "result",
                "a tile too few",
                "count(rows * columns * p.batch)",
                "count(rows * columns * p.batch - 1)",
            ),
            ("result", "a step too few", "(p.K + BK - 1) / BK", "p.K / BK"),
            (
                "result",
                "all images have the first one's inputs",
                "a_batch = p.a_step ? at.batch : 0",
                "a_batch = 0",
            ),
            ("result", "both halves of A are the first", "at += rank * PART;", "at += 0;"),
            (
                "race",
                "images' results share a place",
                "return batch * step + (u64)m * pitch + n;",
                "return (u64)m * pitch + n;",
            ),
            ("result", "the sums are not scaled", "fmaf(p.alpha, acc[i], bias[i])", "(acc[i] + bias[i])"),
            (
                "race",
                "sums are read before the warp has them all",
                "__syncwarp();\n    if ((p.aligned & 4) && n - column",
                "if ((p.aligned & 4) && n - column",
            ),
            (
                "race",
                "sums lie over the last ones while the warp reads them",
                "        __syncwarp();\n        // Which registers",
                "        // Which registers",
            ),
            ("memory", "rows written past the last", "&& m - row + 16 <= p.M)", ")"),
        ],
    };
    (before, case)
}

fn two_terms() -> Compiled {
    let before = "#define ELEMENT_HALF 1\n#define OUT_FLOAT 1\n#define BM 128\n#define BN 64\n#define STAGES 2\n\
                  #define CLUSTER_N 2\n#define A_TERMS 2\n#define B_TERMS 2\n";
    let case = Case {
        stem: "linear_wgmma",
        steps: vec![product([6, 72, 72], 1, [2, 2], 2)],
        out: 4,
        bugs: &[
            ("result", "second terms count in full", "fmaf(second, d[1][i], d[0][i])", "d[0][i] + d[1][i]"),
            (
                "result",
                "A's second term is left out",
                "if (A_TERMS > 1) multiply_stage",
                "if (false) multiply_stage",
            ),
            (
                "result",
                "B's second term is its first",
                "multiply_stage(d[1], a, b + (B_BYTES >> 4)",
                "multiply_stage(d[1], a, b",
            ),
            (
                "race/async",
                "a stage is multiplied before its second terms have come",
                "barrier_expect(full, STAGE_BYTES)",
                "barrier_expect(full, A_BYTES + B_BYTES)",
            ),
            ("race", "one stage's terms share a place", "+ term * A_BYTES", "+ 0 * A_BYTES"),
        ],
    };
    (before, case)
}

const IN_TERMS: &str = "#define ELEMENT_HALF 1\n#define OUT_FLOAT 1\n#define OUT_TERMS 1\n#define BM 128\n#define BN 64\n\
                        #define STAGES 2\n#define PINGPONG 1\n#define CLUSTER_N 2\n";

/// Of a step's weights, what the first of two terms leaves.
fn second_term() -> Compiled {
    let case = Case {
        stem: "linear_wgmma",
        steps: vec![product_to([66, 72, 72], 2, [1, 1], 2, [false, true, true])],
        out: 5,
        bugs: &[
            (
                "result",
                "the second term is lost",
                "store_pack<W>(p.rest + at(p.kept_step, m, p.kept_pitch), rest);",
                "",
            ),
            (
                "result",
                "it is what rounding leaves of the sums, not of what becomes of them",
                "(y[i] - to_float(high))",
                "(acc[i] - to_float(high))",
            ),
            (
                "result",
                "it is what rounding the sums leaves of what becomes of them",
                "from_float(high, y[i]);",
                "from_float(high, acc[i]);",
            ),
            (
                "result",
                "the first term is rounded twice, and leaves nothing",
                "inverse * (y[i] -",
                "inverse * (to_float(high) -",
            ),
            ("result", "it is left where float16 has few digits", "inverse * (y[i] -", "(y[i] -"),
            (
                "result",
                "it is taken the wrong way round",
                "(y[i] - to_float(high))",
                "(to_float(high) - y[i])",
            ),
            ("race", "the images' second terms share a place", "p.rest + at(p.kept_step,", "p.rest + at(0,"),
            (
                "race",
                "all rows of it in one place",
                "p.rest + at(p.kept_step, m,",
                "p.rest + at(p.kept_step, 0,",
            ),
            ("memory", "a result in float32 where nobody wants one", "if (!p.out) return;", ""),
        ],
    };
    (IN_TERMS, case)
}

fn first_term() -> Compiled {
    let case = Case {
        stem: "linear_wgmma",
        steps: vec![product_to([66, 72, 72], 2, [1, 1], 2, [false, true, true])],
        out: 2,
        bugs: &[
            (
                "race",
                "the second term lies over the first",
                "p.rest + at(p.kept_step, m, p.kept_pitch), rest",
                "p.kept + at(p.kept_step, m + 1, p.kept_pitch), rest",
            ),
            ("result", "the addend is in neither term", "bias[i]) + row.addend[i]", "bias[i])"),
        ],
    };
    (IN_TERMS, case)
}

fn float_beside_terms() -> Compiled {
    let case = Case {
        stem: "linear_wgmma",
        steps: vec![product_to([66, 72, 72], 2, [1, 1], 2, [true; 3])],
        out: 2,
        bugs: &[
            ("result", "terms are all there is", "if (!p.out) return;", "return;"),
            (
                "result",
                "what is in float32 is what rounding has left",
                "p.out + at(p.out_step, m, p.out_pitch), y)",
                "p.out + at(p.out_step, m, p.out_pitch), row.addend)",
            ),
        ],
    };
    (IN_TERMS, case)
}
