//! Control flow where the lanes of a warp part and meet again, and calls, PTX ISA 9.7.12.

use crate::lanes::Table;

const STORE: &str = "st.global.u32 [out], t; ret;";

#[test]
fn nested_conditions() {
    let mut t = Table::default();
    let body = "setp.lt.u32 p, a, 0x80000000; @!p bra right;
        and.b32 u, a, 1; setp.eq.u32 q, u, 0; @q bra even; mov.u32 t, 1; bra inner;
        even: and.b32 u, a, 2; setp.eq.u32 q, u, 0; mov.u32 t, 2; @q mov.u32 t, 3;
        inner: add.u32 t, t, 10; bra join;
        right: setp.eq.u32 q, lane, 3; mov.u32 t, 4; @!q bra join; mov.u32 t, 5;
        join: mad.lo.u32 t, t, 1000, lane;";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| {
        let (a, lane) = (inp[i][0], i as u32 % 32);
        let value = if a < 0x8000_0000 {
            10 + if a & 1 == 1 {
                1
            } else if a & 2 == 0 {
                3
            } else {
                2
            }
        } else if lane == 3 {
            5
        } else {
            4
        };
        [value * 1000 + lane, 0, 0, 0]
    });
}

#[test]
fn moves_that_are_read_before_they_stand() {
    let mut t = Table::default();
    // In the text; and registers that are moved in a circle where nobody comes.
    let body = "bra first; second: add.u32 t, u, v; add.u32 t, t, s; bra done;
        first: mov.u32 u, 7; mov.u32 v, u; mov.u32 s, %laneid; bra second;
        circle: mov.u64 x, y; mov.u64 y, x; bra circle; done:";
    t.kernel("", &format!("{body} {STORE}"), |i, _| [14 + i as u32 % 32, 0, 0, 0]);
    // Written in one place, again and again.
    let body =
        "mov.u32 t, 0; mov.u32 u, 0; next: mov.u32 v, u; add.u32 u, u, 1; mov.u32 s, v; add.u32 t, t, s;
        setp.lt.u32 p, u, lane; @p bra next; add.u32 t, t, v;";
    t.kernel("", &format!("{body} {STORE}"), |i, _| {
        let last = (i as u32 % 32).max(1) - 1;
        [(0..=last).sum::<u32>() + last, 0, 0, 0]
    });
}

#[test]
fn loops_of_different_length() {
    let mut t = Table::default();
    let body = "and.b32 a, a, 63; mov.u32 t, 0; mov.u32 u, 0; setp.eq.u32 p, a, 0; @p bra done;
        next: mad.lo.u32 t, u, u, t; add.u32 u, u, 1; setp.lt.u32 p, u, a; @p bra next;
        done: add.u32 t, t, b;";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| {
        let sum: u32 = (0..inp[i][0] & 63).map(|u| u * u).sum();
        [sum.wrapping_add(inp[i][1]), 0, 0, 0]
    });
}

#[test]
fn nested_loops_with_break_and_continue() {
    let mut t = Table::default();
    let body = "and.b32 a, a, 7; and.b32 b, b, 7; mov.u32 t, 0; mov.u32 u, 0;
        outer: setp.gt.u32 p, u, a; @p bra done; mov.u32 v, 0;
        inner: setp.gt.u32 p, v, b; @p bra after; add.u32 v, v, 1;
        add.u32 s, u, v; and.b32 s, s, 3; setp.eq.u32 p, s, 1; @p bra inner;
        mad.lo.u32 t, u, 8, t; add.u32 t, t, v; setp.gt.u32 p, t, 200; @p bra done; bra inner;
        after: add.u32 u, u, 1; bra.uni outer;
        done:";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| {
        let (a, b) = (inp[i][0] & 7, inp[i][1] & 7);
        let mut sum = 0;
        'outer: for u in 0..=a {
            for v in 1..=b + 1 {
                if (u + v) & 3 == 1 {
                    continue;
                }
                sum += u * 8 + v;
                if sum > 200 {
                    break 'outer;
                }
            }
        }
        [sum, 0, 0, 0]
    });
}

#[test]
fn a_loop_with_two_entries() {
    let mut t = Table::default();
    // Irreducible: half of the lanes start in the middle.
    let body = "and.b32 u, a, 15; mov.u32 t, 0; setp.lt.u32 p, lane, 16; @p bra middle;
        top: add.u32 t, t, 1;
        middle: mad.lo.u32 t, t, 3, u; setp.eq.u32 p, u, 0; @p bra done; sub.u32 u, u, 1; bra top;
        done:";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| {
        let (mut u, mut t, mut first) = (inp[i][0] & 15, 0u32, i % 32 < 16);
        loop {
            if !first {
                t = t.wrapping_add(1);
            }
            first = false;
            t = t.wrapping_mul(3).wrapping_add(u);
            if u == 0 {
                return [t, 0, 0, 0];
            }
            u -= 1;
        }
    });
}

