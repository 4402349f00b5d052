//! Variable and parameter declarations with their initial values, PTX ISA 5.4.

use super::Result;
use super::ast::{Space, Type, Variable};
use super::constant::Constant;
use super::cursor::{Global, Parser};
use super::lexer::Token;

/// A variable's size in bytes stays below this.
const MAX_SIZE_BYTES: usize = 1 << 36;
/// So do the initial bytes of a whole module, which a few braces could place far apart.
const MAX_INIT_BYTES: usize = 1 << 28;
const MAX_DIMENSIONS: usize = 16;

/// What stands before the names of a declaration.
struct Shape {
    ty: Type,
    /// 2, 4 or 8 for a vector.
    width: usize,
    align: Option<usize>,
}

impl Shape {
    fn element_bytes(&self) -> usize {
        self.ty.size_bytes() * self.width
    }

    fn variable(&self, name: &str, space: Space) -> Variable {
        Variable {
            name: name.to_string(),
            space,
            ty: self.ty,
            align: self.align.unwrap_or(self.element_bytes()),
            size_bytes: self.element_bytes(),
            init: Vec::new(),
            relocations: Vec::new(),
            is_extern: false,
        }
    }
}

impl<'a> Parser<'a> {
    /// Adds a module-scope variable; an `.extern` one may be declared again.
    pub fn declare_global(&mut self, variable: Variable) -> Result<()> {
        match self.globals.get(&variable.name) {
            None => {
                let index = self.module.variables.len();
                self.globals.insert(variable.name.clone(), Global::Variable(index));
                self.module.variables.push(variable);
            }
            Some(&Global::Variable(index)) if self.module.variables[index].is_extern => {
                self.module.variables[index] = variable;
            }
            Some(&Global::Variable(_)) if variable.is_extern => {}
            Some(_) => return self.error_taken(format!("`{}` is declared twice", variable.name)),
        }
        Ok(())
    }

    /// `( .param … name, … )`
    pub fn parameters(&mut self) -> Result<Vec<Variable>> {
        self.expect('(')?;
        let mut params = Vec::new();
        if self.accept(')')? {
            return Ok(params);
        }
        loop {
            params.push(self.parameter()?);
            if !self.accept(',')? {
                self.expect(')')?;
                return Ok(params);
            }
        }
    }

    /// The rest of a declaration after its state space: `.align 4 .b8 a[16] = {1, 2}, b;`
    pub fn variables(&mut self, space: Space, is_extern: bool) -> Result<Vec<Variable>> {
        let shape = self.shape()?;
        if shape.ty == Type::Pred {
            return self.error_taken("only registers can be predicates");
        }
        let mut variables = Vec::new();
        loop {
            let name = self.word("a variable name")?;
            let mut variable = Variable { is_extern, ..shape.variable(name, space) };
            let dimensions = self.dimensions()?;
            variable.size_bytes = self.array_bytes(&shape, &dimensions)?;
            if self.accept('=')? {
                if !matches!(space, Space::Global | Space::Const) {
                    return self.error_taken("only .global and .const variables have initial values");
                }
                self.initial_value(&mut variable, &shape, &dimensions)?;
            } else if dimensions.first() == Some(&None) && !is_extern {
                return self
                    .error_taken(format!("`{name}[]` has no size: it must be .extern or initialised"));
            }
            variables.push(variable);
            if !self.accept(',')? {
                self.expect(';')?;
                return Ok(variables);
            }
        }
    }

    /// `.param .align 8 .b8 name[24]`, `.param .u64 .ptr .global .align 4 name`
    pub fn parameter(&mut self) -> Result<Variable> {
        match self.next()? {
            Token::Dot("param") => {}
            Token::Dot("reg") => {
                return self.error_taken("register parameters are not supported: use .param");
            }
            other => return self.error_taken(format!("expected .param, found {other}")),
        }
        let shape = self.shape()?;
        let name = self.word("a parameter name")?;
        let mut variable = shape.variable(name, Space::Param);
        let dimensions = self.dimensions()?;
        variable.size_bytes = self.array_bytes(&shape, &dimensions)?;
        Ok(variable)
    }

