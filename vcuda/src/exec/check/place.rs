//! Which memory an address is in.

use crate::exec::registers::LANES;
use crate::exec::warp::Warp;

/// Where a pointer leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Global,
    Shared,
    Local,
    /// Kernel parameters.
    Other,
}

impl Warp<'_> {
    /// Where a host pointer leads.
    pub(super) fn place(&self, at: usize) -> Place {
        let cta = self.cta;
        let inside = |(start, bytes): (usize, usize)| at.wrapping_sub(start) < bytes;
        match () {
            () if inside(cta.cluster.shared_range()) => Place::Shared,
            () if cta.memory.owns(at as u64) => Place::Global,
            () if inside((self.local as usize, cta.kernel.local_bytes_per_thread * LANES)) => Place::Local,
            () => Place::Other,
        }
    }

    /// A host address as the kernel knows it, with the memory that it is in.
    #[cold]
    pub fn name_of(&self, at: usize) -> String {
        self.name(at, self.place(at))
    }

    /// An address as the kernel knows it, with the memory that it is in.
    #[cold]
    pub(super) fn name(&self, at: usize, place: Place) -> String {
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
