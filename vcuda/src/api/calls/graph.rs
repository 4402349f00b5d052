//! Graphs: made, cloned, and their nodes and edges.

use std::ffi::c_void;

use super::{export, list, put};
use crate::api::error::{Outcome, Status};
use crate::api::streams::graph::{live, node};
use crate::api::streams::work::{GraphHandle, NodeHandle};

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
        let found = live(clone)?.nodes().iter().copied().find(|&handle| unsafe { (*handle).twin } == original);
        // SAFETY: the caller's.
        unsafe { put(out, found.ok_or(Status::InvalidValue)?) }
    }
    cuGraphDestroyNode(handle: NodeHandle) {
        let graph = live(node(handle)?.graph)?;
        if graph.has_memory() {
            return Err(Status::InvalidValue);
        }
        graph.remove(handle)
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
        answer(live(graph)?.nodes(), nodes, count)
    }
    cuGraphGetRootNodes(graph: GraphHandle, nodes: *mut NodeHandle, count: *mut usize) {
        // SAFETY: nodes of a live graph.
        let root = |&handle: &NodeHandle| unsafe { (*handle).dependencies.is_empty() };
        let roots: Vec<NodeHandle> = live(graph)?.nodes().iter().copied().filter(root).collect();
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