    /// Alignment, vector width, type and attributes, in any order.
    fn shape(&mut self) -> Result<Shape> {
        let (mut ty, mut width, mut align) = (None, 1, None);
        let mut of_pointee = false;
        while let Token::Dot(part) = self.token {
            self.next()?;
            match part {
                "align" => {
                    let value = self.small_int("an alignment")?;
                    if !value.is_power_of_two() || value > 1 << 20 {
                        return self.error_taken(format!("an alignment must be a power of two, not {value}"));
                    }
                    // After `.ptr` it speaks of what the pointer points to.
                    if !of_pointee {
                        align = Some(value as usize);
                    }
                }
                "v2" => width = 2,
                "v4" => width = 4,
                "v8" => width = 8,
                "attribute" => self.skip_attribute()?,
                "ptr" => of_pointee = true,
                "global" | "const" | "shared" | "local" | "param" if of_pointee => {}
                _ => match Type::from_name(part) {
                    Some(found) if ty.is_none() => ty = Some(found),
                    Some(_) => return self.error_taken(format!("a second type, .{part}")),
                    None => return self.error_taken(format!("unknown type .{part}")),
                },
            }
        }
        match ty {
            Some(ty) => Ok(Shape { ty, width, align }),
            None => self.expected("a type"),
        }
    }

    /// `[4][8]`; `None` for a first `[]`.
    fn dimensions(&mut self) -> Result<Vec<Option<usize>>> {
        let mut dimensions = Vec::new();
        while self.accept('[')? {
            if self.accept(']')? {
                if !dimensions.is_empty() {
                    return self.error_taken("only the first dimension can be empty");
                }
                dimensions.push(None);
                continue;
            }
            match usize::try_from(self.int()?) {
                Ok(size) => dimensions.push(Some(size)),
                Err(_) => return self.error_taken("an array size cannot be negative"),
            }
            self.expect(']')?;
            if dimensions.len() > MAX_DIMENSIONS {
                return self.error_taken(format!("an array has at most {MAX_DIMENSIONS} dimensions"));
            }
        }
        Ok(dimensions)
    }

    /// Bytes of the whole array; 0 when the first dimension is empty.
    fn array_bytes(&self, shape: &Shape, dimensions: &[Option<usize>]) -> Result<usize> {
        let size = dimensions.iter().try_fold(shape.element_bytes(), |size, dimension| {
            size.checked_mul(dimension.unwrap_or(1)).filter(|&size| size <= MAX_SIZE_BYTES)
        });
        match size {
            Some(_) if dimensions.first() == Some(&None) => Ok(0),
            Some(size) => Ok(size),
            None => self.error_taken(format!("a variable is larger than {} GiB", MAX_SIZE_BYTES >> 30)),
        }
    }

    /// After `=`: one value, or nested braces.
    fn initial_value(
        &mut self,
        variable: &mut Variable,
        shape: &Shape,
        dimensions: &[Option<usize>],
    ) -> Result<()> {
        // Bytes of the whole, of a row, …, of one scalar.
        let mut strides = vec![shape.ty.size_bytes()];
        if shape.width > 1 {
            strides.push(shape.element_bytes());
        }
        for dimension in dimensions.iter().rev() {
            let inner = strides[strides.len() - 1];
            strides.push(dimension.map_or(MAX_SIZE_BYTES, |size| size * inner));
        }
        strides.reverse();

        if self.accept('{')? {
            let end = self.braces(variable, &strides, 0)?;
            if dimensions.first() == Some(&None) {
                variable.size_bytes = end.next_multiple_of(strides[1].max(1));
            }
            Ok(())
        } else if strides.len() == 1 {
            self.scalar(variable, 0)
        } else {
            self.expected("`{`")
        }
    }

    /// The values up to `}`, from byte `start` on; returns where they end. As in C, values fill rows in order
    /// and an inner brace starts a row. Recursion ends with `strides`.
    fn braces(&mut self, variable: &mut Variable, strides: &[usize], start: usize) -> Result<usize> {
        let scalar_bytes = variable.ty.size_bytes();
        let mut at = start;
        while !self.accept('}')? {
            let is_row = self.token == Token::Punct('{');
            let inner_bytes = if is_row && strides.len() > 2 { strides[1] } else { scalar_bytes };
            if at + inner_bytes > start + strides[0] {
                return self.expected("`}` after as many values as the variable holds");
            }
            if is_row {
                if strides.len() <= 2 || !(at - start).is_multiple_of(inner_bytes.max(1)) {
                    return self.expected("a value");
                }
                self.next()?;
                self.braces(variable, &strides[1..], at)?;
            } else {
                self.scalar(variable, at)?;
            }
            at += inner_bytes;
            if !self.accept(',')? {
                self.expect('}')?;
                break;
            }
        }
        Ok(at)
    }

