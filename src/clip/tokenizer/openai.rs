//! Text as OpenAI's and open_clip's tokenizers clean it: by ftfy's `fix_text`, `html.unescape` twice, white space
//! collapsed, lower case.
//!
//! ftfy also guesses whether a text was decoded by a wrong encoding (`cafÃ©`), and then mends it. Whether it would guess
//! so is asked here as there; the mending is not done: such a text is refused.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::html;

/// Of ftfy (`assets/make_text_tables.py`).
static MOJIBAKE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(include_str!("../../../assets/mojibake.regex").trim_end()).expect("a pattern")
});

static TERMINAL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[(?:\d|;)*[a-zA-Z]").expect("a pattern"));

/// # Errors
/// A text that looks as if it had been decoded by a wrong encoding.
pub fn clean(text: &str) -> Result<String> {
    let text = html::unescape(&html::unescape(&fix(text)?));
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    Ok(words.join(" ").to_lowercase())
}

/// Python's `str.isspace`.
fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

/// `ftfy.fix_text`, line by line; once there is a `<`, the text is HTML, and its references stay.
fn fix(text: &str) -> Result<String> {
    let mut fixed = String::with_capacity(text.len());
    let mut is_html = false;
    for line in text.split_inclusive('\n') {
        is_html |= line.contains('<');
        fixed.push_str(&fix_line(line, is_html)?);
    }
    Ok(fixed)
}

fn fix_line(line: &str, is_html: bool) -> Result<String> {
    let mut text = line.to_string();
    loop {
        let before = text.clone();
        if !is_html {
            text = html::unescape_closed(&text);
        }
        ensure!(
            text.is_ascii() || !MOJIBAKE.is_match(&text),
            "{text:?} looks decoded by a wrong encoding, and this model's own tokenizer would mend it (ftfy); \
             write it as it should read"
        );
        let wide: String =
            text.chars().flat_map(without_ligature).flat_map(of_plain_width).map(uncurled).collect();
        let lines = wide.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        let shown = TERMINAL.replace_all(&lines, "");
        text = shown.chars().filter(|char| !is_control(*char)).nfc().collect();
        if text == before {
            return Ok(text);
        }
    }
}

fn without_ligature(char: char) -> impl Iterator<Item = char> {
    let apart = match char {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => "",
    };
    apart.chars().chain(apart.is_empty().then_some(char))
}

/// Full-width and half-width forms as ordinary ones.
fn of_plain_width(char: char) -> impl Iterator<Item = char> {
    let is_wide = ('\u{ff01}'..'\u{fff0}').contains(&char);
    let plain = if char == '\u{3000}' { ' ' } else { char };
    let wide = is_wide.then(|| std::iter::once(char).nfkc());
    wide.into_iter().flatten().chain((!is_wide).then_some(plain))
}

fn uncurled(char: char) -> char {
    match char {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => char,
    }
}

fn is_control(char: char) -> bool {
    matches!(char, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}
