//! What a kernel calls, and what its lanes come back to.

/// What a kernel calls.
#[derive(Default)]
pub struct Calls {
    pub functions: Vec<Callable>,
    pub sites: Vec<Site>,
    /// 64- and 32-bit registers to save.
    pub registers: [usize; 2],
    /// Where the running function's variables begin in local memory.
    pub frame: u16,
    /// Where the stack ends, if `alloca` moves that.
    pub end: Option<u16>,
}

impl Calls {
    pub fn new(registers: [usize; 2]) -> Calls {
        Calls { registers, ..Calls::default() }
    }
}

/// A function that is called.
#[derive(Clone, Copy)]
pub struct Callable {
    pub address: u64,
    pub pc: usize,
    /// Of its variables, parameters and results first.
    pub frame_bytes: usize,
}

/// A `call` instruction.
pub struct Site {
    /// In [`Calls::functions`], if the call is not through an address.
    pub function: Option<usize>,
    pub caller_bytes: usize,
    pub callee_bytes: usize,
    pub arguments: Vec<Passed>,
    pub results: Vec<Passed>,
}

/// A parameter or result: where it is among the caller's variables, and among the callee's.
pub struct Passed {
    pub caller: usize,
    pub callee: usize,
    pub bytes: usize,
}

/// What a lane comes back to.
#[derive(Clone, PartialEq)]
pub struct Saved {
    pub pc: usize,
    pub site: usize,
    pub frame: u32,
    pub end: u32,
    pub registers: Box<[u32]>,
    pub preds: Box<[bool]>,
}
