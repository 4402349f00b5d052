//! Clusters: their special registers, distributed shared memory, barriers, and copies between CTAs.

use crate::device::{Checks, Map, Setup, Shape, fault, run_with};
use crate::lanes::{HEADER, Random};

const START: &str = ".extern .shared .align 1024 .b8 dynamic[];
.visible .entry k(.param .u64 outs, .param .u64 ins) DIRECTIVE
{
.reg .pred p, q, leader; .reg .b16 h; .reg .b32 a, b, c, d, t, tid, rank, size, next, block, bar;
.reg .b64 out, in, x, y, to, at;
.shared .align 128 .b8 tile[2048]; .shared .align 8 .b64 bars[2];
ld.param.u64 out, [outs]; ld.param.u64 in, [ins]; mov.u32 tid, %tid.x; mov.u32 a, tile; mov.u32 bar, bars;
setp.eq.u32 leader, tid, 0; mov.u32 rank, %cluster_ctarank; mov.u32 size, %cluster_nctarank;
mov.u32 block, %ctaid.x; add.u32 next, rank, 1; rem.u32 next, next, size;
mov.u32 t, %ntid.x; mad.lo.u32 t, block, t, tid; mad.wide.u32 at, t, 4, out;
";

fn kernel(directive: &str, body: &str) -> String {
    format!("{HEADER}{}{body}\nret;\n}}\n", START.replace("DIRECTIVE", directive))
}

fn setups(cluster: u32) -> Vec<Setup> {
    let setup = Setup { cluster, ..Setup::default() };
    let checks = Checks { asynchrony: true, ..Checks::default() };
    let late = |seed| Setup { checks, seed, ..setup.clone() };
    vec![late(1), late(2), setup]
}

const THREADS: usize = 64;

/// Runs clusters of each size in three of them, and compares each thread's word.
fn check(body: &str, words: usize, expected: impl Fn(usize, usize, usize, &[u32]) -> u32) {
    for cluster in [1, 2, 4, 8] {
        let blocks = 3 * cluster as usize;
        let mut random = Random::new(3);
        let inp: Vec<u32> = (0..words).map(|_| random.next() as u32).collect();
        for setup in setups(cluster) {
            let bytes: Vec<u8> = inp.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut buffers = [vec![0; 4 * THREADS * blocks], bytes];
            let shape = Shape { blocks: blocks as u32, threads: THREADS as u32, shared_bytes: 2048 };
            let ran = run_with(&kernel("", body), "k", shape, &setup, &mut buffers)
                .unwrap_or_else(|error| panic!("{body}\nclusters of {cluster}: {error}"));
            for (i, found) in buffers[0].chunks_exact(4).enumerate() {
                let found = u32::from_le_bytes(found.try_into().expect("four bytes"));
                let (block, tid) = (i / THREADS, i % THREADS);
                let wanted = expected(block, tid, cluster as usize, &inp);
                assert_eq!(found, wanted, "{body}\nclusters of {cluster}, block {block}, thread {tid}");
            }
            ran.keep_exactly(&[(0, &buffers[0])]);
        }
    }
}

const SYNC: &str = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";

#[test]
fn special_registers() {
    let body = "mov.u32 b, %cluster_ctaid.x; mov.u32 c, %cluster_nctaid.x; mad.lo.u32 b, b, 16, c;
        mov.u32 c, %clusterid.x; mad.lo.u32 b, b, 16, c; mov.u32 c, %nclusterid.x; mad.lo.u32 b, b, 16, c;
        mad.lo.u32 b, b, 16, rank; mad.lo.u32 b, b, 16, size; mov.u32 c, %cluster_nctaid.y; mad.lo.u32 b, b, 2, c;
        st.global.u32 [at], b;";
    check(body, 1, |block, _, n, _| {
        let digits = [block % n, n, block / n, 3, block % n, n];
        (digits.iter().fold(0, |sum, digit| sum * 16 + digit) * 2 + 1) as u32
    });
    let explicit = "mov.pred p, %is_explicit_cluster; selp.u32 b, 1, 0, p; mad.lo.u32 b, b, 16, size; st.global.u32 [at], b;";
    for (directive, n) in [(".reqnctapercluster 2", 2), (".explicitcluster .reqnctapercluster 4, 1, 1", 4)] {
        let mut buffers = [vec![0; 4 * 4 * THREADS], vec![0; 4]];
        let shape = Shape { blocks: 4, threads: THREADS as u32, shared_bytes: 0 };
        let setup = Setup { cluster: 1, ..Setup::default() };
        let ran = run_with(&kernel(directive, explicit), "k", shape, &setup, &mut buffers).unwrap();
        assert!(buffers[0].chunks_exact(4).all(|word| word == [16 + n, 0, 0, 0]), "{directive}");
        ran.keep_exactly(&[(0, &buffers[0])]);
    }
}

/// `.blocksareclusters`: a grid of 3 is three clusters, along each axis.
#[test]
fn a_grid_may_count_clusters() {
    let body =
        "mov.u32 b, %nctaid.x; mov.u32 c, %nclusterid.x; mad.lo.u32 b, b, 16, c; mov.u32 c, %clusterid.x;
        mad.lo.u32 b, b, 16, c; mad.lo.u32 b, b, 16, rank; mad.lo.u32 b, b, 16, size; st.global.u32 [at], b;";
    let directives = format!(".reqntid {THREADS} .reqnctapercluster 2 .blocksareclusters");
    let ptx = kernel(&directives, body).replace(".version 8.6", ".version 9.0");
    let mut buffers = [vec![0; 4 * THREADS * 6], vec![0; 4]];
    let shape = Shape { blocks: 3, threads: THREADS as u32, shared_bytes: 0 };
    let ran = run_with(&ptx, "k", shape, &Setup { cluster: 1, ..Setup::default() }, &mut buffers).unwrap();
    for (i, word) in buffers[0].chunks_exact(4).enumerate() {
        let block = i / THREADS;
        let digits = [6, 3, block / 2, block % 2, 2];
        let wanted = digits.iter().fold(0, |sum, digit| sum * 16 + digit) as u32;
        assert_eq!(u32::from_le_bytes(word.try_into().unwrap()), wanted, "block {block}");
    }
    ran.keep_exactly(&[(0, &buffers[0])]);
}

/// A launch says its cluster where the kernel wants it to, and the one that the kernel wants.
#[test]
fn clusters_that_a_kernel_does_not_allow() {
    let cases = [
        (".explicitcluster", 1, Some("no cluster; it is .explicitcluster")),
        (".explicitcluster", 2, None),
        (".explicitcluster .reqnctapercluster 2", 1, None),
        (".reqnctapercluster 2", 2, None),
        (".reqnctapercluster 2", 4, Some("a cluster of [4, 1, 1]; it requires [2, 1, 1]")),
        (".maxclusterrank 2", 1, None),
        (".maxclusterrank 2", 2, None),
        (".maxclusterrank 2", 4, Some("at most 2 CTAs")),
        (".maxclusterrank 99", 17, Some("at most 16 CTAs")),
    ];
    for (directive, cluster, wanted) in cases {
        let setup = Setup { cluster, ..Setup::default() };
        let shape = Shape { blocks: 4, threads: 32, shared_bytes: 0 };
        let mut buffers = [vec![0; 4 * 4 * 32], vec![0; 4]];
        let text = kernel(directive, "st.global.u32 [at], size;");
        match wanted {
            None => drop(run_with(&text, "k", shape, &setup, &mut buffers).expect(directive)),
            Some(wanted) => {
                let Some(found) = fault(&text, "k", shape, &setup, &mut buffers) else { return };
                assert!(found.contains(wanted), "{directive}: {found}");
            }
        }
    }
}

/// Each CTA writes what its neighbour reads, by every kind of address.
#[test]
fn neighbours_shared_memory() {
    let value = "mad.lo.u32 c, block, 1000, tid;";
    let own = "mad.lo.u32 b, tid, 4, a;";
    let stores = [
        format!("{own} mapa.shared::cluster.u32 b, b, next; {value} st.shared::cluster.u32 [b], c;"),
        format!("mapa.shared::cluster.u32 b, tile, next; mad.lo.u32 b, tid, 4, b; {value} st.shared::cluster.u32 [b], c;"),
        format!("mov.u64 x, tile; cvta.shared.u64 x, x; mapa.u64 x, x, next; mad.wide.u32 x, tid, 4, x; {value} st.u32 [x], c;"),
        format!(
            "{own} mov.u32 c, 0; st.shared::cluster.u32 [b], c; {SYNC} mapa.shared::cluster.u32 b, b, next; {value}
             atom.add.release.cluster.shared::cluster.u32 d, [b], c;"
        ),
        format!("{own} st.shared.u32 [b], 0; {SYNC} mapa.shared::cluster.u32 b, b, next; {value} red.shared::cluster.max.u32 [b], c;"),
    ];
    for store in &stores {
        let body = format!("{store} {SYNC} {own} ld.shared.u32 c, [b]; st.global.u32 [at], c; {SYNC}");
        check(&body, 1, |block, tid, n, _| {
            let before = block / n * n + (block % n + n - 1) % n;
            (before * 1000 + tid) as u32
        });
    }
    // Read from there in place of written to.
    let body = format!(
        "{own} {value} st.shared.u32 [b], c; {SYNC} mapa.shared::cluster.u32 b, b, next;
         ld.shared::cluster.u32 c, [b]; getctarank.shared::cluster.u32 d, b; mad.lo.u32 c, d, 100000, c;
         cvt.u64.u32 x, b; cvta.shared::cluster.u64 x, x; getctarank.u64 d, x; mad.lo.u32 c, d, 100000, c;
         isspacep.shared::cluster p, x; @!p mov.u32 c, 0; st.global.u32 [at], c; {SYNC}"
    );
    check(&body, 1, |block, tid, n, _| {
        let after = block / n * n + (block % n + 1) % n;
        (after * 1000 + tid + 200_000 * (after % n)) as u32
    });
}

/// Phases of the cluster's barrier, with lanes of a warp on different paths, and work between arrival and
/// wait.
#[test]
fn barriers_of_clusters() {
    let body = format!(
        "mov.u32 d, 0; mov.u32 c, 0; @leader st.shared.u32 [a], rank; {SYNC}
         loop: mapa.shared::cluster.u32 b, a, next; ld.shared::cluster.u32 t, [b]; add.u32 d, d, t;
         and.b32 b, tid, 1; setp.eq.u32 p, b, 0; @p bra even;
         barrier.cluster.arrive.relaxed; add.u32 c, c, 1; barrier.cluster.wait; bra next_;
         even: barrier.cluster.arrive; barrier.cluster.wait;
         next_: @leader ld.shared.u32 t, [a]; @leader add.u32 t, t, 10; @leader st.shared.u32 [a], t; {SYNC}
         add.u32 c, c, 2; and.b32 t, c, 0xfe; setp.lt.u32 p, c, 16; @p bra loop; st.global.u32 [at], d;"
    );
    check(&body, 1, |block, tid, n, _| {
        let after = (block % n + 1) % n;
        let rounds = if tid % 2 == 1 { 6 } else { 8 };
        (0..rounds).map(|round| after + 10 * round).sum::<usize>() as u32
    });
}

#[test]
fn remote_barriers_and_copies() {
    // Each CTA sends its tile to the next, whose barrier counts the bytes.
    let body = format!(
        "@leader mbarrier.init.shared.b64 [bar], 1; @leader mbarrier.init.shared.b64 [bar+8], size;
         mad.lo.u32 b, tid, 4, a; mad.lo.u32 c, block, 1000, tid; st.shared.u32 [b], c;
         fence.mbarrier_init.release.cluster; fence.proxy.async; {SYNC}
         @!leader bra wait; mov.u32 b, dynamic; mapa.shared::cluster.u32 b, b, next; mapa.shared::cluster.u32 c, bar, next;
         mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256;
         cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [b], [a], 256, [c];
         wait: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [bar], 0; @!p bra wait;
         mov.u32 b, dynamic; mad.lo.u32 b, tid, 4, b; ld.shared.u32 d, [b];
         @!leader bra second; mov.u32 t, 0;
         all: mapa.shared::cluster.u32 c, bar, t; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [c+8];
         add.u32 t, t, 1; setp.lt.u32 q, t, size; @q bra all;
         second: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [bar+8], 0; @!p bra second;
         st.global.u32 [at], d; {SYNC}"
    );
    check(&body, 1, |block, tid, n, _| {
        let before = block / n * n + (block % n + n - 1) % n;
        (before * 1000 + tid) as u32
    });
    // And each of its threads a word.
    let body = format!(
        "@leader mbarrier.init.shared.b64 [bar], 1; {SYNC} @leader mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256;
         mad.lo.u32 b, tid, 4, a; mapa.shared::cluster.u32 b, b, next; mapa.shared::cluster.u32 c, bar, next;
         mad.lo.u32 d, block, 1000, tid; st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [b], d, [c];
         wait: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], 0; @!p bra wait;
         mad.lo.u32 b, tid, 4, a; ld.shared.u32 d, [b]; st.global.u32 [at], d; {SYNC}"
    );
    check(&body, 1, |block, tid, n, _| {
        let before = block / n * n + (block % n + n - 1) % n;
        (before * 1000 + tid) as u32
    });
}

