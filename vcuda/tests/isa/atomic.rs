//! `atom` and `red` on global and shared memory, PTX ISA 9.7.13.

use crate::half::decode;
use crate::lanes::{BLOCK, Combine, GRID, Table};
use crate::rounding::{BF16, F16, Format, Mode};

/// An operation that any order of threads takes to one value: the operand of thread `i` is `inp[i][0]`,
/// prepared by a statement, and so is the first value in memory.
struct Reduction {
    operation: &'static str,
    prepare: &'static str,
    initial: u64,
    fold: fn(u64, u32) -> u64,
}

fn small(v: u32) -> u64 {
    (v & 0xff) as u64
}

fn add_f32(sum: u64, v: u32) -> u64 {
    (f32::from_bits(sum as u32) + small(v) as f32).to_bits() as u64
}

fn add_f64(sum: u64, v: u32) -> u64 {
    (f64::from_bits(sum) + small(v) as f64).to_bits()
}

const FLOAT: &str = "and.b32 a, a, 255; cvt.rn.f32.u32 a, a;";
const DOUBLE: &str = "and.b32 a, a, 255; cvt.rn.f64.u32 x, a;";
const WIDE: &str = "cvt.u64.u32 x, a; mul.lo.u64 x, x, 0x100000001;";

fn doubled(v: u32) -> u64 {
    (v as u64) << 32 | v as u64
}

const REDUCTIONS: [Reduction; 19] = [
    Reduction {
        operation: "add.u32",
        prepare: "",
        initial: 5,
        fold: |d, v| (d as u32).wrapping_add(v) as u64,
    },
    Reduction {
        operation: "add.s32",
        prepare: "",
        initial: 5,
        fold: |d, v| (d as u32).wrapping_add(v) as u64,
    },
    Reduction { operation: "min.u32", prepare: "", initial: !0, fold: |d, v| (d as u32).min(v) as u64 },
    Reduction { operation: "max.u32", prepare: "", initial: 0, fold: |d, v| (d as u32).max(v) as u64 },
    Reduction {
        operation: "min.s32",
        prepare: "",
        initial: 0,
        fold: |d, v| (d as i32).min(v as i32) as u32 as u64,
    },
    Reduction {
        operation: "max.s32",
        prepare: "",
        initial: 0,
        fold: |d, v| (d as i32).max(v as i32) as u32 as u64,
    },
    Reduction {
        operation: "and.b32",
        prepare: "or.b32 a, a, 0xff00;",
        initial: !0,
        fold: |d, v| d & (v | 0xff00) as u64,
    },
    Reduction {
        operation: "or.b32",
        prepare: "and.b32 a, a, 0xff00;",
        initial: 1,
        fold: |d, v| d | (v & 0xff00) as u64,
    },
    Reduction { operation: "xor.b32", prepare: "", initial: 1, fold: |d, v| d ^ v as u64 },
    // Counting up to 40 and round again, and down from it.
    Reduction {
        operation: "inc.u32",
        prepare: "mov.u32 a, 40;",
        initial: 3,
        fold: |d, _| if d >= 40 { 0 } else { d + 1 },
    },
    Reduction {
        operation: "dec.u32",
        prepare: "mov.u32 a, 40;",
        initial: 3,
        fold: |d, _| if d == 0 || d > 40 { 40 } else { d - 1 },
    },
    // Whole numbers this small add up exactly in any order.
    Reduction { operation: "add.f32", prepare: FLOAT, initial: 0x3f80_0000, fold: add_f32 },
    Reduction { operation: "add.f64", prepare: DOUBLE, initial: 0, fold: add_f64 },
    Reduction { operation: "add.u64", prepare: WIDE, initial: 7, fold: |d, v| d.wrapping_add(doubled(v)) },
    Reduction { operation: "min.u64", prepare: WIDE, initial: !0, fold: |d, v| d.min(doubled(v)) },
    Reduction {
        operation: "max.s64",
        prepare: WIDE,
        initial: 0,
        fold: |d, v| (d as i64).max(doubled(v) as i64) as u64,
    },
    Reduction { operation: "and.b64", prepare: WIDE, initial: !0, fold: |d, v| d & doubled(v) },
    Reduction { operation: "or.b64", prepare: WIDE, initial: 0, fold: |d, v| d | doubled(v) },
    Reduction { operation: "xor.b64", prepare: WIDE, initial: 0, fold: |d, v| d ^ doubled(v) },
];

