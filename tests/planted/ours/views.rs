//! Kernels that draw and make views of a picture.

use super::{Case, step};
use crate::device::{Arg, Step};

pub fn cases() -> Vec<Case> {
    let int = Arg::int;
    vec![
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
