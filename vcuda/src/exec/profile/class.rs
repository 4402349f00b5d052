//! Instructions by class and the floating-point operations they do, from the opcode alone.

/// What kind of work an instruction is, by the part of a multiprocessor that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Fp32,
    Fp64,
    /// float16 and bfloat16, single or in pairs.
    Fp16,
    /// Integer arithmetic, logic, comparisons of integers.
    Integer,
    /// `ex2`, `rcp`, `sin`, … and divisions and roots.
    Special,
    Convert,
    /// `mov`, `selp`, `cvta`, and parameters.
    Move,
    /// `shfl`, `vote`, `match`, `redux`, …
    Warp,
    Load,
    Store,
    Atomic,
    /// `ldmatrix`, `stmatrix`.
    Matrix,
    /// `cp.async` in all forms, `st.async`.
    Copy,
    /// `mma` and `wgmma`.
    Tensor,
    /// Branches and exits.
    Control,
    /// Barriers, mbarriers, fences.
    Barrier,
    Other,
}

impl Class {
    pub const COUNT: usize = 17;
    pub const NAMES: [&'static str; Class::COUNT] = [
        "fp32", "fp64", "fp16", "integer", "special", "convert", "move", "warp", "load", "store", "atomic",
        "matrix", "copy", "tensor", "control", "barrier", "other",
    ];

    /// Whether the lanes that execute the next instruction may be others: a run of instructions that are
    /// counted together ends here.
    pub fn ends_run(self) -> bool {
        matches!(
            self,
            Class::Warp
                | Class::Matrix
                | Class::Copy
                | Class::Tensor
                | Class::Control
                | Class::Barrier
                | Class::Other
        )
    }
}

/// Where floating-point (for [`Unit::TensorInt8`] integer) operations are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unit {
    Fp32,
    Fp64,
    Fp16,
    /// float16 or bfloat16 operands.
    TensorFp16,
    TensorTf32,
    TensorFp64,
    TensorInt8,
}

impl Unit {
    pub const COUNT: usize = 7;
    pub const NAMES: [&'static str; Unit::COUNT] =
        ["fp32", "fp64", "fp16", "tensor_fp16", "tensor_tf32", "tensor_fp64", "tensor_int8"];
}

/// Operations of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flops {
    pub unit: Unit,
    /// Of a lane, or where `of_warp` of the whole warp. A multiply-add is two.
    pub count: u64,
    pub of_warp: bool,
}

/// Class and operations of an opcode, split at its dots. Additions, multiplications and multiply-adds count
/// as operations; minima, comparisons, conversions and the special functions do not.
pub fn classify(parts: &[&str]) -> (Class, Option<Flops>) {
    let has = |part: &str| parts[1..].contains(&part);
    let opcode = parts[0];
    match opcode {
        "mma" | "wgmma" => return tensor(parts),
        "wmma" if has("mma") => return tensor(parts),
        "ld" | "ldu" if has("param") || has("param::entry") || has("param::func") => {
            return (Class::Move, None);
        }
        "st" | "red" if has("async") => return (Class::Copy, None),
        _ => {}
    }
    let class = match opcode {
        "ld" | "ldu" => Class::Load,
        "st" => Class::Store,
        "atom" | "red" => Class::Atomic,
        "ldmatrix" | "stmatrix" | "wmma" => Class::Matrix,
        "cp" => Class::Copy,
        "bra" | "brx" | "ret" | "exit" | "trap" | "call" | "__assertfail" => Class::Control,
        "bar" | "barrier" | "mbarrier" | "membar" | "fence" => Class::Barrier,
        "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" | "movmatrix" => Class::Warp,
        "mov" | "cvta" | "selp" | "mapa" | "getctarank" | "isspacep" => Class::Move,
        "cvt" => Class::Convert,
        "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rcp" | "rsqrt" | "sqrt" => Class::Special,
        "div" if has("f32") || has("f64") => Class::Special,
        "add" | "sub" | "mul" | "mad" | "fma" | "min" | "max" | "abs" | "neg" | "copysign" | "setp"
        | "set" | "slct" | "testp" => arithmetic(parts),
        "and" | "or" | "xor" | "not" | "shl" | "shr" | "div" | "rem" | "addc" | "subc" | "madc" | "mul24"
        | "mad24" | "popc" | "clz" | "brev" | "bfind" | "bfe" | "bfi" | "sad" | "shf" | "prmt" | "lop3"
        | "bmsk" | "szext" | "fns" | "dp2a" | "dp4a" => Class::Integer,
        _ => Class::Other,
    };
    let unit = match class {
        Class::Fp32 => Unit::Fp32,
        Class::Fp64 => Unit::Fp64,
        Class::Fp16 => Unit::Fp16,
        _ => return (class, None),
    };
    let pair = if has("f16x2") || has("bf16x2") { 2 } else { 1 };
    let count = match opcode {
        "add" | "sub" | "mul" => pair,
        "fma" | "mad" => 2 * pair,
        _ => return (class, None),
    };
    (class, Some(Flops { unit, count, of_warp: false }))
}

/// The class of an arithmetic opcode: of the type that it computes in.
fn arithmetic(parts: &[&str]) -> Class {
    match parts.last() {
        Some(&"f32") => Class::Fp32,
        Some(&"f64") => Class::Fp64,
        Some(&("f16" | "f16x2" | "bf16" | "bf16x2")) => Class::Fp16,
        _ => Class::Integer,
    }
}

/// The part that names a matrix instruction's shape, such as `m16n8k16`.
pub fn shape(parts: &[&str]) -> Option<[u64; 3]> {
    parts.iter().find_map(|part| {
        let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
    })
}

/// `mma` of shape m × n × k is 2·m·n·k operations of a warp; `wgmma`, whose m is 64, is shared by four.
fn tensor(parts: &[&str]) -> (Class, Option<Flops>) {
    let Some(shape) = shape(parts) else { return (Class::Barrier, None) }; // `wgmma.fence` and its like
    let has = |part: &str| parts.contains(&part);
    let unit = match () {
        () if has("f64") => Unit::TensorFp64,
        () if has("tf32") => Unit::TensorTf32,
        () if has("s8") || has("u8") => Unit::TensorInt8,
        () => Unit::TensorFp16,
    };
    let warps = if parts[0] == "wgmma" { 4 } else { 1 };
    (Class::Tensor, Some(Flops { unit, count: 2 * shape.iter().product::<u64>() / warps, of_warp: true }))
}
