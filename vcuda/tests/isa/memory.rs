//! Loads and stores of every width and vector in every state space, and addresses, PTX ISA 9.7.9.

use crate::device::{Setup, Shape, VALUE, fault, run_with};
use crate::lanes::{BLOCK, HEADER, Table};

const TYPES: [(&str, usize, bool); 12] = [
    ("u8", 1, false),
    ("s8", 1, true),
    ("b8", 1, false),
    ("u16", 2, false),
    ("s16", 2, true),
    ("b16", 2, false),
    ("u32", 4, false),
    ("s32", 4, true),
    ("f32", 4, false),
    ("b64", 8, false),
    ("s64", 8, false),
    ("f64", 8, false),
];

fn bytes(words: [u32; 4]) -> [u8; 16] {
    std::array::from_fn(|i| words[i / 4].to_le_bytes()[i % 4])
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| bytes[4 * i + j])))
}

/// A state space: module-scope text, statements that put the thread's words there and set `at`, its name in
/// `ld` and `st`, and whether it can be written.
struct Place {
    name: &'static str,
    module: &'static str,
    setup: &'static str,
    writable: bool,
}

const PLACES: [Place; 7] = [
    Place { name: ".global", module: "", setup: "mov.b64 at, in;", writable: true },
    Place {
        name: ".shared",
        module: ".shared .align 16 .b8 tile[2048];",
        setup: "mov.u64 at, tile; mad.wide.u32 at, tid, 16, at; st.shared.v4.u32 [at], {a, b, c, d};",
        writable: true,
    },
    Place {
        name: ".local",
        module: "",
        setup: ".local .align 16 .b8 mine[32]; mov.u64 at, mine; add.u64 at, at, 16; st.local.v4.u32 [at], {a, b, c, d};",
        writable: true,
    },
    Place { name: "", module: "", setup: "cvta.global.u64 at, in;", writable: true },
    Place {
        name: "",
        module: ".shared .align 16 .b8 tile[2048];",
        setup: "mov.u64 at, tile; cvta.shared.u64 at, at; mad.wide.u32 at, tid, 16, at; st.v4.u32 [at], {a, b, c, d};",
        writable: true,
    },
    Place {
        name: "",
        module: "",
        setup: ".local .align 16 .b8 mine[32]; mov.u64 at, mine; cvta.local.u64 at, at; add.u64 at, at, 16; st.v4.u32 [at], {a, b, c, d};",
        writable: true,
    },
    Place { name: ".global.nc", module: "", setup: "mov.b64 at, in;", writable: false },
];

#[test]
fn scalars_extend_into_wider_registers() {
    let mut t = Table::default();
    for Place { name, module, setup, .. } in PLACES {
        for (ty, size, signed) in TYPES {
            // The last element that fits, so that the offset counts.
            let offset = 16 - size;
            let load = format!("{setup} ld{name}.{ty} x, [at+{offset}]; st.global.u64 [out], x; ret;");
            t.kernel(module, &load, |i, inp| extended(&bytes(inp[i])[offset..], signed));
        }
    }
}

/// The value in `bytes`, extended to 64 bits, as the first two words.
fn extended(bytes: &[u8], signed: bool) -> [u32; 4] {
    let negative = signed && bytes[bytes.len() - 1] >= 0x80;
    let fill = if negative { 0xff } else { 0 };
    let mut out = [0; 16];
    for (i, byte) in out[..8].iter_mut().enumerate() {
        *byte = *bytes.get(i).unwrap_or(&fill);
    }
    words(out)
}

