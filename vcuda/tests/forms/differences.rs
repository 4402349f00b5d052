//! Where vcuda and NVIDIA's assembler differ, and why.

/// Forms that one of them refuses.
pub struct Difference {
    pub why: &'static str,
    /// What the forms begin with, any of these.
    starts: &'static [&'static str],
    /// What they hold, any of these.
    holds: &'static [&'static str],
    /// What vcuda says of them.
    says: &'static str,
}

impl Difference {
    pub fn is_of(&self, form: &str, error: &str) -> bool {
        self.starts.iter().any(|start| form.starts_with(start))
            && self.holds.iter().any(|part| form.contains(part))
            && error.contains(self.says)
    }
}

const ANY: &[&str] = &[""];

/// What the assembler accepts and vcuda refuses: by name, or because the ISA does not have it.
pub const REFUSED_ALONE: [Difference; 16] = [
    Difference {
        why: "a constant of 128 bits",
        starts: &["atom"],
        holds: &[", 7;"],
        says: "no 128-bit register",
    },
    Difference {
        why: "a vector that `.v2` or `.v4` does not announce",
        starts: &["st.async"],
        holds: &["{"],
        says: "one register",
    },
    Difference { why: "not here, and refused by name", starts: ANY, holds: ANY, says: "not supported here" },
    Difference { why: "a qualifier twice", starts: ANY, holds: ANY, says: " 2 times" },
    Difference {
        why: "an address without brackets",
        starts: &["cp.", "red."],
        holds: ANY,
        says: "an address is",
    },
    Difference {
        why: "128 bits for fewer",
        starts: &["ld", "st"],
        holds: &["%q"],
        says: "one register is expected",
    },
    Difference {
        why: "a float register for narrower bits, which `.weak` alone does not take",
        starts: &["ld", "st"],
        holds: &["%f", "%g"],
        says: "a register of type .f",
    },
    Difference {
        why: "a scope without a meaning",
        starts: &["cp."],
        holds: &[".cta", ".gpu", ".cluster"],
        says: "part",
    },
    Difference {
        why: "a space without a meaning",
        starts: &["st.async", "fence"],
        holds: &[".shared", ".global"],
        says: "part",
    },
    Difference {
        why: "a layout without a meaning",
        starts: &["stmatrix", "movmatrix"],
        holds: &[".row"],
        says: "part .row",
    },
    Difference { why: "a vector without a meaning", starts: &["wgmma"], holds: &[".v4"], says: "part .v4" },
    Difference { why: "`.aligned` left out", starts: &["wgmma"], holds: &[".sync"], says: "no such form" },
    Difference {
        why: "operands that nothing reads",
        starts: &["cvt.pack"],
        holds: ANY,
        says: "a register of type",
    },
    Difference {
        why: "forms that the ISA does not have",
        starts: &["mapa.s32", "cvt.f16.bf16", "testp.f64 "],
        holds: ANY,
        says: "no such form",
    },
    Difference {
        why: "a 32-bit address",
        starts: &["isspacep"],
        holds: &["%r"],
        says: "a register of type .b32",
    },
    Difference {
        why: "video instructions that merge into a whole register, or have no destination",
        starts: &["v"],
        holds: ANY,
        says: "operand 1",
    },
];

/// What vcuda accepts and the assembler refuses.
pub const ACCEPTED_ALONE: [Difference; 2] = [
    Difference {
        why: "constants of other values: faults when they are run",
        starts: &["bar", "cp.", "tensormap", "alloca", "createpolicy"],
        holds: &[" 7", "1.5"],
        says: "",
    },
    Difference {
        why: "a called function's parameters, in a kernel",
        starts: &["ld"],
        holds: &["param::func"],
        says: "",
    },
];
