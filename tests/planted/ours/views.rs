//! Kernels that draw and make views of a picture.

use memo::ops::view::ViewParams;

use super::{Case, step};
use crate::device::{Arg, Step};

pub fn cases() -> Vec<Case> {
    let int = Arg::int;
    vec![
        Case {
            stem: "augment",
            // The short side to 8 pixels, in 12.1's order.
            steps: original((12, 9), [8, 0, 0, 1], 0, 7),
            out: 7,
            bugs: &[
                (
                    "race",
                    "the row is resized before it is whole",
                    "        __syncthreads();\n        for",
                    "        for",
                ),
                (
                    "memory",
                    "a column too many is planned",
                    "if (w != 0 && !padded && i < 2 * H) {",
                    "if (w != 0 && !padded && i < 2 * H + 1) {",
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
                    "weights += ((size_t)item * 2 + 1) * K * H + top;",
                    "weights += ((size_t)item * 2 + 1) * K * H + top - H;",
                ),
                (
                    "memory",
                    "the rows of the next item",
                    "rows + (size_t)inputs.x * H + x;",
                    "rows + (size_t)(max_rows + inputs.x) * H + x;",
                ),
            ],
        },
        Case {
            stem: "augment",
            // A tall picture, scaled down before across by 13.
            steps: original((6, 30), [0, 8, 8, 1], 1, 17),
            out: 7,
            bugs: &[(
                "init",
                "what is turned over is as wide as before",
                "swap(view.height, view.width);",
                "",
            )],
        },
        Case {
            stem: "draw",
            steps: vec![step(
                "draw_views",
                [1, 1, 1],
                64,
                0,
                [
                    vec![desc(32, 20), Arg::Fresh(10 * size_of::<ViewParams>()), int(10), int(10)],
                    vec![Arg::Value(vec![0; 8]), int(0), Arg::Value(vec![0; 8])],
                    vec![Arg::Struct(
                        [0.5, 0.5, 30.0, 0.4, 0.4, 0.4, 0.2, 0.5, 0.1, 1.0, 0.75, 1.25, -0.28, 0.28]
                            .map(Arg::float)
                            .to_vec(),
                    )],
                ]
                .concat(),
            )],
            out: 0,
            bugs: &[("memory", "no bound", "if (i >= count) return;", "")],
        },
    ]
}

/// An `ImageDesc` of the first image, at the pixels' begin.
fn desc(w: i32, h: i32) -> Arg {
    Arg::ints(&[0, 0, 0, 0, w, h])
}

/// The preprocess of a picture to 8 x 8 pixels in patches of 4: four launches over the same buffers.
///
/// * `resize`: the kernel's struct.
/// * `k`: the most inputs of an output.
fn original((w, h): (usize, usize), resize: [i32; 4], is_pillow_13: i32, k: usize) -> Vec<Step> {
    let (size, p) = (8, 4);
    let scale = [255.0, 0.48, 0.46, 0.41, 0.27, 0.26, 0.28].map(Arg::float).to_vec();
    let picture = (0..3 * w * h).map(|i| (i * 37 % 251) as u8).collect();
    let int = |value: usize| Arg::int(value as i32);
    // Buffers 0 descs, 1 views, 2 bounds, 3 weights are the first launch's own; behind its parameters are those of the
    // others: 4 the picture, 5 sources, 6 rows, 7 patches.
    let plan = vec![
        desc(w as i32, h as i32),
        Arg::Value(vec![0; 8]),
        int(1),
        int(0),
        int(w),
        int(h),
        int(size),
        int(k),
        Arg::Struct(resize.map(Arg::int).to_vec()),
        Arg::int(is_pillow_13),
        int(0),
        Arg::Fresh(96),
        Arg::Fresh(2 * size * 8),
        Arg::Fresh(2 * k * size * 4),
    ];
    let others =
        [Arg::Bytes(picture), Arg::Fresh(w * h * 4), Arg::Fresh(h * size * 4), Arg::Fresh(4 * 3 * p * p * 4)];
    let shared = Arg::Shared;
    vec![
        step("plan_views", [1, 1, 1], 128, 0, plan.into_iter().chain(others).collect()),
        step(
            "pack_sources",
            [1, 1, 1],
            256,
            0,
            vec![shared(0), shared(4), Arg::Value((3 * w * h).to_le_bytes().into()), int(w * h), shared(5)],
        ),
        step(
            "resize_rows",
            [1, 2, 1],
            256,
            16 * w.max(h) as u32,
            [
                vec![shared(5), int(w * h), int(h), int(size), int(k)],
                vec![shared(1), shared(2), shared(3), shared(6)],
            ]
            .concat(),
        ),
        step(
            "resize_columns_4",
            [1, 2, 1],
            32,
            0,
            [
                vec![shared(6), int(h), int(size), int(p), int(k), int(p), Arg::Struct(scale)],
                vec![
                    shared(1),
                    shared(2),
                    shared(3),
                    int(0),
                    Arg::Value(vec![0; 8]),
                    shared(7),
                    Arg::Value(vec![0; 8]),
                ],
            ]
            .concat(),
        ),
    ]
}
