//! What the checks find, in words.

use crate::exec::check::{Access, Conflict, Place, Trouble};
use crate::exec::fault::FaultKind;
use crate::exec::op::Flow;
use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

/// What was found, in words that [`Kernel::blame`](crate::exec::kernel::Kernel::blame) completes; and by which lane.
pub struct Finding {
    pub lane: usize,
    pub kind: FaultKind,
    pub what: String,
}

impl Warp<'_> {
    /// What is wrong with an access, in words.
    #[cold]
    pub(super) fn words(&self, access: &Access, trouble: &Trouble) -> Finding {
        let (bytes, name) = (access.span.bytes, access.kind.name());
        let (lane, kind, what) = match trouble {
            Trouble::Unwritten { lane, byte } => {
                let at = self.name(access.span.at[*lane], access.place);
                let what = format!("a read of {bytes} bytes at {at}: nobody has written byte {byte} of them");
                (*lane, FaultKind::Uninitialised, what)
            }
            Trouble::Race(conflict) => {
                let (at, other) = (self.name(conflict.at, access.place), self.describe_other(conflict));
                let what = format!("a race: nothing orders this {name} of {bytes} bytes at {at} and {other}");
                (conflict.lane, FaultKind::Race, what)
            }
            Trouble::Pieces(unordered) => {
                let (at, stream) = (self.name(unordered.at, access.place), &unordered.stream);
                let other = &unordered.other;
                let what = format!(
                    "a race: nothing orders this {name} of {bytes} bytes at {at} on {stream} and {other}"
                );
                (unordered.lane, FaultKind::Race, what)
            }
        };
        Finding { lane, kind, what }
    }

    /// A fault for what is wrong with an access.
    #[cold]
    pub(super) fn fail_for(&mut self, access: &Access, trouble: &Trouble) -> Flow {
        let Finding { lane, kind, what } = self.words(access, trouble);
        self.fail_lane(lane, kind, what)
    }

    /// The other access of a race, and whose it was.
    fn describe_other(&self, conflict: &Conflict) -> String {
        let (kernel, launch) = (self.cta.kernel, self.cta.launch);
        let per_cta = self.cta.grid.threads_per_cta();
        let (number, thread) = (conflict.thread / per_cta, conflict.thread % per_cta);
        let [bx, by, _] = launch.block.map(|n| n as usize);
        let name = match thread.checked_sub((launch.threads() as usize).next_multiple_of(LANES)) {
            Some(warpgroup) => format!("the products of warpgroup {warpgroup}"),
            None => format!("thread [{}, {}, {}]", thread % bx, thread / bx % by, thread / bx / by),
        };
        let line = kernel.line(kernel.ops.get(conflict.pc).map_or(0, |op| op.line));
        let who = match () {
            () if conflict.is_foreign || number != self.cta.number as usize => {
                let cta = conflict.group.cta(conflict.thread, per_cta, self.cta.grid.in_turn);
                format!("{name} of CTA {cta:?}")
            }
            () => name,
        };
        format!("the {} by {who} at {line}", conflict.name)
    }

    /// A host address as the kernel knows it, with the memory that it is in.
    #[cold]
    pub fn name_of(&self, at: usize) -> String {
        self.name(at, self.place(at))
    }

    /// An address as the kernel knows it, with the memory that it is in.
    #[cold]
    fn name(&self, at: usize, place: Place) -> String {
        let cta = self.cta;
        match place {
            Place::Shared => {
                let (start, _) = cta.cluster.shared_range();
                let offset = (at - start) % cta.cluster.stride_bytes();
                match (at - start) / cta.cluster.stride_bytes() {
                    _ if cta.cluster.ctas == 1 => format!("shared {offset:#x}"),
                    rank => format!("shared {offset:#x} of CTA {rank} of the cluster"),
                }
            }
            Place::Global => match cta.memory.range_of(at as u64) {
                Some((start, end)) => {
                    format!("global {at:#x}, byte {} of an allocation of {}", at as u64 - start, end - start)
                }
                None => format!("global {at:#x}"),
            },
            _ => {
                let bytes = cta.kernel.local_bytes_per_thread.max(1);
                format!("local {:#x}", (at - self.local as usize) % bytes)
            }
        }
    }
}
