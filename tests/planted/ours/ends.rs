//! Kernels before and after the blocks: embeddings, the head, the loss, the step.

use super::{Case, step};
use crate::device::Arg;

pub fn cases() -> Vec<Case> {
    let (int, floats, fresh) = (Arg::int, Arg::floats, |floats: usize| Arg::Fresh(4 * floats));
    vec![
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
            stem: "select",
            steps: vec![step(
                "select_confident",
                [2, 1, 1],
                256,
                0,
                vec![
                    floats(2 * 40 * 10),
                    fresh(2 * 40),
                    fresh(2 * 40),
                    fresh(2 * 40),
                    int(40),
                    int(10),
                    int(4),
                ],
            )],
            out: 1,
            bugs: &[
                (
                    "race/init",
                    "the views' entropies are read before they are all there",
                    "    __syncthreads();\n\n    for (int i = threadIdx.x",
                    "    for (int i = threadIdx.x",
                ),
                (
                    "memory",
                    "one view too many",
                    "for (int l = 0; l < N; ++l)",
                    "for (int l = 0; l <= 2 * N; ++l)",
                ),
            ],
        },
        Case {
            stem: "entropy",
            steps: vec![step(
                "entropy_forward_backward",
                [2, 1, 1],
                256,
                4 * (4 * 5 + 2 * 10),
                vec![
                    floats(2 * 5 * 10),
                    Arg::given(&[1.0, 0.0, 1.0, 0.5, 2.0, 1.0, 1.0, 0.0, 0.0, 1.0]),
                    fresh(2 * 5 * 10),
                    fresh(2),
                    fresh(2 * 10),
                    Arg::Value(vec![0; 8]),
                    int(5),
                    int(10),
                    Arg::float(1.0),
                ],
            )],
            out: 2,
            bugs: &[
                (
                    "race",
                    "the rows' sums are read before they are all there",
                    "    __syncthreads();\n    double total",
                    "    double total",
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
                    "shared + 4 * N;",
                    "shared + 4 * N + 4;",
                ),
                ("race", "the average lies over the rows' sums", "shared + 4 * N;", "shared + N;"),
                (
                    "memory",
                    "a class too many",
                    "for (int j = threadIdx.x; j < K;",
                    "for (int j = threadIdx.x; j <= K;",
                ),
                ("race", "the images' entropies share a place", "entropy[blockIdx.x] = h", "entropy[0] = h"),
                ("result", "all images have the first one's weights", "(size_t)blockIdx.x * N + i]", "i]"),
                ("result", "views without weight count", "sum += weight[i] * ", "sum += 1.f * "),
                (
                    "memory",
                    "weights of the image after",
                    "weights[(size_t)blockIdx.x * N + i]",
                    "weights[(size_t)(blockIdx.x + 1) * N + i]",
                ),
            ],
        },
    ]
}
