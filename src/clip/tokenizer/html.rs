//! HTML's character references, as Python's `html.unescape` and ftfy replace them.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Names and code points (`assets/make_text_tables.py`); those that begin with ^ are ftfy's alone.
const TABLE: &str = include_str!("../../../assets/html_entities.tsv");

static NAMES: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
    let char = |code: &str| u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
    let entry = |line: &'static str| {
        let (name, codes) = line.split_once('\t')?;
        Some((name, codes.split(' ').map(char).collect::<Option<String>>()?))
    };
    TABLE.lines().filter_map(entry).collect()
});

static ANY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)").expect("a pattern")
});

static CLOSED: LazyLock<Regex> = LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("a pattern"));

/// What numbers from 0x80 to 0x9f stand for: Windows-1252's characters.
const WINDOWS: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";

/// `html.unescape`: all references, those without a semicolon too.
pub fn unescape(text: &str) -> String {
    let replace = |found: &Captures| match found[1].strip_prefix('#') {
        Some(number) => numbered(number.trim_end_matches(';')),
        None => named(&found[1]),
    };
    ANY.replace_all(text, replace).into_owned()
}

/// ftfy's `unescape_html`: references with a semicolon, and some in capitals.
pub fn unescape_closed(text: &str) -> String {
    let replace = |found: &Captures| {
        let all = &found[0];
        if all.starts_with("&#") {
            // Half of one is left as it is.
            let unescaped = unescape(all);
            return if unescaped.contains(';') { all.to_string() } else { unescaped };
        }
        let name = &all[1..];
        let capitals = || NAMES.get(format!("^{name}").as_str());
        NAMES.get(name).or_else(capitals).map_or_else(|| all.to_string(), String::clone)
    };
    CLOSED.replace_all(text, replace).into_owned()
}

fn numbered(number: &str) -> String {
    let hex = number.strip_prefix(['x', 'X']);
    let code = match hex {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    let char = match code.unwrap_or(u32::MAX) {
        0 => Some('\u{fffd}'),
        code @ 0x80..=0x9f => WINDOWS.chars().nth(code as usize - 0x80),
        // No characters: control characters, and what Unicode will never have.
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        code if code <= 0x10_ffff && code & 0xfffe == 0xfffe => None,
        code => Some(char::from_u32(code).unwrap_or('\u{fffd}')),
    };
    char.into_iter().collect()
}

/// By the longest name that it begins with.
fn named(text: &str) -> String {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8()).skip(1).collect::<Vec<_>>();
    let found = ends.iter().rev().find_map(|&end| Some((NAMES.get(&text[..end])?, &text[end..])));
    match found.filter(|_| !text.starts_with('^')) {
        Some((char, rest)) => format!("{char}{rest}"),
        None => format!("&{text}"),
    }
}
