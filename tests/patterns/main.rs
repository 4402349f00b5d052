//! What Hopper code does, as a table: rings of stages, warpgroups that share them, clusters, stores, stream-K, products
//! out of products. Each form is right against float64, and no check finds anything, whatever the order of turns. Each
//! broken twin is caught.
//!
//!     PATTERN_SEEDS=10 cargo test --release --test patterns -- --nocapture

mod device;
mod pattern;
mod problem;

use pattern::{LAYOUTS, Pattern};
use problem::Task;

macro_rules! source {
    ($name:literal) => {
        Pattern { name: $name, source: include_str!(concat!($name, ".cu")), ..PRODUCT }
    };
}

/// Three tiles of seven steps: a ring comes round within the tile, and in another place for each of them.
const PRODUCT: Pattern = Pattern {
    name: "",
    source: "",
    task: Task::Product,
    defines: &[],
    layouts: &[[0, 0]],
    spans: &[32],
    stages: &[3],
    ctas: &[3, 1],
    tiles: [3, 1],
    steps: 7,
    threads: 256,
    cluster: [1, 1],
    blocks: 2,
    beside: 0,
};

/// Who gives a stage back: thread 0 of the warpgroup, its thread 127, lane 0 of each warp, lane 5, an elected lane, all.
const ANYBODY: (&str, &[u32]) = ("SIGNAL", &[0, 1, 2, 3, 4, 5]);

const RING: Pattern =
    Pattern { defines: &[("WAIT", &[0, 1]), ("PRODUCER", &[0]), ("SIGNAL", &[0])], ..source!("ring") };
const COOPERATIVE: Pattern =
    Pattern { tiles: [4, 1], ctas: &[2, 1], threads: 384, blocks: 3, ..source!("cooperative") };
const PINGPONG: Pattern = Pattern {
    defines: &[("ORDER", &[0, 1])],
    tiles: [5, 1],
    threads: 384,
    beside: 16384 + 1024,
    ..source!("pingpong")
};
const MULTICAST: Pattern = Pattern {
    defines: &[("ARRIVAL", &[0, 1, 2]), ("TAIL", &[0, 1])],
    cluster: [2, 1],
    tiles: [2, 3],
    ctas: &[6, 2],
    ..source!("multicast")
};
const STORE: Pattern =
    Pattern { defines: &[("BUFFERS", &[1, 2]), ("STORER", &[0, 1])], beside: 2 * 16384, ..source!("store") };
const STREAM_K: Pattern =
    Pattern { defines: &[("HANDOVER", &[0, 1])], ctas: &[1, 4, 8], ..source!("stream_k") };
const CHAINED: Pattern = Pattern {
    task: Task::Attention,
    defines: &[("OVERLAP", &[0, 1])],
    spans: &[128],
    tiles: [2, 4],
    steps: 1,
    ctas: &[2],
    blocks: 1,
    beside: 8192 + 1024,
    ..source!("chained")
};
const PRODUCERS: Pattern = Pattern { defines: &[("FORM", &[0, 1, 2])], ..source!("producers") };
const MULTISTAGE: Pattern = Pattern {
    defines: &[("STAGES", &[2, 3, 4, 5])],
    spans: &[64],
    threads: 128,
    stages: &[5],
    ..source!("multistage")
};

macro_rules! table {
    ($(#[doc = $what:literal] $test:ident $pattern:expr;)*) => {
        $(#[test] fn $test() { println!("{}", $what); $pattern.holds(); })*
    };
}

table! {
    /// A producer thread, a ring of two to five stages, a warpgroup; one tile a CTA, or three.
    ring Pattern {
        defines: &[("WAIT", &[0, 1]), ("PRODUCER", &[0]), ANYBODY], layouts: LAYOUTS, stages: &[2, 3, 4, 5], ..RING
    };
    /// Swizzles of 32, 64 and 128 bytes.
    swizzles Pattern { layouts: LAYOUTS, spans: &[32, 64, 128], stages: &[2, 4], ..RING };
    /// A lane of the producer's warp is elected once, for each tile, or for each stage.
    elected_producers Pattern {
        defines: &[("WAIT", &[0, 1]), ("PRODUCER", &[1, 2, 3]), ("SIGNAL", &[4])], stages: &[2, 3], ..RING
    };
    /// Two warpgroups multiply a half each of one tile.
    cooperative Pattern { defines: &[ANYBODY], layouts: &[[0, 0], [1, 1]], stages: &[2, 4], ..COOPERATIVE };
    /// Two warpgroups take turns, by named barriers or mbarriers.
    pingpong Pattern { defines: &[("ORDER", &[0, 1]), ANYBODY], stages: &[2, 4], ..PINGPONG };
    /// Clusters of two CTAs, one above the other, share B.
    clusters_2x1 Pattern { stages: &[2, 3, 4], ..MULTICAST };
    /// Clusters of two CTAs side by side share A.
    clusters_1x2 Pattern { cluster: [1, 2], tiles: [3, 2], ..MULTICAST };
    /// Clusters of four CTAs, one above the other, share B.
    clusters_4x1 Pattern { cluster: [4, 1], tiles: [4, 3], ctas: &[12, 4], ..MULTICAST };
    /// Clusters of two by two CTAs share A and B.
    clusters_2x2 Pattern { cluster: [2, 2], tiles: [4, 4], ctas: &[16, 4], ..MULTICAST };
    /// Tiles are written back by TMA, and the buffers filled again.
    store STORE;
    /// Stream-K: tiles are cut among CTAs, which hand their sums on by flags.
    stream_k STREAM_K;
    /// Attention: the product of a product, one after the other or overlapped.
    chained Pattern { defines: &[("OVERLAP", &[0, 1]), ANYBODY], stages: &[3, 4, 5], ..CHAINED };
    /// Producers without TMA: ordinary stores, cp.async that tells the barrier, groups of cp.async.
    producers Pattern { layouts: LAYOUTS, spans: &[32, 128], stages: &[2, 4], ..PRODUCERS };
    /// As on sm_80: groups of cp.async, ldmatrix ahead of mma.sync.
    multistage Pattern { layouts: LAYOUTS, ..MULTISTAGE };
}

macro_rules! twins {
    ($($test:ident $pattern:ident;)*) => {
        mod twins { $(#[test] fn $test() { crate::$pattern.twins_are_caught(); })* }
    };
}

twins! {
    ring RING;
    cooperative COOPERATIVE;
    pingpong PINGPONG;
    multicast MULTICAST;
    store STORE;
    stream_k STREAM_K;
    chained CHAINED;
    producers PRODUCERS;
    multistage MULTISTAGE;
}
