//! `ldmatrix` that need not load: of registers that nobody reads but the products of one run, without anything between that
//! writes memory or lets others have a turn. Each register gets where its rows are, and the run takes them from there
//! ([`matrix::run`](crate::exec::matrix::run)).

use std::collections::{HashMap, HashSet};

use super::Lower;
use super::gather::PASSED;
use crate::exec::allocate::{Allocation, Block, Mentions};
use crate::exec::inline::Flat;
use crate::exec::matrix::run::Run;
use crate::exec::op::{Body, Op, OpFn};
use crate::ptx::ast::RegId;

/// Of each `ldmatrix`, by its place, the products that alone read what it loads, and which registers; then, as they are
/// decoded, its operation, and of each product its run.
#[derive(Default)]
pub(super) struct Pointed {
    readers: HashMap<usize, Vec<(usize, RegId)>>,
    loads: Vec<Load>,
    runs: HashMap<usize, usize>,
}

/// An operation that loads matrices, and what it would be instead.
struct Load {
    place: usize,
    op: usize,
    points: OpFn,
    is_transposed: bool,
}

impl Pointed {
    pub fn new(flat: &Flat, blocks: &[Block], mentions: &Mentions) -> Pointed {
        let is_whole = |i: usize, name: &str| {
            let instruction = &flat.instructions[i];
            instruction.opcode[0] == name && instruction.guard.is_none()
        };
        let mut readers: HashMap<usize, Vec<(usize, RegId)>> = HashMap::new();
        if !(0..flat.instructions.len()).any(|i| is_whole(i, "ldmatrix")) {
            return Pointed::default();
        }
        let crosses = crossing(flat, blocks, mentions);
        let mut spoiled = HashSet::new();
        for block in blocks {
            // What a register has been loaded by, and the last instruction past which products find it as it was.
            let (mut loaded, mut barrier) = (HashMap::new(), 0);
            for i in block.start..block.end {
                for register in mentions.reads(i) {
                    let Some(&load) = loaded.get(register) else { continue };
                    if is_whole(i, "mma") && load >= barrier {
                        readers.entry(load).or_default().push((i, *register));
                    } else {
                        spoiled.insert(load);
                    }
                }
                let opcode = flat.instructions[i].opcode[0].as_str();
                if opcode == "cp" || opcode != "mma" && !PASSED.contains(&opcode) {
                    barrier = i;
                }
                for &register in mentions.writes(i) {
                    match is_whole(i, "ldmatrix") && !crosses.contains(&register) {
                        true => loaded.insert(register, i),
                        false => loaded.remove(&register),
                    };
                    if crosses.contains(&register) {
                        spoiled.insert(i);
                    }
                }
            }
        }
        readers.retain(|load, _| !spoiled.contains(load));
        Pointed { readers, ..Pointed::default() }
    }

    /// All has been decoded: the operations become what they can be, and the runs know.
    pub fn end(self, allocation: &Allocation, ops: &mut [Op], runs: &mut [Run]) {
        for Load { place, op, points, is_transposed } in self.loads {
            let readers = &self.readers[&place];
            let mut all = readers.iter().map(|(reader, _)| self.runs.get(reader));
            let Some(Some(run)) = all.next() else { continue };
            if all.any(|other| other != Some(run)) {
                continue;
            }
            let slot = |&(_, register): &(usize, RegId)| allocation.slot(register).map(|(slot, _)| slot);
            let slots: Vec<u16> = readers.iter().filter_map(slot).collect();
            if runs[*run].point(&slots, is_transposed) {
                ops[op].run = points;
            }
        }
    }
}

/// Registers that a block may read before it writes them.
fn crossing(flat: &Flat, blocks: &[Block], mentions: &Mentions) -> HashSet<RegId> {
    let (mut crosses, mut writer) = (HashSet::new(), vec![usize::MAX; flat.registers.len()]);
    for (number, block) in blocks.iter().enumerate() {
        for i in block.start..block.end {
            let reads = mentions.reads(i).iter().copied();
            crosses.extend(reads.filter(|&register| writer[register as usize] != number));
            mentions.writes(i).iter().for_each(|&register| writer[register as usize] = number);
        }
    }
    crosses
}

impl Lower<'_> {
    /// The last operation loads matrices, and might be `B` instead.
    pub fn may_point<B: Body>(&mut self, is_transposed: bool) {
        if self.pointed.readers.contains_key(&self.place) {
            let (place, op, points) = (self.place, self.kernel.ops.len() - 1, self.host.version::<B>());
            self.pointed.loads.push(Load { place, op, points, is_transposed });
        }
    }

    /// The product that is being decoded is in the last run.
    pub(super) fn is_in_run(&mut self) {
        self.pointed.runs.insert(self.place, self.kernel.mma_runs.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use crate::exec::matrix::run::Held;
    use crate::exec::{Checks, Module};
    use crate::memory::Memory;

    /// Two products of one block by two tiles, with something before them and after.
    fn is_pointed(before: &str, after: &str) -> bool {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64
            .visible .entry k(.param .u64 out) {{
            .reg .b32 %f<16>; .reg .b32 %r<16>; .reg .b64 to; .shared .align 16 .b8 tile[1024];
            ld.param.u64 to, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1;
            ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r1];
            add.s32 %r2, %r1, 512; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r8, %r9, %r10, %r11}}, [%r2];
            {before}
            mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{%f0, %f1, %f2, %f3}}, {{%r4, %r5, %r6, %r7}},
                {{%r8, %r9}}, {{%f0, %f1, %f2, %f3}};
            mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{%f4, %f5, %f6, %f7}}, {{%r4, %r5, %r6, %r7}},
                {{%r10, %r11}}, {{%f4, %f5, %f6, %f7}};
            {after} ret; }}"
        );
        let tree = crate::ptx::parse(&text).map_err(|error| error.to_string()).expect("PTX");
        let module = Module::load(&tree, &Memory::new(1 << 20), Checks::default());
        let module = module.map_err(|error| error.to_string()).expect("a module");
        let [grid] = &module.kernel("k").expect("a kernel").mma_runs[0].grids[..] else { panic!("no grid") };
        let count = grid.a.iter().chain(&grid.b).filter(|factor| matches!(factor.is, Held::Rows)).count();
        assert!(count == 0 || count == 8, "{count} factors of 8 are pointed to");
        count > 0
    }

    #[test]
    fn what_nobody_else_reads_is_pointed_to() {
        assert!(is_pointed("", ""));
        assert!(is_pointed(
            "add.s32 %r3, %r0, %r0;",
            "mov.u32 %r4, 0; mov.u32 %r8, 0; st.global.u32 [to], %r4;"
        ));
        for read in ["%r4, %r8", "%r7, %r11"] {
            let (a, b) = read.split_once(", ").expect("two registers");
            let after = format!("st.global.u32 [to], {a}; st.global.u32 [to], {b};");
            assert!(!is_pointed("", &after), "{read} are read");
        }
        assert!(!is_pointed("st.shared.u32 [%r1], %r0;", ""), "what they point to may be written");
        assert!(!is_pointed("cp.async.ca.shared.global [%r1], [to], 16; cp.async.wait_all;", ""));
    }
}
