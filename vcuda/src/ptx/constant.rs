//! Literals and constant expressions, PTX ISA 4.5.

use super::Result;
use super::cursor::Parser;
use super::lexer::{Token, integer};

/// Parentheses and signs may nest this deep.
const MAX_DEPTH: u32 = 64;

/// The value of a literal; floats as bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    Int(i64),
    F32(u32),
    F64(u64),
}

/// Any literal: an integer, `0f` and eight hex digits, `0d` and sixteen, or a decimal fraction.
fn literal(text: &str) -> Option<Constant> {
    match text.as_bytes() {
        [b'0', b'f' | b'F', ..] if text.len() == 10 => {
            u32::from_str_radix(&text[2..], 16).ok().map(Constant::F32)
        }
        [b'0', b'd' | b'D', ..] if text.len() == 18 => {
            u64::from_str_radix(&text[2..], 16).ok().map(Constant::F64)
        }
        [b'0', b'f' | b'F' | b'd' | b'D', ..] => None,
        [b'0', b'x' | b'X' | b'b' | b'B', ..] => integer(text).map(|v| Constant::Int(v as i64)),
        _ if text.contains(['.', 'e', 'E']) => text.parse().ok().map(|v: f64| Constant::F64(v.to_bits())),
        _ => integer(text).map(|v| Constant::Int(v as i64)),
    }
}

impl Parser<'_> {
    /// True where [`Parser::constant`] can start.
    pub fn at_constant(&self) -> bool {
        matches!(self.token, Token::Number(_) | Token::Punct('-' | '+' | '~' | '!' | '('))
    }

    /// A constant expression: literals, `+ - ~ !`, the binary integer operators of C and parentheses.
    /// Integers are 64-bit and signed, and wrap.
    pub fn constant(&mut self) -> Result<Constant> {
        self.binary(0, 0)
    }

    /// A constant expression that is an integer.
    pub fn int(&mut self) -> Result<i64> {
        match self.constant()? {
            Constant::Int(value) => Ok(value),
            _ => self.error_taken("expected an integer, found a floating-point number"),
        }
    }

    /// Operators that bind at least as tightly as `floor`.
    fn binary(&mut self, floor: u32, depth: u32) -> Result<Constant> {
        let mut left = self.unary(depth)?;
        while let Token::Punct(operator) = self.token {
            let binds = match operator {
                '|' => 1,
                '^' => 2,
                '&' => 3,
                '<' | '>' => 4,
                '+' | '-' => 5,
                '*' | '/' | '%' => 6,
                _ => break,
            };
            if binds <= floor {
                break;
            }
            self.next()?;
            if matches!(operator, '<' | '>') {
                self.expect(operator)?;
            }
            let right = self.binary(binds, depth + 1)?;
            let (Constant::Int(a), Constant::Int(b)) = (left, right) else {
                return self.error_taken("constant expressions take integers alone");
            };
            let value = match operator {
                '|' => Some(a | b),
                '^' => Some(a ^ b),
                '&' => Some(a & b),
                '<' => Some(a.wrapping_shl(b as u32)),
                '>' => Some(a.wrapping_shr(b as u32)),
                '+' => Some(a.wrapping_add(b)),
                '-' => Some(a.wrapping_sub(b)),
                '*' => Some(a.wrapping_mul(b)),
                '/' => (b != 0).then(|| a.wrapping_div(b)),
                _ => (b != 0).then(|| a.wrapping_rem(b)),
            };
            left = match value {
                Some(value) => Constant::Int(value),
                None => return self.error_taken("division by zero in a constant expression"),
            };
        }
        Ok(left)
    }

    fn unary(&mut self, depth: u32) -> Result<Constant> {
        if depth > MAX_DEPTH {
            return self.expected(&format!("an expression at most {MAX_DEPTH} deep"));
        }
        if !self.at_constant() {
            return self.expected("a constant");
        }
        match self.next()? {
            Token::Punct('(') => {
                let value = self.binary(0, depth + 1)?;
                self.expect(')')?;
                Ok(value)
            }
            Token::Punct('-') => Ok(match self.unary(depth + 1)? {
                Constant::Int(value) => Constant::Int(value.wrapping_neg()),
                Constant::F32(bits) => Constant::F32(bits ^ 1 << 31),
                Constant::F64(bits) => Constant::F64(bits ^ 1 << 63),
            }),
            Token::Punct('~') => match self.unary(depth + 1)? {
                Constant::Int(value) => Ok(Constant::Int(!value)),
                _ => self.error_taken("`~` takes an integer"),
            },
            Token::Punct('!') => match self.unary(depth + 1)? {
                Constant::Int(value) => Ok(Constant::Int((value == 0).into())),
                _ => self.error_taken("`!` takes an integer"),
            },
            Token::Number(text) => match literal(text) {
                Some(value) => Ok(value),
                None => self.error_taken(format!("`{text}` is not a number")),
            },
            _ => self.unary(depth + 1),
        }
    }
}
