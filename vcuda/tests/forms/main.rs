//! Forms of instructions, right and wrong, against the verdicts of NVIDIA's assembler, which `judge.py` collected.

mod differences;
mod generate;

use std::collections::BTreeSet;

use differences::{ACCEPTED_ALONE, REFUSED_ALONE};
use generate::{EPILOGUE, PROLOGUE, STEPS};
use vcuda::exec::{Checks, Module};
use vcuda::memory::Memory;
use vcuda::ptx::ast;

const VERDICTS: &str = include_str!("verdicts.txt");
const FLOORS: &str = include_str!("floors.txt");

/// A module of one instruction.
fn parse(form: &str, version: &str, target: &str) -> Result<ast::Module, String> {
    // Registers of 128 bits are a feature of their own.
    let (wide, rest) = PROLOGUE.split_once("\n.reg .b128").expect("a declaration");
    let rest = &rest[rest.find(';').expect("its end") + 1..];
    let prologue = if form.contains("%q") { PROLOGUE.to_string() } else { format!("{wide}\n{rest}") };
    let text = format!(".version {version}\n.target {target}\n{prologue}{form}\n{EPILOGUE}");
    vcuda::ptx::parse(&text).map_err(|error| error.message)
}

/// Loads it.
fn load(memory: &Memory, form: &str, version: &str, target: &str) -> Result<(), String> {
    let tree = parse(form, version, target)?;
    let mut module = Module::load(&tree, memory, Checks::default()).map_err(|error| error.to_string())?;
    module.free_variables(memory);
    Ok(())
}

