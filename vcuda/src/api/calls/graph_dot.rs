//! Graphs as Graphviz has them.

use std::ffi::c_char;
use std::fmt::Write;

use super::export;
use super::module::file;
use crate::api::error::Status;
use crate::api::objects::module::function;
use crate::api::streams::graph::{live, node};
use crate::api::streams::work::{Child, Graph, GraphHandle, Work};

/// What a node does, in a few words.
fn label(work: &Work) -> Result<String, Status> {
    Ok(match work {
        Work::Empty => "empty".to_string(),
        Work::Kernel(kernel) => {
            let name = &function(kernel.function)?.kernel().name;
            format!("{name}\\ngrid {:?} block {:?}", kernel.launch.grid, kernel.launch.block)
        }
        Work::Copy(copy) => format!("copy\\n{} x {} x {} bytes", copy.width, copy.height, copy.depth),
        Work::Fill(fill) => {
            format!("fill\\n{} x {} elements of {} bytes", fill.width, fill.height, fill.element_bytes)
        }
        Work::Host(..) => "host function".to_string(),
        Work::Record(_) => "event record".to_string(),
        Work::Wait(_) => "event wait".to_string(),
        Work::Child(_) => "child graph".to_string(),
        Work::Alloc(memory) => format!("allocation\\n{:#x}", memory.address),
        Work::Free(memory) => format!("free\\n{:#x}", memory.address),
    })
}

/// Nodes and edges; a child graph is a box of its own.
fn draw(graph: &Graph, out: &mut String) -> Result<(), Status> {
    for &handle in graph.nodes() {
        let work = &node(handle)?.work;
        let _ = writeln!(out, "n{:x} [shape=box, label=\"{}\"];", handle as usize, label(work)?);
        if let Work::Child(Child(child)) = work {
            let _ = writeln!(out, "subgraph cluster_{:x} {{", handle as usize);
            draw(child, out)?;
            out.push_str("}\n");
        }
    }
    for (from, to) in graph.edges() {
        let _ = writeln!(out, "n{:x} -> n{:x};", from as usize, to as usize);
    }
    Ok(())
}

export! {
    // The flags choose how much it says; this is all.
    cuGraphDebugDotPrint(graph: GraphHandle, path: *const c_char, _flags: u32) {
        let mut text = "digraph {\n".to_string();
        draw(live(graph)?, &mut text)?;
        text.push_str("}\n");
        std::fs::write(file(path)?, text).map_err(|error| {
            say!("cuGraphDebugDotPrint: {error}");
            Status::InvalidValue
        })
    }
}