/// Each CTA loads a slice of the input into all CTAs of a mask, as DSMEM pipelines do.
#[test]
fn multicasts() {
    let body = format!(
        "@leader mbarrier.init.shared.b64 [bar], 1; {SYNC} @!leader bra wait;
         mul.lo.u32 b, size, 256; mbarrier.arrive.expect_tx.shared.b64 _, [bar], b;
         mov.u32 b, 1; shl.b32 b, b, size; sub.u32 b, b, 1; cvt.u16.u32 h, b;
         mad.lo.u32 b, rank, 256, a; mad.wide.u32 x, rank, 256, in;
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [b], [x], 256, [bar], h;
         wait: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], 0; @!p bra wait; mov.u32 d, 0; mov.u32 t, 0;
         sum: mad.lo.u32 b, t, 256, a; mad.lo.u32 b, tid, 4, b; ld.shared.u32 c, [b]; mad.lo.u32 d, d, 31, c;
         add.u32 t, t, 1; setp.lt.u32 p, t, size; @p bra sum; st.global.u32 [at], d; {SYNC}"
    );
    check(&body, 8 * THREADS, |_, tid, n, inp| {
        (0..n).fold(0u32, |sum, slice| sum.wrapping_mul(31).wrapping_add(inp[slice * THREADS + tid]))
    });
}

