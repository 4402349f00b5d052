//! Texts that are nearly PTX: programs put together from instruction forms, and real ones with parts exchanged,
//! doubled, lost or made extreme. A case is a pure function of its number.

use std::fmt::Write;

/// What NVRTC wrote for a few kernels.
const SAMPLES: [&str; 5] = [
    include_str!("../../tests/ptx/attention_sm80.ptx"),
    include_str!("../../tests/ptx/calls.ptx"),
    include_str!("../../tests/ptx/debug.ptx"),
    include_str!("../../tests/ptx/gemm_sm90a.ptx"),
    include_str!("../../tests/ptx/packed.ptx"),
];
const FORMS: &str = include_str!("forms.txt");

/// The start of a kernel, up to its first statement of interest.
pub const PROLOGUE: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n\
         .const .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3};\n\
         .global .align 1 .b8 text[28] = {37, 100, 37, 115, 37, 46, 57, 57, 57, 57, 57, 57, 57, 57, 57, 102, 37, 42, 108, 117, 10};\n\
         .extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n\
         .extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e) .noreturn;\n\
         .extern .func (.param .b64 r) malloc(.param .b64 a);\n\
         .extern .func free(.param .b64 a);\n\
         .func nothing { ret; }\n\
         .func (.param .b32 r) twice(.param .b32 a) { .reg .b32 %x; ld.param.b32 %x, [a]; add.u32 %x, %x, %x; \
         st.param.b32 [r], %x; ret; }\n\
         .func (.param .b32 r) recursive(.param .b32 a) { call (r), recursive, (a); ret; }\n\
         .visible .entry k(.param .u64 k_param_0, .param .u32 k_param_1, .param .align 16 .b8 k_param_2[24])\n{\n\
         .reg .b32 %r<6>; .reg .b64 %d<5>; .reg .b16 %h<4>; .reg .f32 %f<6>; .reg .f64 %g<4>; .reg .pred %p<4>;\n\
         .param .b32 in; .param .b32 out; .param .b64 format; .param .b64 arguments;\n\
         .shared .align 16 .b8 tile[256];\n.local .align 16 .b8 mine[64];\n\
         prototype: .callprototype (.param .b32 _) _ (.param .b32 _);\nld.param.u64 %d0, [k_param_0];\nmov.u32 %r0, %tid.x;\nmov.u64 %d2, text;\nst.param.b64 [format], %d2;\nst.param.b64 [arguments], %d0;\nmad.wide.u32 %d1, %r0, 16, %d0;\nst.param.b32 [in], %r0;\n";

/// Texts of more than this many bytes are not made.
const MAX_BYTES: usize = 1 << 18;

const NUMBERS: [&str; 26] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "4",
    "7",
    "8",
    "16",
    "31",
    "32",
    "64",
    "255",
    "65535",
    "1048576",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "1152921504606846976",
    "9223372036854775807",
    "-9223372036854775808",
    "0xffffffffffffffff",
    "99999999999999999999",
    "0f7FC00000",
];

pub const TYPES: [&str; 20] = [
    "pred", "b8", "b16", "b32", "b64", "b128", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f16",
    "f16x2", "bf16", "bf16x2", "f32", "f64",
];

/// Lines that a hostile text might hold, inside a body or out.
const HOSTILE: [&str; 36] = [
    ".reg .b32 %z<4294967295>;",
    ".reg .b32 %z<30000>;",
    ".reg .pred %z<20000>;",
    ".reg .b128 %q;",
    ".reg .v4 .f32 %v;",
    ".maxntid 4294967295, 4294967295, 4294967295",
    ".maxntid 0",
    ".reqnctapercluster 65536, 65536",
    ".shared .align 1048576 .b8 big[1073741824];",
    ".shared .align 16 .b8 wide[49152];",
    ".extern .shared .align 1024 .b8 dynamic[];",
    ".local .align 8 .b8 deep[1073741824];",
    ".local .align 8 .b8 deeper[68719476736];",
    ".global .b8 vast[1152921504606846976];",
    ".global .b8 large[1073741824];",
    ".global .b8 full[2] = {1, 2, 3};",
    ".global .u64 self = self;",
    ".global .u64 far[2] = {0, table+9223372036854775807};",
    ".global .b8 part[4] = {0xFF(table), 0xFF00(table)};",
    ".const .v4 .b8 nest[2][2][2] = {{{{1}}}};",
    ".param .align 8 .b8 huge[68719476736];",
    ".param .b32 empty[0];",
    ".pragma \"nounroll\", \"x\";",
    ".loc 4294967295 4294967295 0",
    ".file 1 \"\\377\\\"\u{3bb}\"",
    "call.uni nothing;",
    "call.uni (out), recursive, (in);",
    "L: L: ret;",
    "ts: .branchtargets L0, L1, L0; brx.idx %r1, ts;",
    "@!%p1 @%p1 ret;",
    "@%p1 call nothing;",
    "/*",
    "\"",
    "}",
    ".version 9.9",
    ".entry k() { }",
];