    /// One value at byte `at`: a number, a symbol's address, or one byte of an address, `0xFF00(symbol)`.
    fn scalar(&mut self, variable: &mut Variable, at: usize) -> Result<()> {
        let size = variable.ty.size_bytes();
        let bits = if self.at_constant() {
            let value = self.constant()?;
            match value {
                Constant::Int(mask) if self.token == Token::Punct('(') => {
                    self.next()?;
                    self.address_byte(variable, at, mask as u64)?;
                    self.expect(')')?;
                    0
                }
                _ => match value_bits(variable.ty, value) {
                    Some(bits) => bits,
                    None => return self.error_taken("this number does not suit the variable's type"),
                },
            }
        } else {
            let (name, addend) = self.symbol_address()?;
            if size != 8 {
                return self.error_taken("an address needs a 64-bit type");
            }
            variable.relocations.push((at, name, addend));
            0
        };
        let end = at + size;
        if variable.init.len() < end {
            self.init_bytes += end - variable.init.len();
            if self.init_bytes > MAX_INIT_BYTES {
                return self.error_taken(format!("more than {} MiB of initial values", MAX_INIT_BYTES >> 20));
            }
            variable.init.resize(end, 0);
        }
        let bytes = bits.to_le_bytes();
        let known = size.min(bytes.len());
        variable.init[at..at + known].copy_from_slice(&bytes[..known]);
        Ok(())
    }

    /// `0xFF(symbol)`, `0xFF00(symbol)`, …: how packed structures hold an address, byte by byte. The eight in
    /// order are one relocation; other uses of masks have no meaning for a loader and are refused.
    fn address_byte(&mut self, variable: &mut Variable, at: usize, mask: u64) -> Result<()> {
        let (name, addend) = self.symbol_address()?;
        let index = mask.trailing_zeros() as usize / 8;
        let is_byte = variable.ty.size_bytes() == 1 && index < 8 && mask == 0xFF << (8 * index);
        let relocation = (at.wrapping_sub(index), name, addend);
        if is_byte && index == 0 {
            variable.relocations.push(relocation);
        } else if !is_byte || variable.relocations.last() != Some(&relocation) {
            return self.error_taken("only whole addresses, from byte 0xFF up, can be initial values");
        }
        Ok(())
    }

    /// `symbol`, `generic(symbol)`, each with `+n` or `-n`.
    fn symbol_address(&mut self) -> Result<(String, i64)> {
        let mut name = self.word("a value")?;
        let is_generic = name == "generic" && self.accept('(')?;
        if is_generic {
            name = self.word("a symbol")?;
        }
        if !self.globals.contains_key(name) {
            return self.error_taken(format!("undefined symbol `{name}`"));
        }
        let mut addend = self.offset()?;
        if is_generic {
            self.expect(')')?;
            addend = addend.wrapping_add(self.offset()?);
        }
        Ok((name.to_string(), addend))
    }
}

/// A number as the low bits of a value of type `ty`.
fn value_bits(ty: Type, value: Constant) -> Option<u64> {
    match (ty, value) {
        (Type::F32, Constant::Int(v)) => Some((v as f32).to_bits() as u64),
        (Type::F64, Constant::Int(v)) => Some((v as f64).to_bits()),
        (_, Constant::Int(v)) => Some(v as u64),
        (Type::F32, Constant::F64(bits)) => Some((f64::from_bits(bits) as f32).to_bits() as u64),
        (Type::F32 | Type::B32, Constant::F32(bits)) => Some(bits as u64),
        (Type::F64, Constant::F32(bits)) => Some((f32::from_bits(bits) as f64).to_bits()),
        (Type::F64 | Type::B64, Constant::F64(bits)) => Some(bits),
        _ => None,
    }
}
