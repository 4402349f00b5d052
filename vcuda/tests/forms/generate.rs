//! Instructions of every form of the grammar, and of forms with one thing wrong.

use std::collections::BTreeSet;

use vcuda::ptx::ast::Type;
use vcuda::ptx::forms::fit::is_type;
use vcuda::ptx::forms::grammar::{Element, GRAMMAR, Syntax};
use vcuda::ptx::forms::pattern::{Kind, Pattern, Want};

/// What stands before and behind the instructions.
pub const PROLOGUE: &str = ".address_size 64
.global .align 16 .b8 table[256];
.shared .align 16 .b8 tile[1024];
.visible .entry k(.param .u64 k0, .param .align 8 .b8 k1[64])
{
.reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<64>; .reg .b64 %d<9>; .reg .f32 %f<64>; .reg .f64 %g<40>;
.reg .b128 %q<9>; .local .align 16 .b8 own[64];
";
pub const EPILOGUE: &str = "L0: ret;\n}\n";

/// Versions, each with the best target that it has, and targets with the newest version.
pub const STEPS: [(&str, &str); 39] = [
    ("2.3", "sm_20"),
    ("3.0", "sm_30"),
    ("3.1", "sm_35"),
    ("4.0", "sm_50"),
    ("4.1", "sm_52"),
    ("4.2", "sm_53"),
    ("4.3", "sm_53"),
    ("5.0", "sm_61"),
    ("6.0", "sm_70"),
    ("6.1", "sm_72"),
    ("6.2", "sm_72"),
    ("6.3", "sm_75"),
    ("6.5", "sm_75"),
    ("7.0", "sm_80"),
    ("7.1", "sm_80"),
    ("7.3", "sm_80"),
    ("7.4", "sm_80"),
    ("7.5", "sm_80"),
    ("7.6", "sm_80"),
    ("7.7", "sm_80"),
    ("7.8", "sm_90"),
    ("8.0", "sm_90a"),
    ("8.1", "sm_90a"),
    ("8.2", "sm_90a"),
    ("8.3", "sm_90a"),
    ("8.4", "sm_90a"),
    ("8.5", "sm_90a"),
    ("8.6", "sm_90a"),
    ("8.8", "sm_90a"),
    ("9.0", "sm_90a"),
    ("9.5", "sm_50"),
    ("9.5", "sm_53"),
    ("9.5", "sm_60"),
    ("9.5", "sm_70"),
    ("9.5", "sm_75"),
    ("9.5", "sm_80"),
    ("9.5", "sm_89"),
    ("9.5", "sm_90"),
    ("9.5", "sm_90a"),
];

/// Types that a form is tried with in place of its own.
const TYPES: [&str; 17] = [
    "b8", "b16", "b32", "b64", "b128", "u8", "u16", "u32", "u64", "s16", "s32", "s64", "f16", "f16x2",
    "bf16", "f32", "f64",
];
/// Parts that a form is tried with besides its own.
const PARTS: [&str; 40] = [
    "rn",
    "rz",
    "ftz",
    "sat",
    "relu",
    "NaN",
    "approx",
    "full",
    "bogus",
    "wrap",
    "clamp",
    "hi",
    "wide",
    "cc",
    "v2",
    "v4",
    "global",
    "shared",
    "local",
    "nc",
    "volatile",
    "relaxed",
    "acquire",
    "gpu",
    "cta",
    "cluster",
    "sync",
    "aligned",
    "uni",
    "noftz",
    "L2::cache_hint",
    "L2::128B",
    "L1::no_allocate",
    "xorsign",
    "abs",
    "satfinite",
    "trans",
    "row",
    "read",
    "and",
];
/// Operands that a form is tried with in place of its own.
const OPERANDS: [&str; 16] = [
    "%h8",
    "%r8",
    "%d8",
    "%f8",
    "%g8",
    "%p8",
    "!%p8",
    "_",
    "7",
    "1.5",
    "0f3F800000",
    "%tid.x",
    "tile",
    "[%d8]",
    "{%r7, %r8}",
    "%r8|%p8",
];

/// Instructions of every line of the grammar: the plainest, some with other choices, some with one thing wrong.
pub fn sample() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (name, lines) in &*GRAMMAR {
        for line in lines {
            let right = right(name, line);
            all.extend(right.first().cloned());
            all.extend(right.into_iter().filter(|form| is_drawn(form, 2)));
            all.extend(wrong(name, line).into_iter().filter(|form| is_drawn(form, 13)));
        }
    }
    all
}

/// Whether a form is one of about `n` that are drawn, and not too long to keep.
fn is_drawn(form: &str, n: u64) -> bool {
    let hash = form.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    form.len() < 250 && (hash >> 32) % n == 0
}

