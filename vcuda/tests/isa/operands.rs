//! Every instruction form with an operand too few and one too many, which `ptxas` refuses.

use vcuda::exec::{Checks, Module};
use vcuda::memory::Memory;

const FORMS: &str = include_str!("../../examples/fuzz/forms.txt");

const HEAD: &str = ".version 8.6\n.target sm_90a\n.address_size 64
.const .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3}; .func twice { ret; } .func recursive { ret; }
.visible .entry k(.param .u64 k_param_0, .param .u32 k_param_1, .param .align 16 .b8 k_param_2[24]) {
.reg .b32 %r<9>; .reg .b64 %d<9>; .reg .b16 %h<9>; .reg .f32 %f<9>; .reg .f64 %g<9>; .reg .pred %p<9>;
.shared .align 16 .b8 tile[256]; .local .align 16 .b8 mine[64];
.param .b64 format; targets: .branchtargets L0, L0;
";

/// Each operand that has a choice: the form without it, or with one more.
const OPTIONAL: [&str; 14] = [
    "bar.sync $n",
    "bar.sync $n, 32",
    "bar.sync $n, $n",
    "bar.sync $n, $r",
    "bar.sync 0, 0",
    "bar.sync 0, $r",
    "barrier.sync 0, $r",
    "barrier.sync 0, 0",
    "mbarrier.arrive.shared.b64 $d, $S, $r",
    "mbarrier.try_wait.parity.shared.b64 $p, [tile], $r, $r",
    "cp.async.ca.shared.global [tile+16], $G, 8, 8",
    "cp.async.ca.shared.global [tile+16], $G, 8, $r",
    "cp.async.cg.shared.global $S, $G, 16",
    "createpolicy.fractional.L2::evict_last.b64 $d",
];

/// The operands, split at the commas outside of brackets.
fn operands(rest: &str) -> Vec<String> {
    let (mut all, mut depth) = (vec![String::new()], 0);
    for c in rest.chars() {
        depth += i32::from("{[(".contains(c)) - i32::from("}])".contains(c));
        match c {
            ',' if depth == 0 => all.push(String::new()),
            _ => all.last_mut().expect("one at least").push(c),
        }
    }
    all.retain(|operand| !operand.trim().is_empty());
    all.into_iter().map(|operand| operand.trim().to_string()).collect()
}

/// A form with registers of their own in place of `$r` and the like.
fn filled(form: &str) -> String {
    let mut out = String::new();
    let mut count = 0;
    let mut rest = form;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let kind = &after[..1];
        count += 1;
        out += &match kind {
            "n" => "16".to_string(),
            "G" => "[%d1]".to_string(),
            "S" => "[tile]".to_string(),
            "L" => "[mine]".to_string(),
            "B" => "L0".to_string(),
            register => format!("%{register}{}", count % 8),
        };
        rest = &after[1..];
    }
    out + rest
}

#[test]
fn too_few_or_too_many_are_refused() {
    let memory = Memory::new(1 << 20);
    let load = |instruction: &str| {
        let ptx = format!("{HEAD}{};\nL0: ret;\n}}\n", filled(instruction));
        let tree = vcuda::ptx::parse(&ptx).map_err(|error| error.to_string())?;
        let mut module =
            Module::load(&tree, &memory, Checks::default()).map_err(|error| error.to_string())?;
        module.free_variables(&memory);
        Ok(())
    };
    let mut count = 0;
    for form in FORMS.lines().filter(|line| !line.starts_with('#')) {
        let form = form.trim_end_matches(';');
        let (opcode, rest) = form.split_once(' ').unwrap_or((form, ""));
        // The parser brings calls into a shape of their own.
        if opcode.split('.').next() == Some("call") {
            continue;
        }
        let all = operands(rest);
        assert_eq!(load(form), Ok(()), "{form}");
        let with = |operands: &[String]| format!("{opcode} {}", operands.join(", "));
        let last = all.last().cloned().into_iter();
        let one_more = |more: String| with(&[&all[..], &[more]].concat());
        let mut others: Vec<String> = last.map(one_more).chain([one_more("$r".to_string())]).collect();
        others.extend((!all.is_empty()).then(|| with(&all[..all.len() - 1])));
        for other in others {
            let is_optional = OPTIONAL.contains(&other.trim());
            let found: Result<(), String> = load(&other);
            assert_eq!(found.is_ok(), is_optional, "{other}: {found:?}");
            count += 1;
        }
    }
    assert!(count > 600, "{count} texts");
    let error = load("add.u32 %r1, %r2").unwrap_err();
    assert_eq!(error, "line 9: add.u32: 2 operands; 3 are expected");
    let four = "{%r1, %r2, %r3, %r4}";
    for sparse in ["sp", "sp::ordered_metadata"] {
        let form = format!("mma.{sparse}.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32");
        let error = load(&format!("{form} {four}, {four}, {four}, {four}, %r1, 0")).unwrap_err();
        assert!(error.contains("products of sparse matrices: not supported here"), "{error}");
    }
    let error =
        load(&format!("wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e5m2 {four}, %d1, %d2, 1, 1, 1"))
            .unwrap_err();
    assert!(error.contains("`wgmma` of 8-bit floats: not supported here"), "{error}");
    let error = load("call (format), %d1, (format), twice").unwrap_err();
    assert!(error.contains("takes no function's address"), "{error}");
}
