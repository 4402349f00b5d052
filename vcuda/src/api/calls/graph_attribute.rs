//! Launch attributes of a graph's kernel nodes.

use super::launch::{
    ACCESS_POLICY_WINDOW, CLUSTER_DIMENSION, CLUSTER_SCHEDULING_POLICY, COOPERATIVE, MEM_SYNC_DOMAIN,
    MEM_SYNC_DOMAIN_MAP, PRIORITY, SHARED_MEMORY_CARVEOUT,
};
use super::{export, put};
use crate::api::error::{Outcome, Status};
use crate::api::objects::module::function;
use crate::api::streams::graph::node;
use crate::api::streams::launch::as_it_runs;
use crate::api::streams::work::{AttributeValue, KernelLaunch, NodeHandle, Work};
use crate::exec::Launch;

/// Those that only steer a GPU's scheduling or caches: kept, and changing nothing here.
const HINTS: [u32; 6] = [
    ACCESS_POLICY_WINDOW,
    CLUSTER_SCHEDULING_POLICY,
    PRIORITY,
    MEM_SYNC_DOMAIN_MAP,
    MEM_SYNC_DOMAIN,
    SHARED_MEMORY_CARVEOUT,
];

fn kernel<'a>(handle: NodeHandle) -> Result<&'a mut KernelLaunch, Status> {
    match &mut node(handle)?.work {
        Work::Kernel(launch) => Ok(launch),
        _ => Err(Status::InvalidValue),
    }
}

fn set_cluster(kernel: &mut KernelLaunch, cluster: [u32; 3]) -> Outcome {
    let launch = Launch { cluster, ..kernel.launch };
    as_it_runs(function(kernel.function)?, &launch)?;
    kernel.launch = launch;
    Ok(())
}

fn set_cooperative(kernel: &mut KernelLaunch, value: bool) -> Outcome {
    if value {
        kernel.fits_at_once()?;
    }
    kernel.cooperative = value;
    Ok(())
}

export! {
    cuGraphKernelNodeGetAttribute(handle: NodeHandle, attribute: u32, out: *mut AttributeValue) {
        let kernel = kernel(handle)?;
        let mut value = [0; 16];
        match attribute {
            CLUSTER_DIMENSION => {
                let launch = as_it_runs(function(kernel.function)?, &kernel.launch)?;
                value[..3].copy_from_slice(&launch.cluster);
            }
            COOPERATIVE => value[0] = kernel.cooperative.into(),
            hint if HINTS.contains(&hint) => value = kernel.hints.get(&hint).copied().unwrap_or(value),
            _ => return Err(Status::InvalidValue),
        }
        // SAFETY: the caller's.
        unsafe { put(out, value) }
    }
    cuGraphKernelNodeSetAttribute(handle: NodeHandle, attribute: u32, value: *const AttributeValue) {
        // SAFETY: the caller's.
        let value = *unsafe { value.as_ref() }.ok_or(Status::InvalidValue)?;
        let kernel = kernel(handle)?;
        match attribute {
            CLUSTER_DIMENSION => set_cluster(kernel, [value[0], value[1], value[2]]),
            COOPERATIVE => set_cooperative(kernel, value[0] != 0),
            hint if HINTS.contains(&hint) => {
                kernel.hints.insert(hint, value);
                Ok(())
            }
            _ => Err(Status::InvalidValue),
        }
    }
    cuGraphKernelNodeCopyAttributes(to: NodeHandle, from: NodeHandle) {
        let (cluster, cooperative, hints) = {
            let from = kernel(from)?;
            (from.launch.cluster, from.cooperative, from.hints.clone())
        };
        let to = kernel(to)?;
        set_cluster(to, cluster)?;
        set_cooperative(to, cooperative)?;
        to.hints = hints;
        Ok(())
    }
}
