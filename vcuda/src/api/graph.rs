//! Graphs: work, and what comes before what.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::c_void;
use std::sync::{Arc, Weak};

use super::work::Work;
use super::{Outcome, Status, export, list, put};

/// A `CUgraphNode`.
pub struct Node {
    pub work: Work,
    graph: GraphHandle,
    pub dependencies: Vec<NodeHandle>,
    /// The node that this one is a clone of.
    twin: NodeHandle,
}

/// A `CUgraph`: nodes in the order in which they were added.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<NodeHandle>,
    /// The last instance of a graph that allocates memory: there may be one at a time.
    pub instance: Weak<()>,
}

pub type NodeHandle = *mut Node;
pub type GraphHandle = *mut Graph;

/// A live graph, which the client does not use on two threads at once.
pub fn live<'a>(graph: GraphHandle) -> Result<&'a mut Graph, Status> {
    // SAFETY: null, or made by us and not destroyed, as the caller must see to.
    unsafe { graph.as_mut() }.ok_or(Status::InvalidValue)
}

/// A live node, which the client does not use on two threads at once.
pub fn node<'a>(node: NodeHandle) -> Result<&'a mut Node, Status> {
    // SAFETY: null, or of a live graph, as the caller must see to.
    unsafe { node.as_mut() }.ok_or(Status::InvalidValue)
}

impl Graph {
    /// Adds work after others of this graph.
    ///
    /// # Errors
    /// Dependencies of another graph, or one twice; memory that is freed twice.
    pub fn add(&mut self, work: Work, dependencies: &[NodeHandle]) -> Result<NodeHandle, Status> {
        self.own(dependencies)?;
        if let Work::Free(memory) = &work
            && self.works().any(|other| matches!(other, Work::Free(freed) if Arc::ptr_eq(freed, memory)))
        {
            return Err(Status::InvalidValue);
        }
        let (graph, twin) = (std::ptr::null_mut(), std::ptr::null_mut());
        Ok(self.push(Node { work, graph, dependencies: dependencies.to_vec(), twin }))
    }

    pub fn nodes(&self) -> &[NodeHandle] {
        &self.nodes
    }

    fn works(&self) -> impl Iterator<Item = &Work> {
        // SAFETY: nodes of this graph.
        self.nodes.iter().map(|&handle| unsafe { &(*handle).work })
    }

    /// Whether it allocates or frees memory: it may not be cloned or cut then, or be part of another.
    pub fn has_memory(&self) -> bool {
        self.works().any(|work| matches!(work, Work::Alloc(_) | Work::Free(_)))
    }

    /// Refuses nodes of other graphs, and doubles.
    ///
    /// # Errors
    /// An invalid value.
    pub fn own(&self, nodes: &[NodeHandle]) -> Outcome {
        for (i, &handle) in nodes.iter().enumerate() {
            if !std::ptr::eq(node(handle)?.graph, self) || nodes[..i].contains(&handle) {
                return Err(Status::InvalidValue);
            }
        }
        Ok(())
    }