/// Mutations of a sentence, in and around which a number or a word may stand.
const NESTS: [(&str, &str); 6] =
    [("{", "}"), ("(", ")"), ("[", "]"), ("-", ""), ("~(", ")"), ("{ .reg .b32 %n;", "}")];

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// The instruction forms, one a line.
pub fn forms() -> impl Iterator<Item = &'static str> {
    FORMS.lines().filter(|line| !line.starts_with('#'))
}

/// Case `number` of the sequence `seed`; `extra` are texts to start from besides those here.
pub fn case(seed: u64, number: u64, extra: &[String]) -> String {
    let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number);
    let mut text = match rng.below(SAMPLES.len() + extra.len() + 8) {
        i if i < SAMPLES.len() => SAMPLES[i].to_string(),
        i if i < SAMPLES.len() + extra.len() => extra[i - SAMPLES.len()].clone(),
        _ => program(&mut rng),
    };
    let count = [0, 1, 1, 2, 4, 12][rng.below(6)];
    for _ in 0..count {
        text = mutate(&mut rng, &text);
        text.truncate(text.floor_char_boundary(MAX_BYTES));
    }
    text
}

/// A kernel of random instructions that mostly is legal.
fn program(rng: &mut Rng) -> String {
    let mut text = String::from(PROLOGUE);
    let forms: Vec<&str> = forms().collect();
    let count = 1 + rng.below(60);
    text.push_str("targets: .branchtargets L0");
    for label in 1..=rng.below(3) {
        let _ = write!(text, ", L{}", label % (count / 10 + 1));
    }
    text.push_str(";\n");
    for i in 0..count {
        if i % 10 == 0 {
            let _ = writeln!(text, "L{}:", i / 10);
        }
        if rng.one_in(6) {
            let _ = write!(text, "@{}%p{} ", rng.pick(&["", "!"]), rng.below(4));
        }
        // Jumps and ends are seldom, for most of a program to run.
        let mut form = rng.pick(&forms);
        if (form.starts_with("br") || form.starts_with(['e', 'r', 't'])) && !rng.one_in(3) {
            form = rng.pick(&forms);
        }
        fill(rng, form, (count - 1) / 10 + 1, &mut text);
        text.push('\n');
    }
    text.push_str("ret;\n}\n");
    text
}

/// Writes an instruction form with registers, numbers, addresses and labels put in.
pub fn fill(rng: &mut Rng, form: &str, labels: usize, out: &mut String) {
    let mut parts = form.split('$');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (kind, rest) = part.split_at(1);
        let offset = rng.pick(&["", "", "+16", "+-4", "+8", "+1"]);
        let _ = match kind {
            "n" => write!(out, "{}", rng.pick(&NUMBERS)),
            "B" => write!(out, "L{}", rng.below(labels)),
            "G" => write!(out, "[%d{}{offset}]", rng.below(2)),
            "S" => write!(out, "[{}{offset}]", rng.pick(&["tile", "tile", "%r1"])),
            "L" => write!(out, "[mine{offset}]"),
            // The first registers, which hold addresses, are seldom written.
            kind => {
                let lowest = if out.ends_with([' ', '{']) && rng.below(8) > 0 { 2 } else { 0 };
                write!(out, "%{kind}{}", lowest + rng.below(4 - lowest))
            }
        };
        out.push_str(rest);
    }
}