#[test]
fn vectors_load_and_store() {
    let mut t = Table::default();
    for Place { name, module, setup, writable } in PLACES {
        for (ty, size, _) in TYPES {
            for width in [1, 2, 4] {
                if width * size > 16 {
                    continue;
                }
                let registers = ["v0", "v1", "v2", "v3"][..width].join(", ");
                let vector = if width > 1 { format!(".v{width}") } else { String::new() };
                let list = if width > 1 { format!("{{{registers}}}") } else { registers.clone() };
                let bits = 8 * size.max(2);
                let offset = 16 - width * size;
                let start = format!(".reg .b{bits} {registers}; {setup}");
                let load = format!(
                    "ld{name}{vector}.{ty} {list}, [at+{offset}]; st.global{vector}.{ty} [out], {list};"
                );
                t.kernel(module, &format!("{start} {load} ret;"), |i, inp| {
                    let mut out = [0; 16];
                    out[..width * size].copy_from_slice(&bytes(inp[i])[offset..]);
                    words(out)
                });
                if !writable {
                    continue;
                }
                // The low bytes go to the place's end; all of it is read back.
                let store = format!(
                    "ld.global{vector}.{ty} {list}, [in]; st{name}{vector}.{ty} [at+{offset}], {list};
                     ld{name}.v4.u32 {{a, b, c, d}}, [at]; st.global.v4.u32 [out], {{a, b, c, d}};"
                );
                t.kernel(module, &format!("{start} {store} ret;"), |i, inp| {
                    let source = bytes(inp[i]);
                    let mut out = source;
                    out[offset..].copy_from_slice(&source[..width * size]);
                    words(out)
                });
            }
        }
    }
}

/// Four lanes side by side, and the next four elsewhere: a row of a matrix's fragment each.
#[test]
fn rows_of_fragments() {
    let mut t = Table::default();
    for (vector, list) in [("", "a"), (".v2", "{a, b}"), (".v4", "{a, b, c, d}")] {
        let width = if vector.is_empty() { 4 } else { 4 * list.split(',').count() };
        for name in [".shared", ""] {
            let window = if name.is_empty() { "cvta.shared.u64 at, at;" } else { "" };
            let body = format!(
                "mov.u64 at, tile; {window} mad.wide.u32 x, tid, 16, at; mov.u32 t, -1; st{name}.v4.u32 [x], {{t, t, t, t}};
                 bar.warp.sync -1; shr.u32 t, tid, 2; mad.wide.u32 at, t, 64, at; and.b32 t, tid, 3;
                 mad.wide.u32 at, t, {width}, at; st{name}{vector}.u32 [at], {list}; bar.warp.sync -1;
                 ld{name}.v4.u32 {{a, b, c, d}}, [x]; st.global.v4.u32 [out], {{a, b, c, d}}; ret;"
            );
            t.kernel(".shared .align 16 .b8 tile[2048];", &body, |i, inp| {
                std::array::from_fn(|word| {
                    let place = i % 4 * 16 + 4 * word;
                    let of = &inp[i / 4 * 4..];
                    if place < 4 * width { of[place / width][place % width / 4] } else { u32::MAX }
                })
            });
        }
    }
}

/// Shared memory by addresses of 32 bits: rows, turned rows of four, pairs that change places, lanes apart, one place.
#[test]
fn short_addresses_of_shared_memory() {
    let mut t = Table::default();
    let module = ".shared .align 16 .b8 tile[2048];";
    for (vector, list, words) in [("", "a", 1), (".v2", "{a, b}", 2), (".v4", "{a, b, c, d}", 4)] {
        let width = 4 * words;
        for turn in [0, 4, 2, 1, 8, 3] {
            let body = format!(
                "mov.u32 s, tile; xor.b32 t, tid, {turn}; mad.lo.u32 t, t, {width}, s; mad.lo.u32 u, tid, {width}, s;
                 add.u32 t, t, 64; st.shared{vector}.u32 [t+-64], {list}; bar.sync 0;
                 mov.u32 a, 0; mov.u32 b, 0; mov.u32 c, 0; mov.u32 d, 0; add.u32 u, u, 16;
                 ld.shared{vector}.u32 {list}, [u+-16]; st.global.v4.u32 [out], {{a, b, c, d}}; ret;"
            );
            t.kernel(module, &body, |i, inp| {
                std::array::from_fn(|word| if word < words { inp[i ^ turn][word] } else { 0 })
            });
        }
        let body = format!(
            "mov.u32 s, tile; mad.lo.u32 t, tid, {width}, s; st.shared{vector}.u32 [t], {list}; bar.sync 0;
             mov.u32 a, 0; mov.u32 b, 0; mov.u32 c, 0; mov.u32 d, 0;
             ld.shared{vector}.u32 {list}, [s+{}]; st.global.v4.u32 [out], {{a, b, c, d}}; ret;",
            9 * width
        );
        t.kernel(module, &body, |i, inp| {
            std::array::from_fn(|word| if word < words { inp[i / BLOCK * BLOCK + 9][word] } else { 0 })
        });
    }
}