#[test]
fn early_exits() {
    let mut t = Table::default();
    let body = "setp.eq.u32 p, lane, 0; @p ret; st.global.u32 [out], 1; and.b32 u, a, 3; setp.eq.u32 p, u, 0; @p exit;
        mov.u32 t, 2; setp.eq.u32 p, u, 1; @!p bra rest; st.global.u32 [out], 9; ret; rest:";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| {
        let value = match inp[i][0] & 3 {
            _ if i % 32 == 0 => 0,
            0 => 1,
            1 => 9,
            _ => 2,
        };
        [value, 0, 0, 0]
    });
}

#[test]
fn lanes_meet_again_for_a_shuffle() {
    let mut t = Table::default();
    let body = "and.b32 u, a, 15; mov.u32 t, lane;
        next: setp.eq.u32 p, u, 0; @p bra done; add.u32 t, t, 100; sub.u32 u, u, 1; bra next;
        done: shfl.sync.idx.b32 t, t, 7, 31, -1;";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| [7 + 100 * (inp[i / 32 * 32 + 7][0] & 15), 0, 0, 0]);
}

#[test]
fn lanes_meet_again_after_a_long_loop() {
    let mut t = Table::default();
    // Long enough that the lanes that wait get a turn meanwhile: they stop at what needs all lanes.
    let meet = [
        "shfl.sync.idx.b32 t, t, 3, 31, -1;",
        "bar.warp.sync -1; mov.u64 at, tile; mad.wide.u32 x, tid, 4, at; st.shared.u32 [x], t; bar.sync 0;
         xor.b32 u, tid, 31; mad.wide.u32 x, u, 4, at; ld.shared.u32 t, [x];",
        "redux.sync.max.u32 t, t, -1;",
    ];
    let expected: [fn(u32) -> u32; 3] =
        [|_| 50_003, |lane| if lane > 15 { 50_000 + 31 - lane } else { 31 - lane }, |_| 50_015];
    for (meet, expected) in meet.into_iter().zip(expected) {
        let body = format!(
            "mov.u32 u, 0; mov.u32 t, lane; setp.gt.u32 p, lane, 15; @p bra done;
             next: add.u32 u, u, 1; setp.lt.u32 p, u, 50000; @p bra next; add.u32 t, t, u;
             done: {meet}"
        );
        let module = ".shared .align 4 .b8 tile[512];";
        t.kernel(module, &format!("{body} {STORE}"), |i, _| [expected(i as u32 % 32), 0, 0, 0]);
    }
}

#[test]
fn a_waiting_lane_lets_the_others_run() {
    let mut t = Table::default();
    // The others wait for lane 31 in the first case, and it for lane 0 in the second.
    for condition in ["ne", "eq"] {
        let body = format!(
            "setp.ne.u32 p, tid, 0; @p bra ready; st.shared.u32 [flag], 0; ready: bar.sync 0;
             mov.u32 t, 5; setp.{condition}.u32 p, tid, 31; @!p bra signal;
             wait: ld.volatile.shared.u32 u, [flag]; setp.eq.u32 q, u, 0; @q bra wait; add.u32 t, t, u; bra join;
             signal: mov.u32 u, 1; setp.eq.u32 q, tid, 31; @q st.volatile.shared.u32 [flag], 3;
             setp.eq.u32 q, tid, 0; @q st.volatile.shared.u32 [flag], 3; add.u32 t, t, u;
             join:"
        );
        let module = ".shared .align 4 .b8 flag[4];";
        t.kernel(module, &format!("{body} {STORE}"), |i, _| {
            let waiting = (i % 128 != 31) == (condition == "ne");
            [if waiting { 8 } else { 6 }, 0, 0, 0]
        });
    }
}

#[test]
fn barriers_inside_a_loop() {
    let mut t = Table::default();
    // A block-wide sum in log2(128) steps.
    let module = ".shared .align 4 .b8 tile[512];";
    let body = "mov.u64 at, tile; mad.wide.u32 x, tid, 4, at; st.shared.u32 [x], a; mov.u32 u, 64;
        next: bar.sync 0; setp.ge.u32 p, tid, u; @p bra skip;
        mad.wide.u32 y, u, 4, x; ld.shared.u32 t, [y]; ld.shared.u32 v, [x]; add.u32 v, v, t; st.shared.u32 [x], v;
        skip: shr.u32 u, u, 1; setp.ne.u32 p, u, 0; @p bra next;
        bar.sync 0; ld.shared.u32 t, [tile];";
    t.kernel(module, &format!("{body} {STORE}"), |i, inp| {
        let block = &inp[i / 128 * 128..][..128];
        [block.iter().fold(0u32, |sum, w| sum.wrapping_add(w[0])), 0, 0, 0]
    });
}

