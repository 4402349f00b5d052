//! Text that is not PTX: what is said of it, and that nothing worse comes of it.

use super::*;

#[test]
fn errors_say_what_and_on_which_line() {
    let kernel = |statements: &str| format!(".entry k\n{{ .reg .b32 %r<3>;\n{statements}\n}}");
    for (text, message) in [
        (kernel("\nmov.b32 %r1, %r3;"), "line 7: undefined register `%r3`"),
        (kernel("mov.b32 %r1, %tid;"), "line 6: undefined register `%tid`"),
        (kernel("mov.b32 %r1, what;"), "line 6: undefined name `what`"),
        (kernel("ret;\nbra nowhere;\nret;"), "line 7: undefined label `nowhere`"),
        (kernel("{ L: }\nbra L;"), "line 7: undefined label `L`"),
        (kernel("L:\nL: ret;"), "line 7: label `L` is defined twice"),
        (kernel(".reg .b32 a;\n.reg .b64 a;"), "line 7: `a` is declared twice"),
        (kernel(".reg .b32 %r2;"), "line 6: `%r2` is declared twice"),
        (kernel("@%r1 ret;"), "line 6: `%r1` is not a predicate"),
        (kernel("mov.b32 %r1 %r2;"), "line 6: expected `;`, found `%r2`"),
        (kernel("mov.b32 %r1, 0x;"), "line 6: `0x` is not a number"),
        (kernel("mov.b32 %r1, 0f3F80;"), "line 6: `0f3F80` is not a number"),
        (kernel("mov.b32 %r1, 99999999999999999999;"), "line 6: `99999999999999999999` is not a number"),
        (kernel("mov.b32 %r1, 1/0;"), "line 6: division by zero in a constant expression"),
        (kernel("call missing;"), "line 6: undefined name `missing`"),
        (kernel("brx.idx %r1, ts;"), "line 6: undefined .branchtargets `ts`"),
        (kernel("mov.b32 %r1, `;"), "line 6: unexpected character '`'"),
        (kernel(".reg .b32 %q<4000000000>;"), "line 6: more than 524288 registers in a module"),
        (".entry k\n{\n\nret;".into(), "line 7: `k` has no closing brace"),
        (".entry k {}\n.func k {}".into(), "line 5: `k` is defined twice"),
        (".global .b32 x;\n.global .b32 x;".into(), "line 5: `x` is declared twice"),
        (".global .u64 p = generic(x);".into(), "line 4: undefined symbol `x`"),
        (".global .u32 x; .global .u32 p = x;".into(), "line 4: an address needs a 64-bit type"),
        (
            ".global .b8 x[2] = {1, 2, 3};".into(),
            "line 4: expected `}` after as many values as the variable holds, found `3`",
        ),
        (".global .align 3 .b8 x;".into(), "line 4: an alignment must be a power of two, not 3"),
        (".global .b8 x[999999999999];".into(), "line 4: a variable is larger than 64 GiB"),
        (".global .q7 x;".into(), "line 4: unknown type .q7"),
        (".shared .b32 x = 1;".into(), "line 4: only .global and .const variables have initial values"),
        (".entry k(.reg .b32 a) { }".into(), "line 4: register parameters are not supported: use .param"),
        (".alias a, b;".into(), "line 4: directive .alias is not supported here"),
        (".entry k .maxntid 64 .reqntid 64 { }".into(), "line 4: .maxntid and .reqntid of one kernel"),
        (".entry k .reqntid 64, 0 { }".into(), "line 4: a size of 0 threads"),
        (".entry k .maxnreg 0 { }".into(), "line 4: .maxnreg 0: at least 1 is expected"),
        (".entry k .maxnctapersm 2 { }".into(), "line 4: unknown directive .maxnctapersm of a kernel"),
        (".func f .maxntid 64 { }".into(), "line 4: unknown directive .maxntid of a function"),
        (".entry k .noreturn { }".into(), "line 4: unknown directive .noreturn of a kernel"),
        (
            ".entry k .maxclusterrank 4 .reqnctapercluster 2 { }".into(),
            "line 4: .reqnctapercluster and .maxclusterrank of one kernel",
        ),
        (
            ".entry k .reqntid 64 .blocksareclusters { }".into(),
            "line 4: .blocksareclusters without .reqntid and .reqnctapercluster",
        ),
        ("/* open".into(), "line 4: a comment has no closing */"),
    ] {
        assert_eq!(error(&text), message, "{text}");
    }
    for (head, directive, message) in [
        (
            ".version 7.7\n.target sm_90",
            ".explicitcluster",
            "line 2: target sm_90 needs .version 7.8 or later",
        ),
        (
            ".version 8.6\n.target sm_90a",
            ".blocksareclusters",
            "line 3: .blocksareclusters needs .version 9.0",
        ),
        (
            ".version 8.6\n.target sm_80",
            ".maxclusterrank 4",
            "line 3: .maxclusterrank needs .target sm_90; it is sm_80",
        ),
    ] {
        let text = format!("{head}\n.entry k {directive} {{ }}");
        assert_eq!(parse(&text).expect_err(&text).to_string(), message);
    }
    assert_eq!(parse("").expect_err("empty").to_string(), "line 1: a module needs .version and .target");
    assert_eq!(
        parse(".version 9.0\n.target sm_90\n.address_size 32").expect_err("32 bits").to_string(),
        "line 3: only 64-bit addresses are supported: compile for a 64-bit target"
    );
}