/// A sum of an address of 32 bits and an offset does not begin again at zero, whichever way the lanes go.
#[test]
fn short_addresses_do_not_wrap() {
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    for lanes in ["mul.lo.u32 t, lane, 4;", "mul.lo.u32 t, lane, 8;", "mov.u32 t, 0;"] {
        for (base, offset, wanted) in [
            ("0xffffff80", "256", "at 0x100000080 is outside its"),
            ("0xfffffff0", "16", "at 0x100000000 is outside its"),
            ("0x80000000", "-2147483648", ""),
            ("64", "-128", "is outside its"),
            ("1984", "64", "is outside its"),
            ("2", "0", "misaligned"),
        ] {
            let ptx = format!(
                "{HEADER}.visible .entry k(.param .u64 outs, .param .u64 ins) {{
                 .shared .align 16 .b8 tile[2048]; .reg .b32 s, t, lane; mov.u32 lane, %laneid;
                 mov.u32 s, {base}; {lanes} add.u32 s, s, t; st.shared.u32 [s+{offset}], 1; ret; }}"
            );
            let mut buffers = [vec![0; 64], vec![0; 64]];
            if wanted.is_empty() {
                run_with(&ptx, "k", shape, &Setup::default(), &mut buffers).unwrap();
                continue;
            }
            let Some(found) = fault(&ptx, "k", shape, &Setup::default(), &mut buffers) else { return };
            assert!(found.contains(wanted), "{ptx}\n{found}");
        }
    }
}

#[test]
fn one_register_may_be_in_braces() {
    let mut t = Table::default();
    let text = "ld.global.u32 {a}, [in+4]; mov.b32 {b}, a; mov.b32 c, {b}; st.global.u32 [out], {c}; \
                ldu.global.u32 {d}, [in+8]; st.volatile.global.u32 [out+4], {d}; ret;";
    t.kernel("", text, |i, inp| [inp[i][1], inp[i][2], 0, 0]);
}

#[test]
fn parameters_and_constants() {
    let mut t = Table::default();
    let list = VALUE.map(|byte| byte.to_string()).join(", ");
    let module = format!(".const .align 16 .b8 table[16] = {{{list}}};");
    for (ty, size, signed) in TYPES {
        let offset = 16 - size;
        let expected = extended(&VALUE[offset..], signed);
        let store = "st.global.u64 [out], x; ret;";
        t.kernel("", &format!("ld.param.{ty} x, [value+{offset}]; {store}"), |_, _| expected);
        t.kernel(&module, &format!("ld.const.{ty} x, [table+{offset}]; {store}"), |_, _| expected);
        let indexed = format!("mov.u64 at, table; ld.const.{ty} x, [at+{offset}]; {store}");
        t.kernel(&module, &indexed, |_, _| expected);
        let generic = format!("mov.u64 at, table; cvta.const.u64 at, at; ld.{ty} x, [at+{offset}]; {store}");
        t.kernel(&module, &generic, |_, _| expected);
    }
    // A parameter's address, in 64 bits and in 32, where it is in its own space and where it is generic.
    for (ty, size, signed) in TYPES {
        let offset = 16 - size;
        let expected = extended(&VALUE[offset..], signed);
        let load = |address: &str, space: &str| {
            format!("{address} ld{space}.{ty} x, [at+{offset}]; st.global.u64 [out], x; ret;")
        };
        let narrow = "mov.b32 a, value; cvt.u64.u32 at, a;";
        t.kernel("", &load("mov.b64 at, value;", ".param"), |_, _| expected);
        t.kernel("", &load(narrow, ".param"), |_, _| expected);
        t.kernel("", &load("mov.b64 at, value; cvta.param.u64 at, at;", ""), |_, _| expected);
        t.kernel("", &load(&format!("{narrow} cvta.param.u64 at, at;"), ""), |_, _| expected);
        t.kernel("", &load("cvta.param.u64 at, value; cvta.to.param.u64 at, at;", ".param"), |_, _| expected);
        let by_32_bits =
            format!("mov.b32 a, value; ld.param.{ty} x, [a+{offset}]; st.global.u64 [out], x; ret;");
        t.kernel("", &by_32_bits, |_, _| expected);
    }
    let vector = "st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel("", &format!("ld.param.v4.u32 {{a, b, c, d}}, [value]; {vector}"), |_, _| words(VALUE));
    t.kernel(&module, &format!("ld.const.v4.u32 {{a, b, c, d}}, [table]; {vector}"), |_, _| words(VALUE));
}

