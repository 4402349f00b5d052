//! Launches: validated as the hardware would.

use super::work::KernelLaunch;
use crate::api::error::{Outcome, Status};
use crate::api::objects::device::{MAX_THREADS, SHARED_BYTES, gpu};
use crate::api::objects::module::{Function, function};
use crate::exec::profile::occupancy::clusters;
use crate::exec::{Launch, PORTABLE_CTAS, resolve};

impl KernelLaunch {
    /// Whether the device has room for all CTAs at once, as a cooperative launch asks.
    ///
    /// # Errors
    /// It has not.
    pub fn fits_at_once(&self) -> Outcome {
        let function = function(self.function)?;
        let launch = as_it_runs(function, &self.launch)?;
        let ctas = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
        let most = (clusters(gpu(), function.kernel(), &launch) * launch.ctas_per_cluster()) as u64;
        if ctas > most {
            say!("launch: {}: {ctas} CTAs in a cooperative launch; {most} fit", function.kernel().name);
            return Err(Status::CooperativeLaunchTooLarge);
        }
        Ok(())
    }

    /// The same, cooperative or not.
    ///
    /// # Errors
    /// Those of [`KernelLaunch::fits_at_once`].
    pub fn together(self, cooperative: bool) -> Result<KernelLaunch, Status> {
        if cooperative {
            self.fits_at_once()?;
        }
        Ok(KernelLaunch { cooperative, ..self })
    }
}

/// The launch with its cluster, and its grid in CTAs.
///
/// # Errors
/// A cluster that is not possible.
pub fn as_it_runs(function: &Function, launch: &Launch) -> Result<Launch, Status> {
    let resolved = resolve(function.kernel(), launch).and_then(|resolved| {
        let ctas = resolved.ctas_per_cluster();
        if ctas > PORTABLE_CTAS as usize && !function.may_have_large_clusters() {
            let (name, cluster) = (&function.kernel().name, resolved.cluster);
            return Err(format!(
                "{name}: a cluster of {cluster:?}; more than {PORTABLE_CTAS} CTAs need the attribute for sizes that are not portable"
            ));
        }
        Ok(resolved)
    });
    resolved.map_err(|what| {
        say!("launch: {what}");
        Status::InvalidClusterSize
    })
}

/// Refuses a launch that its kernel or the device does not allow.
///
/// # Errors
/// An invalid value, or a cluster that is not possible.
pub fn validate(function: &Function, launch: &Launch) -> Outcome {
    let kernel = function.kernel();
    let [grid, block] = [launch.grid, launch.block];
    let possible = |grid: [u32; 3]| {
        let limits = [
            (grid[0], i32::MAX as u32),
            (grid[1], 65_535),
            (grid[2], 65_535),
            (block[0], 1024),
            (block[1], 1024),
            (block[2], 64),
        ];
        limits.iter().all(|&(value, limit)| value > 0 && value <= limit)
    };
    let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
    if !possible(grid) || threads > u64::from(MAX_THREADS) {
        say!("launch: {}: grid {grid:?} of CTAs {block:?} is not possible", kernel.name);
        return Err(Status::InvalidValue);
    }
    if let Some(required) = kernel.block.filter(|&required| required != block) {
        say!("launch: {}: CTAs of {block:?} threads; it requires {required:?}", kernel.name);
        return Err(Status::InvalidValue);
    }
    if threads > u64::from(kernel.max_threads_per_block) {
        say!("launch: {}: {threads} threads; its bound is {}", kernel.name, kernel.max_threads_per_block);
        return Err(Status::InvalidValue);
    }
    let resolved = as_it_runs(function, launch)?;
    if !possible(resolved.grid) {
        let (name, cluster) = (&kernel.name, resolved.cluster);
        say!("launch: {name}: a grid of {grid:?} clusters of {cluster:?} CTAs is not possible");
        return Err(Status::InvalidValue);
    }
    let dynamic_limit = function.dynamic_shared_limit();
    let (dynamic, fixed) = (launch.dynamic_shared_bytes as usize, kernel.static_shared_bytes);
    if dynamic > dynamic_limit || fixed > SHARED_BYTES as usize {
        say!(
            "launch: {}: {dynamic} dynamic and {fixed} static shared bytes; {dynamic_limit} dynamic are allowed",
            kernel.name
        );
        return Err(Status::InvalidValue);
    }
    Ok(())
}
