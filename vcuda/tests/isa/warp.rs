//! Instructions across the lanes of a warp, and barriers, PTX ISA 9.7.9 and 9.7.13.

use crate::lanes::{Combine, Table, Words};

/// The words of the warp that thread `i` belongs to.
fn warp(i: usize, inp: &[Words]) -> &[Words] {
    &inp[i / 32 * 32..][..32]
}

/// The source lane and predicate of a shuffle, after the ISA's pseudocode.
fn shuffle(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let max_lane = lane & segment | clamp & !segment;
    let (source, inside) = match mode {
        "up" => {
            let source = lane as i32 - b as i32;
            (source, source >= max_lane as i32)
        }
        "down" => ((lane + b) as i32, lane + b <= max_lane),
        "bfly" => ((lane ^ b) as i32, lane ^ b <= max_lane),
        _ => {
            let source = lane & segment | b & !segment;
            (source as i32, source <= max_lane)
        }
    };
    if inside { (source as u32, true) } else { (lane, false) }
}

#[test]
fn shuffles() {
    let mut t = Table::default();
    for mode in ["up", "down", "bfly", "idx"] {
        // Whole warps, then segments of 16, 8 and 2 lanes, as `__shfl_*_sync` encodes them.
        for segment in [0u32, 16, 24, 30] {
            let c = segment << 8 | if mode == "up" { 0 } else { 31 };
            for b in [0, 1, 2, 5, 16, 31] {
                let body = format!(
                    "shfl.sync.{mode}.b32 t|p, a, {b}, {c:#x}, -1; selp.u32 u, 1, 0, p; st.global.v2.u32 [out], {{t, u}}; ret;"
                );
                t.kernel("", &body, |i, inp| {
                    let (source, inside) = shuffle(mode, i as u32 % 32, b, c);
                    [warp(i, inp)[source as usize][0], inside as u32, 0, 0]
                });
            }
        }
        // A different b in each lane, without the predicate.
        let clamp = if mode == "up" { 0 } else { 31 };
        let body = format!("shfl.sync.{mode}.b32 t, a, b, {clamp}, 0xffffffff; st.global.u32 [out], t; ret;");
        t.kernel("", &body, |i, inp| {
            let (source, _) = shuffle(mode, i as u32 % 32, inp[i][1], clamp);
            [warp(i, inp)[source as usize][0], 0, 0, 0]
        });
    }
}

#[test]
fn shuffles_among_some_lanes() {
    let mut t = Table::default();
    // The upper half sums its own lanes while the lower half does something else.
    let body = "mov.u32 t, 7; setp.lt.u32 p, lane, 16; @p bra lower;
        mov.b32 t, a;
        shfl.sync.bfly.b32 u, t, 8, 0x1f, 0xffff0000; add.u32 t, t, u;
        shfl.sync.bfly.b32 u, t, 4, 0x1f, 0xffff0000; add.u32 t, t, u;
        shfl.sync.bfly.b32 u, t, 2, 0x1f, 0xffff0000; add.u32 t, t, u;
        shfl.sync.bfly.b32 u, t, 1, 0x1f, 0xffff0000; add.u32 t, t, u;
        bra join;
        lower: add.u32 t, t, lane;
        join: bar.warp.sync 0xffffffff; st.global.u32 [out], t; ret;";
    t.kernel("", body, |i, inp| {
        let lane = i as u32 % 32;
        let sum = warp(i, inp)[16..].iter().fold(0u32, |sum, words| sum.wrapping_add(words[0]));
        [if lane < 16 { 7 + lane } else { sum }, 0, 0, 0]
    });
}

/// Bits of the lanes whose word holds.
fn ballot(words: &[Words], holds: impl Fn(&Words) -> bool) -> u32 {
    words.iter().enumerate().fold(0, |mask, (lane, words)| mask | (holds(words) as u32) << lane)
}

