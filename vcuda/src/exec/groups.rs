//! Lanes that run or wait together.

/// Lanes that run together, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub pc: usize,
    pub mask: u32,
}

/// What an operand of a collective is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Unused,
    Register,
    /// Of 64 bits.
    Wide,
    Predicate,
}

/// What lanes must have in common to meet.
pub struct Form {
    pub name: &'static str,
    /// Of `d` and `e`, which are results, and `a`, `b`, `c` between them, by the mode.
    pub roles: fn(i64) -> [Role; 5],
}

/// An instruction of the whole warp; its mode is where it is.
pub const ALIGNED: Form = Form { name: "an instruction of the whole warp", roles: |_| [Role::Unused; 5] };

/// Lanes that wait, and for whom.
#[derive(Clone, Copy)]
pub struct Meeting {
    pub group: Group,
    pub members: u32,
    pub form: &'static Form,
    pub mode: i64,
}

impl Meeting {
    pub fn is_aligned(&self) -> bool {
        self.form.name == ALIGNED.name
    }

    /// Whether the lanes of both wait for each other.
    pub fn is_with(&self, other: &Meeting) -> bool {
        (self.form.name, self.mode, self.members) == (other.form.name, other.mode, other.members)
    }
}

/// Warps of a warpgroup.
pub const WARPS: usize = 4;
