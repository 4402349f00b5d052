//! Lanes that come to a collective, or to an instruction of the whole warp, one after another, PTX ISA 9.7.9 and 9.7.13.

use crate::lanes::{Table, Words};
use crate::rounds::{COLLECTIVES, WAITS, expected, rounds};

const TILE: &str = ".shared .align 128 .b8 tile[4096];";

#[test]
fn others_come_round_while_a_lane_waits() {
    let mut t = Table::default();
    for collective in &COLLECTIVES {
        for wait in &WAITS {
            for is_constant in [true, false] {
                let body = rounds(collective, wait, is_constant, "st.global.u32 [out], sum; ret;");
                t.kernel(TILE, &body, |i, _| [expected(collective, i as u32), 0, 0, 0]);
            }
        }
    }
}

/// The lanes of two halves at two instructions of one form, from `a` to `t`, and from `b` to `u`.
fn apart(code: &str) -> String {
    let other = code.replace("RESULT", "u").replace("FROM", "b").replace("WIDE", "y").replace("HOLDS", "q");
    let code = code.replace("RESULT", "t").replace("FROM", "a").replace("WIDE", "x").replace("HOLDS", "p");
    format!(
        "mov.u64 at, tile; mad.wide.u32 at, tid, 4, at; and.b32 d, lane, 15; setp.gt.u32 p, lane, 15; @p bra upper;
        {code} bra join;
        upper: mov.u32 b, a; mov.u32 a, 77; mov.u32 t, 78; {other} mov.u32 t, u; xor.b32 u, t, t;
        join: st.global.u32 [out], t; ret;"
    )
}

/// What a thread makes of its lane and its warp's first words.
type Made = fn(usize, &[u32]) -> u32;

#[test]
fn lanes_at_two_instructions() {
    let ballot = |words: &[u32], holds: &dyn Fn(u32) -> bool| {
        words.iter().enumerate().fold(0, |mask, (lane, &word)| mask | u32::from(holds(word)) << lane)
    };
    let mut t = Table::default();
    let cases: [(&str, Made); 8] = [
        ("shfl.sync.bfly.b32 RESULT, FROM, 16, 31, -1;", |lane, words| words[lane ^ 16]),
        (
            "shfl.sync.up.b32 RESULT|HOLDS, FROM, 20, 0, -1; selp.u32 RESULT, RESULT, 5, HOLDS;",
            |lane, words| {
                if lane < 20 { 5 } else { words[lane - 20] }
            },
        ),
        ("redux.sync.min.s32 RESULT, FROM, -1;", |_, words| {
            words.iter().map(|&word| word as i32).min().unwrap_or(0) as u32
        }),
        (
            "elect.sync RESULT|HOLDS, -1; @HOLDS add.u32 RESULT, RESULT, 9;",
            |lane, _| {
                if lane == 0 { 9 } else { 0 }
            },
        ),
        (
            "st.shared.u32 [at], FROM; bar.warp.sync -1; xor.b32 s, tid, 16; mov.u64 WIDE, tile;
          mad.wide.u32 WIDE, s, 4, WIDE; ld.shared.u32 RESULT, [WIDE];",
            |lane, words| words[lane ^ 16],
        ),
        ("mov.u32 s, 5; match.all.sync.b32 RESULT|HOLDS, s, -1; @!HOLDS mov.u32 RESULT, 3;", |_, _| !0),
        ("match.all.sync.b32 RESULT|HOLDS, FROM, -1; @!HOLDS mov.u32 RESULT, 3;", |_, _| 3),
        ("mov.u32 s, -1; shfl.sync.idx.b32 RESULT, FROM, d, 31, s;", |lane, words| words[lane % 16]),
    ];
    for (code, made) in cases {
        t.kernel(TILE, &apart(code), |i, inp| {
            let words: Vec<u32> = inp[i / 32 * 32..][..32].iter().map(|words| words[0]).collect();
            [made(i % 32, &words), 0, 0, 0]
        });
    }
    let votes: [(&str, &dyn Fn(u32) -> u32); 4] = [
        ("vote.sync.ballot.b32 RESULT, HOLDS, -1;", &|mask| mask),
        ("vote.sync.ballot.b32 RESULT, !HOLDS, -1;", &|mask| !mask),
        ("vote.sync.any.pred HOLDS, HOLDS, -1; selp.u32 RESULT, 1, 0, HOLDS;", &|mask| (mask != 0) as u32),
        ("vote.sync.uni.pred HOLDS, !HOLDS, -1; selp.u32 RESULT, 1, 0, HOLDS;", &|mask| {
            (mask == 0 || mask == !0) as u32
        }),
    ];
    for (code, made) in votes {
        let code = format!("and.b32 s, FROM, 3; setp.eq.u32 HOLDS, s, 1; {code}");
        t.kernel(TILE, &apart(&code), |i, inp| {
            let words: Vec<u32> = inp[i / 32 * 32..][..32].iter().map(|words| words[0]).collect();
            [made(ballot(&words, &|word| word & 3 == 1)), 0, 0, 0]
        });
    }
    // 64-bit values, the same in the lanes of a residue modulo 4.
    let wide = "and.b32 s, lane, 3; cvt.u64.u32 WIDE, s; shl.b64 WIDE, WIDE, 40; match.any.sync.b64 RESULT, WIDE, -1;";
    t.kernel(TILE, &apart(wide), |i, _| [0x1111_1111 << (i % 4), 0, 0, 0]);
}