#[test]
fn votes() {
    let mut t = Table::default();
    let start = "setp.lt.u32 p, a, 0x80000000;";
    let all =
        "vote.sync.all.pred q, p, -1; selp.u32 t, 1, 0, q; vote.sync.any.pred q, p, -1; selp.u32 u, 1, 0, q;
        vote.sync.uni.pred q, p, -1; selp.u32 v, 1, 0, q; vote.sync.ballot.b32 s, p, -1;
        st.global.v4.u32 [out], {t, u, v, s}; ret;";
    t.kernel("", &format!("{start} {all}"), |i, inp| {
        let mask = ballot(warp(i, inp), |w| w[0] < 0x8000_0000);
        [(mask == !0) as u32, (mask != 0) as u32, (mask == !0 || mask == 0) as u32, mask]
    });
    // Everywhere true, everywhere false, and negated.
    t.kernel("", &format!("setp.eq.u32 p, a, a; {all}"), |_, _| [1, 1, 1, !0]);
    t.kernel("", &format!("setp.ne.u32 p, a, a; {all}"), |_, _| [0, 0, 1, 0]);
    t.kernel(
        "",
        &format!("{start} vote.sync.ballot.b32 t, !p, -1; st.global.u32 [out], t; ret;"),
        |i, inp| [ballot(warp(i, inp), |w| w[0] >= 0x8000_0000), 0, 0, 0],
    );
    // Lanes that are not in the mask do not vote.
    let some = "setp.lt.u32 q, lane, 8; @!q bra out_; vote.sync.ballot.b32 t, p, 0xff; st.global.u32 [out], t; out_: ret;";
    t.kernel("", &format!("{start} {some}"), |i, inp| {
        let mask = ballot(&warp(i, inp)[..8], |w| w[0] < 0x8000_0000);
        [if i % 32 < 8 { mask } else { 0 }, 0, 0, 0]
    });
}

#[test]
fn active_lanes() {
    let mut t = Table::default();
    t.kernel("", "activemask.b32 t; st.global.u32 [out], t; ret;", |_, _| [!0, 0, 0, 0]);
    let one = "setp.ne.u32 p, lane, 5; @p ret; activemask.b32 t; st.global.u32 [out], t; ret;";
    t.kernel("", one, |i, _| [if i % 32 == 5 { 1 << 5 } else { 0 }, 0, 0, 0]);
    let elected =
        "elect.sync t|p, -1; selp.u32 u, 1, 0, p; add.u32 t, t, 1; st.global.v2.u32 [out], {t, u}; ret;";
    // The ISA leaves open which lane leads, but not that all agree; the first does on every device so far.
    t.kernel("", elected, |i, _| [1, (i % 32 == 0) as u32, 0, 0]);
}

#[test]
fn lane_masks_and_identities() {
    let mut t = Table::default();
    let body =
        "mov.u32 a, %lanemask_eq; mov.u32 b, %lanemask_lt; mov.u32 c, %lanemask_ge; mov.u32 d, %warpid;
        mov.u32 t, %lanemask_le; mov.u32 u, %lanemask_gt; xor.b32 t, t, u; and.b32 a, a, t;
        st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel("", body, |i, _| {
        let lane = i % 32;
        [1 << lane, (1 << lane) - 1, !0 << lane, (i % 128 / 32) as u32]
    });
    let body = "mov.u32 a, %ntid.x; mov.u32 b, %nctaid.x; mov.u32 c, %ctaid.x; mov.u32 d, %tid.y;
        mov.u32 t, %ntid.z; add.u32 d, d, t; st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel("", body, |i, _| [128, 2, i as u32 / 128, 1]);
}

/// What a lane with a mask gets, from its warp's words.
type Expected = dyn Fn(usize, u32, &[Words]) -> [u32; 2];

/// Tiles of a warp execute one instruction together, each lane with the mask of its own tile: 16 lanes, 8, and
/// every other of the rest.
#[test]
fn a_mask_for_each_tile() {
    fn mask(lane: usize) -> u32 {
        match lane {
            0..16 => 0xffff,
            16..24 => 0xff << 16,
            _ => 0x5500_0000 << (lane & 1),
        }
    }
    fn ones(words: &[Words]) -> u32 {
        ballot(words, |words| words[0] & 3 == 1)
    }
    let start = "setp.lt.u32 p, lane, 16; selp.u32 s, 0xffff, 0xff0000, p; and.b32 u, lane, 1;
        shl.b32 u, 0x55000000, u; setp.lt.u32 p, lane, 24; selp.u32 s, s, u, p; and.b32 a, a, 3; setp.eq.u32 p, a, 1;";
    let mut t = Table::default();
    let mut check = |body: &str, expected: &Expected| {
        let body = format!("{start} {body} st.global.v2.u32 [out], {{t, v}}; ret;");
        t.kernel("", &body, |i, inp| {
            let [t, v] = expected(i % 32, mask(i % 32), warp(i, inp));
            [t, v, 0, 0]
        });
    };
    check(
        "vote.sync.ballot.b32 t, p, s; vote.sync.any.pred q, p, s; selp.u32 v, 1, 0, q;",
        &|_, mask, words| [ones(words) & mask, (ones(words) & mask != 0) as u32],
    );
    check(
        "vote.sync.all.pred q, p, s; selp.u32 t, 1, 0, q; vote.sync.uni.pred q, p, s; selp.u32 v, 1, 0, q;",
        &|_, mask, words| {
            let ones = ones(words) & mask;
            [(ones == mask) as u32, (ones == mask || ones == 0) as u32]
        },
    );
    check("match.any.sync.b32 t, a, s; match.all.sync.b32 v, a, s;", &|lane, mask, words| {
        let same = ballot(words, |other| other[0] & 3 == words[lane][0] & 3) & mask;
        [same, if same == mask { mask } else { 0 }]
    });
    // Both parts of the warp agree in themselves.
    check("shr.u32 b, lane, 4; match.all.sync.b32 t|q, b, s; selp.u32 v, 1, 0, q;", &|_, mask, _| [mask, 1]);
    check("redux.sync.add.u32 t, b, s; redux.sync.max.s32 v, b, s;", &|_, mask, words| {
        let of =
            || words.iter().enumerate().filter(|(lane, _)| mask >> lane & 1 != 0).map(|(_, words)| words[1]);
        let most = of().map(|word| word as i32).max().unwrap_or(0);
        [of().fold(0, u32::wrapping_add), most as u32]
    });
    check("elect.sync t|q, s; selp.u32 v, 1, 0, q;", &|lane, mask, _| {
        [mask.trailing_zeros(), (mask.trailing_zeros() == lane as u32) as u32]
    });
}

