//! The lines of syntax that the texts beside this file hold, and how they are read.
//!
//! A line is an opcode, its operands, what it needs and, where it is refused, why:
//!
//! ```text
//! .rnd = .rn .rz .rm .rp
//! fma.rnd{.ftz}{.sat}.f32     d, a, b, c      @ 2.0 sm_20
//! tex.*                       ...             @ 1.0 ! textures
//! ```
//!
//! In the opcode `{}` may be left out, `|` parts alternatives, a name that a line before has defined stands for any
//! of its parts, and `*` for any parts at all. How operands are written is in [`super::pattern`].

use std::collections::HashMap;
use std::sync::LazyLock;

use super::pattern::Pattern;
use super::target::Needs;

/// One form of an instruction.
#[derive(Debug)]
pub struct Syntax {
    /// The opcode as the text has it.
    pub text: &'static str,
    pub opcode: Vec<Element>,
    /// The parts that it always has, and all that it may have, in order; `None`: any.
    pub required: Vec<&'static str>,
    pub possible: Option<Vec<&'static str>>,
    /// `None`: any.
    pub operands: Option<Vec<Pattern>>,
    pub needs: Needs,
    /// What it is called where it is not supported.
    pub refused: Option<&'static str>,
}

/// A piece of an opcode.
#[derive(Clone, Debug)]
pub enum Element {
    Part(&'static str),
    /// One of these.
    Choice(Vec<Vec<Element>>),
    Maybe(Vec<Element>),
    /// Whatever is left.
    Rest,
}

/// The lines of each instruction.
pub static GRAMMAR: LazyLock<HashMap<&'static str, Vec<Syntax>>> = LazyLock::new(|| {
    let mut grammar = HashMap::new();
    for text in [
        include_str!("arithmetic.txt"),
        include_str!("memory.txt"),
        include_str!("warp.txt"),
        include_str!("asynchronous.txt"),
        include_str!("matrix.txt"),
        include_str!("refused.txt"),
    ] {
        let mut names = Names::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((name, parts)) = line.split_once(" = ") {
                let choice = parts.split(' ').map(|parts| elements(parts, &names)).collect();
                names.insert(&name[1..], Element::Choice(choice));
            } else {
                let end = line.find(['.', '{', ' ']).unwrap_or(line.len());
                let lines: &mut Vec<Syntax> = grammar.entry(&line[..end]).or_default();
                lines.push(syntax(line, end, &names));
            }
        }
    }
    grammar
});

type Names = HashMap<&'static str, Element>;

fn syntax(line: &'static str, end: usize, names: &Names) -> Syntax {
    let (line, refused) = match line.split_once(" ! ") {
        Some((line, why)) => (line, Some(why)),
        None => (line, None),
    };
    let (form, needs) = line.split_once("@ ").unwrap_or((line, "1.0"));
    let (text, operands) = form.split_once(' ').unwrap_or((form, ""));
    let opcode = elements(&text[end..], names);
    let required = opcode.iter().filter_map(|element| match element {
        Element::Part(part) => Some(*part),
        _ => None,
    });
    let mut possible = Some(Vec::new());
    opcode.iter().for_each(|element| collect(element, &mut possible));
    possible.iter_mut().for_each(|parts| parts.sort_unstable());
    Syntax {
        text,
        required: required.collect(),
        possible,
        opcode,
        operands: (operands.trim() != "...").then(|| Pattern::list(operands)),
        needs: Needs::from_text(needs.trim()),
        refused,
    }
}

/// Adds the parts that an element may have.
fn collect(element: &Element, parts: &mut Option<Vec<&'static str>>) {
    match element {
        Element::Part(part) => parts.iter_mut().for_each(|parts| parts.push(part)),
        Element::Choice(choice) => choice.iter().flatten().for_each(|inner| collect(inner, parts)),
        Element::Maybe(group) => group.iter().for_each(|inner| collect(inner, parts)),
        Element::Rest => *parts = None,
    }
}

/// `.a{.b}.c|d.*`
fn elements(text: &'static str, names: &Names) -> Vec<Element> {
    let mut elements = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').expect("a group has an end");
            elements.push(Element::Maybe(self::elements(&inner[..end], names)));
            rest = &inner[end + 1..];
            continue;
        }
        let part = rest.strip_prefix('.').expect("a part begins with a dot");
        let end = part.find(['.', '{']).unwrap_or(part.len());
        let named = |name| names.get(name).cloned().unwrap_or(Element::Part(name));
        elements.push(match &part[..end] {
            "*" => Element::Rest,
            one if !one.contains('|') => named(one),
            several => Element::Choice(several.split('|').map(|name| vec![named(name)]).collect()),
        });
        rest = &part[end..];
    }
    elements
}
