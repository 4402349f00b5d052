//! Steps of a batch as graphs, which the host queues at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::Result;

use crate::gpu::{Graph, Stream};

/// Which work is the same each time: of so many images, by one loss, all steps between the first and the last.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub images: usize,
    /// By its place among the settings'.
    pub loss: usize,
    pub is_first: bool,
    pub is_last: bool,
}

/// By what they do: none before the second time. Each holds `K`, what its launches read and write.
pub struct Graphs<K>(RefCell<HashMap<Key, Option<Graph<K>>>>);

impl<K> Default for Graphs<K> {
    fn default() -> Graphs<K> {
        Graphs(RefCell::default())
    }
}

impl<K> Graphs<K> {
    /// Forgets all.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Queues `work`: launch by launch at first, which loads what it needs; else as a graph. There are few graphs, since the driver
    /// keeps them in memory of its own: of whole batches, which have `whole` images, and of the size that another had last.
    ///
    /// # Errors
    /// Those of `work`; the driver's.
    ///
    /// # Safety
    /// `work` of one key queues the same launches each time, whose memory `keeps` holds.
    pub unsafe fn run(
        &self,
        stream: &Stream,
        key: Key,
        whole: usize,
        keeps: impl FnOnce() -> K,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut graphs = self.0.borrow_mut();
        let is_short = |images: usize| images < whole;
        graphs.retain(|other, _| {
            other.images == key.images || !(is_short(key.images) && is_short(other.images))
        });
        let graph = match graphs.entry(key) {
            Entry::Vacant(none) => {
                work()?; // one that failed has not loaded all
                none.insert(None);
                return Ok(());
            }
            Entry::Occupied(known) => known.into_mut(),
        };
        let graph = match graph {
            Some(graph) => graph,
            // SAFETY: the caller's.
            None => graph.insert(unsafe { Graph::record(stream, keeps(), |_| work()) }?),
        };
        graph.launch(stream)
    }
}