#[test]
fn matches() {
    let mut t = Table::default();
    let any = "and.b32 a, a, 3; match.any.sync.b32 t, a, -1; st.global.u32 [out], t; ret;";
    t.kernel("", any, |i, inp| [ballot(warp(i, inp), |w| w[0] & 3 == inp[i][0] & 3), 0, 0, 0]);
    let wide = "and.b32 a, a, 1; cvt.u64.u32 x, a; shl.b64 x, x, 40; match.any.sync.b64 t, x, -1; st.global.u32 [out], t; ret;";
    t.kernel("", wide, |i, inp| [ballot(warp(i, inp), |w| w[0] & 1 == inp[i][0] & 1), 0, 0, 0]);
    let all = "match.all.sync.b32 t|p, a, -1; selp.u32 u, 1, 0, p; shr.u32 s, tid, 5; match.all.sync.b32 v|q, s, -1;
        selp.u32 s, 1, 0, q; st.global.v4.u32 [out], {t, u, v, s}; ret;";
    t.kernel("", all, |_, _| [0, 0, !0, 1]);
}

#[test]
fn warp_reductions() {
    let mut t = Table::default();
    let cases: [(&str, Combine); 9] = [
        ("add.u32", u32::wrapping_add),
        ("add.s32", u32::wrapping_add),
        ("min.u32", u32::min),
        ("max.u32", u32::max),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (operation, combine) in cases {
        let body = format!("redux.sync.{operation} t, a, -1; st.global.u32 [out], t; ret;");
        t.kernel("", &body, |i, inp| {
            let result = warp(i, inp).iter().map(|w| w[0]).reduce(combine).expect("32 lanes");
            [result, 0, 0, 0]
        });
    }
}

#[test]
fn barriers_of_some_warps() {
    let mut t = Table::default();
    // Warps 0 and 1 exchange through barrier 1, warps 2 and 3 through barrier 2, each of 64 threads.
    let module = ".shared .align 4 .b8 tile[512];";
    let body = "mov.u64 at, tile; mad.wide.u32 x, tid, 4, at; xor.b32 t, tid, 32; mad.wide.u32 y, t, 4, at;
        shr.u32 u, tid, 6; add.u32 u, u, 1; st.shared.u32 [x], a; bar.sync u, 64; ld.shared.u32 t, [y];
        st.global.u32 [out], t; ret;";
    t.kernel(module, body, |i, inp| [inp[i ^ 32][0], 0, 0, 0]);
    // A producer warp arrives and goes on; the others wait for it.
    let body = "mov.u64 at, tile; and.b32 t, tid, 31; mad.wide.u32 x, t, 4, at; setp.lt.u32 p, tid, 32; @p bra produce;
        bar.sync 3, 128; ld.shared.u32 t, [x]; st.global.u32 [out], t; ret;
        produce: st.shared.u32 [x], a; bar.arrive 3, 128; st.global.u32 [out], 1; ret;";
    t.kernel(module, body, |i, inp| {
        let producer = inp[i / 128 * 128 + i % 32][0];
        [if i % 128 < 32 { 1 } else { producer }, 0, 0, 0]
    });
}

#[test]
fn barriers_that_reduce() {
    let mut t = Table::default();
    let body = "setp.lt.u32 p, a, 0x80000000; bar.red.popc.u32 t, 0, p; barrier.red.and.pred q, 1, p; selp.u32 u, 1, 0, q;
        bar.red.or.pred q, 0, !p; selp.u32 v, 1, 0, q; st.global.v4.u32 [out], {t, u, v, lane}; ret;";
    t.kernel("", body, |i, inp| {
        let block = &inp[i / 128 * 128..][..128];
        let count = block.iter().filter(|w| w[0] < 0x8000_0000).count() as u32;
        [count, (count == 128) as u32, (count < 128) as u32, i as u32 % 32]
    });
}

#[test]
fn threads_that_left_do_not_hold_a_barrier_up() {
    let mut t = Table::default();
    let module = ".shared .align 4 .b8 tile[256];";
    let body = "setp.ge.u32 p, tid, 64; @p exit; mov.u64 at, tile; mad.wide.u32 x, tid, 4, at;
        xor.b32 t, tid, 63; mad.wide.u32 y, t, 4, at; st.shared.u32 [x], a; bar.sync 0; ld.shared.u32 t, [y];
        st.global.u32 [out], t; ret;";
    t.kernel(module, body, |i, inp| [if i % 128 < 64 { inp[i ^ 63][0] } else { 0 }, 0, 0, 0]);
}

/// The system's part of shared memory, used as cooperative groups do, is no variable's, and nobody need write it.
#[test]
fn reserved_shared_memory() {
    let mut t = Table::default();
    let module = ".shared .align 4 .b8 tile[512];";
    let body = "mov.u64 at, tile; mad.wide.u32 x, tid, 4, at; st.shared.u32 [x], a; bar.sync 0;
        mov.u32 b, %reserved_smem_offset_1; cvt.u64.u32 y, b; cvta.shared.u64 y, y; setp.eq.u32 p, tid, 0;
        @p red.and.relaxed.cta.b32 [y], 0; bar.sync 0; setp.eq.u32 p, lane, 0; shr.u32 t, tid, 5; mov.u32 u, 1;
        shl.b32 u, u, t; @p red.or.relaxed.cta.b32 [y], u; bar.sync 0; ld.relaxed.cta.u32 t, [y];
        ld.shared.u32 u, [x]; mov.u32 c, %aggr_smem_size; mov.u32 d, %total_smem_size; sub.u32 c, c, d;
        mov.u32 d, %reserved_smem_offset_end; mov.u32 v, %reserved_smem_offset_begin; sub.u32 d, d, v;
        setp.eq.u32 p, c, d; selp.u32 c, 1, 0, p; mov.u32 d, %reserved_smem_offset_cap;
        setp.le.u32 p, b, d; selp.u32 d, 1, 0, p; st.global.v4.u32 [out], {t, u, c, d}; ret;";
    t.kernel(module, body, |i, inp| [0xf, inp[i][0], 1, 1]);
}

#[test]
fn registers_of_the_device() {
    let mut t = Table::default();
    // A clock's halves do not go back, and the place of a multiprocessor is below their number.
    let body = "mov.u32 a, %smid; mov.u32 b, %nsmid; setp.lt.u32 p, a, b; selp.u32 a, 1, 0, p;
        mov.u32 t, %globaltimer_hi; mov.u64 x, %globaltimer; mov.u32 u, %globaltimer_hi; shr.u64 x, x, 32;
        cvt.u32.u64 b, x; setp.le.u32 p, t, b; selp.u32 t, 1, 0, p; setp.ge.u32 p, u, b; selp.u32 u, 1, 0, p;
        and.b32 b, t, u; mov.u32 t, %clock_hi; mov.u64 x, %clock64; mov.u32 u, %clock_hi; shr.u64 x, x, 32;
        cvt.u32.u64 c, x; setp.le.u32 p, t, c; selp.u32 t, 1, 0, p; setp.ge.u32 p, u, c; selp.u32 u, 1, 0, p;
        and.b32 c, t, u; mov.u32 t, %total_smem_size; mov.u32 u, %dynamic_smem_size; setp.ge.u32 p, t, u;
        selp.u32 d, 1, 0, p; st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel("", body, |_, _| [1; 4]);
    // What no launch here sets is the same for all.
    let body = "mov.u64 x, %gridid; mov.u32 a, %envreg3; mov.u32 b, %pm0; mov.u64 y, %current_graph_exec;
        mov.u32 c, %aggr_smem_size; mov.u32 d, %reserved_smem_offset_begin; nanosleep.u32 20; pmevent 1;
        match.all.sync.b64 t|p, x, 0xffffffff; selp.u32 a, 1, 0, p;
        match.all.sync.b32 t|p, c, 0xffffffff; selp.u32 b, 1, 0, p;
        mov.u32 c, 1; mov.u32 d, 1; st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel("", body, |_, _| [1; 4]);
}