#[test]
fn initialised_globals_and_their_addresses() {
    let mut t = Table::default();
    let module = ".global .align 4 .u32 table[6] = {10, 11, 12, 13};
        .global .align 8 .u64 third = generic(table)+8;
        .global .f32 half = 0.5; .global .b32 zero[2];";
    let body = "ld.global.u64 at, [third]; ld.u32 a, [at]; ld.u32 b, [at+8]; ld.global.f32 c, [half];
        ld.global.u32 d, [zero+4]; st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel(module, body, |_, _| [12, 0, 0.5f32.to_bits(), 0]);
}

#[test]
fn address_spaces_are_told_apart() {
    let mut t = Table::default();
    let module = ".shared .align 4 .b8 tile[4]; .global .b32 g = 2; .const .b32 fixed[2] = {3, 4};";
    let ask = "selp.u32 a, 1, 0, p; shl.b32 t, t, 1; or.b32 t, t, a;";
    let mut body = ".local .b32 mine; mov.u32 t, 0;".to_string();
    for (space, variable) in [("shared", "tile"), ("local", "mine"), ("global", "g"), ("const", "fixed+4")] {
        body += &format!(" mov.u64 x, {variable}; cvta.{space}.u64 x, x;");
        for asked in ["shared", "local", "global", "const"] {
            body += &format!(" isspacep.{asked} p, x; {ask}");
        }
    }
    body += " st.global.u32 [out], t; ret;";
    t.kernel(module, &body, |_, _| [0b1000_0100_0010_0001, 0, 0, 0]);
    let round_trip = "cvta.local.u64 x, y; cvta.to.local.u64 x, x; setp.eq.u64 p, x, y; selp.u32 t, 1, 0, p;";
    let body = format!(".local .b32 mine; mov.u64 y, mine; {round_trip} st.global.u32 [out], t; ret;");
    t.kernel("", &body, |_, _| [1, 0, 0, 0]);
}

#[test]
fn local_arrays_are_indexed_by_thread() {
    let mut t = Table::default();
    // Each thread rotates its four words by its own amount.
    let body = ".local .align 16 .b8 mine[16]; mov.u64 at, mine; st.local.v4.u32 [at], {a, b, c, d};
        add.u32 t, tid, 1; and.b32 t, t, 3; mad.wide.u32 x, t, 4, at; ld.local.u32 s, [x];
        add.u32 t, tid, 2; and.b32 t, t, 3; mad.wide.u32 x, t, 4, at; st.local.u32 [x], s;
        ld.local.v4.u32 {a, b, c, d}, [mine]; st.global.v4.u32 [out], {a, b, c, d}; ret;";
    t.kernel("", body, |i, inp| {
        let mut words = inp[i];
        words[(i + 2) % 4] = words[(i + 1) % 4];
        words
    });
}