#[test]
fn tensor_multicast() {
    let ptx = format!(
        "{HEADER}.visible .entry k(.param .u64 outs, .param .u64 tensor, .param .align 64 .b8 map[128])
{{
.reg .pred p, leader; .reg .b16 h; .reg .b32 a, b, c, rank, tid, zero; .reg .b64 out, x, y;
.shared .align 1024 .b8 tile[1024]; .shared .align 8 .b64 bar;
ld.param.u64 out, [outs]; mov.u32 tid, %tid.x; mov.u32 rank, %cluster_ctarank; setp.eq.u32 leader, tid, 0;
@leader mbarrier.init.shared.b64 [bar], 1; {SYNC}
mov.b64 x, map; cvta.param.u64 x, x; @!leader bra wait;
mbarrier.arrive.expect_tx.shared.b64 _, [bar], 1024; mov.u32 a, tile; mad.lo.u32 a, rank, 512, a;
mov.u32 zero, 0; shl.b32 c, rank, 2; mov.u16 h, 3;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [a], [x, {{zero, c}}], [bar], h;
wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;
mov.u32 a, tile; mad.lo.u32 a, tid, 4, a; ld.shared.u32 c, [a];
mad.lo.u32 b, rank, 256, tid; mad.wide.u32 y, b, 4, out; st.global.u32 [y], c; {SYNC}
ret;
}}
"
    );
    let map = Map {
        buffer: 1,
        data_type: 2,
        dims: vec![32, 7],
        strides: vec![128],
        extents: vec![32, 4],
        steps: vec![1, 1],
        swizzle: 3,
        fill: 0,
    };
    let tensor: Vec<u8> = (0..32 * 7u32).flat_map(u32::to_le_bytes).collect();
    for setup in setups(2) {
        let setup = Setup { maps: vec![map.clone()], ..setup };
        let mut buffers = [vec![0; 2048], tensor.clone()];
        let shape = Shape { blocks: 2, threads: 256, shared_bytes: 0 };
        let ran = run_with(&ptx, "k", shape, &setup, &mut buffers).unwrap();
        for (i, word) in buffers[0].chunks_exact(4).enumerate() {
            // Rows of 128 bytes: chunk j of row r is at chunk j ^ r.
            let (row, word_in_row) = (i % 256 / 32, i % 32);
            let column = ((word_in_row / 4) ^ (row % 8)) * 4 + word_in_row % 4;
            let wanted = if row < 7 { 32 * row + column } else { 0 };
            assert_eq!(u32::from_le_bytes(word.try_into().unwrap()) as usize, wanted, "word {i}");
        }
        ran.keep_exactly(&[(0, &buffers[0])]);
    }
}

