//! `printf` and `assert` in a kernel. The first of these tests runs the second in a process of its own, whose
//! stdout it reads.

use crate::device::{Setup, Shape, fault};
use crate::lanes::{HEADER, Table};
use std::process::Command;

/// A kernel of one thread a CTA that prints `format` with `arguments`, statements that fill the local array
/// `list`; the number of arguments goes to `out`.
fn printing(format: &str, arguments: &str) -> (String, String) {
    let bytes: Vec<String> = format.bytes().chain([0]).map(|byte| byte.to_string()).collect();
    let module = format!(
        ".extern .func (.param .b32 result) vprintf (.param .b64 format, .param .b64 arguments);
         .global .align 1 .b8 format[{}] = {{{}}};
         .global .align 1 .b8 word[6] = {{119, 111, 114, 100, 33, 0}};",
        bytes.len(),
        bytes.join(", ")
    );
    let body = format!(
        ".local .align 8 .b8 list[96]; setp.ne.u32 p, tid, 0; @p ret; {arguments}
         {{ .param .b64 a0; .param .b64 a1; .param .b32 r0;
         mov.u64 x, format; cvta.global.u64 x, x; st.param.b64 [a0], x;
         mov.u64 x, list; cvta.local.u64 x, x; st.param.b64 [a1], x;
         call.uni (r0), vprintf, (a0, a1); ld.param.b32 t, [r0]; }}
         st.global.u32 [out], t; ret;"
    );
    (module, body)
}

const CHILD: &str = "VCUDA_PRINTS";

#[test]
fn prints() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let mut t = Table::default();
    let cases = [
        ("CTA %u of %u\n", "mov.u32 t, %ctaid.x; st.local.u32 [list], t; st.local.u32 [list+4], 2;", 2),
        (
            "%d|%5d|%-5d|%05i|%+d|%x|%#X|%o\n",
            "st.local.u32 [list], -7; st.local.u32 [list+4], 42; st.local.u32 [list+8], 42;
             st.local.u32 [list+12], 42; st.local.u32 [list+16], 42; st.local.u32 [list+20], 0xbeef;
             st.local.u32 [list+24], 0xbeef; st.local.u32 [list+28], 8;",
            8,
        ),
        (
            "%f %.2f %e %g %8.3f|\n",
            "st.local.f64 [list], 0d3FF8000000000000; st.local.f64 [list+8], 0d3FF8000000000000;
             st.local.f64 [list+16], 0d40F86A0000000000; st.local.f64 [list+24], 0d3FE0000000000000;
             st.local.f64 [list+32], 0dC004000000000000;",
            5,
        ),
        (
            "%s %c %lld %llx %hhd %% %*d|%.3s|%zu\n",
            "mov.u64 y, word; cvta.global.u64 y, y; st.local.u64 [list], y; st.local.u32 [list+8], 90;
             st.local.u64 [list+16], -5000000000; st.local.u64 [list+24], 0xfedcba9876543210;
             st.local.u32 [list+32], 257; st.local.u32 [list+36], 4; st.local.u32 [list+40], 9;
             st.local.u64 [list+48], y; st.local.u64 [list+56], 12345678901;",
            9,
        ),
        ("%p\n", "mov.u64 y, 0xabc0; st.local.u64 [list], y;", 1),
        ("nothing\n", "", 0),
    ];
    for (format, arguments, count) in cases {
        let (module, body) = printing(format, arguments);
        t.kernel(&module, &body, |i, _| if i % 128 == 0 { [count, 0, 0, 0] } else { [0; 4] });
    }
}

#[test]
fn printed_text() {
    let program = std::env::current_exe().expect("a running program has a path");
    let child =
        Command::new(program).args(["--exact", "print::prints", "--nocapture"]).env(CHILD, "1").output();
    let output = child.expect("this program starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    // Each line once from each of two CTAs, the first CTA's first.
    for line in [
        "CTA 0 of 2\nCTA 1 of 2\n",
        "-7|   42|42   |00042|+42|beef|0XBEEF|10\n",
        "1.500000 1.50 1.000000e+05 0.5   -2.500|\n",
        "word! Z -5000000000 fedcba9876543210 1 %    9|wor|12345678901\n",
        "0xabc0\n",
        "nothing\n",
    ] {
        let twice = if line.starts_with("CTA") { line.to_string() } else { line.repeat(2) };
        assert!(text.contains(&twice), "no {twice:?} in:\n{text}");
    }
}

#[test]
fn a_failed_assertion_says_what_and_where() {
    let string = |name: &str, text: &str| {
        let bytes: Vec<String> = text.bytes().chain([0]).map(|byte| byte.to_string()).collect();
        format!(".global .align 1 .b8 {name}[{}] = {{{}}};\n", bytes.len(), bytes.join(", "))
    };
    let strings = string("what", "x > 0") + &string("file", "kernel.cu") + &string("function", "void f()");
    let ptx = format!(
        "{HEADER}.extern .func __assertfail (.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
         {strings}
         .visible .entry f(.param .u64 out) {{
         .reg .b64 x; .reg .b32 t; .reg .pred p;
         mov.u32 t, %tid.x; setp.lt.u32 p, t, 5; @p bra done;
         {{ .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
         mov.u64 x, what; cvta.global.u64 x, x; st.param.b64 [a], x;
         mov.u64 x, file; cvta.global.u64 x, x; st.param.b64 [b], x; st.param.b32 [c], 17;
         mov.u64 x, function; cvta.global.u64 x, x; st.param.b64 [d], x; st.param.b64 [e], 1;
         call.uni __assertfail, (a, b, c, d, e); }}
         done: ret; }}"
    );
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let setup = Setup { cluster: 1, ..Setup::default() };
    if let Some(message) = fault(&ptx, "f", shape, &setup, &mut [vec![0; 4]]) {
        let wanted = "f: kernel.cu:17: void f(): assertion `x > 0` failed; PTX line";
        assert!(message.contains(wanted) && message.contains("thread [5, 0, 0]"), "{message}");
    }
}