/// The plainest instruction of every line.
pub fn plain() -> BTreeSet<String> {
    let lines = GRAMMAR.iter().flat_map(|(name, lines)| lines.iter().map(move |line| (name, line)));
    lines.filter_map(|(name, line)| right(name, line).into_iter().next()).collect()
}

/// The instructions that a line has.
fn right(name: &str, line: &Syntax) -> Vec<String> {
    let all = variants(&line.opcode);
    all.iter().filter_map(|parts| Some(write(name, parts, &operands(name, line, parts, 0)?))).collect()
}

/// Those of its plainest and its fullest with one thing changed, and without what may be left out.
fn wrong(name: &str, line: &Syntax) -> Vec<String> {
    let variants = variants(&line.opcode);
    let mut all = Vec::new();
    for parts in [variants.first(), variants.last()].into_iter().flatten() {
        let Some(operands) = operands(name, line, parts, 0) else { continue };
        all.extend(mutations(name, parts, &operands));
    }
    all.extend(operands(name, line, &variants[0], 1).map(|fewer| write(name, &variants[0], &fewer)));
    all
}

fn write(name: &str, parts: &[&str], operands: &[String]) -> String {
    let opcode: Vec<&str> = [name].iter().chain(parts).copied().collect();
    format!("{} {};", opcode.join("."), operands.join(", ")).replace(" ;", ";")
}

/// Opcodes of a line: the plainest, each choice made differently, each option taken, and all of them.
fn variants(elements: &[Element]) -> Vec<Vec<&'static str>> {
    let mut all = vec![Vec::new()];
    let mut full: Vec<&'static str> = Vec::new();
    for element in elements {
        let mut choices = match element {
            Element::Part(part) => vec![vec![*part]],
            Element::Choice(choice) => choice.iter().flat_map(|one| variants(one)).collect(),
            Element::Maybe(group) => [vec![Vec::new()], variants(group)].concat(),
            Element::Rest => vec![Vec::new()],
        };
        choices.dedup();
        let plain = all[0].clone();
        for one in &mut all {
            one.extend(&choices[0]);
        }
        for other in &choices[1..] {
            all.push([&plain[..], other].concat());
        }
        // What comes later is at its plainest in those.
        let last = choices.last().expect("a choice");
        full.extend(last);
    }
    all.push(full);
    all
}

fn mutations(name: &str, parts: &[&str], operands: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    let mut opcode = |parts: &[&str]| all.push(write(name, parts, operands));
    for i in 0..parts.len() {
        let (before, after) = (&parts[..i], &parts[i + 1..]);
        opcode(&[before, after].concat());
        opcode(&[before, &[parts[i]], &parts[i..]].concat());
        if i > 0 {
            opcode(&[&parts[..i - 1], &[parts[i], parts[i - 1]], after].concat());
        }
        if is_type(parts[i]) {
            for ty in TYPES {
                opcode(&[before, &[ty], after].concat());
            }
        }
    }
    // Where the types begin, or at the end.
    let at = parts.iter().position(|part| is_type(part)).unwrap_or(parts.len());
    for part in PARTS {
        opcode(&[&parts[..at], &[part], &parts[at..]].concat());
    }
    for i in 0..operands.len() {
        let (before, after) = (&operands[..i], &operands[i + 1..]);
        all.push(write(name, parts, &[before, after].concat()));
        all.push(write(name, parts, &[before, &[operands[i].clone()], &operands[i..]].concat()));
        for other in OPERANDS {
            all.push(write(name, parts, &[before, &[other.to_string()], after].concat()));
        }
    }
    all
}

/// Operands of a line, without the last `fewer` of those that may be left out; `None` if it does not say which.
fn operands(name: &str, line: &Syntax, parts: &[&str], fewer: usize) -> Option<Vec<String>> {
    let patterns = line.operands.as_ref()?;
    let optional = patterns.iter().filter(|pattern| pattern.is_optional()).count();
    if fewer > optional {
        return None;
    }
    let mut kept = optional - fewer;
    let mut all = Vec::new();
    for pattern in patterns {
        if pattern.is_optional() {
            if kept == 0 {
                continue;
            }
            kept -= 1;
        }
        if pattern.kind == Kind::Policy && !parts.contains(&"L2::cache_hint") {
            continue;
        }
        all.push(operand(name, parts, pattern, all.len()));
    }
    Some(all)
}

