//! Tensor copies: of a box, only the part inside the tensor is read.

use crate::device::Kernel;

const ONE: Kernel = Kernel { blocks: 1, threads: 64, written: 1024, body: "" };

/// Loads the box at a place and gives it out.
fn load(x: i32, y: i32, written: usize) -> Kernel {
    let body = format!(
        "setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [bar], 1; fence.mbarrier_init.release.cluster; bar.sync 0;
        @!p bra wait; mov.u64 at, map; cvta.param.u64 at, at; mov.u32 b, tile; mov.u32 c, {x}; mov.u32 d, {y};
        mbarrier.arrive.expect_tx.shared.b64 _, [bar], 128;
        cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [b], [at, {{c, d}}], [bar];
        wait: mbarrier.try_wait.parity.shared.b64 q, [bar], 0; @!q bra wait;
        mov.u32 b, 0; setp.lt.u32 p, t, 32; @p ld.shared.u32 b, [a]; st.global.u32 [to], b;"
    );
    Kernel { written, body: Box::leak(body.into_boxed_str()), ..ONE }
}

fn loaded(x: i32, y: i32, i: u32) -> u32 {
    let (column, row) = (x + (i % 8) as i32, y + (i / 8) as i32);
    let is_inside = i < 32 && (0..16).contains(&column) && (0..16).contains(&row);
    if is_inside { 1000 + (16 * row + column) as u32 } else { 0 }
}

#[test]
fn loads_of_a_tensor() {
    // Three rows of 64 bytes are written; a box has four.
    for (x, y, written) in [(4, 2, 1024), (4, -1, 192), (12, -1, 192), (-4, 14, 1024), (-9, 5, 0)] {
        load(x, y, written).is_fine(|i| loaded(x, y, i));
    }
    load(4, 0, 192).is_caught(&[
        "a read of 32 bytes at global",
        "nobody has written byte 0 of them",
        "PTX line 17",
    ]);
    load(0, 2, 1023 - 3 * 64).is_fine(|i| loaded(0, 2, i));
    load(12, 13, 1023).is_caught(&["a read of 16 bytes at global", "nobody has written byte 15 of them"]);
}

/// Writes as many words of the tile as are asked for, and stores the box at a place.
fn store(x: i32, y: i32, words: u32) -> Kernel {
    store_by(1, "", x, y, words)
}

/// The same by the first `lanes`, each with what `change` makes of its column `c` and its source `b`.
fn store_by(lanes: u32, change: &str, x: i32, y: i32, words: u32) -> Kernel {
    let body = format!(
        "setp.lt.u32 p, t, {words}; @p st.shared.u32 [a], t; fence.proxy.async; bar.sync 0;
        setp.ge.u32 p, t, {lanes}; @p bra done; mov.u64 at, map; cvta.param.u64 at, at; mov.u32 b, tile;
        mov.u32 c, {x}; mov.u32 d, {y}; {change}
        cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [at, {{c, d}}], [b];
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; done: st.global.u32 [to], t;"
    );
    Kernel { body: Box::leak(body.into_boxed_str()), ..ONE }
}

#[test]
fn stores_to_a_tensor() {
    for (x, y, words) in [(4, 2, 32), (4, 13, 24), (12, 15, 4), (16, 0, 0)] {
        store(x, y, words).is_fine(|i| i);
    }
    store(4, 12, 24).is_caught(&["a read of 32 bytes at shared 0x60", "nobody has written", "PTX line 17"]);
    store(12, 15, 3).is_caught(&["a read of 16 bytes at shared", "nobody has written byte 12 of them"]);
}

#[test]
fn stores_by_all_lanes() {
    store_by(32, "", 4, 2, 32).is_fine(|i| i);
    // From the same place to two, one column apart, and from two places to one.
    let race = ["a race: nothing orders this write of", "and the write by thread [0, 0, 0]", "PTX line 17"];
    store_by(32, "and.b32 n, lane, 1; add.u32 c, c, n;", 4, 2, 32).is_caught(&race);
    store_by(2, "shl.b32 n, lane, 7; add.u32 b, b, n;", 4, 2, 64).is_caught(&race);
}