#[test]
fn indexed_branches() {
    let mut t = Table::default();
    let body = "rem.u32 u, a, 5; mov.u32 t, 0; targets: .branchtargets zero, one, two, one, four;
        brx.idx u, targets;
        zero: mov.u32 t, 10; bra done; one: add.u32 t, u, 20; bra done; two: mov.u32 t, 30;
        four: add.u32 t, t, 40; done:";
    t.kernel("", &format!("{body} {STORE}"), |i, inp| {
        [[10, 21, 70, 23, 40][inp[i][0] as usize % 5], 0, 0, 0]
    });
}

const FUNCTIONS: &str = "
.func (.param .b32 result) collatz(.param .b32 start)
{
    .reg .pred p; .reg .b32 n, odd, steps;
    ld.param.u32 n, [start]; mov.u32 steps, 0;
    next: setp.le.u32 p, n, 1; @p bra done; and.b32 odd, n, 1; setp.eq.u32 p, odd, 1;
    @p mad.lo.u32 n, n, 3, 1; @!p shr.u32 n, n, 1; add.u32 steps, steps, 1; bra next;
    done: st.param.b32 [result], steps; ret;
}
.func (.param .b32 result) square(.param .b32 x)
{
    .reg .b32 v; ld.param.u32 v, [x]; mul.lo.u32 v, v, v; st.param.b32 [result], v; ret;
}
.func (.param .align 16 .b8 result[16]) swap(.param .align 16 .b8 pair[16], .param .b64 add)
{
    .reg .b64 x, y, z; ld.param.u64 x, [pair]; ld.param.u64 y, [pair+8]; ld.param.u64 z, [add];
    add.u64 x, x, z; st.param.v2.b64 [result], {y, x}; ret;
}
.func (.param .b32 result) twice(.param .b32 x)
{
    .reg .pred p; .reg .b32 v, w; ld.param.u32 v, [x];
    { .param .b32 a; .param .b32 r; st.param.b32 [a], v; call.uni (r), square, (a); ld.param.b32 w, [r]; }
    setp.gt.u32 p, v, 500; @p st.param.b32 [result], v; @p ret;
    { .param .b32 a; .param .b32 r; st.param.b32 [a], w; call.uni (r), square, (a); ld.param.b32 w, [r]; }
    st.param.b32 [result], w; ret;
}
";

#[test]
fn calls() {
    let mut t = Table::default();
    let call = |function: &str| {
        format!(
            "and.b32 a, a, 1023; {{ .param .b32 x; .param .b32 r; st.param.b32 [x], a;
             call (r), {function}, (x); ld.param.b32 t, [r]; }} {STORE}"
        )
    };
    t.kernel(FUNCTIONS, &call("collatz"), |i, inp| {
        let (mut n, mut steps) = (inp[i][0] & 1023, 0);
        while n > 1 {
            n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
            steps += 1;
        }
        [steps, 0, 0, 0]
    });
    t.kernel(FUNCTIONS, &call("twice"), |i, inp| {
        let v = inp[i][0] & 1023;
        [if v > 500 { v } else { v.wrapping_pow(4) }, 0, 0, 0]
    });
    let structure = "{ .param .align 16 .b8 pair[16]; .param .b64 add; .param .align 16 .b8 r[16];
        st.param.v4.b32 [pair], {a, b, c, d}; st.param.b64 [add], 5;
        call.uni (r), swap, (pair, add); ld.param.v2.b64 {x, y}, [r]; }
        st.global.v2.u64 [out], {x, y}; ret;";
    t.kernel(FUNCTIONS, structure, |i, inp| {
        let [a, b, c, d] = inp[i];
        let sum = ((b as u64) << 32 | a as u64).wrapping_add(5);
        [c, d, sum as u32, (sum >> 32) as u32]
    });
}

#[test]
fn calls_in_one_branch() {
    let mut t = Table::default();
    let body = "and.b32 a, a, 255; mov.u32 t, 1; setp.gt.u32 p, a, 100; @!p bra done;
        { .param .b32 x; .param .b32 r; st.param.b32 [x], a; call.uni (r), square, (x); ld.param.b32 t, [r]; }
        done:";
    t.kernel(FUNCTIONS, &format!("{body} {STORE}"), |i, inp| {
        let a = inp[i][0] & 255;
        [if a > 100 { a * a } else { 1 }, 0, 0, 0]
    });
}
