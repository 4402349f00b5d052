//! Launches: validated as the hardware would.

use std::collections::BTreeMap;
use std::ffi::c_void;

use super::device::{MAX_THREADS, SHARED_BYTES};
use super::library::function_here;
use super::module::{Function, FunctionHandle, function};
use super::occupancy::resident_ctas;
use super::stream::StreamHandle;
use super::work::{AttributeValue, KernelLaunch, Work, submit};
use super::{Outcome, Status, export, list};
use crate::exec::{Launch, PORTABLE_CTAS, UNSAID, resolve};

/// `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: StreamHandle,
    attributes: *const Attribute,
    attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
pub struct Attribute {
    id: u32,
    padding: u32,
    value: AttributeValue,
}

/// `CUlaunchAttributeID`.
const IGNORE: u32 = 0;
pub const ACCESS_POLICY_WINDOW: u32 = 1;
pub const COOPERATIVE: u32 = 2;
const SYNCHRONIZATION_POLICY: u32 = 3;
pub const CLUSTER_DIMENSION: u32 = 4;
pub const CLUSTER_SCHEDULING_POLICY: u32 = 5;
const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;
pub const PRIORITY: u32 = 8;
pub const MEM_SYNC_DOMAIN_MAP: u32 = 9;
pub const MEM_SYNC_DOMAIN: u32 = 10;
const PREFERRED_CLUSTER_DIMENSION: u32 = 11;
pub const SHARED_MEMORY_CARVEOUT: u32 = 14;

/// Marks in cuLaunchKernel's `extra`.
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;

impl LaunchConfig {
    /// The launch that it asks for, and whether it is cooperative. What only steers a GPU's scheduling or caches is
    /// accepted and changes nothing.
    ///
    /// # Errors
    /// Attributes that are not supported.
    pub fn launch(&self) -> Result<(Launch, bool), Status> {
        let (mut cluster, mut cooperative) = (UNSAID, false);
        for attribute in list(self.attributes, self.attribute_count as usize)? {
            let [x, y, z, ..] = attribute.value;
            match attribute.id {
                CLUSTER_DIMENSION => cluster = [x, y, z],
                COOPERATIVE => cooperative = x != 0,
                IGNORE | ACCESS_POLICY_WINDOW | SYNCHRONIZATION_POLICY => {}
                CLUSTER_SCHEDULING_POLICY | PROGRAMMATIC_STREAM_SERIALIZATION | PRIORITY => {}
                MEM_SYNC_DOMAIN_MAP
                | MEM_SYNC_DOMAIN
                | PREFERRED_CLUSTER_DIMENSION
                | SHARED_MEMORY_CARVEOUT => {}
                id => {
                    say!("cuLaunchKernelEx: launch attribute {id} is not supported");
                    return Err(Status::NotSupported);
                }
            }
        }
        let (grid, block) = (self.grid, self.block);
        Ok((Launch { grid, cluster, block, dynamic_shared_bytes: self.shared_bytes }, cooperative))
    }
}

impl KernelLaunch {
    /// Whether the device has room for all CTAs at once, as a cooperative launch asks.
    ///
    /// # Errors
    /// It has not.
    pub fn fits_at_once(&self) -> Outcome {
        let function = function(self.function)?;
        let launch = as_it_runs(function, &self.launch)?;
        let ctas = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
        let most = resident_ctas(function, &launch);
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
    fn together(self, cooperative: bool) -> Result<KernelLaunch, Status> {
        if cooperative {
            self.fits_at_once()?;
        }
        Ok(KernelLaunch { cooperative, ..self })
    }
}

export! {
    cuLaunchKernel(
        handle: FunctionHandle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared_bytes: u32,
        stream: StreamHandle, params: *const *const c_void, extra: *const *const c_void,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        let launch = Launch { grid, cluster: UNSAID, block, dynamic_shared_bytes: shared_bytes };
        submit(stream, Work::Kernel(gather(handle, launch, params, extra)?))
    }
    cuLaunchCooperativeKernel(
        handle: FunctionHandle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared_bytes: u32,
        stream: StreamHandle, params: *const *const c_void,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        let launch = Launch { grid, cluster: UNSAID, block, dynamic_shared_bytes: shared_bytes };
        submit(stream, Work::Kernel(gather(handle, launch, params, std::ptr::null())?.together(true)?))
    }
    cuLaunchKernelEx(
        config: *const LaunchConfig, handle: FunctionHandle, params: *const *const c_void, extra: *const *const c_void,
    ) {
        // SAFETY: the caller's.
        let config = unsafe { config.as_ref() }.ok_or(Status::InvalidValue)?;
        let (launch, cooperative) = config.launch()?;
        submit(config.stream, Work::Kernel(gather(handle, launch, params, extra)?.together(cooperative)?))
    }
}

/// A valid launch with its parameters' bytes.
///
/// # Errors
/// A shape that is not possible, or parameters that are not there.
pub fn gather(
    handle: FunctionHandle,
    launch: Launch,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Result<KernelLaunch, Status> {
    let handle = function_here(handle)?;
    let function = function(handle)?;
    let kernel = function.kernel();
    validate(function, &launch)?;
    let mut buffer = vec![0u8; kernel.param_bytes];
    if !params.is_null() {
        for (i, param) in kernel.params.iter().enumerate() {
            // SAFETY: the caller's array has a pointer for each parameter, to as many bytes as it has.
            unsafe {
                let from = *params.add(i);
                if from.is_null() {
                    say!("launch: {}: parameter {i} of {} is null", kernel.name, kernel.params.len());
                    return Err(Status::InvalidValue);
                }
                std::ptr::copy_nonoverlapping(from.cast(), buffer[param.offset..].as_mut_ptr(), param.size);
            }
        }
    } else if !extra.is_null() {
        // SAFETY: pairs of mark and value up to a null mark, as the caller must see to.
        unsafe {
            let (mut from, mut size, mut at) = (std::ptr::null::<u8>(), 0, extra);
            while !(*at).is_null() {
                match *at as usize {
                    BUFFER_POINTER => from = (*at.add(1)).cast(),
                    BUFFER_SIZE => size = *(*at.add(1)).cast::<usize>(),
                    _ => return Err(Status::InvalidValue),
                }
                at = at.add(2);
            }
            if from.is_null() || size < buffer.len() {
                say!("launch: {}: {size} bytes of parameters, where it has {}", kernel.name, buffer.len());
                return Err(Status::InvalidValue);
            }
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len());
        }
    } else if !kernel.params.is_empty() {
        say!("launch: {}: no parameters; it has {}", kernel.name, kernel.params.len());
        return Err(Status::InvalidValue);
    }
    Ok(KernelLaunch {
        function: handle,
        launch,
        params: buffer,
        cooperative: false,
        hints: BTreeMap::new(),
        pointers: Vec::new(),
    })
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

fn validate(function: &Function, launch: &Launch) -> Outcome {
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