    /// These nodes and all that comes before them.
    pub fn before(&self, nodes: &[NodeHandle]) -> HashSet<NodeHandle> {
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
    pub fn order(&self) -> Result<Vec<NodeHandle>, Status> {
        let index: BTreeMap<NodeHandle, usize> =
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
    pub fn twin(&self) -> Box<Graph> {
        let mut clone = Box::<Graph>::default();
        let mut twins: BTreeMap<NodeHandle, NodeHandle> = BTreeMap::new();
        for &original in &self.nodes {
            // SAFETY: a node of this graph.
            let work = unsafe { (*original).work.clone() };
            let new = clone.push(Node {
                work,
                graph: std::ptr::null_mut(),
                dependencies: Vec::new(),
                twin: original,
            });
            twins.insert(original, new);
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
    pub fn steps(&self) -> Result<Vec<(Work, Vec<usize>)>, Status> {
        let order = self.order()?;
        let place: BTreeMap<NodeHandle, usize> = order.iter().enumerate().map(|(i, &n)| (n, i)).collect();
        let step = |&handle: &NodeHandle| {
            let Node { work, dependencies, .. } = node(handle)?;
            Ok((work.clone(), dependencies.iter().map(|other| place[other]).collect()))
        };
        order.iter().map(step).collect()
    }

    fn push(&mut self, node: Node) -> NodeHandle {
        let new = Box::into_raw(Box::new(Node { graph: self, ..node }));
        self.nodes.push(new);
        new
    }

    /// Edges (from, to), in the order of their ends.
    pub fn edges(&self) -> Vec<(NodeHandle, NodeHandle)> {
        // SAFETY: nodes of this graph.
        let before = |&to: &NodeHandle| unsafe { (*to).dependencies.iter().map(move |&from| (from, to)) };
        self.nodes.iter().flat_map(before).collect()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        for &handle in &self.nodes {
            // SAFETY: made by `add`, and this graph's alone.
            drop(unsafe { Box::from_raw(handle) });
        }
    }
}

/// Writes a list as the API's queries do: without room for it, its length alone; what is left of the
/// room becomes null.
fn answer(found: &[NodeHandle], to: *mut NodeHandle, count: *mut usize) -> Outcome {
    if count.is_null() {
        return Err(Status::InvalidValue);
    }
    if !to.is_null() {
        // SAFETY: room for as many nodes as the caller's count says.
        let room = unsafe { std::slice::from_raw_parts_mut(to, *count) };
        for (i, place) in room.iter_mut().enumerate() {
            *place = found.get(i).copied().unwrap_or(std::ptr::null_mut());
        }
    }
    // SAFETY: not null, and the caller's.
    unsafe { put(count, if to.is_null() { found.len() } else { found.len().min(*count) }) }
}

/// Both ends of edges, all of one graph.
type Edges<'a> = std::iter::Zip<std::slice::Iter<'a, NodeHandle>, std::slice::Iter<'a, NodeHandle>>;

fn ends<'a>(
    graph: GraphHandle,
    from: *const NodeHandle,
    to: *const NodeHandle,
    count: usize,
) -> Result<Edges<'a>, Status> {
    let (from, to) = (list(from, count)?, list(to, count)?);
    for handle in from.iter().chain(to) {
        live(graph)?.own(&[*handle])?;
    }
    Ok(from.iter().zip(to))
}

export! {
    cuGraphCreate(graph: *mut GraphHandle, flags: u32) {
        if flags != 0 || graph.is_null() {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the caller's.
        unsafe { put(graph, Box::into_raw(Box::default())) }
    }
    cuGraphDestroy(graph: GraphHandle) {
        live(graph)?;
        // SAFETY: made by us; the caller destroys it once.
        drop(unsafe { Box::from_raw(graph) });
        Ok(())
    }
    cuGraphClone(out: *mut GraphHandle, graph: GraphHandle) {
        if live(graph)?.has_memory() {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the caller's.
        unsafe { put(out, Box::into_raw(live(graph)?.twin())) }
    }
    cuGraphNodeFindInClone(out: *mut NodeHandle, original: NodeHandle, clone: GraphHandle) {
        // SAFETY: nodes of a live graph.
        let found = live(clone)?.nodes.iter().copied().find(|&handle| unsafe { (*handle).twin } == original);
        // SAFETY: the caller's.
        unsafe { put(out, found.ok_or(Status::InvalidValue)?) }
    }
    cuGraphDestroyNode(handle: NodeHandle) {
        let graph = live(node(handle)?.graph)?;
        if graph.has_memory() {
            return Err(Status::InvalidValue);
        }
        graph.nodes.retain(|&other| other != handle);
        for &other in &graph.nodes {
            node(other)?.dependencies.retain(|&dependency| dependency != handle);
        }
        // SAFETY: made by `add`, and in no list any more; the caller destroys it once.
        drop(unsafe { Box::from_raw(handle) });
        Ok(())
    }
    cuGraphAddDependencies_v2(
        graph: GraphHandle, from: *const NodeHandle, to: *const NodeHandle, _edges: *const c_void, count: usize,
    ) {
        for (&from, &to) in ends(graph, from, to, count)? {
            if from == to || node(to)?.dependencies.contains(&from) {
                return Err(Status::InvalidValue);
            }
            node(to)?.dependencies.push(from);
        }
        Ok(())
    }
    cuGraphRemoveDependencies_v2(
        graph: GraphHandle, from: *const NodeHandle, to: *const NodeHandle, _edges: *const c_void, count: usize,
    ) {
        if live(graph)?.has_memory() {
            return Err(Status::InvalidValue);
        }
        for (&from, &to) in ends(graph, from, to, count)? {
            let at = node(to)?.dependencies.iter().position(|&other| other == from);
            node(to)?.dependencies.remove(at.ok_or(Status::InvalidValue)?);
        }
        Ok(())
    }
    cuGraphGetNodes(graph: GraphHandle, nodes: *mut NodeHandle, count: *mut usize) {
        answer(&live(graph)?.nodes, nodes, count)
    }
    cuGraphGetRootNodes(graph: GraphHandle, nodes: *mut NodeHandle, count: *mut usize) {
        // SAFETY: nodes of a live graph.
        let root = |&handle: &NodeHandle| unsafe { (*handle).dependencies.is_empty() };
        let roots: Vec<NodeHandle> = live(graph)?.nodes.iter().copied().filter(root).collect();
        answer(&roots, nodes, count)
    }
    cuGraphGetEdges_v2(
        graph: GraphHandle, from: *mut NodeHandle, to: *mut NodeHandle, _edges: *mut c_void, count: *mut usize,
    ) {
        if from.is_null() != to.is_null() || count.is_null() {
            return Err(Status::InvalidValue);
        }
        let (starts, ends): (Vec<NodeHandle>, Vec<NodeHandle>) = live(graph)?.edges().into_iter().unzip();
        // SAFETY: not null, and the caller's.
        let mut room = unsafe { *count };
        answer(&starts, from, &mut room)?;
        answer(&ends, to, count)
    }
    cuGraphNodeGetDependencies_v2(handle: NodeHandle, nodes: *mut NodeHandle, _edges: *mut c_void, count: *mut usize) {
        answer(&node(handle)?.dependencies, nodes, count)
    }
    cuGraphNodeGetDependentNodes_v2(handle: NodeHandle, nodes: *mut NodeHandle, _edges: *mut c_void, count: *mut usize) {
        let edges = live(node(handle)?.graph)?.edges();
        let after: Vec<NodeHandle> = edges.into_iter().filter(|&(from, _)| from == handle).map(|(_, to)| to).collect();
        answer(&after, nodes, count)
    }
    cuGraphNodeGetType(handle: NodeHandle, out: *mut u32) {
        // SAFETY: the caller's.
        unsafe { put(out, node(handle)?.work.node_type()) }
    }
}
