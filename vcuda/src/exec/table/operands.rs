//! How many operands each instruction has. What is not here is counted by whoever decodes it.

use std::ops::RangeInclusive;

use super::Entry;

impl Entry<'_> {
    /// Refuses operands that are missing, or that nothing would read.
    pub(super) fn check_count(&self) -> Result<(), String> {
        // These have operands of their own.
        if matches!(self.parts[0], "mma" | "wgmma") {
            let bytes = ["e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "s8", "u8"].iter().any(|ty| self.has(ty));
            if self.has("sp") || self.parts.iter().any(|part| part.starts_with("sp::")) {
                return Err("products of sparse matrices are not supported".to_string());
            } else if self.parts[0] == "wgmma" && (bytes || self.has("b1")) {
                return Err("products of 16- and 32-bit floats only are supported".to_string());
            }
        }
        let (found, expected) = (self.operands.len(), self.operand_count());
        if expected.contains(&found) {
            return Ok(());
        }
        let (least, most) = expected.into_inner();
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(format!("{found} operands; {expected} are expected"))
    }

    fn operand_count(&self) -> RangeInclusive<usize> {
        // A cache policy comes last.
        let hint = self.has("L2::cache_hint") as usize;
        let exactly = |count: usize| count + hint..=count + hint;
        let combined = ["and", "or", "xor"].iter().any(|name| self.has(name)) as usize;
        match self.parts[0] {
            "ret" | "exit" | "trap" | "brkpt" | "membar" | "griddepcontrol" => exactly(0),
            "fence" if self.has("acquire") && self.has("proxy") => exactly(2 * self.has_size() as usize),
            "fence" => exactly(0),
            "bra" | "activemask" | "prefetch" | "prefetchu" | "nanosleep" | "pmevent" | "setmaxnreg" => {
                exactly(1)
            }
            "abs" | "neg" | "not" | "cnot" | "popc" | "clz" | "brev" | "bfind" | "rcp" | "sqrt" | "rsqrt"
            | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "mov" | "cvta" | "isspacep" | "testp" | "brx"
            | "discard" | "applypriority" | "ldmatrix" | "stmatrix" | "movmatrix" | "getctarank" | "ld"
            | "ldu" | "elect" => exactly(2),
            "add" | "sub" | "mul" | "mul24" | "div" | "rem" | "min" | "max" | "and" | "or" | "xor"
            | "shl" | "shr" | "copysign" | "addc" | "subc" | "bmsk" | "szext" | "match" | "redux"
            | "mapa" => exactly(3),
            "mad" | "fma" | "madc" | "mad24" | "sad" | "selp" | "slct" | "shf" | "prmt" | "bfe" | "fns"
            | "dp4a" | "dp2a" | "mma" | "vadd2" | "vsub2" | "vavrg2" | "vabsdiff2" | "vmin2" | "vmax2"
            | "vadd4" | "vsub4" | "vavrg4" | "vabsdiff4" | "vmin4" | "vmax4" | "vmad" => exactly(4),
            "vadd" | "vsub" | "vabsdiff" | "vmin" | "vmax" | "vshl" | "vshr" | "vset" => {
                let combined = ["add", "min", "max"].iter().any(|name| self.has(name));
                let merged = matches!(self.operands.first(), Some(super::Operand::Part(..)));
                exactly(3 + (combined || merged) as usize)
            }
            "lop3" | "bfi" => exactly(5),
            "setp" | "set" => exactly(3 + combined),
            "cvt" if self.has("pack") => exactly(self.parts.len().saturating_sub(2)),
            "cvt" => exactly(2 + self.joins_two() as usize),
            "shfl" => exactly(4 + self.has("sync") as usize),
            "vote" => exactly(2 + self.has("sync") as usize),
            "st" | "red" => exactly(2 + self.has("async") as usize),
            "atom" => exactly(3 + self.has("cas") as usize),
            "bar" | "barrier" => self.barrier_operands(),
            "mbarrier" => self.mbarrier_operands(),
            "cp" => self.copy_operands(hint),
            "tensormap" if self.has("cp_fenceproxy") => exactly(3),
            "tensormap" => {
                let fields = ["box_dim", "global_dim", "global_stride", "element_stride"];
                exactly(2 + fields.iter().any(|field| self.has(field)) as usize)
            }
            "createpolicy" if self.has("fractional") => 1..=2,
            "createpolicy" => exactly(if self.has("range") { 4 } else { 2 }),
            "wgmma" => self.wgmma_operands(),
            "alloca" => 2..=3,
            "stacksave" | "stackrestore" => exactly(1),
            "wmma" if self.has("mma") => exactly(4),
            "wmma" => 2..=3, // a stride
            _ => 0..=usize::MAX,
        }
    }

    /// Whether a fence names the memory that it is for.
    fn has_size(&self) -> bool {
        self.parts.iter().any(|part| part.starts_with("tensormap"))
    }

    /// Whether a conversion makes a pair of two float32.
    fn joins_two(&self) -> bool {
        let [.., to, from] = self.parts else { return false };
        to.ends_with("x2") && *from == "f32"
    }

    fn barrier_operands(&self) -> RangeInclusive<usize> {
        match () {
            () if self.has("cluster") => 0..=0,
            () if self.has("warp") => 1..=1,
            () if self.has("arrive") => 2..=2,
            () if self.has("red") => 3..=4,
            () => 1..=2,
        }
    }

    fn mbarrier_operands(&self) -> RangeInclusive<usize> {
        match self.parts.get(1).copied().unwrap_or_default() {
            "inval" => 1..=1,
            "init" | "expect_tx" | "complete_tx" | "pending_count" => 2..=2,
            "arrive" | "arrive_drop" if self.has("expect_tx") || self.has("noComplete") => 3..=3,
            "arrive" | "arrive_drop" => 2..=3,
            "test_wait" => 3..=3,
            "try_wait" => 3..=4, // a time limit
            _ => 0..=usize::MAX,
        }
    }

    fn copy_operands(&self, hint: usize) -> RangeInclusive<usize> {
        let bulk = self.has("bulk");
        let count = match () {
            () if !self.has("async") => return 0..=usize::MAX,
            () if self.has("commit_group") || self.has("wait_all") => 0,
            () if self.has("wait_group") => 1,
            () if self.has("mbarrier") && !bulk => 1,
            () if self.has("prefetch") => 2 - self.has("tensor") as usize,
            // The bytes to read, or whether to.
            () if !bulk => return 3 + hint..=4 + hint,
            // A tensor map says how many bytes; an mbarrier counts them, or a group is waited for.
            () => {
                2 + !self.has("tensor") as usize
                    + !self.has("bulk_group") as usize
                    + self.has("multicast::cluster") as usize
                    + self.has("cp_mask") as usize
            }
        };
        count + hint..=count + hint
    }

    /// D, A, B, whether to add, both signs, and which way 16-bit operands in memory lie.
    fn wgmma_operands(&self) -> RangeInclusive<usize> {
        let count = match self.parts.get(1).copied().unwrap_or_default() {
            "wait_group" => 1,
            "mma_async" if self.has("tf32") => 6,
            "mma_async" => 7 + !matches!(self.operands.get(1), Some(super::Operand::Vector(_))) as usize,
            _ => 0,
        };
        count..=count
    }
}
