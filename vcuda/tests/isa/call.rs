//! Calls of recursive functions, and through addresses, PTX ISA 9.7.12.5; `malloc` and `free`.

use crate::device::{Setup, Shape, fault};
use crate::lanes::{HEADER, Table};

/// `f(n) = n < 2 ? n : f(n - 1) + f(n - 2)`: two calls, with a register live across each.
const FIBONACCI: &str = ".func (.param .b32 result) fibonacci (.param .b32 number)
{
.reg .pred p; .reg .b32 n, x, y;
ld.param.u32 n, [number]; setp.lt.u32 p, n, 2; @p bra small;
sub.u32 x, n, 1;
{ .param .b32 a; .param .b32 r; st.param.b32 [a], x; call.uni (r), fibonacci, (a); ld.param.b32 y, [r]; }
sub.u32 x, n, 2;
{ .param .b32 a; .param .b32 r; st.param.b32 [a], x; call.uni (r), fibonacci, (a); ld.param.b32 x, [r]; }
add.u32 y, y, x; st.param.b32 [result], y; ret;
small: st.param.b32 [result], n; ret;
}";

fn fibonacci(n: u32) -> u32 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

#[test]
fn recursion() {
    let mut t = Table::default();
    // Lanes of a warp at different depths; `c` lives through the call.
    let call = "{ .param .b32 a1; .param .b32 r1; st.param.b32 [a1], a; call.uni (r1), fibonacci, (a1);
        ld.param.b32 t, [r1]; }";
    let body = format!("and.b32 a, a, 7; {call} add.u32 t, t, c; st.global.u32 [out], t; ret;");
    t.kernel(FIBONACCI, &body, |i, inp| [fibonacci(inp[i][0] & 7).wrapping_add(inp[i][2]), 0, 0, 0]);
    // Some lanes only, in a loop, with a vote of all lanes after each.
    let body = format!(
        "and.b32 a, a, 7; mov.u32 u, 0; mov.u32 b, 0; mov.u32 t, 0;
         next: setp.gt.u32 p, a, u; mov.u32 t, 0; @!p bra skip; {call}
         skip: add.u32 b, b, t; bar.warp.sync -1; vote.sync.ballot.b32 v, p, -1; popc.b32 v, v; add.u32 b, b, v;
         add.u32 u, u, 1; setp.lt.u32 q, u, 4; @q bra next; st.global.u32 [out], b; ret;"
    );
    t.kernel(FIBONACCI, &body, |i, inp| {
        let warp = &inp[i / 32 * 32..][..32];
        let (own, of) = (inp[i][0] & 7, |words: &[u32; 4]| words[0] & 7);
        let rounds = (0..4).map(|u| {
            let active = warp.iter().filter(|words| of(words) > u).count() as u32;
            active + if own > u { fibonacci(own) } else { 0 }
        });
        [rounds.sum(), 0, 0, 0]
    });
}

#[test]
fn variables_of_each_call() {
    let mut t = Table::default();
    // Each call keeps a number of its own and adds to its caller's through a pointer: 1 + 2 + … + n above it.
    let module = ".func (.param .b32 result) climb (.param .b32 number, .param .b64 above)
        {
        .local .align 16 .b8 own[32]; .reg .pred p; .reg .b32 n, x, y; .reg .b64 at, mine;
        ld.param.u32 n, [number]; ld.param.u64 at, [above]; mov.u64 mine, own; cvta.local.u64 mine, mine;
        st.local.u32 [own+16], n; setp.eq.u32 p, n, 0; @p bra up;
        sub.u32 x, n, 1;
        { .param .b32 a0; .param .b64 a1; .param .b32 r; st.param.b32 [a0], x; add.u64 mine, mine, 16;
          st.param.b64 [a1], mine; call.uni (r), climb, (a0, a1); ld.param.b32 y, [r]; }
        up: ld.local.u32 x, [own+16]; ld.u32 y, [at]; add.u32 y, y, x; st.u32 [at], y;
        st.param.b32 [result], x; ret;
        }";
    let body = ".local .align 8 .b8 top[8]; and.b32 a, a, 15; st.local.u32 [top+4], b; mov.u64 x, top;
        cvta.local.u64 x, x; add.u64 x, x, 4;
        { .param .b32 a0; .param .b64 a1; .param .b32 r; st.param.b32 [a0], a; st.param.b64 [a1], x;
          call.uni (r), climb, (a0, a1); ld.param.b32 t, [r]; }
        ld.local.u32 u, [top+4]; st.global.v2.u32 [out], {t, u}; ret;";
    t.kernel(module, body, |i, inp| {
        let n = inp[i][0] & 15;
        let sum = n * (n + 1) / 2;
        [sum, inp[i][1].wrapping_add(sum), 0, 0]
    });
}

