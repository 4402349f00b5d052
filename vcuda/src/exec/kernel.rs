//! A kernel, decoded.

use std::collections::HashMap;

use super::calls::Calls;
use super::fault::Origin;
use super::host::Host;
use super::matrix::run::Run;
use super::op::Op;
use super::profile::marks::Marks;

/// A kernel parameter's place in the parameter buffer.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub offset: usize,
    pub size: usize,
    pub align: usize,
}

/// A slot that holds the same in every lane from the start.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    pub slot: u16,
    pub wide: bool,
    pub value: u64,
}

/// A slot that holds (part of) a kernel parameter.
#[derive(Clone, Copy, Debug)]
pub struct ParamSlot {
    pub slot: u16,
    pub wide: bool,
    pub offset: usize,
    pub bytes: usize,
    pub signed: bool,
}

/// Special registers, PTX ISA 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    ClusterCtaid(usize),
    ClusterNctaid(usize),
    ClusterId(usize),
    Nclusterid(usize),
    ClusterCtarank,
    ClusterNctarank,
    IsExplicitCluster,
    LaneId,
    WarpId,
    WarpCount,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicSharedBytes,
    /// With what is reserved, or without.
    AllSharedBytes,
    SharedBytes,
    /// 32 bits of the address of a cooperative grid's workspace, from this one on.
    Workspace(u32),
    /// Where the stack of what calls and `alloca` take ends in local memory.
    StackEnd,
    /// Where the running function's variables begin in local memory: the kernel's at 0.
    Frame,
}

impl Special {
    /// Whether it is the same in all CTAs of a launch, but for the thread's place in one, and nothing writes it.
    pub fn is_alike(self) -> bool {
        !matches!(
            self,
            Special::Ctaid(_)
                | Special::ClusterCtaid(_)
                | Special::ClusterId(_)
                | Special::StackEnd
                | Special::Frame
        )
    }
}

/// A decoded kernel.
pub struct Kernel {
    pub name: String,
    pub params: Vec<Param>,
    pub param_bytes: usize,
    pub static_shared_bytes: usize,
    pub local_bytes_per_thread: usize,
    /// Registers a thread that `ptxas` would give it: an estimate.
    pub registers_estimate: u32,
    pub max_threads_per_block: u32,
    /// `.reqntid`: the block that every launch has.
    pub block: Option<[u32; 3]>,
    /// `.reqnctapercluster`: the cluster that every launch has.
    pub cluster: Option<[u32; 3]>,
    /// `.maxclusterrank`: CTAs of a cluster at most.
    pub max_cluster_ctas: u32,
    /// `.explicitcluster`: a launch must say its cluster, if the kernel does not.
    pub needs_cluster: bool,
    /// `.blocksareclusters`: a launch counts its grid in clusters.
    pub counts_clusters: bool,

    /// It has instructions that use shared memory later, or by the async proxy: what the others do there matters to them.
    pub(super) is_asynchronous: bool,
    /// It has products of warpgroups.
    pub(super) has_products: bool,
    /// It has strong reads or atomics: its loops may wait for other threads.
    pub(super) polls: bool,
    /// Of the smallest store, 4 at most; what the race check tells apart.
    pub(super) granule_bytes: usize,
    /// How its instructions are counted.
    pub(super) marks: Marks,
    pub(super) ops: Vec<Op>,
    /// Offsets in bytes of the slots (d, a, b, c) of the fused multiply-adds in runs.
    pub(super) runs: Vec<[u32; 4]>,
    /// Straight runs of `mma`.
    pub(super) mma_runs: Vec<Run>,
    /// The host that the operations are for.
    pub(super) host: Host,
    /// Slots of operations that have more than five, one list after another.
    pub(super) lists: Vec<u16>,
    pub(super) calls: Calls,
    /// Where the module's `.const` variables are: from, to.
    pub(super) const_ranges: Vec<(u64, u64)>,
    /// Targets of indexed branches.
    pub(super) targets: Vec<usize>,
    pub(super) slots: usize,
    /// Those of them that may be read before they are written, or so it looks.
    pub(super) unwritten: Vec<u16>,
    pub(super) preds: usize,
    pub(super) constants: Vec<Constant>,
    pub(super) param_slots: Vec<ParamSlot>,
    pub(super) specials: Vec<(Special, u16)>,
    /// What the system keeps of shared memory, before its variables, if the kernel names `%reserved_smem_offset_*`:
    /// cooperative groups have the barriers of tiles of several warps there.
    pub(super) reserved_shared_bytes: usize,
    /// Where dynamic shared memory begins.
    pub(super) dynamic_shared_offset: usize,
    /// `file:line` of a PTX line, where `.loc` tells.
    pub(super) source_lines: HashMap<u32, String>,
}

impl Kernel {
    /// A PTX line, with the source's where it is known.
    pub fn line(&self, line: u32) -> String {
        let source = self.source_lines.get(&line).map_or(String::new(), |at| format!(" ({at})"));
        format!("PTX line {line}{source}")
    }

    /// What went wrong, with the kernel, the PTX line, the source's where it is known, CTA and thread.
    #[cold]
    pub fn blame(&self, what: &str, block: [u32; 3], origin: Origin) -> String {
        let ([bx, by, _], Origin { cta, thread, line }) = (block, origin);
        let thread = [thread % bx, thread / bx % by, thread / bx / by];
        format!("{}: {what}; {}, CTA {cta:?}, thread {thread:?}", self.name, self.line(line))
    }
}