/// Those with few registers, which thousands of times over parse fast.
fn small_samples() -> impl Iterator<Item = (&'static str, &'static str)> {
    SAMPLES.into_iter().filter(|(name, _)| ["calls", "debug", "packed"].contains(name))
}

#[test]
fn a_text_cut_anywhere_is_an_error_or_a_module() {
    for (name, text) in small_samples() {
        let whole = parse(text).expect(name).functions.len();
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            match parse(&text[..end]) {
                Ok(module) => assert!(module.functions.len() <= whole, "{name} cut at {end}"),
                Err(error) => {
                    let lines = text[..end].lines().count().max(1) as u32 + 1;
                    assert!((1..=lines).contains(&error.line), "{name} cut at {end}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_changed_byte_never_panics() {
    for (name, text) in small_samples() {
        // The last newline opens a line, and the change may add another.
        let line_count = text.lines().count() as u32 + 2;
        let mut bytes = text.as_bytes().to_vec();
        for at in 0..bytes.len() {
            let kept = bytes[at];
            bytes[at] = b"{}()[]<>,;:|!@.%0a\"\n"[at * 7 % 20];
            if let Ok(changed) = std::str::from_utf8(&bytes) {
                let errors_line = parse(changed).map_or_else(|error| error.line, |_| 1);
                assert!((1..=line_count).contains(&errors_line), "{name} changed at {at}");
            }
            bytes[at] = kept;
        }
    }
}

/// Each of these is quick or refused; the whole test takes well under a second.
#[test]
fn hostile_text_is_bounded() {
    let n = 200_000;
    let kernel = |statements: String| format!(".entry k {{ .reg .b32 %r<2>; {statements} }}");
    let refused = [
        (kernel("{".repeat(n)), "scopes nest"),
        (format!(".global .u32 x = {}1{};", "(".repeat(n), ")".repeat(n)), "deep"),
        (format!(".global .u32 x = {}1;", "- ".repeat(n)), "deep"),
        (format!(".global .b8 x{};", "[1]".repeat(n)), "dimensions"),
        (format!(".global .b8 x[4][4294967296] = {{ {} }};", "{}, {}, {1}"), "initial values"),
        (kernel("{ .reg .b32 %q<100000>; }".repeat(n)), "registers in a module"),
        (
            kernel(format!(
                "L: t: .branchtargets {}L; {}",
                "L, ".repeat(10_000),
                "brx.idx %r1, t; ".repeat(n)
            )),
            "branch targets in a module",
        ),
        (".section .debug_info {".repeat(n), "closing brace"),
        (format!(".global .attribute{}", "(".repeat(n)), "attribute"),
    ];
    for (text, message) in refused {
        assert!(error(&text).contains(message), "{}", error(&text));
    }
    let accepted = [
        kernel(format!("{}{}", "{".repeat(60), "}".repeat(60)).repeat(n / 100)),
        kernel(format!("{} {}bra L; {} L: ret;", "{".repeat(60), "bra L; ".repeat(n / 10), "}".repeat(60))),
        kernel("{ .param .b32 a; st.param.b32 [a], 1; }".repeat(n / 10)),
        format!(".global .u32 x = 1{};", " + 1".repeat(n)),
    ];
    for text in accepted {
        module(&text);
    }
}