/// Three functions of one type, their addresses in memory, and a call through one of them.
const TABLE: &str = ".func (.param .b32 result) twice (.param .b32 x)
    { .reg .b32 t; ld.param.u32 t, [x]; add.u32 t, t, t; st.param.b32 [result], t; ret; }
    .func (.param .b32 result) square (.param .b32 x)
    { .reg .b32 t; ld.param.u32 t, [x]; mul.lo.u32 t, t, t; st.param.b32 [result], t; ret; }
    .func (.param .b32 result) store (.param .b32 x)
    { .local .b32 own; .reg .b32 t; ld.param.u32 t, [x]; not.b32 t, t; st.local.u32 [own], t;
      ld.local.u32 t, [own]; st.param.b32 [result], t; ret; }
    .global .align 8 .u64 functions[3] = {twice, square, store};";

const CALL: &str = "{ .param .b32 a0; .param .b32 r0; st.param.b32 [a0], b;
    prototype: .callprototype (.param .b32 _) _ (.param .b32 _);
    call (r0), y, (a0), prototype; ld.param.b32 t, [r0]; }";

#[test]
fn addresses_of_functions() {
    let mut t = Table::default();
    let call = |which: u32, x: u32| match which {
        0 => x.wrapping_add(x),
        1 => x.wrapping_mul(x),
        _ => !x,
    };
    let body = format!(
        "rem.u32 a, a, 3; mov.u64 x, functions; mad.wide.u32 x, a, 8, x; ld.global.u64 y, [x]; {CALL}
         add.u32 t, t, d; st.global.u32 [out], t; ret;"
    );
    t.kernel(TABLE, &body, |i, inp| {
        let [a, b, _, d] = inp[i];
        [call(a % 3, b).wrapping_add(d), 0, 0, 0]
    });
    // The same value wherever the address is taken.
    let body = format!(
        "mov.u64 y, square; ld.global.u64 x, [functions+8]; setp.eq.u64 p, x, y; selp.u32 u, 1, 0, p; {CALL}
         st.global.v2.u32 [out], {{t, u}}; ret;"
    );
    t.kernel(TABLE, &body, |i, inp| [call(1, inp[i][1]), 1, 0, 0]);
}

/// A function that keeps `number + 1` words on its stack while it calls itself, each frame's words of their own.
const PILE: &str = ".func (.param .b32 result) pile (.param .b32 number)
{
.reg .pred p; .reg .b32 n, i, s, x; .reg .b64 own, at, bytes;
ld.param.u32 n, [number]; mad.lo.u32 i, n, 4, 4; cvt.u64.u32 bytes, i; alloca.u64 own, bytes, 16;
mov.u32 i, 0; mov.u64 at, own; mov.u32 s, 0;
fill: mad.lo.u32 x, n, 100, i; st.local.u32 [at], x; add.u64 at, at, 4; add.u32 i, i, 1; setp.le.u32 p, i, n; @p bra fill;
setp.eq.u32 p, n, 0; @p bra sum; sub.u32 x, n, 1;
{ .param .b32 a; .param .b32 r; st.param.b32 [a], x; call.uni (r), pile, (a); ld.param.b32 s, [r]; }
sum: mov.u32 i, 0; mov.u64 at, own;
next: ld.local.u32 x, [at]; add.u32 s, s, x; add.u64 at, at, 4; add.u32 i, i, 1; setp.le.u32 p, i, n; @p bra next;
st.param.b32 [result], s; ret;
}";

