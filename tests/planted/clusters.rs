//! Programs whose launches have clusters that are not possible.

use cudarc::driver::sys;

use crate::driver::{BYTES, Client, Outcome, done, free, pointer};

/// `name(inp, out, n)` on CTAs of 64 threads, in clusters of so many of them, or with no word about clusters.
fn launch(client: &Client, name: &str, grid: u32, cluster: Option<u32>) -> Outcome {
    let [mut inp, mut out] = [true, false].map(|written| client.alloc(BYTES, written));
    // SAFETY: all zeros is a value of these plain structures.
    let (mut config, mut attribute): (sys::CUlaunchConfig, sys::CUlaunchAttribute) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    if let Some(ctas) = cluster {
        // SAFETY: the value is a union of 64 bytes.
        unsafe { (&raw mut attribute.value).cast::<[u32; 3]>().write([ctas, 1, 1]) };
    }
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (grid, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (64, 1, 1);
    (config.hStream, config.attrs, config.numAttrs) =
        (client.stream, &mut attribute, cluster.is_some().into());
    let (mut n, none) = (3 * 64i32, std::ptr::null_mut());
    let mut params = [pointer(&mut inp), pointer(&mut out), pointer(&mut n)];
    // SAFETY: pointers to as many parameters as the kernel has.
    done(unsafe { sys::cuLaunchKernelEx(&config, client.function(name), params.as_mut_ptr(), none) })?;
    free(inp)?;
    free(out)
}

pub fn odd_grid(client: &Client, broken: bool) -> Outcome {
    launch(client, "copy", if broken { 3 } else { 4 }, Some(2))
}

pub fn unsaid_cluster(client: &Client, broken: bool) -> Outcome {
    launch(client, "copy_in_clusters", 4, if broken { None } else { Some(2) })
}