#[test]
fn lanes_from_the_targets_of_a_branch_and_from_calls() {
    let mut t = Table::default();
    let body = "and.b32 u, lane, 3; targets: .branchtargets zero, one, two, three; brx.idx u, targets;
        zero: redux.sync.add.u32 t, lane, -1; bra done; one: redux.sync.add.u32 t, lane, -1; add.u32 t, t, 1; bra done;
        two: redux.sync.add.u32 t, lane, -1; add.u32 t, t, 2; bra done; three: redux.sync.add.u32 t, lane, -1;
        add.u32 t, t, 3; done: st.global.u32 [out], t; ret;";
    t.kernel("", body, |i, _| [496 + i as u32 % 4, 0, 0, 0]);
    // A function that is called through its address, at two places, by half of the lanes each.
    let module = ".func (.param .b32 r) sum (.param .b32 x) { .reg .b32 v; ld.param.b32 v, [x];
        redux.sync.add.u32 v, v, -1; st.param.b32 [r], v; ret; }";
    let call = "{ .param .b32 n; .param .b32 r; st.param.b32 [n], lane; call (r), y, (n), prototype; ld.param.b32 t, [r]; }";
    let body = format!(
        "prototype: .callprototype (.param .b32 _) _ (.param .b32 _); mov.u64 y, sum; setp.gt.u32 p, lane, 15; @p bra upper;
        {call} bra join; upper: {call} add.u32 t, t, 1; join: st.global.u32 [out], t; ret;"
    );
    t.kernel(module, &body, |i, _| [496 + (i as u32 % 32 > 15) as u32, 0, 0, 0]);
}

#[test]
fn an_exit_lets_others_go_on() {
    let mut t = Table::default();
    // The lower lanes come first, and wait for the upper ones.
    let start = "setp.gt.u32 p, lane, 15; @p bra away;";
    let end = "st.global.u32 [out], t; ret; away: ret;";
    t.kernel("", &format!("{start} setp.eq.u32 q, a, a; vote.sync.ballot.b32 t, q, -1; {end}"), |i, _| {
        [if i % 32 < 16 { 0xffff } else { 0 }, 0, 0, 0]
    });
    // And at two instructions.
    let body = format!(
        "{start} setp.gt.u32 p, lane, 7; @p bra upper; redux.sync.add.u32 t, lane, -1; bra join;
        upper: redux.sync.add.u32 t, lane, -1; add.u32 t, t, 1; join: {end}"
    );
    t.kernel("", &body, |i, _| [[120, 121, 0, 0][i % 32 / 8], 0, 0, 0]);
}

#[test]
fn a_tile_does_not_wait_for_another() {
    let mut t = Table::default();
    // Lane 16 waits for what lane 0 does after the lower tile's collective.
    let body = "setp.lt.u32 p, lane, 16; selp.u32 s, 0xffff, 0xffff0000, p; mov.u64 at, tile; shr.u32 u, tid, 5;
        mad.wide.u32 at, u, 4, at; setp.eq.u32 p, lane, 0; @p st.shared.u32 [at], 0; bar.sync 0; mov.u32 v, 0;
        next: setp.ne.u32 p, lane, 16; @p bra meet; wait: ld.volatile.shared.u32 u, [at]; setp.le.u32 p, u, v; @p bra wait;
        meet: redux.sync.add.u32 t, lane, s; setp.ne.u32 p, lane, 0; @p bra on; add.u32 u, v, 1; st.volatile.shared.u32 [at], u;
        on: add.u32 v, v, 1; setp.lt.u32 p, v, 5; @p bra next; st.global.u32 [out], t; ret;";
    t.kernel(TILE, body, |i, _| [if i % 32 < 16 { 120 } else { 376 }, 0, 0, 0]);
    // Two masks that overlap: each lane meets those of its own mask, in its order.
    let body = "mov.u32 t, 0; setp.gt.u32 p, lane, 1; @p bra done; setp.eq.u32 p, lane, 0; selp.u32 s, 3, 2, p;
        selp.u32 v, 30, 5, p;
        next: redux.sync.add.u32 u, v, s; mad.lo.u32 t, t, 100, u; setp.eq.u32 p, s, 3; @p bra done; mov.u32 s, 3;
        mov.u32 v, 7; bra next;
        done: st.global.u32 [out], t; ret;";
    t.kernel("", body, |i, _| [[37, 537].get(i % 32).copied().unwrap_or(0), 0, 0, 0]);
}

/// Row `i` of an 8×8 matrix of 16-bit elements is in the four lanes from `4 i` on.
fn transposed(lane: usize, words: &[Words]) -> u32 {
    let element = |row: usize, column: usize| words[4 * row + column / 2][0] >> (16 * (column % 2)) & 0xffff;
    let (row, column) = (lane / 4, 2 * (lane % 4));
    element(column, row) | element(column + 1, row) << 16
}

#[test]
fn an_instruction_of_the_whole_warp_waits_for_a_lane() {
    let mut t = Table::default();
    // Lane 0 waits for the next warp; the others come to the transposition without it.
    let body =
        "mov.u64 at, tile; setp.eq.u32 p, tid, 0; @p st.shared.u32 [at], 0; bar.sync 0; and.b32 u, tid, 32;
        setp.ne.u32 p, u, 0; @p bra signal; setp.ne.u32 p, lane, 0; @p bra meet;
        wait: ld.volatile.shared.u32 u, [at]; setp.lt.u32 p, u, 2; @p bra wait;
        meet: movmatrix.sync.aligned.m8n8.trans.b16 t, a; st.global.u32 [out], t; ret;
        signal: setp.eq.u32 p, lane, 7; @p atom.shared.add.u32 u, [at], 1; ret;";
    t.kernel(TILE, body, |i, inp| {
        let warp = &inp[i / 32 * 32..][..32];
        [if (i / 32).is_multiple_of(2) { transposed(i % 32, warp) } else { 0 }, 0, 0, 0]
    });
}
