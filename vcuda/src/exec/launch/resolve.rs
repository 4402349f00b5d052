//! A launch with all that it leaves to the kernel.

use crate::exec::kernel::Kernel;
use crate::exec::options::{Launch, MAX_CTAS, UNSAID};

/// The launch as it runs: with the cluster that it asks for, or else the kernel's, and its grid in CTAs.
///
/// # Errors
/// A cluster other than the kernel asks for, or none where it must be said; more CTAs of one than are possible; a grid
/// that is no multiple of it.
pub fn resolve(kernel: &Kernel, launch: &Launch) -> Result<Launch, String> {
    let (name, asked) = (&kernel.name, launch.cluster);
    let cluster = match kernel.cluster {
        Some(required) if asked != UNSAID && asked != required => {
            return Err(format!("{name}: a cluster of {asked:?}; it requires {required:?}"));
        }
        Some(required) => required,
        None if asked != UNSAID => asked,
        None if kernel.needs_cluster => {
            return Err(format!("{name}: no cluster; it is .explicitcluster, whose launch must say one"));
        }
        None => [1; 3],
    };
    let ctas = cluster.iter().try_fold(1u32, |product, &n| product.checked_mul(n)).unwrap_or(u32::MAX);
    let most = kernel.max_cluster_ctas.min(MAX_CTAS);
    if ctas == 0 || ctas > most {
        return Err(format!("{name}: a cluster of {cluster:?}; at most {most} CTAs"));
    }
    let mut grid = launch.grid;
    for (n, along) in grid.iter_mut().zip(cluster) {
        if kernel.counts_clusters {
            *n = n.saturating_mul(along); // more than any grid may have
        } else if !n.is_multiple_of(along) {
            let grid = launch.grid;
            return Err(format!("{name}: a grid of {grid:?} is no multiple of its cluster {cluster:?}"));
        }
    }
    Ok(Launch { grid, cluster, ..*launch })
}