#[test]
fn memory_on_the_stack() {
    let mut t = Table::default();
    let pile = |n: u32| (0..=n).map(|n| (0..=n).map(|i| n * 100 + i).sum::<u32>()).sum::<u32>();
    // Again and again: each return gives the frame back. The kernel's own words stay.
    let body = "and.b32 a, a, 15; mov.u32 u, 0; mov.u32 d, 0; alloca.u64 y, 8; st.local.u32 [y+4], b;
        again: { .param .b32 a1; .param .b32 r1; st.param.b32 [a1], a; call.uni (r1), pile, (a1); ld.param.b32 t, [r1]; }
        add.u32 u, u, t; add.u32 d, d, 1; setp.lt.u32 p, d, 40; @p bra again;
        ld.local.u32 t, [y+4]; st.global.v2.u32 [out], {u, t}; ret;";
    t.kernel(PILE, body, |i, inp| [40 * pile(inp[i][0] & 15), inp[i][1], 0, 0]);
    // Aligned, to 8 at least, one apart from the other, through generic addresses; and given back by stackrestore.
    let body = "and.b32 a, a, 31; add.u32 a, a, 1; cvt.u64.u32 x, a; stacksave.u64 y; alloca.u64 at, x, 64;
        cvt.u32.u64 t, at; and.b32 t, t, 63; cvta.local.u64 at, at; st.u8 [at], b; alloca.u64 x, x, 1; cvt.u32.u64 v, x;
        and.b32 v, v, 7; or.b32 t, t, v; cvta.local.u64 x, x; st.u8 [x], c; sub.u64 x, at, x; cvt.u32.u64 u, x; setp.ge.u32 p, u, a; selp.u32 u, 1, 0, p; ld.u8 v, [at];
        stackrestore.u64 y; cvt.u64.u32 x, a; alloca.u64 x, x, 64; cvta.local.u64 x, x; sub.u64 x, x, at; cvt.u32.u64 s, x;
        st.global.v4.u32 [out], {t, u, v, s}; ret;";
    t.kernel("", body, |i, inp| [0, 1, inp[i][1] & 255, 0]);
}

/// The message of a fault in the kernel `f`.
fn message_of(module: &str, body: &str) -> Option<String> {
    let ptx = format!(
        "{HEADER}{module}\n.visible .entry f(.param .u64 out)\n{{\n.reg .pred p; .reg .b32 t, b; .reg .b64 y;\n{body}\n}}\n"
    );
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    fault(&ptx, "f", shape, &Setup { cluster: 1, ..Setup::default() }, &mut [vec![0; 4]])
}

#[test]
fn calls_that_cannot_be() {
    let endless = ".func endless (.param .b32 x)
        { .reg .b32 t; ld.param.u32 t, [x]; { .param .b32 a; st.param.b32 [a], t; call.uni endless, (a); } ret; }";
    let body = "{ .param .b32 a; st.param.b32 [a], 1; call.uni endless, (a); } ret;";
    if let Some(message) = message_of(endless, body) {
        assert!(message.contains("the stack of 16384 bytes is full"), "{message}");
    }
    if let Some(message) = message_of(TABLE, &format!("mov.u64 y, 12345; mov.u32 b, 1; {CALL} ret;")) {
        assert!(message.contains("a call of 0x3039, which is no function's address"), "{message}");
    }
}

#[test]
fn a_thread_may_end_in_a_function() {
    let mut t = Table::default();
    // It exits before it has written; the next CTA begins with a stack of its own.
    let module = ".func leave (.param .b32 x)
        { .reg .pred p; .reg .b32 t; ld.param.u32 t, [x]; setp.eq.u32 p, t, 0; @p exit; sub.u32 t, t, 1;
          { .param .b32 a; st.param.b32 [a], t; call.uni leave, (a); } ret; }";
    let body = "and.b32 a, a, 3; setp.lt.u32 p, b, 0x80000000; st.global.u32 [out], 1; @p bra done;
        { .param .b32 a0; st.param.b32 [a0], a; call.uni leave, (a0); } st.global.u32 [out], 3;
        done: st.global.u32 [out+4], 2; ret;";
    t.kernel(module, body, |i, inp| [1, if inp[i][1] < 0x8000_0000 { 2 } else { 0 }, 0, 0]);
}

#[test]
fn memory_of_the_device_heap() {
    let mut t = Table::default();
    let module = ".extern .func (.param .b64 result) malloc (.param .b64 bytes);
        .extern .func free (.param .b64 address);";
    let body = "and.b32 u, a, 63; add.u32 u, u, 8; cvt.u64.u32 x, u;
        { .param .b64 a0; .param .b64 r0; st.param.b64 [a0], x; call.uni (r0), malloc, (a0); ld.param.b64 y, [r0]; }
        setp.eq.u64 p, y, 0; @p ret; st.u32 [y+4], b; bar.sync 0; ld.u32 t, [y+4]; st.global.u32 [out], t;
        { .param .b64 a0; st.param.b64 [a0], y; call.uni free, (a0); }
        { .param .b64 a0; st.param.b64 [a0], 0; call.uni free, (a0); } ret;";
    t.kernel(module, body, |i, inp| [inp[i][1], 0, 0, 0]);
}
