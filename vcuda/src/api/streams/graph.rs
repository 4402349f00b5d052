//! Graphs: what is to be done, and what comes before what.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Weak;

use crate::api::error::{Outcome, Status};

/// A `CUgraphNode`.
pub struct Node<W> {
    pub work: W,
    pub graph: *mut Graph<W>,
    pub dependencies: Vec<*mut Node<W>>,
    /// The node that this one is a clone of.
    pub twin: *mut Node<W>,
}

/// A `CUgraph`: nodes in the order in which they were added.
pub struct Graph<W> {
    nodes: Vec<*mut Node<W>>,
    /// The last instance of a graph that allocates memory: there may be one at a time.
    pub instance: Weak<()>,
}

/// A live graph, which the client does not use on two threads at once.
///
/// # Errors
/// There is none.
pub fn live<'a, W>(graph: *mut Graph<W>) -> Result<&'a mut Graph<W>, Status> {
    // SAFETY: null, or made by us and not destroyed, as the caller must see to.
    unsafe { graph.as_mut() }.ok_or(Status::InvalidValue)
}

/// A live node, which the client does not use on two threads at once.
///
/// # Errors
/// There is none.
pub fn node<'a, W>(node: *mut Node<W>) -> Result<&'a mut Node<W>, Status> {
    // SAFETY: null, or of a live graph, as the caller must see to.
    unsafe { node.as_mut() }.ok_or(Status::InvalidValue)
}

impl<W> Default for Graph<W> {
    fn default() -> Graph<W> {
        Graph { nodes: Vec::new(), instance: Weak::new() }
    }
}

impl<W: Clone> Graph<W> {
    /// Adds work after others.
    ///
    /// # Errors
    /// Dependencies of another graph, or one twice.
    pub fn push(&mut self, work: W, dependencies: &[*mut Node<W>]) -> Result<*mut Node<W>, Status> {
        self.own(dependencies)?;
        Ok(self.place(work, dependencies.to_vec(), std::ptr::null_mut()))
    }

    fn place(&mut self, work: W, dependencies: Vec<*mut Node<W>>, twin: *mut Node<W>) -> *mut Node<W> {
        let new = Box::into_raw(Box::new(Node { work, graph: self, dependencies, twin }));
        self.nodes.push(new);
        new
    }

    /// Removes a node, and the edges that it has.
    ///
    /// # Errors
    /// It is none of this graph's.
    pub fn remove(&mut self, gone: *mut Node<W>) -> Outcome {
        self.own(&[gone])?;
        self.nodes.retain(|&other| other != gone);
        for &other in &self.nodes {
            node(other)?.dependencies.retain(|&dependency| dependency != gone);
        }
        // SAFETY: made by `place`, and in no list any more.
        drop(unsafe { Box::from_raw(gone) });
        Ok(())
    }

    pub fn nodes(&self) -> &[*mut Node<W>] {
        &self.nodes
    }

    pub fn works(&self) -> impl Iterator<Item = &W> {
        // SAFETY: nodes of this graph.
        self.nodes.iter().map(|&handle| unsafe { &(*handle).work })
    }

    /// Refuses nodes of other graphs, and doubles.
    ///
    /// # Errors
    /// An invalid value.
    pub fn own(&self, nodes: &[*mut Node<W>]) -> Outcome {
        for (i, &handle) in nodes.iter().enumerate() {
            if !std::ptr::eq(node(handle)?.graph, self) || nodes[..i].contains(&handle) {
                return Err(Status::InvalidValue);
            }
        }
        Ok(())
    }

    /// These nodes and all that comes before them.
    pub fn before(&self, nodes: &[*mut Node<W>]) -> HashSet<*mut Node<W>> {
        let (mut seen, mut open) = (HashSet::new(), nodes.to_vec());
        while let Some(handle) = open.pop() {
            if seen.insert(handle) {
                // SAFETY: nodes of this graph.
                open.extend(unsafe { &(*handle).dependencies });
            }
        }
        seen
    }

    /// The nodes, each after those that it depends on, else as they were added.
    ///
    /// # Errors
    /// They go in a circle.
    pub fn order(&self) -> Result<Vec<*mut Node<W>>, Status> {
        let index: BTreeMap<*mut Node<W>, usize> =
            self.nodes.iter().enumerate().map(|(i, &n)| (n, i)).collect();
        let mut after = vec![Vec::new(); self.nodes.len()];
        let mut missing = vec![0; self.nodes.len()];
        for (i, &handle) in self.nodes.iter().enumerate() {
            for dependency in &node(handle)?.dependencies {
                after[index[dependency]].push(i);
                missing[i] += 1;
            }
        }
        let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|&i| missing[i] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(self.nodes[i]);
            for &next in &after[i] {
                missing[next] -= 1;
                if missing[next] == 0 {
                    ready.insert(next);
                }
            }
        }
        if order.len() == self.nodes.len() { Ok(order) } else { Err(Status::InvalidValue) }
    }

    /// A clone, whose nodes know their originals.
    pub fn twin(&self) -> Box<Graph<W>> {
        let mut clone = Box::<Graph<W>>::default();
        let mut twins: BTreeMap<*mut Node<W>, *mut Node<W>> = BTreeMap::new();
        for &original in &self.nodes {
            // SAFETY: a node of this graph.
            let work = unsafe { (*original).work.clone() };
            twins.insert(original, clone.place(work, Vec::new(), original));
        }
        for (from, to) in self.edges() {
            // SAFETY: made just now.
            unsafe { (*twins[&to]).dependencies.push(twins[&from]) };
        }
        clone
    }

    /// All its work in order, and the places of what each comes after.
    ///
    /// # Errors
    /// It goes in a circle.
    pub fn steps(&self) -> Result<Vec<(W, Vec<usize>)>, Status> {
        let order = self.order()?;
        let place: BTreeMap<*mut Node<W>, usize> = order.iter().enumerate().map(|(i, &n)| (n, i)).collect();
        let step = |&handle: &*mut Node<W>| {
            let Node { work, dependencies, .. } = node(handle)?;
            Ok((work.clone(), dependencies.iter().map(|other| place[other]).collect()))
        };
        order.iter().map(step).collect()
    }

    /// Edges (from, to), in the order of their ends.
    pub fn edges(&self) -> Vec<(*mut Node<W>, *mut Node<W>)> {
        // SAFETY: nodes of this graph.
        let before = |&to: &*mut Node<W>| unsafe { (*to).dependencies.iter().map(move |&from| (from, to)) };
        self.nodes.iter().flat_map(before).collect()
    }
}

impl<W> Drop for Graph<W> {
    fn drop(&mut self) {
        for &handle in &self.nodes {
            // SAFETY: made by `place`, and this graph's alone.
            drop(unsafe { Box::from_raw(handle) });
        }
    }
}
