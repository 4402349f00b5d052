//! What orders threads, as the race check is told of it: barriers, fences and strong accesses.
//!
//! A thread's fence covers what it has done and seen. Its strong writes (atomics, `st.release`, `.relaxed`,
//! `.volatile`) then publish that, and whoever reads the same word strongly has seen it. Fences of a CTA's
//! scope count only for words in shared memory. The reader needs no fence: the usual counter of finished CTAs
//! has none there.

use super::clock::Clocks;
use super::key::WARP;
use super::span::{Kind, Span};
use super::watch::Watch;
use crate::exec::registers::lanes_of;

/// A strong read that sees what was published there; a strong write that is a fence as well. In `Check`'s `c`.
pub const OBSERVES: u16 = 1 << 8;
pub const RELEASES: u16 = 1 << 9;

impl Watch {
    /// Lanes of a warp arrive at the barrier of this key.
    pub fn publish(&mut self, key: usize, first_thread: usize, mask: u32) {
        if let Some(clocks) = self.clocks() {
            clocks.publish(key, first_thread, mask);
        }
    }

    /// They go on from it.
    pub fn observe(&mut self, key: usize, first_thread: usize, mask: u32) {
        if let Some(clocks) = self.clocks() {
            clocks.observe(key, first_thread, mask);
        }
    }

    /// They meet at a barrier of the warp.
    pub fn meet_in_warp(&mut self, first_thread: usize, mask: u32) {
        if let Some(clocks) = self.clocks() {
            clocks.publish(WARP, first_thread, mask);
            clocks.observe(WARP, first_thread, mask);
            clocks.forget(WARP);
        }
    }

    /// All of `warps`, each by its first thread and its lanes there, have come to the barrier of this key. `is_all`: that
    /// is all threads of those that take turns.
    pub fn meet(&mut self, key: usize, is_all: bool, warps: impl Iterator<Item = (usize, u32)> + Clone) {
        let Some(clocks) = self.clocks() else { return };
        if is_all && !clocks.knows(key) {
            return clocks.join_all();
        }
        warps.clone().for_each(|(first_thread, mask)| clocks.publish(key, first_thread, mask));
        warps.for_each(|(first_thread, mask)| clocks.observe(key, first_thread, mask));
        clocks.forget(key);
    }

    /// They execute a fence, which may be of a scope wider than the cluster.
    pub fn fence(&mut self, first_thread: usize, mask: u32, is_wide: bool) {
        if let Some(clocks) = self.clocks() {
            clocks.fence(first_thread, mask, is_wide);
        }
    }

    /// They have made a strong access.
    #[inline(always)]
    pub fn strong(&mut self, span: &Span, first_thread: usize, kind: Kind, is_shared: bool, flags: u16) {
        if let Some(clocks) = self.clocks() {
            strong(clocks, span, first_thread, kind, is_shared, flags);
        }
    }
}

/// What a strong access orders.
#[cold]
#[inline(never)]
fn strong(clocks: &mut Clocks, span: &Span, first_thread: usize, kind: Kind, is_shared: bool, flags: u16) {
    for lane in lanes_of(span.mask) {
        let key = span.at[lane];
        if flags & OBSERVES != 0 {
            clocks.observe(key, first_thread, 1 << lane);
        }
        if flags & RELEASES != 0 {
            clocks.fence(first_thread, 1 << lane, true);
        }
        if kind.writes() {
            clocks.publish_fenced(key, first_thread + lane, !is_shared);
        }
    }
}
