//! The syntax tree of a PTX module: names resolved and scopes flattened.
//!
//! PTX ISA 9.0, chapters 4 (syntax), 5 (state spaces, types) and 10 (abstracting the ABI).

use std::sync::Arc;

use super::forms::opcode::Opcode;
pub use super::types::Type;

/// A parsed `.ptx` file.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// `.version major.minor`.
    pub version: (u32, u32),
    /// First word of `.target`, such as `sm_90a`.
    pub target: String,
    /// Module-scope variables: `.global`, `.const`, `.shared`, also `.extern` ones.
    pub variables: Vec<Variable>,
    /// Kernels and device functions, in order.
    pub functions: Vec<Function>,
    /// `.file` table: index and path, for `.loc`.
    pub files: Vec<(u32, String)>,
}

/// A state space, PTX ISA 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Reg,
    Param,
    Local,
    Shared,
    Global,
    Const,
    Generic,
}

/// A declared variable outside the register space, or a parameter.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub ty: Type,
    /// Alignment in bytes: `.align`, else the type's size times the vector width.
    pub align: usize,
    /// Whole size in bytes; 0 for an unsized `.extern .shared` array (dynamic shared memory).
    pub size_bytes: usize,
    /// Initial bytes (shorter than `size_bytes`: the rest is zero).
    pub init: Vec<u8>,
    /// Addresses of other symbols inside `init`: byte offset, symbol name, addend.
    pub relocations: Vec<(usize, String, i64)>,
    pub is_extern: bool,
}

/// A kernel (`.entry`) or device function (`.func`).
#[derive(Clone, Debug, Default)]
pub struct Function {
    pub name: String,
    pub is_kernel: bool,
    pub returns: Vec<Variable>,
    pub params: Vec<Variable>,
    /// `None` for a declaration (such as `vprintf` or `__assertfail`).
    pub body: Option<Body>,
    pub directives: Directives,
    /// Line of the declaration in the PTX text, from 1.
    pub line: u32,
}

/// What a kernel asks of its launches and of `ptxas`: performance-tuning and cluster dimension directives, PTX ISA
/// 11.4 and 11.7.
#[derive(Clone, Debug, Default)]
pub struct Directives {
    pub max_ntid: Option<[u32; 3]>,
    pub req_ntid: Option<[u32; 3]>,
    pub min_ctas_per_sm: Option<u32>,
    pub max_registers: Option<u32>,
    /// `.reqnctapercluster`
    pub cluster: Option<[u32; 3]>,
    /// `.maxclusterrank`
    pub max_cluster_ctas: Option<u32>,
    /// `.explicitcluster`
    pub needs_cluster: bool,
    /// `.blocksareclusters`
    pub counts_clusters: bool,
}

/// A function's contents, with nested scopes flattened and renamed apart.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Every virtual register; a [`RegId`] indexes it.
    pub registers: Vec<Type>,
    /// `.shared`, `.local` and `.param` variables declared inside the body, names made unique.
    pub variables: Vec<Variable>,
    pub instructions: Vec<Instruction>,
}

/// Index into [`Body::registers`].
pub type RegId = u32;

/// `@p` or `@!p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    pub reg: RegId,
    pub negated: bool,
}

#[derive(Clone, Debug)]
pub struct Instruction {
    pub guard: Option<Guard>,
    pub opcode: Arc<Opcode>,
    /// Destination first, as written. Two opcodes are brought into one shape: `call` is always
    /// `[List(returns), Function or Reg, List(arguments)]`, then `Function(prototype)` where one is written;
    /// `brx.idx` is `[Reg, List(Label, …)]`.
    pub operands: Vec<Operand>,
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// Source file index and line from the last `.loc`, if any.
    pub source: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Reg(RegId),
    /// `!p` as a source operand.
    NotReg(RegId),
    /// `r.b1`, `-r`: a part of a register, or its negative, as of the scalar video instructions.
    Part(RegId, Part),
    /// `p|q`: two destinations, as of `setp` and `shfl`.
    Pair(Box<Operand>, Box<Operand>),
    /// `_`
    Sink,
    /// An integer literal, sign extended to 64 bits.
    Int(i64),
    /// `0f3F800000`, as bits.
    F32(u32),
    /// `0d3FF0000000000000` or a decimal literal, as bits.
    F64(u64),
    /// `%tid.x`, `%laneid`, `%clock64`, …, without the percent sign. `WARP_SZ` becomes `Int(32)`.
    Special(String),
    /// A variable's (unique) name, with `+offset`, used as an address or value.
    Symbol(String, i64),
    /// `[base + offset]`; base is `Reg`, `Symbol` (offset folded into it) or `Int`.
    Address(Box<Operand>, i64),
    /// `{a, b, c, d}`
    Vector(Vec<Operand>),
    /// `[tensorMap, {c0, c1}]`, as of `cp.async.bulk.tensor`.
    TensorAddress(Box<Operand>, Vec<Operand>),
    /// A branch target: index into [`Body::instructions`] (its length: the end).
    Label(usize),
    /// A function's name (in `call`, or as a value in `mov`: its address) or a `.callprototype`'s.
    Function(String),
    /// `(a, b)`: the argument lists of `call`, and the targets of `brx.idx`.
    List(Vec<Operand>),
}

/// Which bits of a register, and whether their negative is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub first: u8,
    pub bits: u8,
    pub negated: bool,
}

impl Part {
    pub const WHOLE: Part = Part { first: 0, bits: 32, negated: false };

    /// From a selector: `b0` to `b3`, `h0` and `h1`.
    pub fn from_name(name: &str) -> Option<Part> {
        let (first, bits) = match name {
            "b0" => (0, 8),
            "b1" => (8, 8),
            "b2" => (16, 8),
            "b3" => (24, 8),
            "h0" => (0, 16),
            "h1" => (16, 16),
            _ => return None,
        };
        Some(Part { first, bits, negated: false })
    }
}

impl Operand {
    /// Itself, or what is alone in its braces.
    pub fn alone(&self) -> &Operand {
        match self {
            Operand::Vector(all) if all.len() == 1 => &all[0],
            operand => operand,
        }
    }

    /// Calls `each` for the operand, or for those that it is made of.
    pub fn visit<'a>(&'a self, each: &mut impl FnMut(&'a Operand)) {
        match self {
            Operand::Pair(a, b) => {
                a.visit(each);
                b.visit(each);
            }
            Operand::Address(base, _) => base.visit(each),
            Operand::Vector(all) | Operand::List(all) => all.iter().for_each(|part| part.visit(each)),
            Operand::TensorAddress(base, all) => {
                base.visit(each);
                all.iter().for_each(|part| part.visit(each));
            }
            _ => each(self),
        }
    }
}
