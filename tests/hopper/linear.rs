//! `kernels/linear_wgmma.cu`.

use vcuda::exec::TensorCore;

use crate::product::{BELOW, BESIDE, Case, Kind, ONE_TERM, PLAIN, PLAIN_KIND, Tile, check, tile};

/// Every shape of tile in every way to share the work.
const TILES: [Tile; 10] = [
    tile(128, 256, 4),
    tile(128, 128, 6),
    tile(64, 256, 4),
    tile(64, 128, 3),
    Tile { pingpong: true, ..tile(128, 128, 5) },
    Tile { pingpong: true, ..tile(64, 64, 8) },
    Tile { cluster: BELOW, ..tile(128, 256, 4) },
    Tile { cluster: BELOW, pingpong: true, ..tile(128, 128, 5) },
    Tile { cluster: BESIDE, ..tile(128, 256, 4) },
    Tile { cluster: BESIDE, pingpong: true, ..tile(128, 128, 5) },
];

const SIZES: [[usize; 3]; 5] = [[128, 256, 64], [1, 8, 8], [136, 264, 72], [200, 328, 200], [300, 130, 136]];

#[test]
fn every_tile_and_layout_is_right_whole_and_ragged() {
    if !crate::driven::runs("90a") {
        return;
    }
    for tile in TILES {
        for layout in 0..3 {
            let kind = Kind {
                layout,
                act: 0,
                gelu: false,
                out_float: layout == 2,
                terms: ONE_TERM,
                tile,
                ..PLAIN_KIND
            };
            let device = kind.device(false);
            for (seed, sizes) in SIZES.into_iter().enumerate() {
                let case = Case { sizes, addend: seed % 2 == 1, apart: seed % 3 * 8, ..PLAIN };
                check(&device, kind, case, (seed as u64, None));
            }
        }
    }
}

#[test]
fn every_epilogue_is_right() {
    if !crate::driven::runs("90a") {
        return;
    }
    for (act, gelu, out_float, approx) in [
        (0, false, false, false),
        (0, false, true, false),
        (1, false, false, true),
        (1, true, true, false),
        (1, true, false, true),
        (2, false, false, true),
        (2, true, false, true),
        (2, false, true, false),
    ] {
        for tile in [tile(128, 128, 3), Tile { pingpong: true, ..tile(64, 64, 4) }] {
            let kind = Kind { layout: act / 2, act, gelu, out_float, terms: ONE_TERM, tile, ..PLAIN_KIND };
            let device = kind.device(approx);
            for (i, sizes) in [[150, 144, 64], [70, 68, 80], [33, 67, 24]].into_iter().enumerate() {
                let plain = Case { sizes, alpha: 0.5, beta: 2.0, ..PLAIN };
                check(&device, kind, Case { addend: true, kept: false, ..plain }, (1, None));
                check(&device, kind, Case { bias: i == 0, apart: 5, ..plain }, (2, None));
            }
        }
    }
}

#[test]
fn results_in_two_terms_are_as_exact_as_float32() {
    if !crate::driven::runs("90a") {
        return;
    }
    let tiles = [
        tile(128, 256, 3),
        Tile { pingpong: true, cluster: BESIDE, ..tile(128, 128, 4) },
        Tile { pingpong: true, cluster: BELOW, ..tile(128, 128, 4) },
    ];
    for (tile, addend_terms) in tiles.into_iter().zip([false, true, true]) {
        let kind = Kind { layout: 2, out_float: true, out_terms: true, addend_terms, tile, ..PLAIN_KIND };
        let device = kind.device(false);
        for (i, sizes) in [[136, 264, 72], [70, 68, 80], [33, 67, 24]].into_iter().enumerate() {
            let case = Case { sizes, batch: 2, alpha: -0.5, addend: true, bias: false, ..PLAIN };
            check(&device, kind, Case { kept: false, apart: 8 * i, ..case }, (1, None));
            check(
                &device,
                kind,
                Case { own: [true, true, false], apart: 5 * i, ..case },
                (2, Some(TensorCore::H100)),
            );
        }
    }
}