/// One change.
fn mutate(rng: &mut Rng, text: &str) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return rng.pick(&SAMPLES).to_string();
    }
    let (at, other) = (rng.below(lines.len()), rng.below(lines.len()));
    let made;
    match rng.below(24) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[other]),
        2 => lines.swap(at, other),
        3 => {
            let from: Vec<&str> = rng.pick(&SAMPLES).split_inclusive('\n').collect();
            lines.insert(at, from[rng.below(from.len())]);
        }
        4 => {
            made = format!("{}\n", rng.pick(&HOSTILE));
            lines.insert(at, &made);
        }
        6 => {
            let count = (1 << rng.below(12)).min(MAX_BYTES / lines[at].len());
            lines.splice(at..at, std::iter::repeat_n(lines[at], count));
        }
        7 => {
            let depth = 1 << rng.below(18);
            let (open, close) = NESTS[rng.below(NESTS.len())];
            let tokens = tokens(lines[at]);
            let place = rng.below(tokens.len() + 1);
            let (before, after) = (tokens[..place].concat(), tokens[place..].concat());
            made = [&before, &open.repeat(depth), &close.repeat(depth), &after]
                .into_iter()
                .map(String::as_str)
                .collect();
            lines[at] = &made;
        }
        8 => return cut(rng, text),
        9 => return scramble(rng, text),
        10 => {
            let mut form = String::new();
            let forms: Vec<&str> = forms().collect();
            let picked = rng.pick(&forms);
            fill(rng, picked, 1, &mut form);
            made = form + "\n";
            lines.insert(at, &made);
        }
        _ => {
            // A line that says something is a better place than a blank one or a comment.
            let says = |line: &&str| line.contains(';') || line.contains('.');
            let at = (at..lines.len()).find(|&i| says(&lines[i])).unwrap_or(at);
            made = change_tokens(rng, lines[at], lines[other]);
            lines[at] = &made;
        }
    }
    lines.concat()
}

/// The text up to some place, or without a stretch.
fn cut(rng: &mut Rng, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let from = rng.below(bytes.len());
    let to = if rng.one_in(2) { bytes.len() } else { (from + rng.below(200)).min(bytes.len()) };
    bytes.drain(from..to);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Some bytes made others.
fn scramble(rng: &mut Rng, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        bytes[at] = if rng.one_in(2) {
            rng.next() as u8
        } else {
            *b"{}()[]<>,;:|!@.%0a\"\n/*-+_$\\".get(rng.below(27)).unwrap_or(&b' ')
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Words with their percent sign, dotted parts with their dot, blanks, and single characters.
fn tokens(line: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let mut tokens = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let lead = if is_name(first) || "%.".contains(first) { first.len_utf8() } else { 0 };
        let length = match lead {
            0 => first.len_utf8(),
            _ => lead + rest[lead..].find(|c| !is_name(c)).unwrap_or(rest.len() - lead),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
    tokens
}

/// A line with one of its tokens lost, doubled, exchanged with another, or made something of its kind.
fn change_tokens(rng: &mut Rng, line: &str, other: &str) -> String {
    let mut all = tokens(line);
    if all.is_empty() {
        return line.to_string();
    }
    let solid = |token: &&str| !token.trim().is_empty();
    let at = rng.below(all.len());
    let at = (at..all.len()).find(|&i| solid(&all[i])).unwrap_or(at);
    let second = rng.below(all.len());
    let made;
    match rng.below(8) {
        0 => drop(all.remove(at)),
        1 => all.insert(at, all[at]),
        2 => all.swap(at, second),
        3 => {
            let from = tokens(other);
            if !from.is_empty() {
                all[at] = from[rng.below(from.len())];
            }
        }
        _ => {
            made = kin(rng, all[at]);
            all[at] = &made;
        }
    }
    all.concat()
}

/// Something of the same kind as `token`: a number for a number, an opcode part for an opcode part, ….
fn kin(rng: &mut Rng, token: &str) -> String {
    let first = token.chars().next().unwrap_or(' ');
    let like = |c: char| match first {
        '0'..='9' | '.' | '%' => c == first,
        _ => c.is_ascii_alphabetic() == first.is_ascii_alphabetic(),
    };
    match first {
        '0'..='9' => rng.pick(&NUMBERS).to_string(),
        '.' if TYPES.contains(&&token[1..]) => format!(".{}", rng.pick(&TYPES)),
        '%' if rng.one_in(2) => {
            format!("%{}{}", rng.pick(&["r", "d", "rd", "h", "rs", "f", "g", "fd", "p"]), rng.below(4))
        }
        _ => {
            // A token of this kind from an instruction form or a sample.
            let forms: Vec<&str> = if rng.one_in(2) { FORMS } else { rng.pick(&SAMPLES) }.lines().collect();
            let from = tokens(rng.pick(&forms));
            let same: Vec<&str> = from.into_iter().filter(|other| other.starts_with(like)).collect();
            if same.is_empty() {
                rng.pick(&["_", "0", ".b32", "%r1"]).to_string()
            } else {
                rng.pick(&same).to_string()
            }
        }
    }
}