#[test]
fn misuse_is_named() {
    let remote = "mapa.shared::cluster.u32 b, a, next; st.shared::cluster.u32 [b], 1;";
    let cases = [
        (2, format!("setp.eq.u32 p, rank, 1; @p ret; mov.u32 c, 0; wait: add.u32 c, c, 1; setp.lt.u32 q, c, 100000; @q bra wait; {remote}"), "of the cluster, which has exited"),
        (2, "mapa.shared::cluster.u32 b, a, 2; ld.shared::cluster.u32 c, [b];".to_string(), "is in CTA 2 of a cluster of 2"),
        (2, "mapa.shared::cluster.u32 b, a, next; ld.shared.u32 c, [b];".to_string(), "is outside its"),
        (1, "barrier.cluster.arrive; barrier.cluster.arrive;".to_string(), "a second time without a wait"),
        (1, "barrier.cluster.wait;".to_string(), "without an arrive"),
        (2, "setp.eq.u32 p, rank, 1; @p bra sleep; barrier.cluster.arrive; barrier.cluster.wait; sleep: bar.sync 0, 96;".to_string(), "deadlock in CTA [0, 0, 0] and the others of its cluster of 2"),
        (3, "ret;".to_string(), "is no multiple of its cluster"),
        (17, "ret;".to_string(), "at most 16 CTAs"),
        (
            2,
            "@leader mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @!leader ret; mapa.shared::cluster.u32 b, a, next;
             cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [b], [in], 16, [bar];".to_string(),
            "with an mbarrier in another CTA",
        ),
    ];
    for (cluster, body, wanted) in cases {
        let setup = Setup { cluster, ..Setup::default() };
        let shape = Shape { blocks: 4, threads: 64, shared_bytes: 0 };
        let mut buffers = [vec![0; 4096], vec![0; 64]];
        let Some(found) = fault(&kernel("", &body), "k", shape, &setup, &mut buffers) else { return };
        assert!(found.contains(wanted), "{body}\n{found}");
    }
}
