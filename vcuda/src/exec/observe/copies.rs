//! Accesses of shared memory that copies under way mind.

use crate::exec::check::{Kind, Span};
use crate::exec::fault::FaultKind;
use crate::exec::op::{Body, Flow, Op};
use crate::exec::registers::lanes_of;
use crate::exec::warp::Warp;

/// `fence.proxy.async`, of shared memory.
pub struct ProxyFence;
impl Body for ProxyFence {
    #[inline(always)]
    unsafe fn run(warp: &mut Warp, _: &Op) -> Flow {
        warp.cta.cluster.engine.borrow_mut().proxy.fence(warp.number());
        Flow::Next
    }
}

impl Warp<'_> {
    /// Lanes load from shared memory or store to it, as the threads' own instructions do: what a copy under way has
    /// against it. Stores are remembered until a fence.
    #[inline(never)]
    pub fn meet_copies(&self, span: &Span, kind: Kind) -> Option<(usize, String)> {
        let (cluster, warp, line) = (self.cta.cluster, self.number(), self.cta.kernel.ops[self.pc].line);
        let proxy = &mut cluster.engine.borrow_mut().proxy;
        lanes_of(span.mask).find_map(|lane| {
            let offset = cluster.offset(span.at[lane] as *const u8);
            Some((lane, proxy.access(offset, span.bytes, kind.writes(), warp, line)?))
        })
    }

    /// The same of one lane.
    pub fn meet_copies_at(&self, host: *const u8, bytes: usize, kind: Kind) -> Option<String> {
        let (cluster, line) = (self.cta.cluster, self.cta.kernel.ops[self.pc].line);
        let proxy = &mut cluster.engine.borrow_mut().proxy;
        proxy.access(cluster.offset(host), bytes, kind.writes(), self.number(), line)
    }

    /// Checks that no copy has yet to write, or to read, any of `bytes` of shared memory at a host pointer; `None`
    /// after a fault.
    pub fn free(&mut self, lane: usize, host: *const u8, bytes: usize) -> Option<()> {
        let cluster = self.cta.cluster;
        let objection = cluster.engine.borrow().proxy.objection(cluster.offset(host), bytes, true);
        self.unless(lane, objection)
    }

    /// Checks that the async proxy may read `bytes` of shared memory at a host pointer: they have landed, and
    /// no store is unfenced; `None` after a fault.
    pub fn readable(&mut self, lane: usize, host: *const u8, bytes: usize) -> Option<()> {
        let cluster = self.cta.cluster;
        let offset = cluster.offset(host);
        let objection = {
            let proxy = &cluster.engine.borrow().proxy;
            proxy.objection(offset, bytes, false).or_else(|| proxy.unfenced(offset, bytes))
        };
        self.unless(lane, objection)?;
        self.touch(lane, host, bytes, Kind::Read)
    }

    /// A fault if there is an objection: then `None`.
    pub fn unless(&mut self, lane: usize, objection: Option<String>) -> Option<()> {
        let Some(message) = objection else { return Some(()) };
        self.fail_lane(lane, FaultKind::Asynchrony, message);
        None
    }
}
