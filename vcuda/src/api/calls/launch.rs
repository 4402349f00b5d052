//! Launches, as clients describe them.

use std::collections::BTreeMap;
use std::ffi::c_void;

use super::library::function_here;
use super::{export, list};
use crate::api::error::Status;
use crate::api::objects::handles::StreamHandle;
use crate::api::objects::module::{FunctionHandle, function};
use crate::api::streams::launch::validate;
use crate::api::streams::submit::submit;
use crate::api::streams::work::{AttributeValue, KernelLaunch, Work};
use crate::api::{profile, ranges};
use crate::exec::{Launch, UNSAID};

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
        range: if profile::is_on() { ranges::path() } else { String::new() },
        hints: BTreeMap::new(),
        pointers: Vec::new(),
    })
}