#[test]
fn batches_have_their_own_operands_or_share_them() {
    if !crate::driven::runs("90a") {
        return;
    }
    for (own, layout) in
        [([true; 3], 0), ([true, false, true], 1), ([false, true, false], 2), ([true, true, false], 1)]
    {
        for tile in [
            tile(128, 128, 3),
            tile(64, 128, 4),
            Tile { pingpong: true, cluster: BESIDE, ..tile(128, 128, 4) },
        ] {
            let kind = Kind {
                layout,
                act: 0,
                gelu: false,
                out_float: layout == 0,
                terms: ONE_TERM,
                tile,
                ..PLAIN_KIND
            };
            let device = kind.device(false);
            for sizes in [[50, 72, 100], [150, 136, 64]] {
                let case = Case { sizes, batch: 3, own, addend: true, apart: 8, ..PLAIN };
                check(&device, kind, case, (3, None));
            }
        }
    }
}

#[test]
fn operands_in_two_terms_are_as_exact_as_float32() {
    if !crate::driven::runs("90a") {
        return;
    }
    for terms in [[2, 1], [1, 2], [2, 2]] {
        for (act, tile) in [
            (0, Tile { cluster: BESIDE, ..tile(128, 128, 3) }),
            (1, Tile { cluster: BELOW, ..tile(128, 128, 3) }),
            (0, tile(128, 64, 3)),
        ] {
            let kind = Kind { layout: 0, act, gelu: false, out_float: true, terms, tile, ..PLAIN_KIND };
            let device = kind.device(false);
            for (seed, sizes) in SIZES.into_iter().enumerate() {
                let case = Case { sizes, addend: seed % 2 == 1, apart: seed % 3 * 8, alpha: 0.5, ..PLAIN };
                let sums = (seed == 2).then_some(TensorCore::H100);
                check(&device, kind, case, (seed as u64, sums));
            }
            check(&device, kind, Case { sizes: [50, 72, 100], batch: 3, ..PLAIN }, (9, None));
        }
    }
}

/// Rows of few, columns and depths of a vision transformer's products; ViT-B/32 and L/14, and its patches.
#[test]
fn the_products_of_real_models_are_right() {
    if !crate::driven::runs("90a") {
        return;
    }
    const SHAPES: [[usize; 2]; 9] = [
        [2304, 768],
        [768, 768],
        [3072, 768],
        [768, 3072],
        [512, 768],
        [3072, 1024],
        [1024, 4096],
        [768, 1024],
        [1024, 588],
    ];
    let wide = tile(128, 256, 4);
    for (layout, act) in [(0, 1), (1, 2), (2, 0)] {
        let kind = Kind {
            layout,
            act,
            gelu: false,
            out_float: layout == 2,
            terms: ONE_TERM,
            tile: wide,
            ..PLAIN_KIND
        };
        let device = kind.device(false);
        for (i, [n, k]) in SHAPES.into_iter().enumerate() {
            // As few rows as tell a tile's first from its second half.
            let m = if i % 3 == layout { 66 } else { 3 };
            // A GPU's own sums are slow; the deepest have most of their error.
            let sums = (k == 3072).then_some(TensorCore::H100);
            check(&device, kind, Case { sizes: [m, n, k], ..PLAIN }, (0, sums));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_is_and_in_every_tile() {
    if !crate::driven::runs("90a") {
        return;
    }
    const ROWS: usize = 300;
    let mut first: Option<Vec<u8>> = None;
    for tile in TILES {
        let kind =
            Kind { layout: 0, act: 1, gelu: false, out_float: false, terms: ONE_TERM, tile, ..PLAIN_KIND };
        let device = kind.device(false);
        for sums in [None, Some(TensorCore::H100)] {
            let run = |m: usize, batch: usize| {
                let own = [true, false, false];
                let case = Case { sizes: [m, 136, 136], batch, own, against_truth: false, ..PLAIN };
                check(&device, kind, case, (7, sums)).concat()
            };
            // Matrices of a batch follow one another: so they are the same rows.
            let alone = run(ROWS, 1);
            for batch in [2, 3, 6] {
                assert!(alone == run(ROWS / batch, batch), "{tile:?}: {batch} images");
            }
            let [out, kept] = [0, alone.len() / 2];
            let few = run(7, 1);
            let bytes = few.len() / 2;
            assert!(
                few[..bytes] == alone[out..][..bytes] && few[bytes..] == alone[kept..][..bytes],
                "{tile:?}"
            );
            if sums.is_none() {
                assert!(*first.get_or_insert(alone.clone()) == alone, "{tile:?} differs from the first");
            }
        }
    }
}