#[test]
fn as_the_assembler_has_it() {
    let memory = Memory::new(1 << 20);
    let (mut count, mut wrong, mut used) = (0, Vec::new(), BTreeSet::new());
    for line in VERDICTS.lines() {
        let (accepted, form) = (line.starts_with('+'), &line[1..]);
        let found = load(&memory, form, "9.5", "sm_90a");
        count += 1;
        if found.is_ok() == accepted {
            continue;
        }
        let error = found.err().unwrap_or_default();
        let list = if accepted { &REFUSED_ALONE[..] } else { &ACCEPTED_ALONE[..] };
        match list.iter().find(|difference| difference.is_of(form, &error)) {
            Some(difference) => drop(used.insert(difference.why)),
            None => wrong.push(format!("{line}\n    {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {count} forms:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 10_000, "{count} forms");
    let known: BTreeSet<&str> =
        REFUSED_ALONE.iter().chain(&ACCEPTED_ALONE).map(|difference| difference.why).collect();
    assert_eq!(used, known, "differences that there are no more");
}

#[test]
fn versions_and_targets() {
    let mut wrong = Vec::new();
    for line in FLOORS.lines() {
        let (signs, form) = line.split_once(' ').expect("signs and a form");
        for (sign, (version, target)) in signs.chars().zip(STEPS) {
            // Forms that later targets have lost are refused by name whatever the target.
            let is_refused = |tree: &ast::Module| {
                let body = tree.functions[0].body.as_ref().expect("a body");
                body.instructions[0].opcode.refused().is_some()
            };
            let found = parse(form, version, target);
            if found.is_ok() != (sign == '+') && !found.as_ref().is_ok_and(is_refused) {
                let why = found.err().unwrap_or_default();
                wrong.push(format!("{form}: {version} {target}: {sign} {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every line of the grammar has been judged.
#[test]
fn no_line_is_without_a_verdict() {
    let judged: BTreeSet<&str> = FLOORS.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    let plain = generate::plain();
    let missing: Vec<&String> = plain.iter().filter(|form| !judged.contains(form.as_str())).collect();
    assert!(missing.is_empty(), "not judged, see judge.py: {missing:#?}");
}

/// Parts that were ignored once, and what is said of them now.
#[test]
fn parts_are_named() {
    let memory = Memory::new(1 << 20);
    let regs = "{%r1, %r2}, {%r3, %r4, %r5, %r6}, {%r7, %r8}, {%r1, %r2}";
    let mma = format!("mma.sync.aligned.m16n8k16.row.row.f16.f16.f16.f16 {regs};");
    let cases = [
        ("mul.rn.relu.f32 %f1, %f2, %f3;", "unknown or misplaced part .relu"),
        ("add.sat.f64 %g1, %g2, %g3;", "unknown or misplaced part .sat"),
        ("fma.rn.bogus.f32 %f1, %f2, %f3, %f4;", "unknown or misplaced part .bogus"),
        ("popc.approx.b32 %r1, %r2;", "unknown or misplaced part .approx"),
        ("shl.wrap.b32 %r1, %r2, %r3;", "unknown or misplaced part .wrap"),
        ("add.ftz.ftz.f32 %f1, %f2, %f3;", "part .ftz 2 times"),
        ("add.rn.rz.f32 %f1, %f2, %f3;", "unknown or misplaced part .rn"),
        ("ld.global.global.u32 %r1, [%d1];", "part .global 2 times"),
        ("cp.bulk.async.commit_group;", "unknown or misplaced part .bulk"),
        (&mma, "no such form"),
        ("fma.f32 %f1, %f2, %f3, %f4;", "no such form"),
        ("add.u32 %f1, %r2, %r3;", "operand 1: a register of type .f32 where .u32 is expected"),
        ("add.f32 %f1, %f2, 1;", "operand 3: a constant where .f32 is expected"),
        ("add.u32 %r1, %tid.x, %r3;", "operand 2: an operand of a kind that is not expected here"),
        ("add.u32 _, %r2, %r3;", "operand 1: a destination that is not a register"),
        ("add.u32 %r1, %r2;", "2 operands; 3 are expected"),
        ("ld.global.v2.u32 %r1, [%d1];", "2 elements are expected"),
        (
            "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [table, {%f5, %f6}];",
            "textures and surfaces: not supported",
        ),
    ];
    for (form, expected) in cases {
        let error = load(&memory, form, "9.0", "sm_90a").expect_err(form);
        assert!(error.contains(expected), "{form}: {error}");
    }
    let fp8 = "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, \
               {%r5, %r6}, {%f1, %f2, %f3, %f4};";
    let error = load(&memory, fp8, "9.0", "sm_90a").expect_err(fp8);
    assert!(error.contains("`mma` of 8-bit floats: not supported here"), "{error}");
    let error = load(&memory, "wgmma.fence.sync.aligned;", "8.0", "sm_90").expect_err("a plain target");
    assert_eq!(error, "wgmma.fence.sync.aligned needs .target sm_90a");
    let error = load(&memory, "elect.sync %r1|%p1, -1;", "7.8", "sm_90").expect_err("an old version");
    assert_eq!(error, "elect.sync needs .version 8.0 or later; this module's is 7.8");
}

/// A decimal constant has the type of its instruction, not always 64 bits.
#[test]
fn constants_are_converted() {
    let operand = |form: &str| {
        let text = format!(".version 9.0\n.target sm_90a\n{PROLOGUE}{form}\n{EPILOGUE}");
        let tree = vcuda::ptx::parse(&text).expect("a module");
        tree.functions[0].body.as_ref().expect("a body").instructions[0].operands[2].clone()
    };
    assert_eq!(operand("add.f32 %f1, %f2, 1.5;"), ast::Operand::F32(1.5f32.to_bits()));
    assert_eq!(operand("add.f64 %g1, %g2, 0f3FC00000;"), ast::Operand::F64(1.5f64.to_bits()));
}

/// Not a check: writes what `judge.py` reads to the folder that `VCUDA_FORMS_OUT` names.
#[test]
fn write_forms() {
    let Some(folder) = std::env::var_os("VCUDA_FORMS_OUT").map(std::path::PathBuf::from) else { return };
    let lines = |all: BTreeSet<String>| all.into_iter().map(|form| form + "\n").collect::<String>();
    let steps: String = STEPS.iter().map(|(version, target)| format!("{version} {target}\n")).collect();
    for (name, text) in [
        ("sample.txt", lines(generate::sample())),
        ("plain.txt", lines(generate::plain())),
        ("steps.txt", steps),
        ("prologue.ptx", PROLOGUE.to_string()),
    ] {
        std::fs::write(folder.join(name), text).expect("a folder to write to");
    }
}