#[test]
fn one_load_goes_wherever_its_lanes_say() {
    let mut t = Table::default();
    // To rows, to one place, in steps, to three kinds of memory at once, and with some lanes only; each twice, after the
    // others.
    let module = ".shared .align 4 .b8 tile[512];";
    let setup = ".local .b32 mine; .reg .b64 at<5>, own; mov.u64 own, mine; st.local.u32 [own], c; cvta.local.u64 own, own;
        mov.u64 y, tile; cvta.shared.u64 y, y; mad.wide.u32 x, tid, 4, y; st.u32 [x], a; bar.sync 0;
        mov.u64 at0, x; add.u64 at1, y, 20; sub.u32 u, 127, tid; mad.wide.u32 at2, u, 4, y;
        cvta.global.u64 at3, in; add.u64 at3, at3, 4;
        and.b32 u, lane, 3; setp.eq.u32 p, u, 1; selp.b64 at4, at3, at0, p; setp.eq.u32 p, u, 2; selp.b64 at4, own, at4, p;
        mov.u32 t, 0; mov.u32 u, 0; again: mov.u64 at, at0; setp.ge.u32 p, lane, 20;";
    let choose =
        (1..5).map(|n| format!("rem.u32 s, u, 5; setp.eq.u32 q, s, {n}; selp.b64 at, at{n}, at, q; "));
    let load = "setp.lt.u32 q, u, 5; mov.u32 v, 0; @!q bra all; @p bra left; all: ld.u32 v, [at]; left:
        mad.lo.u32 t, t, 31, v; add.u32 u, u, 1; setp.lt.u32 q, u, 10; @q bra again; st.global.u32 [out], t; ret;";
    let body = setup.to_string() + &choose.collect::<String>() + load;
    t.kernel(module, &body, |i, inp| {
        let block = i / 128 * 128;
        let mixed = [inp[i][0], inp[i][1], inp[i][2], inp[i][0]][i % 4];
        let values = [inp[i][0], inp[block + 5][0], inp[block + 127 - i % 128][0], inp[i][1], mixed];
        let first = values.map(|value| if i % 32 >= 20 { 0 } else { value });
        let sum = |sum: u32, value: &u32| sum.wrapping_mul(31).wrapping_add(*value);
        [first.iter().chain(&values).fold(0, sum), 0, 0, 0]
    });
}

#[test]
fn cache_and_order_modifiers_do_not_change_values() {
    let mut t = Table::default();
    for load in [
        "ld.global.ca.u32",
        "ld.global.cg.u32",
        "ld.global.cs.u32",
        "ld.global.lu.u32",
        "ld.volatile.global.u32",
        "ld.relaxed.gpu.global.u32",
        "ld.acquire.sys.global.u32",
        "ld.weak.global.u32",
        "ld.global.nc.L1::no_allocate.u32",
        "ld.global.L1::evict_last.u32",
        "ld.global.L2::128B.u32",
    ] {
        t.kernel("", &format!("{load} t, [in+4]; st.global.u32 [out], t; ret;"), |i, inp| {
            [inp[i][1], 0, 0, 0]
        });
    }
    for store in [
        "st.global.wb.u32",
        "st.global.cg.u32",
        "st.global.cs.u32",
        "st.global.wt.u32",
        "st.volatile.global.u32",
        "st.relaxed.cta.global.u32",
        "st.release.gpu.global.u32",
    ] {
        t.kernel("", &format!("{store} [out+8], a; ret;"), |i, inp| [0, 0, inp[i][0], 0]);
    }
    let hints = "prefetch.global.L2 [in]; prefetchu.L1 [in]; membar.gl; fence.acq_rel.gpu; fence.sc.cta;";
    t.kernel("", &format!("{hints} st.global.u32 [out], b; ret;"), |i, inp| [inp[i][1], 0, 0, 0]);
}

#[test]
fn shared_memory_crosses_threads_at_barriers() {
    let mut t = Table::default();
    // Each thread reads what the opposite thread of its block wrote, twice.
    let module = ".shared .align 4 .b8 tile[512];";
    let body = "mov.u64 at, tile; mad.wide.u32 x, tid, 4, at; sub.u32 t, 127, tid; mad.wide.u32 y, t, 4, at;
        st.shared.u32 [x], a; bar.sync 0; ld.shared.u32 c, [y]; bar.sync 0;
        st.shared.u32 [x], b; barrier.sync 0; ld.shared.u32 d, [y];
        st.global.v2.u32 [out], {c, d}; ret;";
    t.kernel(module, body, |i, inp| {
        let opposite = inp[i / 128 * 128 + 127 - i % 128];
        [opposite[0], opposite[1], 0, 0]
    });
}