fn operand(name: &str, parts: &[&str], pattern: &Pattern, index: usize) -> String {
    let types: Vec<&str> = parts.iter().copied().filter(|part| is_type(part) && *part != "b1024").collect();
    let ty = match pattern.ty {
        Want::Nth(n) => types.get(n).map_or("b32", |ty| ty),
        Want::Wide => match types[0] {
            "u16" | "s16" => "b32",
            _ => "b64",
        },
        Want::Parts => {
            if types[0] == "b64" {
                "b32"
            } else {
                "b16"
            }
        }
        Want::Fixed(ty) => match ty {
            Type::B16 => "b16",
            Type::B64 | Type::U64 => "b64",
            Type::F32 => "f32",
            _ => "b32",
        },
    };
    let length = ["v2", "v4", "v8"].iter().position(|length| parts.contains(length)).map_or(1, |i| 2 << i);
    let register = |number: usize| format!("%{}{number}", letter(ty));
    let vector = |count: usize| {
        let first = 1 + index * count % 100;
        let all: Vec<String> =
            (first..first + count).map(|i| register(if ty == "b64" { i % 8 } else { i })).collect();
        format!("{{{}}}", all.join(", "))
    };
    match pattern.kind {
        Kind::Destination | Kind::Source if pattern.has('*') && length > 1 => vector(length),
        Kind::Destination if pattern.has('.') => register(index + 1) + ".h0",
        Kind::Destination | Kind::Source => register(index + 1),
        Kind::Result => format!("%p{}", index + 1),
        Kind::Results => format!("%p{}|%p{}", index + 1, index + 2),
        Kind::Both => format!("{}|%p{}", register(index + 1), index + 1),
        Kind::Predicate => format!("%p{}", index + 3),
        Kind::Address if parts.iter().any(|part| part.starts_with("param")) => "[k0]".to_string(),
        Kind::Address => format!("[%d{}]", index + 1),
        Kind::TensorAddress => {
            let dims = parts.iter().find_map(|part| part.strip_suffix('d')?.parse().ok()).unwrap_or(1);
            let at: Vec<String> = (1..=dims).map(|i: usize| format!("%r{i}")).collect();
            format!("[%d{}, {{{}}}]", index + 1, at.join(", "))
        }
        Kind::Vector if pattern.ty == Want::Parts => vector(2),
        Kind::Vector if types == ["b128"] => vector(2),
        Kind::Vector => vector(registers(name, parts, ty, index)),
        Kind::Constant => constant(name, parts, index).to_string(),
        Kind::Policy => "%d7".to_string(),
        Kind::Sink => "_".to_string(),
    }
}

/// The letter of the registers that hold a type.
fn letter(ty: &str) -> char {
    match ty {
        "f32" => 'f',
        "f64" => 'g',
        "b128" => 'q',
        "b32" | "u32" | "s32" | "f16x2" | "bf16x2" | "u16x2" | "s16x2" | "tf32" => 'r',
        "b64" | "u64" | "s64" => 'd',
        "pred" => 'p',
        _ => 'h',
    }
}

fn constant(name: &str, parts: &[&str], index: usize) -> u32 {
    match name {
        "lop3" => 0x80,
        "alloca" | "cp" if !parts.contains(&"wait_group") => 16,
        "setmaxnreg" => 40,
        "applypriority" | "discard" | "fence" => 128,
        "tensormap" if parts.contains(&"cp_fenceproxy") => 128,
        "wgmma" if index > 5 => 0,
        "wgmma" if index > 3 => 1,
        _ => 0,
    }
}

/// Registers of a matrix operand.
fn registers(name: &str, parts: &[&str], ty: &str, index: usize) -> usize {
    let has = |part: &str| parts.contains(&part);
    let shape = parts.iter().find_map(|part| {
        let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
    });
    let [m, n, k]: [usize; 3] = shape.unwrap_or([8, 8, 8]);
    match name {
        "ldmatrix" | "stmatrix" => {
            if has("x4") {
                4
            } else {
                1 + has("x2") as usize
            }
        }
        "wgmma" if index > 0 => 4,
        "wgmma" => n / if ty == "f32" { 2 } else { 4 },
        "wmma" => {
            let is_sum = has("c") || has("d") || has("mma") && matches!(index, 0 | 3);
            match () {
                () if is_sum => {
                    if ty == "f32" {
                        8
                    } else {
                        4
                    }
                }
                () if has("tf32") => 4,
                () if has("bf16") => match (has("a") || has("mma") && index == 1, m) {
                    (_, 16) => 4,
                    (true, 8) | (false, 32) => 2,
                    _ => 8,
                },
                () => 8,
            }
        }
        _ => {
            let bytes = if has("f64") {
                8
            } else if has("tf32") {
                4
            } else if has("s8") || has("u8") {
                1
            } else {
                2
            };
            let in_register = if has("f64") { 8 } else { 4 };
            let sum_bytes = if has("f64") {
                8
            } else if parts.iter().filter(|part| **part == "f16").count() == 4 {
                2
            } else {
                4
            };
            match index {
                1 => m * k * bytes / 32 / in_register,
                2 => k * n * bytes / 32 / in_register,
                _ => m * n * sum_bytes / 32 / in_register,
            }
        }
    }
}
