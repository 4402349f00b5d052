//! PTX text to tokens, PTX ISA 4.1–4.5. Tokens borrow the text; numbers stay text until their context is known.

use super::{ParseError, Result};

/// A lexical element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier, register or first part of an opcode: `mov`, `%r1`, `$L__BB0_2`, `_`.
    Word(&'a str),
    /// What follows a dot, `::` kept: `global`, `x`, `shared::cta`.
    Dot(&'a str),
    /// `42`, `0x1fU`, `0f3F800000`, `1.5e3`, unchecked.
    Number(&'a str),
    /// Contents of a string literal, escapes kept.
    Text(&'a str),
    Punct(char),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Token::Word(s) | Token::Number(s) => write!(f, "`{s}`"),
            Token::Dot(s) => write!(f, "`.{s}`"),
            Token::Text(s) => write!(f, "\"{s}\""),
            Token::Punct(c) => write!(f, "`{c}`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Lexer { text, at: 0, line: 1 }
    }

    /// The next token and the line it starts on; [`Token::End`] for ever after the last.
    pub fn next(&mut self) -> Result<(Token<'a>, u32)> {
        self.skip_blank()?;
        let start = self.at;
        let token = match self.byte(0) {
            None => Token::End,
            Some(b'.') if self.byte(1).is_some_and(is_name) => {
                self.at += 1;
                Token::Dot(self.take_part())
            }
            Some(b'%') if self.byte(1).is_some_and(is_name) => {
                self.at += 1;
                self.take_while(is_name);
                Token::Word(&self.text[start..self.at])
            }
            Some(b'0'..=b'9') => Token::Number(self.take_number()),
            Some(byte) if is_name(byte) => Token::Word(self.take_while(is_name)),
            Some(b'"') => Token::Text(self.take_text()?),
            Some(byte) if b"{}()[]<>,;:|!@=+-*/%&^~".contains(&byte) => {
                self.at += 1;
                Token::Punct(byte as char)
            }
            Some(_) => {
                let c = self.text[start..].chars().next().unwrap_or_default();
                return Err(self.error(format!("unexpected character {c:?}")));
            }
        };
        Ok((token, self.line))
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.line, message: message.into() }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.byte(0).is_some_and(&keep) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// One dotted part, such as `mbarrier::complete_tx::bytes`.
    fn take_part(&mut self) -> &'a str {
        let start = self.at;
        self.take_while(is_name);
        while self.byte(0) == Some(b':') && self.byte(1) == Some(b':') && self.byte(2).is_some_and(is_name) {
            self.at += 2;
            self.take_while(is_name);
        }
        &self.text[start..self.at]
    }

    fn take_number(&mut self) -> &'a str {
        let start = self.at;
        let prefixed = self.byte(0) == Some(b'0') && self.byte(1).is_some_and(|b| b.is_ascii_alphabetic());
        self.take_while(is_name);
        if !prefixed {
            if self.byte(0) == Some(b'.') {
                self.at += 1;
                self.take_while(is_name);
            }
            let signed = matches!(self.byte(0), Some(b'+' | b'-'));
            if signed && self.text[start..self.at].ends_with(['e', 'E']) {
                self.at += 1;
                self.take_while(is_name);
            }
        }
        &self.text[start..self.at]
    }

    fn take_text(&mut self) -> Result<&'a str> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.byte(0) {
                Some(b'"') => break,
                Some(b'\\') if self.byte(1).is_some_and(|b| b != b'\n') => self.at += 2,
                None | Some(b'\n') => return Err(self.error("a string has no closing quote")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        // A backslash may have skipped the first byte of a longer character.
        self.text.get(start..self.at - 1).ok_or_else(|| self.error("a string is not valid text"))
    }

    /// Skips white space and comments, counting lines.
    fn skip_blank(&mut self) -> Result<()> {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'\n'), _) => {
                    self.line += 1;
                    self.at += 1;
                }
                (Some(byte), _) if byte.is_ascii_whitespace() => self.at += 1,
                (Some(b'/'), Some(b'/')) => {
                    self.take_while(|b| b != b'\n');
                }
                (Some(b'/'), Some(b'*')) => {
                    let body = &self.text[self.at + 2..];
                    let Some(length) = body.find("*/") else {
                        return Err(self.error("a comment has no closing */"));
                    };
                    self.line += body[..length].bytes().filter(|&b| b == b'\n').count() as u32;
                    self.at += length + 4;
                }
                _ => return Ok(()),
            }
        }
    }
}

/// A string literal's contents with its escapes resolved.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(digit @ '0'..='7') => {
                let mut code = digit as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(next) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + next;
                    chars.next();
                }
                out.push(char::from(code as u8));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// An integer literal: decimal, `0x`, `0b` or octal (`0…`), with an optional `U`.
pub(super) fn integer(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('U').unwrap_or(text);
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            match lexer.next().expect("lexes").0 {
                Token::End => return tokens,
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn opcodes_split_at_dots_and_keep_double_colons() {
        use Token::*;
        assert_eq!(
            lex("cp.async.bulk.mbarrier::complete_tx::bytes [%rd1+-4];"),
            [
                Word("cp"),
                Dot("async"),
                Dot("bulk"),
                Dot("mbarrier::complete_tx::bytes"),
                Punct('['),
                Word("%rd1"),
                Punct('+'),
                Punct('-'),
                Number("4"),
                Punct(']'),
                Punct(';')
            ]
        );
    }

    #[test]
    fn numbers_stay_whole() {
        use Token::*;
        assert_eq!(
            lex("0x1FU 0f3F800000 1.5e-3 2E+4 017 0b101U 9.0 0xE+1"),
            [
                Number("0x1FU"),
                Number("0f3F800000"),
                Number("1.5e-3"),
                Number("2E+4"),
                Number("017"),
                Number("0b101U"),
                Number("9.0"),
                Number("0xE"),
                Punct('+'),
                Number("1")
            ]
        );
    }

    #[test]
    fn comments_and_lines() {
        let mut lexer = Lexer::new("a // b\n/* c\n\n */ d \"x\\\"\u{e9}\"");
        assert_eq!(lexer.next(), Ok((Token::Word("a"), 1)));
        assert_eq!(lexer.next(), Ok((Token::Word("d"), 4)));
        assert_eq!(lexer.next(), Ok((Token::Text("x\\\"\u{e9}"), 4)));
        assert_eq!(lexer.next(), Ok((Token::End, 4)));
    }

    #[test]
    fn open_ended_text_is_an_error_on_its_line() {
        for (text, line) in
            [("\n\"abc", 2), ("\n\n/* abc\n\n", 3), ("\"a\nb\"", 1), ("\n\u{3bb}", 2), ("\"\\\u{e9}", 1)]
        {
            assert_eq!(Lexer::new(text).next().map_err(|e| e.line), Err(line), "{text:?}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r#"a\\b\"c\n\101z"#), "a\\b\"c\nAz");
    }
}