#[test]
fn reductions_over_a_block_and_the_grid() {
    let mut t = Table::default();
    for Reduction { operation, prepare, initial, fold } in REDUCTIONS {
        let bits = if operation.ends_with("64") { 64 } else { 32 };
        let operand = if bits == 64 { "x" } else { "a" };
        let initial = if bits == 64 { initial } else { initial & 0xffff_ffff };
        let result = |inp: &[[u32; 4]]| {
            let d = inp.iter().fold(initial, |d, words| fold(d, words[0]));
            [d as u32, (d >> 32) as u32, 0, 0]
        };
        for instruction in [format!("atom.shared.{operation} t64,"), format!("red.shared.{operation}")] {
            let body = format!(
                ".reg .b{bits} t64; {prepare} setp.ne.u32 p, tid, 0;
                 @!p mov.b64 y, {initial:#x}; @!p st.shared.u{bits} [sum], y;
                 bar.sync 0; {instruction} [sum], {operand}; bar.sync 0;
                 ld.shared.u{bits} y, [sum]; st.global.u64 [out], y; ret;"
            );
            let module = ".shared .align 8 .b8 sum[8];";
            t.kernel(module, &body, |i, inp| result(&inp[i / BLOCK * BLOCK..][..BLOCK]));
        }
        // Over the grid: the last thread to come, by a counter, writes the sum.
        for instruction in
            [format!("atom.global.{operation} t64,"), format!("red.relaxed.gpu.global.{operation}")]
        {
            let module = format!(".global .align 8 .u{bits} sum = {initial:#x}; .global .u32 arrived = 0;");
            let body = format!(
                ".reg .b{bits} t64; {prepare} {instruction} [sum], {operand}; membar.gl;
                 atom.global.add.u32 t, [arrived], 1; setp.ne.u32 p, t, {}; @p ret;
                 ld.volatile.global.u{bits} y, [sum]; ld.param.u64 out, [outs]; st.global.u64 [out], y; ret;",
                GRID - 1
            );
            t.kernel(&module, &body, |i, inp| if i == 0 { result(inp) } else { [0; 4] });
        }
    }
}

#[test]
fn old_values_come_back() {
    let mut t = Table::default();
    // Each thread on a word of its own.
    let cases: [(&str, Combine); 8] = [
        ("atom.global.exch.b32 t, [in], b;", |_, b| b),
        ("atom.global.add.u32 t, [in], b;", u32::wrapping_add),
        ("atom.global.min.s32 t, [in], b;", |a, b| (a as i32).min(b as i32) as u32),
        ("atom.global.cas.b32 t, [in], a, b;", |_, b| b),
        ("atom.global.cas.b32 t, [in], b, c;", |a, _| a),
        ("atom.exch.b32 t, [in], b;", |_, b| b),
        ("atom.acq_rel.gpu.global.xor.b32 t, [in], b;", |a, b| a ^ b),
        ("atom.relaxed.cta.global.max.u32 t, [in], b;", u32::max),
    ];
    for (instruction, update) in cases {
        let body = format!("{instruction} ld.global.u32 u, [in]; st.global.v2.u32 [out], {{t, u}}; ret;");
        t.kernel("", &body, |i, inp| [inp[i][0], update(inp[i][0], inp[i][1]), 0, 0]);
    }
    let wide = "ld.global.u64 x, [in]; ld.global.u64 y, [in+8]; atom.global.cas.b64 at, [in], x, y;
        ld.global.u64 x, [in]; st.global.v2.u64 [out], {at, x}; ret;";
    t.kernel("", wide, |i, inp| inp[i]);
    let exchange = "ld.global.u64 y, [in+8]; atom.global.exch.b64 at, [in], y;
        ld.global.u64 x, [in]; st.global.v2.u64 [out], {at, x}; ret;";
    t.kernel("", exchange, |i, inp| inp[i]);
}

#[test]
fn a_counter_gives_each_thread_its_own_ticket() {
    let mut t = Table::default();
    // Tickets of a block are a permutation of 0 … 127: their sum and the sum of their squares.
    let module = ".shared .align 4 .b8 sums[12];";
    let body = "setp.ne.u32 p, tid, 0; @p bra ready;
        st.shared.u32 [sums], 0; st.shared.u32 [sums+4], 0; st.shared.u32 [sums+8], 0;
        ready: bar.sync 0; atom.shared.add.u32 t, [sums], 1; mul.lo.u32 u, t, t;
        red.shared.add.u32 [sums+4], t; red.shared.add.u32 [sums+8], u; bar.sync 0;
        ld.shared.u32 a, [sums]; ld.shared.u32 b, [sums+4]; ld.shared.u32 c, [sums+8]; mov.u32 d, 0;
        st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel(module, body, |_, _| [128, 127 * 128 / 2, 127 * 128 * 255 / 6, 0]);
}

#[test]
fn a_lock_made_of_compare_and_swap() {
    let mut t = Table::default();
    // Lanes of one warp contend: whoever holds the lock must get to run on.
    let module = ".shared .align 4 .b8 lock[4]; .shared .align 4 .b8 sum[4];";
    let body = "setp.ne.u32 p, tid, 0; @p bra ready; st.shared.u32 [lock], 0; st.shared.u32 [sum], 0;
        ready: bar.sync 0;
        again: atom.shared.cas.b32 t, [lock], 0, 1; setp.ne.u32 p, t, 0; @p bra again;
        membar.cta; ld.volatile.shared.u32 u, [sum]; add.u32 u, u, tid; st.volatile.shared.u32 [sum], u; membar.cta;
        atom.shared.exch.b32 t, [lock], 0;
        bar.sync 0; ld.shared.u32 u, [sum]; st.global.u32 [out], u; ret;";
    t.kernel(module, body, |_, _| [127 * 128 / 2, 0, 0, 0]);
}

/// Sums, minima and maxima of two 16-bit floats.
fn combine(operation: &str, a: u16, b: u16, format: &Format) -> u16 {
    let (x, y) = (decode(a, format), decode(b, format));
    match operation {
        "add" => format.encode(format.round(x + y, Mode::Nearest), 16) as u16,
        "min" => {
            if y < x {
                b
            } else {
                a
            }
        }
        _ => {
            if y > x {
                b
            } else {
                a
            }
        }
    }
}

/// Words of an input made finite halves, of a size whose sums float64 holds.
fn finite(word: u32) -> u32 {
    word & 0xbfff_bfff | 0x3000_3000
}

fn pair(operation: &str, a: u32, b: u32, format: &Format) -> u32 {
    let half = |shift: u32| combine(operation, (a >> shift) as u16, (b >> shift) as u16, format) as u32;
    half(16) << 16 | half(0)
}

const FINITE: &str = "and.b32 a, a, 0xbfffbfff; or.b32 a, a, 0x30003000; and.b32 b, b, 0xbfffbfff;
    or.b32 b, b, 0x30003000; and.b32 c, c, 0xbfffbfff; or.b32 c, c, 0x30003000; and.b32 d, d, 0xbfffbfff;
    or.b32 d, d, 0x30003000; st.global.v4.u32 [out], {a, b, c, d};";

#[test]
fn halves_and_pairs() {
    let mut t = Table::default();
    for (name, format) in [("f16", &F16), ("bf16", &BF16)] {
        // Each thread on a word of its own: the old value and the new one.
        let body = format!(
            "{FINITE} atom.global.add.noftz.{name}x2 t, [out], b; ld.global.u32 u, [out];
             st.global.v2.u32 [out], {{t, u}}; ret;"
        );
        t.kernel("", &body, |i, inp| {
            let [a, b, c, d] = inp[i].map(finite);
            [a, pair("add", a, b, format), c, d]
        });
        let body = format!(
            "{FINITE} .reg .b16 h, k; mov.b32 {{h, _}}, b; atom.add.noftz.{name} k, [out+2], h;
             red.global.add.noftz.{name} [out+4], h; mov.b32 t, {{k, h}}; st.global.u32 [out+8], t; ret;"
        );
        t.kernel("", &body, |i, inp| {
            let [a, b, _, d] = inp[i].map(finite);
            let (high, low) = ((a >> 16) as u16, b as u16);
            let sum = (combine("add", high, low, format) as u32) << 16 | a & 0xffff;
            let double = b & 0xffff_0000 | combine("add", low, low, format) as u32;
            [sum, double, (low as u32) << 16 | high as u32, d]
        });
    }
    let swap =
        ".reg .b16 h, k, m; mov.b32 {h, k}, a; st.global.u32 [out], a; atom.global.cas.b16 m, [out], h, k;
        atom.global.cas.b16 h, [out+2], m, m; ld.global.u32 t, [out]; mov.b32 u, {m, h};
        st.global.v2.u32 [out], {t, u}; ret;";
    t.kernel("", swap, |i, inp| {
        let (low, high) = (inp[i][0] & 0xffff, inp[i][0] >> 16);
        [high << 16 | high, high << 16 | low, 0, 0]
    });
    // Over a block in shared memory: small whole numbers add up exactly in any order.
    let body = "and.b32 t, a, 0xf; cvt.rn.f16.u32 h, t; mov.b32 t, {h, h}; setp.ne.u32 p, tid, 0;
        @!p st.shared.u32 [sum], 0; bar.sync 0; red.shared.add.noftz.f16x2 [sum], t; bar.sync 0;
        ld.shared.u32 t, [sum]; st.global.u32 [out], t; ret;";
    let body = format!(".reg .b16 h; {body}");
    t.kernel(".shared .align 4 .b8 sum[4];", &body, |i, inp| {
        let sum: u32 = inp[i / BLOCK * BLOCK..][..BLOCK].iter().map(|words| words[0] & 0xf).sum();
        let half = F16.encode(sum as f64, 16) as u32;
        [half << 16 | half, 0, 0, 0]
    });
}

#[test]
fn vectors() {
    let mut t = Table::default();
    let float = "cvt.rn.f32.s32 a, a; cvt.rn.f32.s32 b, b; cvt.rn.f32.s32 c, c; cvt.rn.f32.s32 d, d;
        st.global.v4.f32 [out], {a, b, c, d};";
    let value = |word: u32| word as i32 as f32;
    t.kernel(
        "",
        &format!(
            "{float} atom.global.v4.f32.add {{a, b, c, d}}, [out], {{d, c, b, a}};
        red.global.add.v4.f32 [out], {{a, b, c, d}}; ret;"
        ),
        |i, inp| {
            let v = inp[i].map(value);
            std::array::from_fn(|n| ((v[n] + v[3 - n]) + v[n]).to_bits())
        },
    );
    t.kernel("", &format!("{float} red.global.add.v2.f32 [out+8], {{a, b}}; ret;"), |i, inp| {
        let [a, b, c, d] = inp[i].map(value);
        [a, b, c + a, d + b].map(f32::to_bits)
    });
    for (name, format) in [("f16", &F16), ("bf16", &BF16)] {
        for operation in ["add", "min", "max"] {
            let body =
                format!("{FINITE} red.global.{operation}.noftz.v4.{name}x2 [out], {{d, c, b, a}}; ret;");
            t.kernel("", &body, |i, inp| {
                let v = inp[i].map(finite);
                std::array::from_fn(|n| pair(operation, v[n], v[3 - n], format))
            });
            let body = format!(
                "{FINITE} .reg .b16 h<9>; mov.b32 {{h1, h2}}, c; mov.b32 {{h3, h4}}, d; mov.b32 {{h5, h6}}, c;
                 mov.b32 {{h7, h8}}, d; atom.global.v8.{name}.{operation}.noftz {{h1, h2, h3, h4, h5, h6, h7, h8}}, [out],
                 {{h1, h2, h3, h4, h5, h6, h7, h8}}; mov.b32 t, {{h1, h2}}; mov.b32 u, {{h7, h8}};
                 st.global.v2.u32 [out+8], {{t, u}}; ret;"
            );
            t.kernel("", &body, |i, inp| {
                let [a, b, c, d] = inp[i].map(finite);
                [pair(operation, a, c, format), pair(operation, b, d, format), a, d]
            });
        }
    }
}

#[test]
fn subnormals_are_flushed_in_global_memory_alone() {
    let mut t = Table::default();
    // Subnormals, and words of the smallest normal binade, of both signs.
    let prepare =
        "and.b32 a, a, 0x807fffff; and.b32 b, b, 0x80ffffff; st.global.u32 [out], a; mul.wide.u32 x, tid, 4;
        mov.u64 y, tile; add.u64 y, y, x; st.shared.u32 [y], a; cvta.shared.u64 x, y;";
    let operands = |words: &[u32; 4]| [words[0] & 0x807f_ffff, words[1] & 0x80ff_ffff];
    let zero = |bits: u32| if bits & 0x7fff_ffff < 0x0080_0000 { bits & 0x8000_0000 } else { bits };
    let sum =
        |a: u32, b: u32| ((f64::from(f32::from_bits(a)) + f64::from(f32::from_bits(b))) as f32).to_bits();
    let flushed = |a: u32, b: u32| zero(sum(zero(a), zero(b)));
    let module = ".shared .align 4 .b8 tile[512];";
    for (add, is_shared) in [
        ("atom.global.add.f32 t, [out], b; ld.global.u32 u, [out];", false),
        ("mov.u32 t, a; red.global.add.f32 [out], b; ld.global.u32 u, [out];", false),
        ("atom.add.f32 t, [out], b; ld.global.u32 u, [out];", false),
        ("atom.shared.add.f32 t, [y], b; ld.shared.u32 u, [y];", true),
        ("mov.u32 t, a; red.shared.add.f32 [y], b; ld.shared.u32 u, [y];", true),
        ("atom.add.f32 t, [x], b; ld.shared.u32 u, [y];", true),
    ] {
        let body = format!("{prepare} {add} st.global.v4.u32 [out], {{t, u, b, b}}; ret;");
        t.kernel(module, &body, |i, inp| {
            let [a, b] = operands(&inp[i]);
            [a, if is_shared { sum(a, b) } else { flushed(a, b) }, b, b]
        });
    }
    let vector = "and.b32 a, a, 0x807fffff; and.b32 b, b, 0x80ffffff; st.global.v2.u32 [out], {a, b};
        red.global.add.v2.f32 [out], {b, a}; ret;";
    t.kernel("", vector, |i, inp| {
        let [a, b] = operands(&inp[i]);
        [flushed(a, b), flushed(b, a), 0, 0]
    });
}
